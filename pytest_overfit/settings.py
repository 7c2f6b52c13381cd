"""What surrounds a run of probes. Loaded at pytest's start-up, so it imports next to nothing.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_overfit.adapters.base import Learner
    from pytest_overfit.core.calibration import Calibration
    from pytest_overfit.core.case import Case
    from pytest_overfit.core.verdict import Verdict
    from pytest_overfit.probes.base import Probe

#: `progress(case, probe, step, of, loss)`; steps without a loss are samples, `of` is None where nobody knows how many
ReportProgress = Callable[[str, str, int, "int | None", "float | None"], None]


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Settings:
    """What surrounds a run: pytest's plugin fills it in, a script uses it as it is."""

    #: overrides every case's seed, `--overfit-seed`
    seed: int | None = None
    #: for cases without a seed, ini `overfit_seed`
    default_seed: int = 0
    #: limits of the ini file
    ini: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    #: probes that plugins add
    extra_probes: Sequence[Probe] = ()
    #: asked before the built-in adapters: `make_learner(case, batch, seed)`, a learner or None
    make_learner: Callable[[Case, Any, int], Learner | None] = lambda *_: None
    record: Callable[[Verdict], None] = lambda *_: None
    record_error: Callable[[str, str, BaseException], None] = lambda *_: None
    progress: ReportProgress = lambda *_: None
    #: how to run the current test alone, for messages
    command: Callable[[], str] = lambda: ""
    #: None: there is no folder to read from, outside pytest
    calibration: Calibration | None = None

    def probes(self) -> dict[str, Probe]:
        """Every probe that can be run, by name."""
        from pytest_overfit.probes import known

        return known(self.extra_probes)

    def seed_of(self, case: Case) -> int:
        """The user's seed for a case: option, then case, then ini, then 0."""
        if self.seed is not None:
            return self.seed
        return self.default_seed if case.seed is None else case.seed


_current: ContextVar[Settings] = ContextVar("overfit_settings", default=Settings())  # noqa: B039 - frozen


def current_settings() -> Settings:
    """The settings of the running test, or the defaults outside pytest."""
    return _current.get()


def set_settings(settings: Settings) -> Callable[[], None]:
    """Make `settings` the current ones until the returned function is called."""
    before = _current.get()
    _current.set(settings)

    def reset() -> None:
        _current.set(before)

    return reset
