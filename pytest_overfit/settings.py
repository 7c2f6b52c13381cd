"""What surrounds a run of probes. Loaded at pytest's start-up, so it imports next to nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pytest_overfit.adapters.base import Learner
    from pytest_overfit.core.calibration import Calibration
    from pytest_overfit.core.case import Case
    from pytest_overfit.core.diagnosed import Diagnose
    from pytest_overfit.core.errors import OverfitError
    from pytest_overfit.core.verdict import Verdict
    from pytest_overfit.probes.base import Probe

#: `progress(case, probe, step, of, loss)`; steps without a loss are samples, `of` is None where nobody knows how many
ReportProgress = Callable[[str, str, int, "int | None", "float | None"], None]


class SelfTesting(Protocol):
    """What a run with `--overfit-selftest` does with each probe that a test runs."""

    def skips(self, probe: str) -> str:
        """Why this probe is not run at all, in words; "": it is."""

    def judged(self, case: Case, probe: str, layers: Sequence[Any], verdict: Verdict) -> None:
        """Called with the verdict of the case as it is."""


class Settings:
    """What surrounds a run: pytest's plugin fills it in, a script uses it as it is.

    No dataclass: to make one takes as long as all the rest of this module, at every start of pytest.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        default_seed: int = 0,
        ini: Mapping[str, Any] | None = None,
        extra_probes: Sequence[Probe] = (),
        make_learner: Callable[[Case, Any, int], Learner | None] = lambda *_: None,
        record: Callable[[Verdict], None] = lambda *_: None,
        record_error: Callable[[str, str, OverfitError], None] = lambda *_: None,
        progress: ReportProgress = lambda *_: None,
        command: Callable[[], str] = lambda: "",
        calibration: Callable[[], Calibration | None] = lambda: None,
        diagnose: Diagnose = "auto",
        extra_families: Sequence[Any] = (),
        selftest: SelfTesting | None = None,
    ) -> None:
        #: overrides every case's seed, `--overfit-seed`; and for cases without a seed, ini `overfit_seed`
        self.seed, self.default_seed = seed, default_seed
        #: limits of the ini file, and probes that plugins add
        self.ini, self.extra_probes = ini or {}, extra_probes
        #: asked before the built-in adapters: `make_learner(case, batch, seed)`, a learner or None
        self.make_learner = make_learner
        self.record, self.record_error, self.progress = record, record_error, progress
        #: how to run the current test alone, for messages
        self.command = command
        #: makes what reads calibrated bounds; None: there is no folder to read from, outside pytest
        self.calibration = calibration
        #: when a verdict is explained by changing the program: "auto" (failed, inconclusive), "always", "never"
        self.diagnose = diagnose
        #: families of hypotheses that plugins add, tried after the built-in ones of one rank
        self.extra_families = extra_families
        #: tests of a matrix that were not made, because the fields of their cases rule the probes out
        self.left_out = 0
        #: plants faults in every case that a probe passes
        self.selftest = selftest

    def probes(self) -> dict[str, Probe]:
        """Every probe that can be run, by name."""
        from pytest_overfit.probes import known

        return known(self.extra_probes)

    def seed_of(self, case: Case) -> int:
        """The user's seed for a case: option, then case, then ini, then 0."""
        if self.seed is not None:
            return self.seed
        return self.default_seed if case.seed is None else case.seed


#: those outside pytest, then those of each run of pytest that is under way: one may run inside another. No ContextVar:
#: to set one takes 8 ms of every pytest that ends
_running: list[Settings] = [Settings()]


def current_settings() -> Settings:
    """The settings of the running test, or the defaults outside pytest."""
    return _running[-1]


def set_settings(settings: Settings) -> Callable[[], None]:
    """Make `settings` the current ones until the returned function is called."""
    _running.append(settings)
    return lambda: _running.remove(settings)
