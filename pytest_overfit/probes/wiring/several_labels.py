"""Do several labels of a row share one probability?

Cross-entropy of shares (soft labels, label smoothing, mixup, a teacher's answers) asks for targets that sum to 1 in
each row. Where a row has several labels of 1, its classes compete for one probability, and none can be certain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pytest_overfit.adapters.base import Head, Learner, Reading
from pytest_overfit.probes.wiring.faults import Fault
from pytest_overfit.probes.wiring.recognised import BY_HAND

#: targets of a row that sum to more than this are several labels
_SEVERAL = 1.5

#: share of the rows that must have several
_SHARE = 0.05


def look(learner: Learner, known: Reading) -> dict[str, Any] | None:
    """Of the first head whose rows have several labels: their share, the most of them, and the loss; None: no head."""
    given = [each.ravel() for each in learner.inputs]
    for head in known.heads:
        found = _several(head)
        # counts of words, or of what someone has bought, that the model is given as well: a likelihood of all draws
        if found is not None and not any(np.array_equal(each, head.targets.ravel()) for each in given):
            return found
    return None


def _several(head: Head) -> dict[str, Any] | None:
    if head.kind != "classes" or head.targets.ndim != head.outputs.ndim or head.outputs.shape[head.class_axis] < 2:
        return None
    targets = head.targets.astype(np.float64)
    sums = targets.sum(axis=head.class_axis)
    if targets.min() < 0 or targets.max() > 1:  # weights or counts on the labels
        return None
    share = float((sums > _SEVERAL).mean())
    several = {"rows": share, "most": float(sums.max()), "least": float(sums.min()), "loss": head.loss_name or BY_HAND}
    return several if share > _SHARE else None


def faults(measured: Mapping[str, Any] | None) -> Iterator[Fault]:
    if measured is None:
        return
    yield Fault(
        name="wrong_loss",
        outcome="warning",
        subjects=(),
        evidence=f"{measured['rows']:.0%} of the rows have several labels (targets of a row sum to "
        f"{measured['least']:g} to {measured['most']:g}), and {measured['loss']} shares one probability among them",
        cure="use binary_cross_entropy on scores, a yes or no for each label; targets that are meant as shares of one "
        "label have to sum to 1 in each row",
    )
