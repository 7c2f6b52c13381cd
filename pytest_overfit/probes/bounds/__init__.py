"""Are the numbers where their owners say they must be?"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_overfit.adapters.inspector import inspector_for
from pytest_overfit.core.bounds import Anchor, bound_of, calibrated
from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.foreign import brief
from pytest_overfit.core.limits import Resolved, at_least, share
from pytest_overfit.core.usercode import user_code
from pytest_overfit.core.verdict import BaselineNumber, Judgement, Verdict
from pytest_overfit.data.splits import Split, judged_by, open_split
from pytest_overfit.measures.memorising.memorise import MemoriseLimits
from pytest_overfit.measures.training_runs import epochs_of, seed_of_run
from pytest_overfit.probes.base import Bench, Probe, of_findings
from pytest_overfit.probes.bounds.calibrated_ends import Asked, Plan, measured_now, read_back, same_everywhere
from pytest_overfit.probes.bounds.judgement import Series, judge_bounds
from pytest_overfit.probes.bounds.quantities import costs, numbers, yes_no  # noqa: F401 - each fills the list
from pytest_overfit.probes.bounds.quantities.registry import YES_NO, quantity_lines, quantity_named
from pytest_overfit.probes.bounds.subject import Found, Subject

__all__ = ["PROBE", "Bounds", "BoundsLimits", "quantity_lines"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoundsLimits:
    """Limits of `bounds`. Each bound is on the mean over seeds."""

    #: seeds at most; fewer where every bound is known to hold or not
    seeds: int = 8
    #: share of wrong answers that is accepted, for each bound
    alpha: float = 0.05
    #: share of runs of an unchanged model that may break a `calibrated` bound, of all such bounds of a verdict together
    false_alarms: float = 1e-3
    #: epochs of a training run; None: `fit_kwargs["epochs"]`, else 20
    epochs: int | None = None
    #: training steps on the batch before what is asked of a model that has just begun
    k: int = 50
    #: optimizer steps at most until the batch is memorised; None: those of overfit_batch, whose other limits count too
    steps: int | None = None

    def __post_init__(self) -> None:
        at_least(3, self, "seeds", why=": fewer have no spread between them")
        at_least(1, self, "epochs", "steps")
        share(self, "alpha", below=0.5)
        share(self, "false_alarms", below=0.5, why="; 1e-3 is usual")


class Bounds(Probe):
    """Measures named quantities over seeds and holds each against its bound.

    *Measured*: the quantities that are bounded and no others; `--overfit-quantities` lists them. Each is measured on
    new models from several seeds, and its mean has an interval that holds although seeds are added one by one
    (`pytest_overfit.measures.sequential.mean`): a result nearer to its bound than its seeds lie apart gets further
    seeds. What is the same for every seed, or holds or does not, is measured once.

    *Passing* means: every interval lies within its bound. *Failing*: one lies wholly beyond an end, a value is not a
    finite number, or something does not hold. Else *inconclusive*, also where a quantity cannot be measured.

    *Cannot see*: what other data would give; the interval covers initial weights, order and masks. A bound that is a
    function is asked at the mean and at both ends of the interval, so it should be true on one stretch of numbers.
    *Cost*: that of the most expensive quantity, per seed: `val_score` needs four training runs at least.

    An end written as `calibrated` is judged otherwise: `pytest_overfit.probes.bounds.tolerance` says how, and
    with which rate of false alarms. `pytest --overfit-calibrate` measures it on new seeds.

    Bounds are given in `options={"bounds": {"initial_loss": (2.0, 2.6)}}` or in a call of `overfit.within`.
    """

    name = "bounds"
    limits = BoundsLimits
    cost = 50
    default = True  # it judges only what the case itself asks for, which may not go unread

    def needs(self, case: Case) -> str | None:
        """At least one bound."""
        if case.options.get(self.name):
            return None
        return (
            "it has no bounds; write them as options={'bounds': {'initial_loss': (2.0, 2.6)}}, or in a call: "
            "overfit.within(case, initial_loss=(2.0, 2.6))"
        )

    def measure(self, bench: Bench, limits: BoundsLimits) -> dict[str, Any]:
        """Measure over seeds until every bound is decided; plain values."""
        splits = _splits(bench.case)
        asked, written, notes = _calibrated(_asked(bench.case), bench, limits, splits)
        series = [_series(each) for each in asked]
        framework, remarks = "", tuple[str, ...]()
        for number in range(limits.seeds):
            subject = _subject(bench, limits, number, splits)
            for each, found in zip(asked, series, strict=True):
                if not (number and found.decided(limits)):
                    _add(found, each, each.quantity.measure(subject, each.layer), limits)
            framework, remarks = subject.untrained.framework, subject.untrained.remarks
            bench.progress(number + 1, limits.seeds, subject.first.loss)
            if all(each.decided(limits) for each in series):
                break
        return {
            "framework": framework,
            "steps": 0,
            "losses": [],
            "quantities": [dataclasses.asdict(each) for each in series],
            "remarks": [*remarks, *notes],
            **written,
        }

    def judge(self, measured: Mapping[str, Any], limits: Resolved[BoundsLimits]) -> Judgement:
        """Decide from the measured values alone."""
        return judge_bounds(measured, limits)

    def numbers(self, verdict: Verdict) -> Iterator[BaselineNumber]:
        """Every bounded quantity, better the way the list says."""
        for number in of_findings(verdict):
            quantity, _ = quantity_named(number.name, verdict.probe)
            if not quantity.timed:
                yield BaselineNumber(number.name, number.value, quantity.better)


def _asked(case: Case) -> list[Asked]:
    given = case.options["bounds"]
    return [_checked(name, value, f"Case {case.name!r}: bounds") for name, value in given.items()]


def _checked(name: Any, given: Any, where: str) -> Asked:
    quantity, layer = quantity_named(str(name), where)
    bound = bound_of(given, f"{where}: {name}")
    for anchor in bound.anchors() - {*quantity.anchors, calibrated.name}:
        raise CaseError(f"{where}: {name}: there is no {anchor} for {quantity.name}; write numbers")
    if bound.yes_no and quantity.unit != YES_NO:
        raise CaseError(f"{where}: {name} is a number, so True or False is not a bound; write (low, high)")
    if quantity.unit == YES_NO and not bound.yes_no and bound.test is None:
        raise CaseError(f"{where}: {name} holds or does not, so {bound} is not a bound; write {name}=True")
    exact = isinstance(bound.low, float) and bound.low == bound.high
    if exact and not quantity.once:
        raise CaseError(
            f"{where}: {name}={bound.low:g}, but no two seeds give exactly the same {name}; write "
            f"pytest.approx({bound.low:g}, abs=0.1), or (low, high)"
        )
    return Asked(quantity, layer, bound, f"{where}: {name}", str(bound))


def _calibrated(
    asked: list[Asked], bench: Bench, limits: BoundsLimits, splits: Any
) -> tuple[list[Asked], dict[str, Any], list[str]]:
    """The bounds with numbers for calibrated ends; what a file has to keep of that, and what is worth saying."""
    open_ends = [each for each in asked if each.open_ends]
    if not open_ends:
        return asked, {}, []
    if bench.calibration is None:
        raise CaseError(f"{open_ends[0].where}: calibrated bounds are read by pytest alone; write numbers here")
    same = {"epochs": epochs_of(bench.case, limits.epochs), "k": limits.k, "steps": _criteria(bench, limits).steps}
    plan = Plan(bench.case.name, open_ends, limits, same)
    written, notes = dict[str, Any](), list[str]()
    if bench.calibration.now:

        def measure(number: int, wanted: Sequence[Asked]) -> list[Found]:
            subject = _subject(bench, limits, -1 - number, splits)  # numbers that no run has
            bench.progress(number + 1, plan.seeds, subject.first.loss)
            return [each.quantity.measure(subject, each.layer) for each in wanted]

        entries = measured_now(plan, measure)
        written, notes = {"calibration": entries}, same_everywhere(entries, plan)
    else:
        entries = dict(read_back(plan, bench.calibration))
    return [each.with_ends(entries[each.name]) if each.open_ends else each for each in asked], written, notes


def _series(asked: Asked) -> Series:
    return Series(
        name=asked.name,
        unit=asked.quantity.unit,
        once=asked.quantity.once,
        bound=asked.shown,
        source=asked.bound.source,
        calibrated=list(asked.calibrated),
    )


def _criteria(bench: Bench, limits: BoundsLimits) -> MemoriseLimits:
    """What `overfit_batch` asks of this case, with the steps that are given here."""
    memorised = bench.limits_of("overfit_batch")
    criteria: MemoriseLimits = dataclasses.replace(memorised, steps=limits.steps or memorised.steps)
    return criteria


def _subject(bench: Bench, limits: BoundsLimits, number: int, splits: Any) -> Subject:
    case, seed = bench.case, seed_of_run(bench.seed, number)
    return Subject(
        task=case.task,
        counts=limits,
        epochs=epochs_of(case, limits.epochs),
        criteria=_criteria(bench, limits),
        seed=seed,
        make_learner=lambda: bench.make_learner(seed),
        make_trainer=lambda: bench.make_trainer(seed),
        inspector_of=inspector_for,
        open_split=splits,
    )


def _splits(case: Case) -> Any:
    """Opens train, and val or else test, once."""

    @functools.cache
    def opened(name: str) -> Split | None:
        name = judged_by(case) if name == "val" else name
        return None if getattr(case, name) is None else open_split(case, name)

    return opened


def _add(series: Series, asked: Asked, found: Found, limits: BoundsLimits) -> None:
    """Take in one seed's measurement."""
    bound = asked.bound
    if found.value is None and found.above is not None and asked.calibrated == asked.written_ends:
        found = dataclasses.replace(found, value=math.nextafter(found.above, math.inf))  # one seed decides nothing here
    missing = [each for each in bound.anchors() if each not in found.anchors] if found.value is not None else []
    if found.value is None or missing:
        series.why = found.why or f"{missing[0]} is not known here: {_UNKNOWN[missing[0]]}"
        series.above = found.above
        series.highs = [bound.high] if isinstance(bound.high, (int, float)) else []
        return
    series.values.append(found.value)
    series.seen = found.seen
    series.resolution = max(series.resolution, found.resolution)
    for end, kept in ((bound.low, series.lows), (bound.high, series.highs)):
        if end is not None:
            kept.append(found.anchors[end.name] + end.plus if isinstance(end, Anchor) else end)
    if series.expected is None and found.theory:
        series.expected, series.theory = found.anchors["theory"], found.theory
    if bound.test is not None and all(math.isfinite(each) for each in series.values):
        mean = series.mean(limits)
        known = math.isfinite(mean.low)  # else nothing can be said yet
        series.holds = [_holds(asked, each) for each in (mean.mean, mean.low, mean.high)] if known else [True, False]


_OF_ANOTHER_LOSS = "the loss is not cross-entropy, binary cross-entropy, squared or absolute error"

_UNKNOWN = {
    "chance": "the score is the case's own",
    "theory": _OF_ANOTHER_LOSS,
    "constant_loss": _OF_ANOTHER_LOSS,
}


def _holds(asked: Asked, value: float) -> bool:
    if asked.bound.test is None:  # pragma: no cover - asked of functions only
        raise TypeError("no function")
    with user_code(asked.where):
        answer = asked.bound.test(value)
    if isinstance(answer, (bool, int, float)) or str(getattr(answer, "dtype", "")).endswith("bool"):
        with contextlib.suppress(TypeError, ValueError, RuntimeError):  # several truth values are none
            return bool(answer)
    raise CaseError(f"{asked.where}: expected the function to return True or False, got {brief(answer)}")


PROBE = Bounds()
