"""Are a classifier's probabilities as often right as they say?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from pytest_overfit.adapters.base import Head
from pytest_overfit.adapters.trainer import ChunkReading
from pytest_overfit.core.arrays import Array
from pytest_overfit.measures.predictions.inferred_heads import inferred_heads
from pytest_overfit.measures.predictions.probabilities import probabilities
from pytest_overfit.measures.predictions.read import read
from pytest_overfit.probes.bounds.subject import Found

#: equal-width bins of the probability of the predicted class, as in Naeini et al. (2015) and Guo et al. (2017)
BINS = 15

_NO_CLASSES = "the model predicts values, not classes, so it has no probabilities to be right with"
_NO_PROBABILITIES = "the outputs cannot be read as probabilities: the loss is not a cross-entropy"


def calibration_found(chunks: Iterable[ChunkReading], task: str | None) -> Found:
    """Expected calibration error of a split, read chunk by chunk; of several heads of classes the mean."""
    sums: list[Array] = []
    for chunk in chunks:
        heads = _heads(chunk, task)
        if heads and all(each.kind == "values" for each in heads):
            return Found(why=_NO_CLASSES)
        heads = [each for each in heads if each.kind != "values"]
        answered = [_confidence(each) for each in heads]
        if not answered or any(each is None for each in answered):
            return Found(why=_NO_PROBABILITIES)
        found = [_binned(*each) for each in answered if each is not None]
        sums = found if not sums else [a + b for a, b in zip(sums, found, strict=True)]
    errors = [expected_calibration_error(each) for each in sums]
    return Found(value=float(np.mean(errors))) if errors else Found(why=_NO_PROBABILITIES)


def expected_calibration_error(sums: Array) -> float:
    """Sum over bins of (share of the answers) x |share of right ones - mean confidence|.

    `sums`: (bins, 3), each row the count, how many were right, and the sum of their confidences.
    """
    return float(np.abs(sums[:, 1] - sums[:, 2]).sum() / max(1.0, float(sums[:, 0].sum())))


def _binned(confidence: Array, right: Array) -> Array:
    """Sums by bin; bin m of 1..15 holds confidences in ((m - 1) / 15, m / 15]."""
    known = np.nan_to_num(confidence, nan=1.0)  # its sum below still is not a number
    number = np.clip(np.ceil(known * BINS).astype(np.int64) - 1, 0, BINS - 1)
    parts = (np.ones(confidence.shape), right.astype(np.float64), confidence)
    return np.stack([np.bincount(number, weights=each, minlength=BINS) for each in parts], axis=1)


def _heads(chunk: ChunkReading, task: str | None) -> Sequence[Head]:
    """The heads that the loss showed, else guessed ones, of outputs that are not plain labels."""
    if chunk.reading.heads:
        return chunk.reading.heads
    if any(each.dtype.kind != "f" for each in chunk.reading.outputs):
        return ()
    return inferred_heads(chunk.reading.outputs, chunk.targets, task)


def _confidence(head: Head) -> tuple[Array, Array] | None:
    """Of each counted answer the probability of the predicted class, and whether it is right; None: there are none."""
    shown = probabilities(head)
    if shown is None:
        return None
    confidence = np.maximum(shown, 1.0 - shown) if head.kind == "binary" else shown.max(axis=head.class_axis)
    found = read(dataclasses.replace(head, outputs=shown, domain="probabilities"))
    return confidence[found.counted], found.right[found.counted]
