"""All verdicts of a test run in one JSON file.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write strict JSON atomically: a run that is killed leaves the old file or the new one, never half of one."""
    text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def document(forms: list[dict[str, Any]]) -> dict[str, Any]:
    """The whole file: verdicts in the order of the tests, and apart from them what could not be judged."""
    from pytest_overfit import __version__
    from pytest_overfit.core.verdict import SCHEMA

    return {
        "schema": SCHEMA,
        "pytest_overfit": __version__,
        "verdicts": [each for each in forms if "outcome" in each],
        "errors": [each for each in forms if "error" in each],
    }
