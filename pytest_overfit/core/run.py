"""Run probes on a case: limits, seeds, state, measurement, judgement, verdict.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError, NotApplicable, did_you_mean
from pytest_overfit.core.foreign import describe
from pytest_overfit.core.limits import Layer, Resolved, resolve, split_by_probe
from pytest_overfit.core.state import derived_seed, preserved
from pytest_overfit.core.verdict import Judgement, Verdict

if TYPE_CHECKING:
    from pytest_overfit.adapters.base import Learner
    from pytest_overfit.probes.base import Probe

#: `progress(case, probe, step, of, loss)`
Progress = Callable[[str, str, int, int, float], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
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
    make_learner: Callable[[Case, Any, int], Learner | None] = lambda case, batch, seed: None
    record: Callable[[Verdict], None] = lambda verdict: None
    record_error: Callable[[str, str, BaseException], None] = lambda case, probe, error: None
    progress: Progress = lambda case, probe, step, of, loss: None
    #: how to run the current test alone, for messages
    command: Callable[[], str] = lambda: ""

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


def checked_case(case: Any) -> Case:
    """The case, or a `CaseError` that says what was given instead."""
    if isinstance(case, Case):
        return case
    raise CaseError(
        f"got {describe(case)}, but a Case is wanted; write Case(name='mlp', model=make_model, batch=(x, y), ...)"
    )


def probe_named(name: Any, probes: Mapping[str, Probe]) -> Probe:
    """The probe of this name, or a `CaseError` with the nearest one."""
    if not isinstance(name, str) or name not in probes:
        raise CaseError(f"unknown probe {name!r}{did_you_mean(str(name), probes)}")
    return probes[name]


def resolved_limits(case: Case, name: str, layers: Sequence[Layer]) -> Resolved[Any]:
    """Limits of one probe: call and marker (`layers`), then case, then ini, then the defaults.

    Every layer is checked whole, also the parts that are for other probes.
    """
    settings = current_settings()
    classes = {each.name: each.limits for each in settings.probes().values()}
    everywhere = [*layers, (f"case {case.name}", case.limits), ("ini", settings.ini)]
    parts = [(source, split_by_probe(written, classes, source)[name]) for source, written in everywhere if written]
    return resolve(classes[name], parts)


def run_probe(case: Case, name: str, layers: Sequence[Layer] = ()) -> Verdict:
    """Run one probe on one case and record its verdict.

    Everything global (generators, threads, default dtype, environment) is afterwards as it was, also after an
    exception. Raises `CaseError` for a case, limit or name that cannot be used.
    """
    __tracebackhide__ = True
    settings = current_settings()
    checked_case(case)
    try:
        probe = probe_named(name, settings.probes())
        limits = resolved_limits(case, name, layers)
        verdict = _run(case, probe, limits, settings)
    except CaseError as error:
        settings.record_error(case.name, str(name), error)
        raise
    settings.record(verdict)
    return verdict


def _run(case: Case, probe: Probe, limits: Resolved[Any], settings: Settings) -> Verdict:
    __tracebackhide__ = True
    from pytest_overfit.adapters.dispatch import guards
    from pytest_overfit.probes.base import Bench

    start = time.perf_counter()
    seed = settings.seed_of(case)
    run_seed = derived_seed(case.name, probe.name, seed)
    bench = Bench(
        case=case,
        seed=run_seed,
        make_learner=lambda: _learner(case, run_seed, settings),
        progress=lambda step, of, loss: settings.progress(case.name, probe.name, step, of, loss),
        clock=time.perf_counter,
    )
    measured: dict[str, Any] = {}
    with preserved(guards()):
        try:
            measured = probe.measure(bench, limits.values)
            judgement = probe.judge(measured, limits)
        except NotApplicable as reason:
            judgement = Judgement(outcome="not_applicable", summary=str(reason), findings=())
    return _verdict(case, probe, judgement, measured, seed, time.perf_counter() - start)


def _learner(case: Case, seed: int, settings: Settings) -> Learner:
    __tracebackhide__ = True
    from pytest_overfit.adapters.dispatch import learner_for, seed_everything
    from pytest_overfit.data.batch import batch_of

    seed_everything(seed)
    batch = batch_of(case)
    return settings.make_learner(case, batch, seed) or learner_for(case, batch, seed)


#: keys of a measurement that have a field of their own in the verdict
_FIELDS = ("framework", "steps", "losses")


def _verdict(
    case: Case, probe: Probe, judgement: Judgement, measured: Mapping[str, Any], seed: int, seconds: float
) -> Verdict:
    return Verdict(
        probe=probe.name,
        case=case.name,
        framework=str(measured.get("framework", "")),
        outcome=judgement.outcome,
        summary=judgement.summary,
        findings=judgement.findings,
        seeds=(seed,),
        steps=int(measured.get("steps", 0)),
        seconds=seconds,
        losses=tuple(measured.get("losses", ())),
        data={key: value for key, value in measured.items() if key not in _FIELDS},
    )


def run_probes(case: Case, probes: Sequence[str] | None = None, **limits: Any) -> list[Verdict]:
    """Run probes on a case without pytest and return a verdict for each; nothing is raised for a refuted model.

    `probes`: names, default all; `limits`: as in the fixture's methods, e.g. `steps=300`. Raises `CaseError` for a
    misuse. Cost: that of the probes.
    """
    checked_case(case)
    if isinstance(probes, str):
        probes = [probes]
    names = list(current_settings().probes()) if probes is None else list(probes)
    for name in names:  # refuse a wrong name before an earlier probe trains for minutes
        probe_named(name, current_settings().probes())
        resolved_limits(case, name, [("call", limits)])
    return [run_probe(case, name, [("call", limits)]) for name in names]
