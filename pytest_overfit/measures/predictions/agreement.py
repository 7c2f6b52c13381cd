"""Do the predictions agree with the targets, as well as memorising outputs would?"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np

from pytest_overfit.adapters.base import Head
from pytest_overfit.core.arrays import Array
from pytest_overfit.measures.predictions.read import read

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

    `groups` and `cells` (a head each) number the inputs that no model can distinguish, as rows and as single positions.
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
    found = read(head)
    label, counted, right = found.label, found.counted, found.right
    if head.targets.ndim == head.outputs.ndim:
        soft = np.moveaxis(head.targets, head.class_axis, -1)
        chosen = np.take_along_axis(soft, found.predicted[..., None], axis=-1)[..., 0]
        # a single unit leaves no other answer than "yes", which is right where the target says so
        right = chosen >= (SOFT_SHARE * soft.max(axis=-1) if soft.shape[-1] > 1 else 0.5)
    if not counted.any():
        return []
    measure: Measure = "token_accuracy" if label.ndim > 1 else "accuracy"
    tied = cells if cells is not None and cells.shape == label.shape else None
    best = majority_share(label, counted, groups, tied)
    return [Agreement(measure=measure, value=float(right[counted].mean()), best=best, head=head.name)]


def majority_share(label: Array, counted: Array, groups: Array, cells: Array | None = None) -> float:
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
    if head.outputs.size != head.targets.size:
        return []
    found = read(head)
    rows = found.by_row(len(found.label))
    flat, used = rows.right, rows.counted
    best = majority_share(found.label, found.counted, groups)
    if found.label.ndim > 2:
        return [Agreement(measure="token_accuracy", value=float(flat[used].mean()), best=best, head=head.name)]
    columns = [float(column[mask].mean()) for column, mask in zip(flat.T, used.T, strict=True) if mask.any()]
    if not columns:
        return []
    worst = int(np.argmin(columns))
    detail = f"column {worst}, the worst of {len(columns)}" if len(columns) > 1 else ""
    if best < 1.0 and len(columns) > 1:
        column = slice(worst, worst + 1)
        best = majority_share(rows.label[:, column], used[:, column], groups)
    return [Agreement(measure="accuracy", value=columns[worst], best=best, head=head.name, detail=detail)]


def _values(head: Head, groups: Array) -> list[Agreement]:
    """Worst column's share of unexplained variance (1 - R2 of that column), and rows nearer than the constant.

    Contradictory targets are taken off: a column's error is counted above what tied rows leave. Of a picture or
    another wide target, only columns with a fair share of the variance can be told from noise; there, a column
    counts as unexplained in proportion to the average column's variance.
    """
    if head.outputs.size != head.targets.size:
        return []
    found = read(head, "values").by_row(len(groups))
    target, output, missing = found.label, found.predicted, np.isnan(found.label)
    centre = np.where(missing, 0.0, target).sum(axis=0, keepdims=True) / np.maximum(1, (~missing).sum(axis=0))
    target, output = np.where(missing, centre, target), np.where(missing, centre, output)
    if len(np.unique(groups)) == len(groups):
        within = target
    else:
        within = np.stack([target[groups == g].mean(axis=0) for g in groups])
    error, spread, floor = (output - target) ** 2, (target - centre) ** 2, (target - within) ** 2
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
