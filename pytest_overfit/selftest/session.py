"""`pytest --overfit-selftest`: each case that a test's probe passes is planted with faults; the tables at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pytest_overfit.core.case import Case
from pytest_overfit.core.limits import Layer
from pytest_overfit.core.verdict import Verdict
from pytest_overfit.fixture import BoundProbe
from pytest_overfit.run import probes_named
from pytest_overfit.selftest.faults import FAULTS
from pytest_overfit.selftest.run import REPEATED, column, outcome_of, plant
from pytest_overfit.selftest.table import SelfTest, of_columns

#: what a column is called among the forms that ride on a report
_KEY = "selftest"


class SelfTestSession:
    """The self-tests of one test run. Tests without a probe are left out."""

    def __init__(self, repeated: bool, attach: Callable[[dict[str, Any]], None]) -> None:
        self._repeated, self._attach = repeated, attach
        #: the case that was met last, and what was planted in it
        self._last: tuple[Case, Mapping[str, Case | str]] | None = None
        self._columns: list[dict[str, Any]] = []

    # ------------------------------------------------------------------------------------- where the probes run

    def skips(self, probe: str) -> str:
        """Probes that train repeatedly are asked for."""
        dear = not self._repeated and any(each.cost >= REPEATED for each in probes_named(probe))
        return f"{probe} trains repeatedly; --overfit-selftest=all asks it as well" if dear else ""

    def judged(self, case: Case, probe: str, layers: Sequence[Layer], verdict: Verdict) -> None:
        """Plant every fault in a case that passed, and ask the same probe within the same limits."""
        if any(each.needs(case) is not None for each in probes_named(probe)):
            return
        healthy = outcome_of(verdict)
        found = column(case, probe, layers, healthy, {} if healthy.what == "refused" else self._faults(case))
        self._attach({"case": case.name, "probe": probe, _KEY: found})

    def _faults(self, case: Case) -> Mapping[str, Case | str]:
        if self._last is None or self._last[0] is not case:
            self._last = case, plant(case, FAULTS)
        return self._last[1]

    def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
        """Only tests of cases."""
        kept = [each for each in items if runs_a_probe(each)]
        if len(kept) < len(items):
            config.hook.pytest_deselected(items=[each for each in items if not runs_a_probe(each)])
            items[:] = kept

    def pytest_report_collectionfinish(self, items: Sequence[Any]) -> str:
        """The number of runs, before the first."""
        each = f"each with its case as it is and with up to {len(FAULTS)} faults"
        return f"overfit self-test: {len(items)} tests, {each}: at most {len(items) * (len(FAULTS) + 1)} runs"

    # -------------------------------------------------------------------------------------------- on the controller

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keep what was found."""
        self._columns += [form[_KEY] for form in getattr(report, "overfit", ()) if _KEY in form]

    def tables(self) -> list[SelfTest]:
        return of_columns(self._columns)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """A table a case."""
        terminalreporter.section("overfit: self-test")
        for table in self.tables():
            for line in table.lines():
                terminalreporter.line(line)
        if not self._columns:
            terminalreporter.line("no test ran a probe on a case")

    def pytest_overfit_update_json(self, document: dict[str, Any]) -> None:
        """Beside the verdicts of the cases as they are."""
        document[_KEY] = [each.to_dict() for each in self.tables()]


def runs_a_probe(item: Any) -> bool:
    """The test is marked, is one of a matrix, or asks for the fixture."""
    values = item.callspec.params.values() if hasattr(item, "callspec") else ()
    if "overfit" in getattr(item, "fixturenames", ()) or item.get_closest_marker("overfit") is not None:
        return True
    return any(isinstance(each, BoundProbe) for each in values)
