"""Splits that hold the same values on another scale: when that is looked for, and how it is reported."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.duplicates.alignment import Opened
from pytest_overfit.duplicates.copies import Copies
from pytest_overfit.duplicates.exact.in_memory import Overlap
from pytest_overfit.duplicates.near.inputs import inputs_of, why_not_comparable
from pytest_overfit.duplicates.near.scales import Rescaled, find_rescaled
from pytest_overfit.duplicates.request import Request

#: standard deviations, and means in standard deviations, that differ by more than a few hundred rows let them
_RATIO, _SHIFT = 1.25, 0.35
#: and by so much that no value of one split is likely in the other
_FAR_RATIO, _FAR_SHIFT = 3.0, 3.0
#: fewer rows say too little of a scale
_ROWS = 30
#: how nearly the columns of a split that was standardised by itself have mean 0 and standard deviation 1
_STANDARD = 1e-3

Pair = tuple[str, str]


def add_rescaled(request: Request, opened: Opened, copies: Copies) -> dict[Pair, Rescaled]:
    """Add the copies between splits of which one holds the values of the other on another scale."""
    found = {}
    request = dataclasses.replace(request, features=None)
    for a, b in copies.overlaps:
        unlike = _unlike(opened.spreads[a], opened.spreads[b])
        if opened.scaled & {a, b} or not (unlike or _scaled_by_itself(opened, b)):
            continue
        left, right = (inputs_of(request, opened, name, copies.counts[name]) for name in (a, b))
        if why_not_comparable(a, b, left, right) or isinstance(left, list):
            continue
        rescaled = find_rescaled(right, left)
        if rescaled is not None and len(np.unique(rescaled.pairs[0])) > _telling(copies.overlaps[a, b], right):
            found[a, b] = rescaled
            copies.overlaps[a, b] = _joined(copies.overlaps[a, b], rescaled)
            opened.differences.append(("scale", _words(a, b, rescaled)))
        elif unlike and min(len(left), len(right)) >= _ROWS and _far(left, right):
            opened.differences.append(("scale", _far_words(a, b, left, right)))
    return found


def _unlike(one: Array, other: Array) -> bool:
    """Half of the columns have another mean or standard deviation in the first samples."""
    if one.shape != other.shape:
        return False
    return _differing(one, other, _RATIO, _SHIFT) >= 0.5


def _differing(one: Array, other: Array, ratio: float, shift: float) -> float:
    varied = (one[:, 1] > 0) & (other[:, 1] > 0)
    if not varied.any():
        return 0.0
    (mean, size), (its_mean, its_size) = one[varied].T, other[varied].T
    apart = np.abs(np.log(size / its_size)) > math.log(ratio)
    return float(np.mean(apart | (np.abs(mean - its_mean) > shift * np.maximum(size, its_size))))


def _scaled_by_itself(opened: Opened, name: str) -> bool:
    """The later split has been standardised by its own numbers: so may the earlier one, by its."""
    memory = opened.splits[name].memory
    if memory is None or not _nearly_standard(opened.spreads[name], _SHIFT, _RATIO):
        return False
    leaves = [leaf for leaf in memory.leaves.values() if isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f"]
    flat = [leaf.reshape(len(leaf), -1) for leaf in leaves]
    whole = [np.stack([each.mean(0, dtype=np.float64), each.std(0, dtype=np.float64)], -1) for each in flat]
    return any(_nearly_standard(each, _STANDARD, 1 + _STANDARD) for each in whole)


def _nearly_standard(spread: Array, shift: float, ratio: float) -> bool:
    """Half of the columns that vary, or all numbers together, have nearly mean 0 and standard deviation 1."""
    varied = spread[spread[:, 1] > 0]
    if not len(varied):
        return False
    mean, size = varied.T
    together = spread[:, 0].mean(), math.sqrt((spread[:, 1] ** 2).mean() + spread[:, 0].var())
    columns = (np.abs(mean) <= shift) & (np.abs(np.log(size)) <= math.log(ratio))
    return bool(columns.mean() >= 0.5 or (abs(together[0]) <= shift and abs(math.log(together[1])) <= math.log(ratio)))


def _telling(overlap: Overlap, rows: Any) -> int:
    """Copies on the same scale that have two levels: rows of one may be equal on any scale."""
    flat = rows.reshape(len(rows), -1)[overlap.rows_b]
    return int(np.count_nonzero((flat != flat[:, :1]).any(1)))


def _joined(overlap: Overlap, rescaled: Rescaled) -> Overlap:
    """The copies on the same scale and on another; rows that are equal to one row have one number."""
    leader: dict[Any, Any] = {}

    def first(node: Any) -> Any:
        while (ahead := leader.setdefault(node, node)) != node:
            leader[node] = leader[ahead]
            node = leader[node]
        return node

    links = [
        *((("a", row), number) for row, number in zip(overlap.rows_a.tolist(), overlap.ids_a.tolist(), strict=True)),
        *((("b", row), number) for row, number in zip(overlap.rows_b.tolist(), overlap.ids_b.tolist(), strict=True)),
        *((("b", i), ("a", j)) for i, j in zip(*(each.tolist() for each in rescaled.pairs), strict=True)),
    ]
    for one, other in links:
        leader[first(one)] = first(other)
    numbers: dict[Any, int] = {}
    rows = {side: sorted(node[1] for node in leader if isinstance(node, tuple) and node[0] == side) for side in "ab"}
    ids = {side: [numbers.setdefault(first((side, row)), len(numbers)) for row in rows[side]] for side in "ab"}
    return Overlap(*(np.array(each, np.int64) for each in (rows["a"], ids["a"], rows["b"], ids["b"])))


def _words(a: str, b: str, found: Rescaled) -> str:
    rows = len(set(found.pairs[0].tolist()))
    scale, offset = found.scale, found.offset
    if np.allclose(scale, scale[0]) and np.allclose(offset, offset[0], atol=1e-3 * abs(scale[0])):
        how = f"{scale[0]:.6g} x {'-' if offset[0] < 0 else '+'} {abs(offset[0]):.6g} of a number x of {b} is"
    else:
        how = f"each column or channel of {b}, on a scale and from an offset of its own, is"
    return f"{b} is on another scale than {a}: {how} that of {a} in {rows} rows; compared so"


def _far(left: Any, right: Any) -> bool:
    one, other = (np.stack([each.mean(0), each.std(0)], -1) for each in map(_wide, (left, right)))
    return _differing(one, other, _FAR_RATIO, _FAR_SHIFT) >= 0.5


def _far_words(a: str, b: str, left: Any, right: Any) -> str:
    parts = (
        f"{name} has mean {each.mean():.3g} and standard deviation {each.std():.3g}"
        for name, each in ((a, _wide(left)), (b, _wide(right)))
    )
    return (
        f"the splits are on different scales ({', '.join(parts)}), and none was found on which rows agree; bring both "
        "to one scale to be sure"
    )


def _wide(rows: Any) -> Array:
    return np.asarray(rows.reshape(len(rows), -1), np.float64)
