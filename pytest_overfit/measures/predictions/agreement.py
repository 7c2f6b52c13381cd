"""Do the predictions agree with the targets, as well as memorising outputs would?

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from pytest_overfit.core.arrays import Array

if TYPE_CHECKING:
    from pytest_overfit.adapters.base import Head


Measure = Literal["accuracy", "token_accuracy", "worst_column", "near_rows", "score"]

#: targets with more columns than this are pictures, not a list of quantities: see `_values`
MANY_COLUMNS = 16

#: how much of the largest target probability the predicted class must have to count as right (soft targets)
SOFT_SHARE = 0.8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agreement:
    """One score of one head. For every measure but `worst_column` larger is better, 1.0 is perfect."""

    measure: Measure
    value: float
    #: what memorising outputs would reach, contradictions taken off
    best: float
    head: str = ""
    detail: str = ""

    @property
    def name(self) -> str:
        return f"{self.measure}[{self.head}]" if self.head else self.measure


def agreements(
    heads: Sequence[Head], groups: Array, cells: Sequence[Array | None] = (), samples: bool = False
) -> list[Agreement]:
    """Score every head that can be scored; an empty list means: not measured.

    `groups` and `cells` (a head each) number the inputs that cannot be told apart, as rows and as single positions.
    `samples`: outputs hold latent noise, so of quantities only the share of rows nearer than the constant counts.
    """
    found: list[Agreement] = []
    for head, tied in itertools.zip_longest(heads, cells[: len(heads)]):
        if head.kind == "classes":
            found.extend(_classes(head, groups, tied))
        elif head.kind == "binary" and not (samples or _graded(head.targets)):
            found.extend(_binary(head, groups))
        else:
            found.extend(_values(head if head.kind == "values" else _probabilities(head), groups))
    return [each for each in found if each.measure != "worst_column"] if samples else found


def _graded(targets: Array) -> bool:
    """Grey levels rather than yes and no: more than two values."""
    return len(np.unique(targets)) > 2


def _probabilities(head: Head) -> Head:
    outputs = head.outputs.astype(np.float64)
    if head.domain == "unbounded":
        outputs = 0.5 * (1.0 + np.tanh(0.5 * outputs))
    return dataclasses.replace(head, outputs=outputs)


def _classes(head: Head, groups: Array, cells: Array | None) -> list[Agreement]:
    predicted = head.outputs.argmax(axis=head.class_axis)
    if head.targets.ndim == head.outputs.ndim:
        soft = np.moveaxis(head.targets, head.class_axis, -1)
        chosen = np.take_along_axis(soft, predicted[..., None], axis=-1)[..., 0]
        # a single unit leaves no other answer than "yes", which is right where the target says so
        enough = SOFT_SHARE * soft.max(axis=-1) if soft.shape[-1] > 1 else 0.5
        right, label = chosen >= enough, soft.argmax(axis=-1)
    else:
        label = head.targets
        right = predicted == label
    counted = np.ones(label.shape, bool) if head.mask is None else head.mask
    if label.ndim > 1:
        counted = counted & ~padding(label)
    if not counted.any():
        return []
    measure: Measure = "token_accuracy" if label.ndim > 1 else "accuracy"
    tied = cells if cells is not None and cells.shape == label.shape else None
    best = _majority_share(label, counted, groups, tied)
    return [Agreement(measure=measure, value=float(right[counted].mean()), best=best, head=head.name)]


def padding(tokens: Array) -> Array:
    """True on trailing runs of one token that fill up rows of unequal length, where a row has any left over.

    A token is taken for padding when it ends at least one row in two, in runs of differing length, and never stands
    before another token. Leaving it out is safe for a model that memorises: it has those tokens right as well.
    """
    none = np.zeros(tokens.shape, bool)
    if tokens.ndim != 2 or tokens.shape[1] < 3:
        return none
    last = tokens[:, -1]
    values, counts = np.unique(last, return_counts=True)
    token = values[counts.argmax()]
    same = tokens == token
    trailing = np.cumprod(same[:, ::-1], axis=1)[:, ::-1].astype(bool)
    lengths = trailing.sum(axis=1)
    ends_often = counts.max() * 2 >= len(last)
    only_trailing = not bool((same & ~trailing).any())
    if ends_often and only_trailing and lengths.max() > 1 and len(np.unique(lengths)) > 1:
        return trailing
    return none


def _majority_share(label: Array, counted: Array, groups: Array, cells: Array | None = None) -> float:
    """Share that is right when every distinct input answers its most frequent label at every position."""
    if cells is None and len(np.unique(groups)) == len(groups):
        return 1.0
    flat, used = label.reshape(len(groups), -1), counted.reshape(len(groups), -1)
    if cells is None:
        cells = groups[:, None] * flat.shape[1] + np.arange(flat.shape[1])[None, :]
    _, cell = np.unique(cells[used], return_inverse=True)
    _, kind = np.unique(flat[used], return_inverse=True)
    table = np.zeros((cell.max() + 1, kind.max() + 1), np.int64)
    np.add.at(table, (cell, kind), 1)
    return float(table.max(axis=1).sum() / used.sum())


def _binary(head: Head, groups: Array) -> list[Agreement]:
    threshold = 0.0 if head.domain == "unbounded" else 0.5
    label = head.targets > 0.5
    if head.outputs.size != label.size:
        return []
    predicted = head.outputs.reshape(label.shape) > threshold
    counted = np.ones(label.shape, bool) if head.mask is None else head.mask.reshape(label.shape)
    dense = label.ndim > 2
    flat, used = (predicted == label).reshape(len(label), -1), counted.reshape(len(label), -1)
    best = _majority_share(label, counted, groups)
    if dense:
        return [Agreement(measure="token_accuracy", value=float(flat[used].mean()), best=best, head=head.name)]
    columns = [float(column[mask].mean()) for column, mask in zip(flat.T, used.T, strict=True) if mask.any()]
    if not columns:
        return []
    worst = int(np.argmin(columns))
    detail = f"column {worst}, the worst of {len(columns)}" if len(columns) > 1 else ""
    if best < 1.0 and len(columns) > 1:
        column = label.reshape(len(label), -1)[:, worst : worst + 1]
        best = _majority_share(column, used[:, worst : worst + 1], groups)
    return [Agreement(measure="accuracy", value=columns[worst], best=best, head=head.name, detail=detail)]


def _values(head: Head, groups: Array) -> list[Agreement]:
    """Worst column's share of unexplained variance (1 - R2 of that column), and rows nearer than the constant.

    Contradictory targets are taken off: a column's error is counted above what tied rows leave. Of a picture or
    another wide target, only columns with a fair share of the variance can be told from noise; there, a column
    counts as unexplained in proportion to the average column's variance.
    """
    if head.outputs.size != head.targets.size:
        return []
    rows = len(groups)
    target = head.targets.reshape(rows, -1).astype(np.float64)
    output = head.outputs.reshape(rows, -1).astype(np.float64)
    missing = np.isnan(target)
    centre = np.where(missing, 0.0, target).sum(axis=0, keepdims=True) / np.maximum(1, (~missing).sum(axis=0))
    target, output = np.where(missing, centre, target), np.where(missing, centre, output)
    if len(np.unique(groups)) == len(groups):
        within = target
    else:
        within = np.stack([target[groups == g].mean(axis=0) for g in groups])
    error, spread, floor = ((output - target) ** 2, (target - centre) ** 2, (target - within) ** 2)
    variance = (spread - floor).sum(axis=0)
    if not np.isfinite(error).all():
        return [Agreement(measure="worst_column", value=float("inf"), best=0.0, head=head.name)]
    vary = variance > 1e-12 * max(1e-300, float(spread.sum(axis=0).max()))
    if not vary.any():
        return []
    excess = np.maximum((error - floor).sum(axis=0), 0.0)
    wide = target.shape[1] > MANY_COLUMNS
    unit = np.maximum(variance, variance.mean()) if wide else variance
    ratio = np.where(vary, excess / np.where(vary, unit, 1.0), 0.0)
    worst = int(ratio.argmax())
    value = float(np.quantile(ratio[vary], 0.9)) if wide else float(ratio[worst])
    detail = f"column {worst}, the worst of {int(vary.sum())}" if target.shape[1] > 1 and not wide else ""
    if wide:
        detail = f"nine tenths of {int(vary.sum())} columns are better"
    return [
        Agreement(measure="worst_column", value=value, best=0.0, head=head.name, detail=detail),
        Agreement(measure="near_rows", value=_near_rows(error, spread), best=1.0, head=head.name),
    ]


def _near_rows(error: Array, spread: Array) -> float:
    """Share of rows nearer to their target than the constant is.

    A row whose target lies close to the constant cannot show much: it counts as near within a fifth of the targets'
    own spread, which is what an R2 of 0.95 leaves on average.
    """
    mean_spread = spread.sum(axis=1).mean()
    allowed = np.maximum(spread.sum(axis=1), 0.05 * mean_spread)
    return float((error.sum(axis=1) <= allowed).mean())
