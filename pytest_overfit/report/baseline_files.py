"""Baselines on disk: plain JSON, one file a case, in a folder a name.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import json
import platform
import re
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pytest_overfit import __version__
from pytest_overfit.core.errors import CaseError
from pytest_overfit.report.baseline_numbers import numbers_of
from pytest_overfit.report.json_file import write_json

#: version of the file's form; a file of a newer one is left as it is
SCHEMA = 1

#: the name where none is given
NAME = "baseline"

#: framework -> packages whose versions are kept
_PACKAGES = {"torch": ("torch",), "keras": ("keras", "tensorflow")}


class NoBaselineError(CaseError):
    """There is no file, or no part of one, to compare with."""


def folder_of(storage: Path, name: str, option: str, given_in: Path) -> Path:
    """The folder of a baseline's name; `CaseError` for what is no name."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name) or (given_in / name).is_file():
        raise CaseError(
            f"{option}={name}: a name of letters, digits, '_', '.' and '-' is wanted; write {option}=NAME, or put "
            f"{option} after the files to test"
        )
    return storage / name


def check_writable(folder: Path, option: str) -> None:
    """Refuse, before any test runs, a folder that cannot be made or written to."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()  # permissions alone do not tell
    except OSError as error:
        raise CaseError(f"{option}: cannot write to {folder}: {there}: {error.strerror}") from None


def read_case(folder: Path, case: str) -> dict[str, Any]:
    """The baseline of a case, checked; `NoBaselineError` where there is none, `CaseError` where it cannot be used."""
    path = folder / f"{case}.json"
    try:
        form = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NoBaselineError(f"no baseline {path}") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or f"no JSON: {error}"
        raise CaseError(f"baseline {path} cannot be read: {why}; it was left as it is") from None
    return _checked(form, path, case)


def _checked(form: Any, path: Path, case: str) -> dict[str, Any]:
    schema = form.get("schema") if isinstance(form, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        wrote = form.get("pytest_overfit")
        raise CaseError(
            f"baseline {path} has schema {schema}, this version of pytest-overfit reads up to {SCHEMA} (written by "
            f"{wrote}); it was left as it is"
        )
    probes = form.get("probes") if isinstance(form, dict) else None
    if schema != SCHEMA or not isinstance(probes, dict) or not all(_is_entry(each) for each in probes.values()):
        raise CaseError(f"baseline {path} is no baseline of pytest-overfit; it was left as it is")
    if form.get("case") != case:
        raise CaseError(f"baseline {path} is of case {form.get('case')!r}, not of {case!r}; it was left as it is")
    return dict(form)


def _is_entry(entry: Any) -> bool:
    numbers = entry.get("quantities") if isinstance(entry, dict) else None
    return isinstance(numbers, dict) and all(
        isinstance(each, (int, float)) and not isinstance(each, bool) for each in numbers.values()
    )


def save(folder: Path, form: Mapping[str, Any]) -> Path:
    """Put one verdict into its case's file; the parts of other probes stay as they are."""
    case = form["case"]
    try:
        document = read_case(folder, case)
    except NoBaselineError:
        document = {"case": case, "probes": {}}
    document["schema"], document["pytest_overfit"] = SCHEMA, __version__
    document["probes"] = {**document["probes"], form["probe"]: _entry(form)}
    path = folder / f"{case}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, document, sort_keys=True)
    except OSError as error:
        raise CaseError(f"baseline {path} cannot be written: {error.strerror}") from None
    return path


def _entry(form: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "framework": form["framework"],
        "seeds": form["seeds"],
        "quantities": numbers_of(form),
        "versions": {"python": platform.python_version(), **_versions(form["framework"])},
    }


def _versions(framework: str) -> dict[str, str]:
    found = {}
    for name in _PACKAGES.get(framework, ()):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
