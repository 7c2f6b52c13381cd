"""Does each regulariser do anything? Measured without training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pytest_overfit.adapters.dispatch import regularizers_of
from pytest_overfit.core.limits import Resolved, share
from pytest_overfit.core.options_of_case import yes_or_no
from pytest_overfit.core.verdict import Judgement
from pytest_overfit.probes.base import Bench, Probe
from pytest_overfit.probes.inert_regularizer.judgement import judge_regularizers
from pytest_overfit.probes.inert_regularizer.rereading import reread


@dataclasses.dataclass(frozen=True, kw_only=True)
class InertRegularizerLimits:
    """Limits of `inert_regularizer`."""

    #: share of the weights' length that weight decay or a penalty must take away over 10,000 steps. 0.001 is 1e-7 a
    #: step, about the rounding of a float32 weight (6e-8): a decay below it is not seen by the weights it is for
    min_decay: float = 1e-3

    def __post_init__(self) -> None:
        share(self, "min_decay")


class InertRegularizer(Probe):
    """Looks for every regulariser of a case and measures what it does, on the case's one batch.

    *Measured*: for dropout of any kind, noise and augmentation layers, whether they change their input in a training
    pass (the case's own `step` or `train_step`, where it has one), whether the outputs depend on the result, and that
    they change nothing in evaluation. For weight decay and penalties in the loss, the share of the weights' length
    that a step takes away under the case's own optimizer. For data sets, whether a sample read again is the same.
    *Passing* means: everything that was found works. One that does nothing fails the case, and so does one that also
    works in evaluation; `options={"inert_regularizer": {"always_on": True}}` allows the latter (Monte Carlo dropout).

    *Cannot see*: whether a regulariser helps; masks that a `forward` draws by hand; schedules that change a
    probability later on. *Cost*: no training; two training passes, one evaluation pass, and a few steps of copies of
    the optimizer.
    """

    name = "inert_regularizer"
    limits = InertRegularizerLimits
    cost = 10
    options = ("always_on",)
    default = True

    def measure(self, bench: Bench, limits: InertRegularizerLimits) -> dict[str, Any]:
        """Look for regularisers and return plain values."""
        del limits
        always_on = _always_on(bench)
        learner = bench.make_learner()
        found = regularizers_of(learner)
        return {
            "framework": learner.framework,
            "always_on": always_on,
            "noises": [dataclasses.asdict(each) for each in found.noises],
            "shrinkages": [dataclasses.asdict(each) for each in found.shrinkages],
            "data": [dataclasses.asdict(each) for each in reread(bench.case)],
            "off": list(found.off),
            "remarks": [*learner.remarks, *found.remarks],
        }

    def judge(self, measured: Mapping[str, Any], limits: Resolved[InertRegularizerLimits]) -> Judgement:
        """Decide from the measured values alone."""
        return judge_regularizers(measured, limits)


def _always_on(bench: Bench) -> bool:
    """The case's option: dropout is meant to drop in evaluation too."""
    return yes_or_no(bench.case, "inert_regularizer", "always_on")


PROBE = InertRegularizer()
