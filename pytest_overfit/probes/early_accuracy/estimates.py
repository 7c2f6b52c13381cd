"""A model's answers on a split, row by row: how good they are, how surely, and whether they go with the targets."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from pytest_overfit.adapters.base import Head
from pytest_overfit.adapters.trainer import ChunkReading
from pytest_overfit.core.arrays import Array
from pytest_overfit.measures.predictions.read import Kind, read
from pytest_overfit.measures.predictions.scores import heads_of

#: permutations of an exact test: the least p is 1 / 1000
_PERMUTATIONS = 999
#: rows that a permutation test looks at
_TESTED = 2_000
#: comparisons of one test
_WORK = 40_000_000
#: level of the interval that is printed with a score
_LEVEL = 0.95


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions and targets of the first head."""

    kind: Kind
    #: (rows, k): class, 0 or 1, or a value
    predicted: Array
    #: (rows, k)
    target: Array
    #: (rows, k): which targets count
    counted: Array
    #: (rows, classes) or (rows, k): what the prediction was made of; None: not kept, because a row has many targets
    raw: Array | None

    @property
    def rows(self) -> int:
        return len(self.target)

    @property
    def flat(self) -> bool:
        """One target a row, or a few columns of a table: what simple models can be fitted to."""
        return self.kind != "classes" or self.target.shape[1] == 1

    def of(self, rows: Sequence[int] | Array) -> Predictions:
        """The answers of some rows."""
        raw = None if self.raw is None else self.raw[rows]
        return dataclasses.replace(
            self, predicted=self.predicted[rows], target=self.target[rows], counted=self.counted[rows], raw=raw
        )

    def instead(self, predicted: Array, raw: Array | None = None) -> Predictions:
        """Other predictions of the same targets."""
        return dataclasses.replace(self, predicted=predicted, raw=raw)


def answers_of(chunks: Iterable[ChunkReading], task: str | None) -> Predictions | None:
    """The answers on a whole split; None: they cannot be read."""
    parts: list[Predictions] = []
    for chunk in chunks:
        heads = heads_of(chunk, task)
        if not heads or len(heads[0].targets) != chunk.rows:
            return None
        parts.append(_of_head(heads[0]))
    if not parts or len({(each.kind, each.target.shape[1:]) for each in parts}) > 1:
        return None
    outputs = [each.raw for each in parts if each.raw is not None]
    raw = np.concatenate(outputs) if len(outputs) == len(parts) else None
    predicted, target, counted = (
        np.concatenate([getattr(each, name) for each in parts]) for name in ("predicted", "target", "counted")
    )
    return Predictions(kind=parts[0].kind, predicted=predicted, target=target, counted=counted, raw=raw)


def _of_head(head: Head) -> Predictions:
    rows = len(head.targets)
    found = read(head).by_row(rows)
    if head.kind == "classes":
        raw, counted = head.outputs if head.outputs.ndim == 2 else None, found.counted
    else:  # a missing yes or no does not count here
        numbers = read(head, "values").by_row(rows)
        raw, counted = numbers.predicted, numbers.counted
    return Predictions(kind=head.kind, predicted=found.predicted, target=found.label, counted=counted, raw=raw)


def estimate(answers: Predictions) -> dict[str, Any]:
    """Score with its standard error and interval, and the chance that answers and targets go together by luck.

    Accuracy: Wilson's interval of the rows (1927), a row with several targets counted once by its share of right
    ones. R2: normal, from the squared errors of the rows. Keys: score, centre and error (for comparisons), low, high,
    rows, varies, related, signal.
    """
    by_predictions = _by_luck(answers, raw=False)
    return {
        **(_accuracy(answers) if answers.kind != "values" else _explained(answers)),
        "rows": answers.rows,
        "varies": _varies(answers),
        "related": by_predictions,
        "signal": by_predictions if answers.raw is None else _by_luck(answers, raw=True),
    }


def _varies(answers: Predictions) -> bool:
    """The outputs are not the same for every row, beyond rounding."""
    outputs = np.asarray(answers.predicted if answers.raw is None else answers.raw, float)
    if not np.isfinite(outputs).all():
        return True
    return bool(np.ptp(outputs, axis=0).max(initial=0.0) > 1e-6 * np.abs(outputs).max(initial=1e-300))


def _accuracy(answers: Predictions) -> dict[str, float]:
    counted = answers.counted.sum(axis=1)
    right = ((answers.predicted == answers.target) & answers.counted).sum(axis=1)
    rows = max(1, int((counted > 0).sum()))
    share = float(right.sum() / max(1, counted.sum()))
    low, high = wilson(share, rows)
    centre, error = shrunk(share, rows)
    return {"score": share, "centre": centre, "error": error, "low": low, "high": high}


def shrunk(share: float, rows: int) -> tuple[float, float]:
    """A share with two rows more on each side, and its error: Agresti and Coull (1998). Never exactly 0 or 1."""
    centre = (share * rows + 2) / (rows + 4)
    return centre, math.sqrt(centre * (1 - centre) / (rows + 4))


