"""Save a run's numbers, compare them with saved ones, and say what became worse.

A worker of xdist compares and never writes; what it found travels on the verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_overfit.baselines.case_files import NoFileError, check_writable
from pytest_overfit.baselines.files import folder_of, read_case, save
from pytest_overfit.baselines.numbers import Rule, kept, rule_of
from pytest_overfit.baselines.table import table
from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.figures import apart
from pytest_overfit.core.verdict import BaselineNumber, Better

_SAVE, _COMPARE, _FAIL = "--overfit-save", "--overfit-compare", "--overfit-compare-fail"


class Baselines:
    """The baselines of one test run; pytest calls its hooks on the controller only."""

    def __init__(
        self,
        storage: Path,
        here: Path,
        save_as: str | None,
        compare_with: str | None,
        rules: Sequence[str],
        worker: bool,
    ) -> None:
        if rules and compare_with is None:
            raise CaseError(f"{_FAIL}={rules[0]}: nothing is compared; add {_COMPARE}")
        self.rules: list[Rule] = [rule_of(each) for each in rules]
        self.name = compare_with
        self.old = None if compare_with is None else folder_of(storage, compare_with, _COMPARE, here)
        self.new = None if save_as is None else folder_of(storage, save_as, _SAVE, here)
        if self.new is not None and not worker:
            check_writable(self.new, _SAVE)
        #: of this run: files written, rows compared, and what went wrong outside any test
        self.written: set[Path] = set()
        self.unsaved: list[str] = []
        self.rows: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.errors: list[str] = []

    # ------------------------------------------------------------------------------------- where the probes run

    def compare(self, form: dict[str, Any], numbers: Iterable[BaselineNumber], command: str) -> None:
        """Add to a verdict that passed its numbers, what its baseline was, and what is wrong with it."""
        if form["outcome"] != "passed":
            return
        form["numbers"] = kept(numbers)
        if self.old is None:
            return
        try:
            before = self._before(form, command)
        except CaseError as error:
            form["baseline"] = {"rows": [], "problems": [str(error)]}
            return
        now, ways = form["numbers"]["quantities"], form["numbers"]["better"]
        place = {"case": form["case"], "probe": form["probe"]}
        rows = [
            {**place, "quantity": name, "before": before.get(name), "now": now.get(name)}
            for name in sorted({*before, *now})
        ]
        problems = [problem for row in rows for problem in self._worse(row, ways.get(row["quantity"], ""))]
        form["baseline"] = {"rows": rows, "problems": problems}

    def _before(self, form: Mapping[str, Any], command: str) -> Mapping[str, float]:
        if self.old is None:  # pragma: no cover - asked only where something is compared
            raise TypeError("nothing to compare with")
        make = f"make it with: {command or 'pytest'} {_SAVE}={self.name}"
        try:
            probes = read_case(self.old, form["case"])["probes"]
        except NoFileError as error:
            raise NoFileError(f"{error} to compare with; {make}") from None
        if form["probe"] not in probes:
            path = self.old / f"{form['case']}.json"
            raise NoFileError(f"baseline {path} has nothing of {form['probe']}; {make}")
        found: Mapping[str, float] = probes[form["probe"]]["quantities"]
        return found

    def _worse(self, row: dict[str, Any], better: Better) -> list[str]:
        rules = [each for each in self.rules if each.names(row["probe"], row["quantity"])]
        where = f"{row['case']}: {row['probe']}: {row['quantity']}"
        if rules and row["now"] is None:
            return [f"{where} was {row['before']:g} in {self.name} and is not measured any more"]
        if rules and row["before"] is None:
            return [f"{where} is not in the baseline {self.name}; save it again with {_SAVE}={self.name}"]
        broken = [each for each in rules if each.broken_by(row["before"], row["now"], better)]
        row["worse"] = bool(broken)
        if not broken:
            return []
        now, before = apart(row["now"], row["before"], ".6g")
        return [f"{where} is {now}, was {before} in {self.name} ({_FAIL}={each})" for each in broken]

    # -------------------------------------------------------------------------------------------- on the controller

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keep what was compared, and save as soon as a verdict is there: a run that is killed loses no file."""
        for form in getattr(report, "overfit", ()):
            for row in form.get("baseline", {}).get("rows", ()):
                better = form["numbers"]["better"].get(row["quantity"], "")
                self.rows[row["case"], row["probe"], row["quantity"]] = {**row, "better": better}
            if self.new is not None and "outcome" in form:
                self._save(form)

    def _save(self, form: Mapping[str, Any]) -> None:
        worse = any(row.get("worse") for row in form.get("baseline", {}).get("rows", ()))
        if form["outcome"] != "passed" or worse:
            if form["outcome"] != "not_applicable":
                why = "worse than what it was compared with" if worse else form["outcome"]
                self.unsaved.append(f"{form['case']}-{form['probe']} ({why})")
            return
        try:
            self.written.add(save(self.new or Path(), form))
        except CaseError as error:
            self.errors.append(str(error))

    def pytest_sessionfinish(self, session: Any) -> None:
        """A run in which something could not be saved, or a rule had nothing to judge, is not a good run."""
        for rule in self.rules:
            if not any(rule.names(probe, name) for _, probe, name in self.rows):
                names = ", ".join(sorted({name for _, _, name in self.rows})) or "nothing was compared"
                self.errors.append(f"{_FAIL}={rule}: no verdict of this run has it; compared: {names}")
        if self.errors and session.exitstatus in (0, 5):
            session.exitstatus = 1

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """What was compared, saved, and not saved."""
        lines = table(list(self.rows.values()), self.name or "", "now")
        if self.written:
            count = len(self.written)
            lines.append(f"saved: {count} case{'s' * (count != 1)} in {self.new}")
        lines += [f"not saved: {each}" for each in self.unsaved]
        lines += [f"ERROR: {each}" for each in dict.fromkeys(self.errors)]
        if lines:
            terminalreporter.section("overfit: baselines")
            for line in lines:
                terminalreporter.line(line)
