"""Can this model, with its own loss and optimizer, memorise one batch?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_overfit.adapters.base import Learner
from pytest_overfit.adapters.inspector import inspector_for
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.limits import Resolved, at_least, share
from pytest_overfit.core.options_of_case import yes_or_no
from pytest_overfit.core.verdict import BaselineNumber, Judgement, Verdict
from pytest_overfit.data.telling import unsuitable
from pytest_overfit.measures.broadcasting import broadcast_of
from pytest_overfit.measures.evaluation import (
    both_at_once,
    eval_forwards_agree,
    row_spread,
    rows_lie_elsewhere,
    rows_stand_alone,
)
from pytest_overfit.measures.memorising.criteria import fits
from pytest_overfit.measures.memorising.extension import MORE_STEPS, STEPS
from pytest_overfit.measures.memorising.memorise import BatchRun, Fit, memorise
from pytest_overfit.measures.memorising.progress import Point
from pytest_overfit.probes.base import Bench, Probe, of_findings
from pytest_overfit.probes.overfit_batch.conflicts import conflicts_of
from pytest_overfit.probes.overfit_batch.judgement import judge_fit
from pytest_overfit.probes.overfit_batch.modes import declared_updates, measured_modes
from pytest_overfit.probes.overfit_batch.slowness import measured_slowness


@dataclasses.dataclass(frozen=True, kw_only=True)
class OverfitBatchLimits:
    """Limits of `overfit_batch`."""

    #: optimizer steps at most. BatchNorm nets need 3 to 30, small MLPs and CNNs 30 to 200, language models 300.
    #: None: 500, and more for a run on its way: 1,000 where it is near, or projected to fit by then (per-pixel targets
    #: often need 550 to 650), 4,000 where its projections agree; such a run passes with a warning
    steps: int | None = None
    #: (loss - best_loss) / (constant_loss - best_loss). Over 160 faulty and 192 healthy programs, 0.05 together with
    #: the agreement below failed no healthy one; for squared error it is 1 - R2
    max_loss_ratio: float = 0.05
    #: share of rows (every column of a multilabel target) predicted right, of what contradictory labels leave
    min_accuracy: float = 1.0
    #: the same where a row holds many targets (tokens, pixels): language models keep a few wrong for long
    min_token_accuracy: float = 0.95
    #: share of rows of a regression that must be nearer to their target than the constant is
    min_near_rows: float = 0.9
    #: seconds; None: no limit, so that a slow machine cannot change a verdict
    budget: float | None = None

    def __post_init__(self) -> None:
        at_least(1, self, "steps")
        share(self, "max_loss_ratio", why=": at 1 a model that ignores its input would pass")
        share(self, "min_accuracy", "min_token_accuracy", "min_near_rows", whole=True)


class OverfitBatch(Probe):
    """Trains on one batch with the user's own loss and optimizer until it is memorised, or `steps` are made.

    *Measured*: the data term of the loss, with dropout and augmentation off and batch normalisation on batch
    statistics, between `constant_loss` (best output that ignores the input) and `best_loss` (best free outputs), and
    the agreement of predictions with targets. *Passing* means: at most `max_loss_ratio` of the way up from the best
    loss to the constant's, at two readings running, and predictions agree; eval mode fits as well, or would with
    settled running statistics; two eval-mode forward passes agree; rows do not influence each other by their order.

    Rows that belong together by design (the nodes of one graph) are declared with
    `options={"overfit_batch": {"rows_interact": True}}`.

    *Cannot see*: what one batch does not show, such as labels shuffled against inputs, too little data, a leak
    between splits, or rows mixed symmetrically. *Cost*: the training steps; a forward pass at each reading (every 25
    steps, and where the loss is expected to fit), none where training draws nothing random; and about ten in the end.
    """

    name = "overfit_batch"
    limits = OverfitBatchLimits
    cost = 30
    batch_options = options = ("rows_interact",)
    default = True
    memorises = True

    def measure(self, bench: Bench, limits: OverfitBatchLimits) -> dict[str, Any]:
        """Train one learner and return plain values; see `_measured` for the keys."""
        together = _rows_interact(bench)
        learner = bench.make_learner()
        rows = len(learner.inputs[0])
        why_not = unsuitable(learner.inputs, learner.targets, rows)
        if why_not is not None:
            known = {"framework": learner.framework, "steps": 0, "losses": [], "remarks": list(learner.remarks)}
            return {**known, "unsuitable": why_not}
        fit = Fit(learner, bench.case.task, f"Case {bench.case.name!r}:")
        start, steps = bench.clock(), limits.steps or STEPS
        known = _before_training(fit, together)

        def proceed(step: int, loss: float) -> bool:
            bench.progress(step, max(step, steps), loss)
            return limits.budget is None or bench.clock() - start < limits.budget

        def fitted(point: Point) -> bool:
            return fits(point.loss, point.agreements, run.reference, limits)

        run = memorise(fit, limits, proceed)
        _check_score(bench, run, limits)
        slow = measured_slowness(run, bench.make_learner, bench.case.task, limits)
        most = limits.steps or (STEPS if learner.schedule_is_declared() else MORE_STEPS)
        modes = measured_modes(fit, run, fitted, most)
        outputs = modes.pop("eval_outputs")
        steadiness = {
            **_steadiness(fit, outputs, together, bench.case.row_axis is not None),
            "row_spread": row_spread(outputs, fit.rows),
        }
        updates = declared_updates(bench.case, learner) if modes["statistics"] else None
        found = {**_measured(fit, run), **known, **modes, **steadiness, "slow": slow, "declared_updates": updates}
        ended_well = run.stop in ("fits", "no_update") and found["eval_forwards_agree"] is not False
        return {**found, "drawn": "" if ended_well else learner.drawn()}

    def judge(self, measured: Mapping[str, Any], limits: Resolved[OverfitBatchLimits]) -> Judgement:
        """Decide from the measured values alone."""
        return judge_fit(measured, limits)

    def numbers(self, verdict: Verdict) -> Iterator[BaselineNumber]:
        """Also the steps that it took."""
        yield BaselineNumber("steps_to_memorise", verdict.data.get("memorised_at", verdict.steps), "lower")
        yield from of_findings(verdict)


def _before_training(fit: Fit, together: bool) -> dict[str, Any]:
    """What outputs and targets show of each other; rows that are `together` differ by their neighbours."""
    heads = fit.predictions.heads(fit.first)
    return {
        "broadcast": broadcast_of(fit.learner, fit.first),
        "conflicts": None if together else conflicts_of(fit.learner, heads, fit.groups),
        "first_row_spread": row_spread(fit.first.outputs, fit.rows),
    }


def _rows_interact(bench: Bench) -> bool:
    """The case's option: rows belong together by design, as the nodes of one graph do."""
    return yes_or_no(bench.case, "overfit_batch", "rows_interact")


