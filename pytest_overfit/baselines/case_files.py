"""Files of one case each, kept in git: plain JSON, written whole or not at all, never over what is not ours."""

from __future__ import annotations

import dataclasses
import json
import platform
import tempfile
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pytest_overfit.core.errors import CaseError
from pytest_overfit.report.json_file import write_json
from pytest_overfit.version import __version__

#: framework -> packages whose versions are kept
_PACKAGES = {"torch": ("torch",), "keras": ("keras", "tensorflow")}


class NoFileError(CaseError):
    """There is no file of a case, or no part of one."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of file: what it is called, the version of its form, and the dict of entries that it holds."""

    word: str
    schema: int
    part: str
    is_entry: Callable[[Any], bool]

    def read(self, folder: Path, case: str) -> dict[str, Any]:
        """The file of a case, checked; `NoFileError` where there is none, `CaseError` where it cannot be used."""
        path = folder / f"{case}.json"
        try:
            form = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise NoFileError(f"no {self.word} {path}") from None
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or f"no JSON: {error}"
            raise CaseError(f"{self.word} {path} cannot be read: {why}; it was left as it is") from None
        return self._checked(form, path, case)

    def _checked(self, form: Any, path: Path, case: str) -> dict[str, Any]:
        schema = form.get("schema") if isinstance(form, dict) else None
        if isinstance(schema, int) and schema > self.schema:
            wrote = form.get("pytest_overfit")
            raise CaseError(
                f"{self.word} {path} has schema {schema}, this version of pytest-overfit reads up to {self.schema} "
                f"(written by {wrote}); it was left as it is"
            )
        entries = form.get(self.part) if isinstance(form, dict) else None
        if schema != self.schema or not isinstance(entries, dict) or not all(map(self.is_entry, entries.values())):
            raise CaseError(f"{self.word} {path} is not a pytest-overfit {self.word}; it was left as it is")
        if form.get("case") != case:
            raise CaseError(
                f"{self.word} {path} is of case {form.get('case')!r}, not of {case!r}; it was left as it is"
            )
        return dict(form)

    def put(self, folder: Path, case: str, entries: Mapping[str, Any]) -> Path:
        """Put entries into the file of a case; other entries stay as they are. `CaseError` where that cannot be."""
        try:
            document = self.read(folder, case)
        except NoFileError:
            document = {"case": case, self.part: {}}
        document["schema"], document["pytest_overfit"] = self.schema, __version__
        document[self.part] = {**document[self.part], **entries}
        path = folder / f"{case}.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(path, document, sort_keys=True)
        except OSError as error:
            raise CaseError(f"{self.word} {path} cannot be written: {error.strerror}") from None
        return path


def check_writable(folder: Path, option: str) -> None:
    """Refuse, before any test runs, a folder that cannot be made or written to."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()  # permissions alone do not tell
    except OSError as error:
        raise CaseError(f"{option}: cannot write to {folder}: {there}: {error.strerror}") from None


def is_number(value: Any) -> bool:
    """JSON's true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def versions(framework: str) -> dict[str, str]:
    """Of Python and of what a framework is made of, for people."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES.get(framework, ()):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
