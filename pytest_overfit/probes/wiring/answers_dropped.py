"""Does dropout take away the answer itself?

In training some outputs are exactly 0 that are not 0 where dropout is off. The batch is memorised all the same, because
a fit is read with dropout off; but what the loss trains on is answers that are not there.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pytest_overfit.adapters.base import Learner, Reading
from pytest_overfit.core.arrays import Array
from pytest_overfit.probes.wiring.faults import Fault

#: training passes, so that a small rate shows on few outputs; fewer where the first one draws nothing
_PASSES = 4

#: share of outputs, and how many, that must be taken away
_SHARE, _FEWEST = 0.01, 2


def look(learner: Learner, known: Reading) -> float | None:
    """Share of the outputs that training takes away; None: none, or they are not what the loss predicts with."""
    outputs = known.outputs
    if len(outputs) != 1 or len(known.heads) != 1 or known.heads[0].outputs.shape != outputs[0].shape:
        return None
    before: Array = outputs[0]
    passes: list[Array] = []
    for _ in range(_PASSES):
        trained = learner.read("train").outputs
        if len(trained) != 1 or trained[0].shape != before.shape or np.array_equal(trained[0], before):
            return None
        passes.append(trained[0])
    taken = [(each == 0) & (before != 0) for each in passes]
    share = float(np.mean(taken))
    return share if share >= _SHARE and np.sum(taken) >= _FEWEST and not _ends_at_zero(before, passes) else None


def _ends_at_zero(before: Array, passes: list[Array]) -> bool:
    """A ReLU may be what gives the zeros, and dropout before it what makes them move."""
    if before.min() < 0 or any(each.min() < 0 for each in passes):
        return False
    kept = [each[each != 0] / before[each != 0] for each in passes if not (before[each != 0] == 0).any()]
    ratios = np.concatenate([each.ravel() for each in kept]) if kept else np.zeros(0)
    # behind the last layer nothing is left to change what stays, but its factor
    return not ratios.size or bool(np.ptp(ratios) > _SHARE * abs(ratios.mean()))


def faults(share: float | None) -> Iterator[Fault]:
    if share is None:
        return
    yield Fault(
        name="dropout_on_output",
        outcome="warning",
        subjects=(),
        evidence=f"dropout behind the last layer: in training {share:.0%} of the outputs are exactly 0, and with "
        "dropout off none of these is",
        cure="put the dropout before the last layer",
    )
