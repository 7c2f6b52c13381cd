"""All verdicts of a test run in one JSON file."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_overfit.core.errors import CaseError
from pytest_overfit.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

#: version of the file's form; each verdict in it carries that of its own
SCHEMA = 1


def checked_path(given: str, folder: Path) -> Path:
    """Where to write, refused before any test runs if that cannot work."""
    path = folder / given
    if path.is_dir():
        raise CaseError(f"--overfit-json={given}: that is a folder; name a file in it")
    if not path.parent.is_dir():
        raise CaseError(f"--overfit-json={given}: there is no folder {path.parent}; create it first")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()  # permissions alone do not tell
    except OSError as error:
        raise CaseError(f"--overfit-json={given}: cannot write there: {error.strerror}") from None
    return path


def write_json(path: Path, document: Mapping[str, Any], sort_keys: bool = False) -> None:
    """Write strict JSON atomically: a run that is killed leaves the old file or the new one, never half of one."""
    text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False, sort_keys=sort_keys) + "\n"
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
    return {
        "schema": SCHEMA,
        "pytest_overfit": __version__,
        "verdicts": [each for each in forms if "outcome" in each],
        "errors": [each for each in forms if "error" in each],
    }
