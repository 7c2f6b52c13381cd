"""All legs of `.ci/matrix` on all of its cases; the gate runs a few legs on three of them. Some minutes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: where `.ci/run` puts the oldest pytest that is supported
OLDEST = ROOT / ".venv" / "pytest-8.4.0"


@pytest.mark.slow
def test_every_leg_gives_the_plain_verdicts() -> None:
    command = [sys.executable, ".ci/matrix", "--all", *([str(OLDEST)] if OLDEST.is_dir() else [])]
    # what this run of pytest has set is not for those that the matrix starts
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