def _check_score(bench: Bench, run: BatchRun, limits: OverfitBatchLimits) -> None:
    """Beside a loss that fits, a score that is not a number says nothing of the model."""
    last = run.points[-1]
    score = next((each.value for each in last.agreements if each.measure == "score"), 0.0)
    if not math.isfinite(score) and fits(last.loss, (), run.reference, limits):
        raise CaseError(
            f"Case {bench.case.name!r}: score returned {score:g} for a batch that the loss says is memorised; expected "
            "1.0 when all is right (a division by 0?)"
        )


def _measured(fit: Fit, run: BatchRun) -> dict[str, Any]:
    """Everything the judgement needs of the training itself, as plain values."""
    learner = fit.learner
    return {
        "framework": learner.framework,
        "steps": len(run.losses),
        "losses": run.losses,
        "rows": fit.rows,
        "stop": run.stop,
        "reference": {"constant": run.reference.constant, "best": run.reference.best, "how": run.reference.how},
        "minimum": _minimum(fit),
        "shapes": {
            "outputs": [list(each.shape) for each in fit.first.outputs],
            "targets": [list(each.shape) for each in learner.targets],
        },
        "points": [dataclasses.asdict(each) for each in run.points],
        "control": run.control,
        "control_fits": run.control_fits,
        "parameters": dataclasses.asdict(learner.parameters()),
        "schedule_is_declared": learner.schedule_is_declared(),
        "samples": learner.samples,
        "remarks": [*learner.remarks, *([run.remark] if run.remark else [])],
    }


def _minimum(fit: Fit) -> dict[str, Any] | None:
    """The least value the recognised loss can have when it is used as documented."""
    heads = fit.first.heads
    if len(heads) == 1 and heads[0].plain and heads[0].minimum is not None:
        return {"value": heads[0].minimum, "loss": heads[0].loss_name, "domain": heads[0].domain}
    return None


def _steadiness(fit: Fit, evaluated: Sequence[Array], together: bool, declared: bool) -> dict[str, Any]:
    """Does evaluation answer the same input twice the same, and does each row stand alone? None: cannot be asked.

    `declared`: the case says where the rows are.
    """
    learner = fit.learner
    if not together and both_at_once(learner, fit.rows, evaluated):
        return {"eval_forwards_agree": True, "rows_stand_alone": True}
    steady = eval_forwards_agree(learner, fit.rows)
    alone = None if together or steady is False else _alone(learner, fit.rows)
    return {
        "eval_forwards_agree": steady,
        "restless": learner.differing_module("eval", "eval") if steady is False else None,
        "eval_draws": learner.draws_in_evaluation() if steady is False else None,
        "rows_stand_alone": alone,
        "rows_elsewhere": alone is False and not declared and rows_lie_elsewhere(learner, fit.rows),
    }


def _alone(learner: Learner, rows: int) -> bool | None:
    """Does each row stand alone? Where rounding may look like the contrary, float64 tells."""

    def in_both_precisions() -> tuple[Sequence[Array], Sequence[Array]] | None:
        inspector = inspector_for(learner)
        try:
            return None if inspector is None else inspector.in_both_precisions(learner)
        except Exception:  # a model that cannot be copied or computed so is judged without
            return None

    return rows_stand_alone(learner, rows, in_both_precisions)


PROBE = OverfitBatch()
