"""A model's answers on a split, row by row: how good they are, how surely, and whether they go with the targets.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

from pytest_overfit.measures.agreement import padding
from pytest_overfit.measures.guess import inferred_heads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_overfit.adapters.base import Head
    from pytest_overfit.adapters.training import Chunk

    Array = NDArray[Any]

Kind = Literal["classes", "binary", "values"]

#: permutations of an exact test: the least p is 1 / 1000
_PERMUTATIONS = 999
#: rows that a permutation test looks at
_TESTED = 2_000
#: level of the interval that is printed with a score
_LEVEL = 0.95


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answers:
    """Predictions beside targets of the first head."""

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

    def of(self, rows: Sequence[int] | Array) -> Answers:
        """The answers of some rows."""
        predicted, target, counted = self.predicted[rows], self.target[rows], self.counted[rows]
        return Answers(kind=self.kind, predicted=predicted, target=target, counted=counted,
                       raw=None if self.raw is None else self.raw[rows])  # fmt: skip

    def instead(self, predicted: Array, raw: Array | None = None) -> Answers:
        """Other predictions of the same targets."""
        return dataclasses.replace(self, predicted=predicted, raw=raw)


def answers_of(chunks: Iterable[Chunk], task: str | None) -> Answers | None:
    """The answers on a whole split; None: they cannot be read."""
    import numpy as np

    parts: list[Answers] = []
    for chunk in chunks:
        heads = chunk.reading.heads or inferred_heads(chunk.reading.outputs, chunk.targets, task)
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
    return Answers(kind=parts[0].kind, predicted=predicted, target=target, counted=counted, raw=raw)


def _of_head(head: Head) -> Answers:
    import numpy as np

    rows, targets, outputs = len(head.targets), head.targets, head.outputs
    raw: Array | None
    if head.kind == "classes":
        soft = targets.ndim == outputs.ndim
        label = targets.argmax(axis=head.class_axis) if soft else targets
        raw = outputs if outputs.ndim == 2 else None
        predicted = outputs.argmax(axis=head.class_axis)
        counted = ~padding(label) if label.ndim > 1 else np.ones(label.shape, bool)
    else:
        predicted = outputs.reshape(targets.shape).astype(np.float64)
        raw, label, counted = predicted.reshape(rows, -1), targets.astype(np.float64), ~np.isnan(targets.astype(float))
        if head.kind == "binary":
            threshold = 0.0 if head.domain == "unbounded" else 0.5
            predicted, label = predicted > threshold, label > 0.5
    if head.mask is not None:
        counted = counted & head.mask.reshape(label.shape)
    predicted, label, counted = (each.reshape(rows, -1) for each in (predicted, label, counted))
    return Answers(kind=head.kind, predicted=predicted, target=label, counted=counted, raw=raw)


def estimate(answers: Answers) -> dict[str, Any]:
    """Score with its standard error and interval, and the chance that answers and targets go together by luck.

    Accuracy: Wilson's interval of the rows (1927), a row with several targets counted once by its share of right
    ones. R2: normal, from the squared errors of the rows. Keys: score, error, low, high, rows, varies, related,
    signal.
    """
    score, error, low, high = _accuracy(answers) if answers.kind != "values" else _explained(answers)
    return {
        "score": score,
        "error": error,
        "low": low,
        "high": high,
        "rows": answers.rows,
        "varies": _varies(answers),
        "related": _by_luck(answers, raw=False),
        "signal": _by_luck(answers, raw=True),
    }


def _varies(answers: Answers) -> bool:
    """The outputs are not the same for every row, beyond rounding."""
    import numpy as np

    said = np.asarray(answers.predicted if answers.raw is None else answers.raw, float)
    if not np.isfinite(said).all():
        return True
    return bool(np.ptp(said, axis=0).max(initial=0.0) > 1e-6 * np.abs(said).max(initial=1e-300))


def _accuracy(answers: Answers) -> tuple[float, float, float, float]:
    import numpy as np

    counted = answers.counted.sum(axis=1)
    right = ((answers.predicted == answers.target) & answers.counted).sum(axis=1)
    rows = max(1, int((counted > 0).sum()))
    share = float(right.sum() / max(1, counted.sum()))
    low, high = wilson(share, rows)
    padded = (share * rows + 2) / (rows + 4)  # Agresti and Coull (1998): an error that is not 0 at a score of 1
    return share, math.sqrt(padded * (1 - padded) / (rows + 4)), low, high if np.isfinite(high) else 1.0


def wilson(share: float, rows: int, level: float = _LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a share."""
    z = NormalDist().inv_cdf(0.5 + level / 2)
    centre = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return max(0.0, centre - half), min(1.0, centre + half)


def _explained(answers: Answers) -> tuple[float, float, float, float]:
    import numpy as np

    target = np.where(answers.counted, answers.target, 0.0)
    count = np.maximum(1, answers.counted.sum(axis=0))
    variance = (np.where(answers.counted, target - target.sum(axis=0) / count, 0.0) ** 2).sum(axis=0) / count
    vary = variance > 0
    if not vary.any():
        return math.nan, math.nan, math.nan, math.nan
    squares = np.where(answers.counted, answers.predicted - target, 0.0)[:, vary] ** 2 / variance[vary]
    a_row = squares.mean(axis=1)
    score = 1.0 - float(a_row.mean())
    error = float(a_row.std() / math.sqrt(len(a_row)))
    half = NormalDist().inv_cdf(0.5 + _LEVEL / 2) * error
    return score, error, score - half, min(score + half, 1.0)


def _by_luck(answers: Answers, raw: bool) -> float:
    """The p of a one-sided permutation test: rows of the targets are permuted against the answers.

    `raw`: the outputs themselves, which tell more than the predictions made of them (a rare class is never predicted
    by a model that has begun to know it). Exact up to `_TESTED` rows, which are all that it looks at.
    """
    import numpy as np

    generator = np.random.default_rng(0)
    chosen = answers.of(generator.permutation(answers.rows)[:_TESTED]) if answers.rows > _TESTED else answers
    target, counted = chosen.target, chosen.counted
    said = chosen.raw if raw and chosen.raw is not None else chosen.predicted
    if not np.isfinite(said).all() or answers.rows < 2:
        return 1.0
    pick: Any
    if chosen.kind == "classes" and raw and chosen.raw is not None:
        label = target[:, 0].astype(int)
        if label.min() < 0 or label.max() >= said.shape[1]:
            return 1.0
        rows = np.arange(len(label))
        pick = lambda order: said[rows, label[order]].sum(dtype=np.float64)  # noqa: E731
    elif chosen.kind == "values" or raw:
        centred = np.where(counted, target - target.mean(axis=0), 0.0)
        pick = lambda order: float((said * centred[order]).sum())  # noqa: E731
    else:
        pick = lambda order: float(((said == target[order]) & counted[order]).sum())  # noqa: E731
    seen = pick(np.arange(len(target)))
    tolerance = 1e-9 * max(1.0, abs(seen))
    by_luck = sum(pick(generator.permutation(len(target))) >= seen - tolerance for _ in range(_PERMUTATIONS))
    return (1 + int(by_luck)) / (1 + _PERMUTATIONS)


def clearly_above(one: Any, other: Any, alpha: float) -> bool:
    """Is one estimate above another beyond their errors? A one-sided z test of two independent scores."""
    difference = one["score"] - other["score"]
    spread = math.hypot(one["error"], other["error"])
    if not math.isfinite(difference):
        return math.isfinite(one["score"]) and not math.isfinite(other["score"])
    return bool(difference > NormalDist().inv_cdf(1 - alpha) * spread)
