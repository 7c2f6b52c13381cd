"""How good are predictions on a whole split: accuracy or explained variance, added up chunk by chunk."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from pytest_overfit.adapters.base import Head
from pytest_overfit.adapters.trainer import ChunkReading
from pytest_overfit.core.arrays import Array
from pytest_overfit.measures.predictions.inferred_heads import inferred_heads
from pytest_overfit.measures.predictions.probabilities import probabilities
from pytest_overfit.measures.predictions.read import can_be_read, read

#: the least probability of a label whose logarithm is taken, as Keras has it
_TINY = 1e-7

Metric = Literal["accuracy", "R2", "score", ""]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """Loss and score of one split. The score is larger for better, 1.0 is perfect."""

    #: mean over rows of the data term of the user's loss; None: it cannot be read apart from a step
    loss: float | None
    #: None: not measured
    score: float | None
    #: "accuracy" (tokens, pixels and labels each count), "R2", "score" (the case's own); "" where not measured
    metric: Metric
    #: what the best constant answer scores on this split; None for a score of the case's own
    chance: float | None
    rows: int
    #: what the predictions cost whatever the loss adds (penalties, smoothing, weights): mean cross-entropy of the
    #: labels, or mean squared error; None: not asked for, or several heads, or outputs that are not probabilities
    bare_loss: float | None = None


class _Right:
    """Share of right answers."""

    metric: Metric = "accuracy"

    def __init__(self) -> None:
        self._right = self._counted = 0
        self._labels: dict[int, int] = {}

    def add(self, head: Head) -> None:
        found = read(head, "classes" if head.kind == "classes" else "binary")
        label = found.label[found.counted]
        self._right += int(found.right[found.counted].sum())
        self._counted += len(label)
        for value, count in zip(*np.unique(label, return_counts=True), strict=True):
            self._labels[int(value)] = self._labels.get(int(value), 0) + int(count)

    def score(self) -> float | None:
        return self._right / self._counted if self._counted else None

    def chance(self) -> float | None:
        return max(self._labels.values(), default=0) / self._counted if self._counted else None


class _Explained:
    """Share of the targets' variance that is explained: 1 - (squared error) / (variance), the mean over columns.

    Sums are taken about the first chunk's mean, so that targets far from zero lose no digits.
    """

    metric: Metric = "R2"

    def __init__(self) -> None:
        self._sums: Array | None = None
        self._centre: Any = 0.0

    def add(self, head: Head) -> None:
        found = read(head, "values").by_row(len(head.targets))
        target, known = found.label, found.counted
        if self._sums is None:
            self._centre = np.where(known, target, 0.0).sum(axis=0) / np.maximum(1, known.sum(axis=0))
        moved = np.where(known, target - self._centre, 0.0)
        error = np.where(known, found.predicted - target, 0.0)
        sums = np.stack([known.sum(axis=0), moved.sum(axis=0), (moved**2).sum(axis=0), (error**2).sum(axis=0)])
        self._sums = sums if self._sums is None else self._sums + sums

    def score(self) -> float | None:
        if self._sums is None:
            return None
        count, total, squares, error = self._sums
        variance = squares - total**2 / np.maximum(1, count)
        vary = variance > 1e-12 * max(1e-300, float(squares.max()))
        return float((1.0 - error[vary] / variance[vary]).mean()) if vary.any() else None

    def chance(self) -> float | None:
        return 0.0


class _Bare:
    """Mean loss of one head's predictions, without what a loss adds to it."""

    def __init__(self) -> None:
        self._sum, self._counted = 0.0, 0

    def add(self, heads: Sequence[Head]) -> None:
        costs = _costs(heads[0]) if len(heads) == 1 else None
        self._sum += math.nan if costs is None else float(costs.sum())
        self._counted += 0 if costs is None else costs.size

    def mean(self) -> float | None:
        return self._sum / self._counted if self._counted and not math.isnan(self._sum) else None


def _costs(head: Head) -> Array | None:
    """Of each counted target: minus the log of its label's probability, or the squared error; None: not known."""
    found = read(head)
    if head.kind == "values":
        return np.asarray((found.predicted - found.label)[found.counted] ** 2)
    shares = probabilities(head)
    if shares is None:
        return None
    if head.kind == "classes":
        label = np.expand_dims(np.where(found.counted, found.label, 0).astype(np.int64), head.class_axis)
        right = np.take_along_axis(shares, label, axis=head.class_axis).squeeze(head.class_axis)
    else:
        right = np.where(found.label, shares, 1.0 - shares)
    return np.asarray(-np.log(np.maximum(right[found.counted], _TINY)))


def heads_of(chunk: ChunkReading, task: str | None) -> Sequence[Head]:
    """Those that the loss shows, else those that shapes show; none where one of them cannot be read."""
    heads = chunk.reading.heads or inferred_heads(chunk.reading.outputs, chunk.targets, task)
    return heads if all(map(can_be_read, heads)) else ()


def scores_of(chunks: Iterable[ChunkReading], task: str | None, bare: bool = False) -> Scores:
    """The scores of one split, from its parts. Several heads count alike; their metric is the first one's.

    `bare`: with the `bare_loss`.
    """
    tallies: list[_Right | _Explained] = []
    costs = _Bare()
    rows, loss, own = 0, 0.0, 0.0
    loss_known = own_known = True
    for chunk in chunks:
        rows += chunk.rows
        loss_known, own_known = loss_known and chunk.reading.loss is not None, own_known and chunk.score is not None
        loss += chunk.rows * (chunk.reading.loss or 0.0)
        own += chunk.rows * (chunk.score or 0.0)
        heads = heads_of(chunk, task)
        if not tallies:
            tallies = [_Explained() if each.kind == "values" else _Right() for each in heads]
        for tally, head in zip(tallies, heads, strict=False):
            tally.add(head)
        if bare:
            costs.add(heads)
    mean = loss / rows if loss_known and rows else None
    if own_known and rows:
        return Scores(loss=mean, score=own / rows, metric="score", chance=None, rows=rows, bare_loss=costs.mean())
    return dataclasses.replace(_measured(tallies, mean, rows), bare_loss=costs.mean())


def _measured(tallies: Sequence[_Right | _Explained], loss: float | None, rows: int) -> Scores:
    found = [(each, value) for each in tallies if (value := each.score()) is not None]
    if not found:
        return Scores(loss=loss, score=None, metric="", chance=None, rows=rows)
    chances = [chance for each, _ in found if (chance := each.chance()) is not None]
    score = sum(value for _, value in found) / len(found)
    chance = sum(chances) / len(chances)
    return Scores(loss=loss, score=score, metric=found[0][0].metric, chance=chance, rows=rows)
