"""Baselines on disk: plain JSON, one file a case, in a folder a name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_overfit.baselines.case_files import Kind, is_number, versions
from pytest_overfit.core.errors import CaseError

#: version of the file's form; a file of a newer one is left as it is
SCHEMA = 1

#: the name where none is given
NAME = "baseline"


def folder_of(storage: Path, name: str, option: str, given_in: Path) -> Path:
    """The folder of a baseline's name; `CaseError` for what is not a name."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name) or (given_in / name).is_file():
        raise CaseError(
            f"{option}={name}: expected a name of letters, digits, '_', '.' and '-'; write {option}=NAME, or put "
            f"{option} after the files to test"
        )
    return storage / name


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("better", {}), dict):
        return False
    numbers = entry.get("quantities")
    return isinstance(numbers, dict) and all(map(is_number, numbers.values()))


_KIND = Kind("baseline", SCHEMA, "probes", _is_entry)


def read_case(folder: Path, case: str) -> dict[str, Any]:
    """The baseline of a case, checked; `NoFileError` where there is none, `CaseError` where it cannot be used."""
    return _KIND.read(folder, case)


def save(folder: Path, form: Mapping[str, Any]) -> Path:
    """Put one verdict and its `numbers` into its case's file; the parts of other probes stay as they are."""
    entry = {
        "framework": form["framework"],
        "seeds": form["seeds"],
        "versions": versions(form["framework"]),
        **form["numbers"],
    }
    return _KIND.put(folder, form["case"], {form["probe"]: entry})
