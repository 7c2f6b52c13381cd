"""All verdicts of a test run in one JSON file, and what cannot be in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.verdict import to_plain
from pytest_overfit.report.files import check_place, is_stream, write_text
from pytest_overfit.report.journal import Journal, abandoned
from pytest_overfit.version import __version__

#: version of the file's form; each verdict in it carries that of its own
SCHEMA = 1

#: characters of a path or a message that are shown, and places that are listed
_SHOWN, _LISTED = 200, 3


def write_json(path: Path, document: Mapping[str, Any], sort_keys: bool = False) -> None:
    """Write strict JSON, whole or not at all."""
    write_text(path, json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False, sort_keys=sort_keys) + "\n")


class JsonReport:
    """The file of one run: verdicts are kept in a journal until it is written."""

    def __init__(self, given: str, folder: Path) -> None:
        """Refuses, with a `CaseError`, what cannot be written to, before any test runs."""
        self._option, self.path = f"--overfit-json={given[:_SHOWN]}", folder / given
        try:
            check_place(self.path)
        except (OSError, ValueError) as error:
            raise CaseError(f"{self._option}: {getattr(error, 'strerror', None) or error}") from None
        self._journal = None if is_stream(self.path) else Journal(self.path)
        #: what a person should know, a line each
        self.lines: list[str] = []
        self.written = False
        for forms in abandoned(self.path) if self._journal is not None else ():
            self._write({**document(forms), "interrupted": True})

    def keep(self, key: tuple[str, ...], form: Mapping[str, Any]) -> None:
        """A verdict or error, at once."""
        if self._journal is not None:
            self._journal.append(key, form)

    def finish(self, forms: Sequence[Mapping[str, Any]], update: Callable[[dict[str, Any]], object]) -> None:
        """Write the file; `update` may change the document. A fault of it costs no verdict."""
        whole = document(forms)
        try:
            changed = json.loads(json.dumps(whole))  # a hook that fails half-way has changed a copy
            update(changed)
            whole = changed
        except Exception as error:
            self.lines.append(
                f"hook pytest_overfit_update_json raised {type(error).__name__}: {str(error)[:_SHOWN]}; "
                "the file is written without its changes"
            )
        self.written = self._write(whole)
        if self._journal is not None:
            self._journal.close(keep=not self.written)
            if self._journal.path.exists():
                self.lines.append(f"the verdicts are in {self._journal.path}")

    def _write(self, whole: dict[str, Any]) -> bool:
        lost: list[str] = []
        held = to_plain(whole, lost, "document")
        if lost:
            listed = ", ".join(lost[:_LISTED])
            self.lines.append(f"{self._option}: only the type is written of what JSON cannot hold: {listed}")
        try:
            write_json(self.path, held)
        except OSError as error:
            self.lines.append(f"{self._option}: not written: {error.strerror or error}")
            return False
        return True


def document(forms: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The whole file: verdicts in the order of the tests, and apart from them what could not be judged."""
    return {
        "schema": SCHEMA,
        "pytest_overfit": __version__,
        "verdicts": [each for each in forms if "outcome" in each],
        "errors": [each for each in forms if "error" in each],
    }
