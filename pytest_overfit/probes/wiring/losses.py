"""Does the loss reward the targets, and does it hold each against its own output?

The loss is computed on outputs of our own: the targets themselves, those of other rows, and their mean. A loss that is
lower for other rows, and falls on without limit when these answers grow, has its sign the wrong way round (one that
reads distances is lower for other rows as well, but ends).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pytest_overfit.adapters.base import Learner, Reading
from pytest_overfit.core.arrays import Array
from pytest_overfit.measures.broadcasting import broadcast_of, fault_of, words_of
from pytest_overfit.measures.predictions.inferred_heads import inferred_heads
from pytest_overfit.probes.wiring.faults import Fault

#: how far a loss must be below that of the right answers to prefer the wrong ones, as a share of their distance
_CLEARLY = 0.1

#: how many times larger answers are when the loss must have fallen on
_FAR = 10.0

#: logit of the class that an output of ours answers
_SURE = 5.0


def look(learner: Learner, first: Reading, task: str | None) -> dict[str, Any]:
    return {"prefers_wrong": _prefers_wrong(learner, first, task), "broadcast": broadcast_of(learner, first)}


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
    yield from _broadcast(measured["broadcast"])


def _broadcast(found: Mapping[str, Any] | None) -> Iterator[Fault]:
    if found is not None:
        name, outcome = fault_of(found)
        evidence, cure = words_of(found)
        yield Fault(name=name, outcome=outcome, subjects=(), evidence=evidence, cure=cure)
