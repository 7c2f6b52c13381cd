"""Run probes on a case: limits, seeds, state, measurement, judgement, verdict."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_overfit.core.case import Case
from pytest_overfit.core.diagnosed import DIAGNOSE, Diagnose, with_causes
from pytest_overfit.core.errors import CaseError, NotApplicable, did_you_mean
from pytest_overfit.core.foreign import brief, describe
from pytest_overfit.core.limits import Layer, Resolved, check_limits, resolve, split_by_probe
from pytest_overfit.core.options_of_case import check_options
from pytest_overfit.core.state import derived_seed, preserved
from pytest_overfit.core.usercode import in_words
from pytest_overfit.core.verdict import Finding, Judgement, Verdict
from pytest_overfit.settings import Settings, current_settings

if TYPE_CHECKING:
    from pytest_overfit.adapters.base import Learner
    from pytest_overfit.adapters.trainer import Trainer
    from pytest_overfit.data.splits import Split
    from pytest_overfit.probes.base import Bench, Probe


def check_settings(settings: Settings) -> None:
    """Refuse added probes and ini limits that cannot be used, before any test runs."""
    for probe in settings.extra_probes:
        missing = [name for name in ("name", "limits", "measure", "judge") if not hasattr(probe, name)]
        if missing:
            raise CaseError(
                f"hook pytest_overfit_probes: {brief(probe)} is not a probe: {', '.join(missing)} missing; return a "
                "list "
                "of objects like pytest_overfit.probes.base.Probe"
            )
    for family in settings.extra_families:
        if not callable(family):
            raise CaseError(
                f"hook pytest_overfit_diagnosis_families: {brief(family)} is not a family: expected functions "
                f"`family(symptoms) -> list of Hypothesis`, got {describe(family)}; return a list of such functions"
            )
    check_limits(settings.ini, {each.name: each.limits for each in settings.probes().values()}, "ini")


def checked_case(case: Any) -> Case:
    """The case, or a `CaseError` that says what was given instead."""
    if isinstance(case, Case):
        return case
    raise CaseError(
        f"expected a Case, got {describe(case)}; write Case(name='mlp', model=make_model, batch=(x, y), ...)"
    )


def probe_named(name: Any, probes: Mapping[str, Probe]) -> Probe:
    """The probe of this name, or a `CaseError` with the nearest one."""
    if not isinstance(name, str) or name not in probes:
        raise CaseError(f"unknown probe {brief(name)}{did_you_mean(name, probes)}")
    return probes[name]


def probes_named(names: Any = None) -> list[Probe]:
    """The probes of these names, each once; all for None. One name may come as a plain string."""
    probes = current_settings().probes()
    if names is None:
        return list(probes.values())
    if not isinstance(names, (str, Iterable)):
        raise CaseError(f"probes: expected a list of names, got {describe(names)}; known: {', '.join(probes)}")
    found = {
        each.name: each
        for each in (probe_named(name, probes) for name in ([names] if isinstance(names, str) else names))
    }
    return list(found.values())


def default_probes() -> list[Probe]:
    """What a marker or a matrix without names runs: the probes that state they belong there."""
    return [each for each in current_settings().probes().values() if each.default]


def applying_probes(case: Case) -> list[str]:
    """Of the default set those that the fields of the case do not rule out; the others are counted as left out."""
    applying = [each.name for each in default_probes() if not _ruled_out(each, case)]
    current_settings().left_out += len(default_probes()) - len(applying)
    return applying


def _ruled_out(probe: Probe, case: Case) -> bool:
    try:
        return probe.needs(case) is not None
    except CaseError:
        return False  # options that cannot be used: its test says so


def resolved_limits(case: Case, name: str, layers: Sequence[Layer]) -> Resolved[Any]:
    """Limits of one probe: call and marker (`layers`), then case, then ini, then the defaults.

    Every layer is checked whole, also the parts that are for other probes, and that the case's options name probes.
    """
    settings = current_settings()
    classes = {each.name: each.limits for each in settings.probes().values()}
    check_options(case, settings.probes())
    check_limits(case.limits, classes, f"Case {case.name!r}: limits")
    everywhere = [*layers, ("case", case.limits), ("ini", settings.ini)]
    parts = [(source, split_by_probe(written, classes, source)[name]) for source, written in everywhere if written]
    return resolve(classes[name], parts)


def run_probe(case: Case, name: str, layers: Sequence[Layer] = (), diagnose: Diagnose | None = None) -> Verdict:
    """Run one probe on one case and record its verdict; `diagnose`: None is what the settings say.

    Everything global (generators, threads, default dtype, environment) is afterwards as it was, also after an
    exception. Raises `CaseError` for a case, limit or name that cannot be used.
    """
    __tracebackhide__ = True
    settings = current_settings()
    checked_case(case)
    try:
        probe = probe_named(name, settings.probes())
        limits = resolved_limits(case, name, layers)
        with in_words(f"Case {case.name!r}: {name}"):
            verdict = _run(case, probe, limits, settings, layers, _checked_diagnose(diagnose, settings))
    except CaseError as error:
        _say_where(error, settings.probes())
        with_causes(error)
        settings.record_error(case.name, str(name), error)
        raise
    settings.record(verdict)
    return verdict


def _say_where(error: CaseError, probes: Mapping[str, Probe]) -> None:
    """Whatever probe reads a batch may miss a declaration about it; only the probe that has the option knows where."""
    for probe in probes.values():
        if error.option in probe.batch_options:
            error.args = (f"{error}; write options={{{probe.name!r}: {{{error.option!r}: True}}}}",)


def _checked_diagnose(given: Any, settings: Settings) -> Diagnose:
    if given is not None and given not in DIAGNOSE:
        wanted = ", ".join(map(repr, DIAGNOSE))
        raise CaseError(f"diagnose: expected one of {wanted}, got {brief(given)}{did_you_mean(given, DIAGNOSE)}")
    chosen: Diagnose = settings.diagnose if given is None else given
    return chosen


def _run(
    case: Case,
    probe: Probe,
    limits: Resolved[Any],
    settings: Settings,
    layers: Sequence[Layer],
    diagnose: Diagnose,
) -> Verdict:
    __tracebackhide__ = True
    from pytest_overfit.adapters.dispatch import JointTrainingByFramework, guards, seed_everything
    from pytest_overfit.probes.base import Bench

    start = time.perf_counter()
    seed = settings.seed_of(case)
    why = probe.needs(case)
    if why is not None:
        judgement = Judgement(outcome="not_applicable", summary=why)
        return _verdict(case, probe, judgement, {}, seed, time.perf_counter() - start)
    run_seed = derived_seed(case.name, probe.name, seed)
    bench = Bench(
        case=case,
        seed=run_seed,
        make_learner=lambda each=run_seed: learner_of(case, each),
        make_trainer=_Trainers(case),
        limits_of=lambda other: resolved_limits(case, other, layers).values,
        joint_training=JointTrainingByFramework(),
        progress=lambda step, of, loss=None: settings.progress(case.name, probe.name, step, of, loss),
        clock=time.perf_counter,
        calibration=settings.calibration(),
    )
    measured: dict[str, Any] = {}
    with preserved(guards()):
        seed_everything(run_seed)  # a loader that shuffles draws from global generators, also where it is only read
        try:
            measured = probe.measure(bench, limits.values)
            judgement = probe.judge(measured, limits)
            refused = judgement.outcome in ("failed", "inconclusive")
            if diagnose == "always" or (diagnose == "auto" and (refused or not probe.memorises)):
                judgement = _explained(judgement, measured, bench, probe, limits, settings)
        except NotApplicable as reason:
            judgement = Judgement(outcome="not_applicable", summary=str(reason))
    return _verdict(case, probe, judgement, measured, seed, time.perf_counter() - start)


def _explained(
    judgement: Judgement,
    measured: Mapping[str, Any],
    bench: Bench,
    probe: Probe,
    limits: Resolved[Any],
    settings: Settings,
) -> Judgement:
    """The same outcome with its reason.

    A probe that trains on one batch has changed programs trained again; what another found is traced to its cause.
    """
    if probe.memorises:
        return _tried(judgement, measured, bench, limits, settings)
    from pytest_overfit.diagnosis.causes import with_causes_first

    def again(make_learner: Callable[..., Learner]) -> Judgement:
        other = dataclasses.replace(bench, make_learner=make_learner, progress=lambda *_: None)
        return probe.judge(probe.measure(other, limits.values), limits)

    return with_causes_first(judgement, measured, bench.make_learner, again)


def _tried(
    judgement: Judgement, measured: Mapping[str, Any], bench: Bench, limits: Resolved[Any], settings: Settings
) -> Judgement:
    """With what changed programs show, also those that other packages' families suspect."""
    from pytest_overfit.diagnosis.added import Added
    from pytest_overfit.diagnosis.explain import explained
    from pytest_overfit.diagnosis.families import FAMILIES

    added = [Added(each) for each in settings.extra_families]
    found = explained(judgement, measured, bench.make_learner, bench.case.task, limits.values, (*FAMILIES, *added))
    wrong = [each.misuse for each in added if each.misuse]
    if wrong:
        raise CaseError(wrong[0])
    notes = [Finding.note(each.failure) for each in added if each.failure]
    return dataclasses.replace(found, findings=(*found.findings, *notes))


