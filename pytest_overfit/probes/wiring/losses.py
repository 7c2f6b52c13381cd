"""Does the loss reward the targets, and does it hold each against its own output?

The loss is computed on outputs of our own: the targets themselves, those of other rows, and their mean. A loss that is
lower for other rows, and falls on without limit when these answers grow, has its sign the wrong way round (one that
reads distances is lower for other rows as well, but ends). One that stays the same when outputs change places compares
each output with every target: [N, 1] against [N] broadcasts to [N, N].
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pytest_overfit.adapters.base import Learner, Reading
from pytest_overfit.core.arrays import Array
from pytest_overfit.measures.predictions.inferred_heads import inferred_heads
from pytest_overfit.probes.wiring.faults import Fault

#: two losses that differ by less than this share are one
_SAME = 1e-3

#: how far a loss must be below that of the right answers to prefer the wrong ones, as a share of their distance
_CLEARLY = 0.1

#: how many times larger answers are when the loss must have fallen on
_FAR = 10.0

#: logit of the class that an output of ours answers
_SURE = 5.0


def look(learner: Learner, first: Reading, task: str | None) -> dict[str, Any]:
    return {"prefers_wrong": _prefers_wrong(learner, first, task), "broadcast": _broadcast(learner, first)}


def _prefers_wrong(learner: Learner, first: Reading, task: str | None) -> list[float] | None:
    """Losses of the right answers and of those of other rows, where the latter are lower each time."""
    heads = first.heads or inferred_heads(list(first.outputs), list(learner.targets), task)
    if len(heads) != 1 or len(first.outputs) != 1 or heads[0].outputs.shape != first.outputs[0].shape:
        return None
    right = _answers(heads[0].kind, heads[0].targets, heads[0].outputs.shape, heads[0].class_axis)
    if right is None or heads[0].domain != "unbounded":
        return None
    rows = len(right)
    orders = [np.roll(np.arange(rows), shift) for shift in (1, 2, 3)]
    found = [learner.loss_and_gradient([right[order].astype(first.outputs[0].dtype)]) for order in orders]
    best = learner.loss_and_gradient([right.astype(first.outputs[0].dtype)])
    if best is None or any(each is None for each in found) or rows < 4:
        return None
    losses = [best[0], *(each[0] for each in found if each is not None)]
    if not all(math.isfinite(each) for each in losses):
        return None
    width = max(losses) - min(losses)
    clearly = all(each < best[0] - _CLEARLY * width for each in losses[1:])
    far = learner.loss_and_gradient([(_FAR * right[orders[0]]).astype(first.outputs[0].dtype)])
    endless = far is not None and far[0] < min(losses) - width
    return losses if width > 0 and clearly and endless else None


def _answers(kind: str, targets: Array, shape: tuple[int, ...], axis: int) -> Array | None:
    """Outputs that say what the targets are."""
    if kind == "classes" and targets.ndim == len(shape) - 1:
        classes = shape[axis]
        one_hot = np.eye(classes)[np.clip(targets, 0, classes - 1).astype(np.int64)]
        return np.moveaxis(_SURE * (2.0 * one_hot - 1.0), -1, axis)
    if targets.shape != shape:
        return None
    return _SURE * (2.0 * targets - 1.0) if kind == "binary" else targets.astype(np.float64)


def _broadcast(learner: Learner, first: Reading) -> list[list[int]] | None:
    """Shapes of outputs and targets, where the loss is that of all pairs of rows."""
    if first.loss is None or len(first.outputs) != 1 or len(learner.targets) != 1:
        return None
    outputs, targets = first.outputs[0], learner.targets[0]
    one_a_row = outputs.size == targets.size == len(outputs) == len(targets) > 1
    if outputs.shape == targets.shape or not one_a_row:
        return None
    right = targets.reshape(outputs.shape).astype(outputs.dtype)
    middle = np.full_like(right, right.mean())
    answers = [learner.loss_and_gradient([each]) for each in (right, np.roll(right, 1, axis=0), middle)]
    found = [each[0] for each in answers if each is not None]
    if len(found) < len(answers) or not all(map(math.isfinite, found)):
        return None
    in_any_order = math.isclose(found[0], found[1], rel_tol=_SAME)
    return [list(outputs.shape), list(targets.shape)] if in_any_order and found[0] > found[2] * (1 + _SAME) else None


def faults(measured: Mapping[str, Any]) -> Iterator[Fault]:
    losses: Sequence[float] | None = measured["prefers_wrong"]
    if losses is not None:
        yield Fault(
            name="gradient_ascent",
            outcome="failed",
            subjects=(),
            evidence=f"the loss is {losses[0]:.3g} for outputs that answer every row right, and lower, "
            f"{max(losses[1:]):.3g} and less, for the answers of other rows: its sign is the wrong way round",
            cure="take out the minus, or add the one that is missing",
        )
    shapes = measured["broadcast"]
    if shapes is not None:
        outputs, targets = (tuple(each) for each in shapes)
        yield Fault(
            name="target_broadcast",
            outcome="failed",
            subjects=(),
            evidence=f"outputs {outputs} and targets {targets} broadcast inside the loss: its value is that of every "
            "output against every target",
            cure="give both one shape: targets[:, None], or outputs.squeeze(-1)",
        )
