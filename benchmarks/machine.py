"""What times were taken with."""

from __future__ import annotations

import os
import platform


def machine() -> str:
    """One line for the head of a table; threads are set by the environment."""
    threads = os.environ.get("OMP_NUM_THREADS", "as many as the libraries take")
    return f"{platform.machine()}, {os.cpu_count()} cores, threads: {threads}, Python {platform.python_version()}"