def learner_of(case: Case, seed: int) -> Learner:
    """A new learner of a case on its one batch; everything is seeded."""
    __tracebackhide__ = True
    from pytest_overfit.adapters.dispatch import learner_for, seed_everything
    from pytest_overfit.data.telling import batch_of

    settings = current_settings()
    seed_everything(seed)
    batch = batch_of(case)
    learner = settings.make_learner(case, batch, seed) or learner_for(case, batch, seed)
    if batch.remark:
        learner.remarks = (batch.remark, *learner.remarks)
    return learner


class _Trainers:
    """Makes trainers; each arm's training data are opened once."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._opened: dict[bool, tuple[Case, Split]] = {}

    def __call__(self, seed: int, plain: bool = False, train: Split | None = None) -> Trainer:
        __tracebackhide__ = True
        from pytest_overfit.adapters.dispatch import seed_everything, trainer_for
        from pytest_overfit.data.splits import open_split

        seed_everything(seed)
        if plain not in self._opened:
            arm = (self._case.without_regularizers() if plain else None) or self._case
            self._opened[plain] = arm, open_split(arm, "train")
        arm, opened = self._opened[plain]
        return trainer_for(arm, opened if train is None else train, seed, plain and arm is self._case)


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
        diagnoses=judgement.diagnoses,
        seeds=(seed,),
        steps=int(measured.get("steps", 0)),
        seconds=seconds,
        losses=tuple(measured.get("losses", ())),
        data={key: value for key, value in measured.items() if key not in _FIELDS},
    )


def run_probes(
    case: Case, probes: Sequence[str] | None = None, *, diagnose: Diagnose | None = None, **limits: Any
) -> list[Verdict]:
    """Run probes on a case without pytest and return a verdict for each; nothing is raised for a refuted model.

    `probes`: names, default all; `limits`: as in the fixture's methods, e.g. `steps=300`; `diagnose`: "auto" finds out
    why a verdict is failed or inconclusive, "always" also of others, "never" leaves it; None is what
    `--overfit-diagnose` says, outside pytest "auto". Raises `CaseError` for a misuse. Cost: that of the probes, and of
    a diagnosis at most three times the updates of the run, never more than 1,500.
    """
    checked_case(case)
    _checked_diagnose(diagnose, current_settings())
    names = [each.name for each in probes_named(probes)]
    for name in names:  # refuse a wrong limit before an earlier probe trains for minutes
        resolved_limits(case, name, [("call", limits)])
    return [run_probe(case, name, [("call", limits)], diagnose) for name in names]


def quantity_lines() -> list[str]:
    """Every quantity that can be bounded: name, unit, what it is, cost."""
    from pytest_overfit.probes.bounds import quantity_lines as lines

    return lines()
