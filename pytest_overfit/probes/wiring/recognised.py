"""Which loss a hand-written one is, by its value: then its outputs can be judged as those of the library's own.

The value is held against those of the usual losses on the same outputs and targets, means and sums. It has to agree to
the last digits that float32 keeps, which no other loss does by chance.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pytest_overfit.adapters.base import Head, Reading
from pytest_overfit.core.arrays import Array
from pytest_overfit.measures.predictions.inferred_heads import inferred_heads

#: two values that differ by less than this share are one
_SAME = 1e-5

#: what a hand-written loss is called in messages
BY_HAND = "the loss"


def with_heads(first: Reading, targets: Sequence[Array], task: str | None) -> Reading:
    """The same reading, with the head of its hand-written loss where that is one of the usual."""
    if first.heads or first.loss is None or len(first.outputs) != 1:
        return first
    found = [_known(each, first.loss) for each in inferred_heads(list(first.outputs), list(targets), task)]
    heads = tuple(each for each in found if each is not None)
    return dataclasses.replace(first, heads=heads) if len(heads) == 1 else first


def _known(head: Head, loss: float) -> Head | None:
    if not np.isfinite(head.outputs).all() or not math.isfinite(loss) or loss == 0:
        return None
    with np.errstate(all="ignore"):
        for fields, each in _usual(head):
            for scale in (1.0, float(each.size)):
                if math.isclose(float(each.mean()) * scale, loss, rel_tol=_SAME):
                    return dataclasses.replace(head, loss_name=BY_HAND, scale=scale, **fields)
    return None


def _usual(head: Head) -> Iterator[tuple[dict[str, Any], Array]]:
    """What each of the usual losses is called, and its value for each target."""
    outputs, targets = head.outputs.astype(np.float64), head.targets
    if head.kind == "classes":
        if targets.ndim == outputs.ndim - 1:
            yield from _of_classes(np.moveaxis(outputs, head.class_axis, -1), targets.astype(np.int64))
    elif head.kind == "binary":
        yield from _of_binary(outputs, targets.reshape(outputs.shape).astype(np.float64))
    elif targets.shape == outputs.shape:
        gap = outputs - targets
        yield {"plain": "squared_error"}, gap**2
        yield {"plain": "absolute_error"}, np.abs(gap)


def _of_classes(outputs: Array, labels: Array) -> Iterator[tuple[dict[str, Any], Array]]:
    if labels.min() < 0 or labels.max() >= outputs.shape[-1]:
        return
    chosen = np.take_along_axis(outputs, labels[..., None], axis=-1)[..., 0]
    highest = outputs.max(-1, keepdims=True)
    partition = np.log(np.exp(outputs - highest).sum(-1)) + highest[..., 0]
    plain = {"plain": "cross_entropy"}
    yield plain | {"domain": "unbounded"}, partition - chosen
    yield plain | {"domain": "log_probabilities"}, -chosen
    yield plain | {"domain": "probabilities"}, -np.log(chosen)


def _of_binary(outputs: Array, targets: Array) -> Iterator[tuple[dict[str, Any], Array]]:
    plain = {"plain": "binary_cross_entropy"}
    yield plain | {"domain": "unbounded"}, np.logaddexp(0.0, outputs) - targets * outputs
    yield plain | {"domain": "probabilities"}, -np.where(targets > 0.5, np.log(outputs), np.log1p(-outputs))