def wilson(share: float, rows: int, level: float = _LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a share."""
    z = NormalDist().inv_cdf(0.5 + level / 2)
    centre = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return max(0.0, centre - half), min(1.0, centre + half)


def _explained(answers: Predictions) -> dict[str, float]:
    target = np.where(answers.counted, answers.target, 0.0)
    count = np.maximum(1, answers.counted.sum(axis=0))
    variance = (np.where(answers.counted, target - target.sum(axis=0) / count, 0.0) ** 2).sum(axis=0) / count
    vary = variance > 0
    if not vary.any():
        return dict.fromkeys(("score", "centre", "error", "low", "high"), math.nan)
    squares = np.where(answers.counted, answers.predicted - target, 0.0)[:, vary] ** 2 / variance[vary]
    a_row = squares.mean(axis=1)
    score = 1.0 - float(a_row.mean())
    error = float(a_row.std() / math.sqrt(len(a_row)))
    half = NormalDist().inv_cdf(0.5 + _LEVEL / 2) * error
    return {"score": score, "centre": score, "error": error, "low": score - half, "high": min(score + half, 1.0)}


def _by_luck(answers: Predictions, raw: bool) -> float:
    """The p of a one-sided permutation test: rows of the targets are permuted against the answers.

    It says that answers and targets go together, not that the answers were learnt: where inputs are correlated, classes
    lie apart along few directions, and a random function of the inputs goes with them more often than not.

    `raw`: the outputs themselves, which tell more than the predictions made of them (a rare class is never predicted
    by a model that has begun to know it). Exact; looks at `_TESTED` rows at most, fewer where a row has many targets.
    """
    most = min(_TESTED, int(math.sqrt(_WORK / max(1, answers.target.shape[1]))))
    chosen = answers.of(np.random.default_rng(0).permutation(answers.rows)[:most]) if answers.rows > most else answers
    outputs = chosen.raw if raw and chosen.raw is not None else chosen.predicted
    if (outputs == outputs[:1]).all():
        return 1.0  # one answer for all rows
    fit = _fit(chosen, raw)
    return 1.0 if fit is None else by_permutation(*fit)


def by_permutation(fit: Array, column: Array | None = None) -> float:
    """The p of a one-sided permutation test.

    `fit[i, column[j]]`: how well the target of row j fits what row i has to it; column j where none are given.
    """
    rows, width = len(fit), fit.shape[1]
    if rows < 2:
        return 1.0
    column = np.arange(rows) if column is None else column
    starts, flat = np.arange(rows) * width, np.ascontiguousarray(fit).reshape(-1)
    seen = float(flat[starts + column].sum(dtype=np.float64))
    drawn = flat[starts + column[_orders(rows)]].sum(axis=1, dtype=np.float64)
    by_luck = int((drawn >= seen - 1e-9 * max(1.0, abs(seen))).sum())
    return (1 + by_luck) / (1 + _PERMUTATIONS)


def _fit(answers: Predictions, raw: bool) -> tuple[Array, Array | None] | None:
    """How well the answer of each row fits the target of each row, for `by_permutation`; None: not to be measured."""
    target, counted = answers.target, answers.counted
    outputs = answers.raw if raw and answers.raw is not None else answers.predicted
    if not np.isfinite(outputs).all():
        return None
    if answers.kind == "classes" and raw and answers.raw is not None:
        label = target[:, 0].astype(int)
        return (outputs, label) if label.min() >= 0 and label.max() < outputs.shape[1] else None
    if answers.kind == "values" or raw:
        centred: Array = np.where(counted, target - target.mean(axis=0), 0.0)
        return np.asarray(outputs.astype(np.float64) @ centred.T), None
    if target.shape[1] == 1 and counted.all():
        kinds, label = np.unique(target[:, 0], return_inverse=True)
        return outputs == kinds[None], label.reshape(-1)
    fit = np.zeros((len(target), len(target)))
    for column in range(target.shape[1]):
        fit += (outputs[:, column, None] == target[None, :, column]) & counted[None, :, column]
    return fit, None


@functools.lru_cache(maxsize=8)
def _orders(rows: int) -> Array:
    """The permutations of a test on so many rows, the same for every test."""
    each = np.tile(np.arange(rows, dtype=np.int32), (_PERMUTATIONS, 1))
    return np.random.default_rng(0).permuted(each, axis=1)


def clearly_above(one: Any, other: Any, alpha: float) -> bool:
    """Is one estimate above another beyond their errors? A one-sided z test of two scores taken as independent."""
    difference = one["centre"] - other["centre"]
    spread = math.hypot(one["error"], other["error"])
    if not math.isfinite(difference):
        return math.isfinite(one["centre"]) and not math.isfinite(other["centre"])
    return bool(difference > NormalDist().inv_cdf(1 - alpha) * spread)
