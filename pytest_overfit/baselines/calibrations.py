"""Calibrated bounds on disk: read where tests run, written on the controller by `--overfit-calibrate`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_overfit.baselines.case_files import Kind, NoFileError, check_writable, is_number, versions
from pytest_overfit.core.errors import CaseError

OPTION = "--overfit-calibrate"

#: version of the file's form; a file of a newer one is left as it is
SCHEMA = 1

_NUMBERS = ("low", "high", "seeds", "epochs", "k")


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not all(is_number(entry.get(name)) for name in _NUMBERS):
        return False
    if not (entry.get("steps") is None or is_number(entry["steps"])):
        return False
    return all(math.isfinite(entry[name]) for name in _NUMBERS) and entry["low"] <= entry["high"]


_KIND = Kind("calibration", SCHEMA, "quantities", _is_entry)


def read_entries(folder: Path, case: str) -> Mapping[str, Any]:
    """Quantity -> entry of a case; empty where there is no file, `CaseError` where it cannot be used."""
    try:
        entries: Mapping[str, Any] = _KIND.read(folder, case)["quantities"]
    except NoFileError:
        return {}
    return entries


class Calibrations:
    """The calibrations of one test run; pytest calls its hooks on the controller only."""

    def __init__(self, folder: Path, worker: bool) -> None:
        self.folder = folder
        if not worker:
            check_writable(folder, OPTION)
        self.written: set[Path] = set()
        self.unwritten: list[str] = []
        self.errors: list[str] = []
        self.asked = False

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Write as soon as a verdict is there: a run that is killed loses no file."""
        for form in getattr(report, "overfit", ()):
            entries = form.get("data", {}).get("calibration")
            self.asked = self.asked or bool(entries)
            if entries and form["outcome"] == "passed":
                self._write(form, entries)
            elif entries:
                self.unwritten.append(f"{form['case']} ({form['outcome']})")

    def _write(self, form: Mapping[str, Any], entries: Mapping[str, Any]) -> None:
        made_with = versions(form["framework"])
        try:
            kept = {name: {**entry, "versions": made_with} for name, entry in entries.items()}
            self.written.add(_KIND.put(self.folder, form["case"], kept))
        except CaseError as error:
            self.errors.append(str(error))

    def pytest_sessionfinish(self, session: Any) -> None:
        """A run that was to calibrate and could not is not a good run."""
        if not self.asked and session.exitstatus in (0, 5):
            self.errors.append(
                f"{OPTION}: nothing was calibrated: no bound of this run is written as `calibrated`; write e.g. "
                "overfit.within(case, val_score=at_least(calibrated))"
            )
        if self.errors and session.exitstatus in (0, 5):
            session.exitstatus = 1

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """What was written, and what was not."""
        lines = []
        if self.written:
            count = len(self.written)
            lines.append(f"calibrated: {count} case{'s' * (count != 1)} in {self.folder}")
        lines += [f"not calibrated: {each}" for each in self.unwritten]
        lines += [f"ERROR: {each}" for each in dict.fromkeys(self.errors)]
        if lines:
            terminalreporter.section("overfit: calibration")
            for line in lines:
                terminalreporter.line(line)
