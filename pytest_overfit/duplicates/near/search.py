"""Near-copies of numeric rows across two splits: views, neighbours, calibration, in that order."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.duplicates.near.neighbours import Index, one_blas_thread
from pytest_overfit.duplicates.near.overlay import CANDIDATES, evenness, laid_over
from pytest_overfit.duplicates.near.p_values import (
    ALPHA,
    FARTHEST,
    LEAST_DIMENSION,
    LEFT_OUT,
    NullDistribution,
    fit_null,
)
from pytest_overfit.duplicates.near.results import Near, NearPair
from pytest_overfit.duplicates.near.views import BLOCK, View, in_blocks, views_of

#: rows of the large split that are searched; more are sampled, and `info["searched"]` says how many were
MOST_ROWS = 200_000
#: neighbours of a row that are looked at for numbers it shares, as many as the usual scale has; and how many sharers
#: make a column common there: two or three rows that are equal in all but some columns are copies, not a kind of rows
BESIDE, SHARED = 10, 3
#: numbers compared at once
BLOCK_CELLS = 1 << 17


def find_near(
    small: Array,
    large: Array,
    *,
    kind: str = "vector",
    already: Array | None = None,
    seed: int = 0,
    alpha: float = ALPHA,
) -> Near:
    """Rows of `small` that are near-copies of rows of `large`.

    `kind`: "image" ((n, h, w), (n, h, w, c) or (n, c, h, w)), "series" ((n, time) or (n, time, channels)) or "vector".
    `already`: mask of rows of `small` that are known to be exact copies and are left out.
    `alpha`: false alarms per run; a row is a finding when its p, times views, times rows looked up, is below it.
    """
    small, large, kind = _checked(small, large, kind)
    asked = np.flatnonzero(~np.asarray(already, bool)) if already is not None else np.arange(len(small))
    kept = _distinct(large, seed)
    info: dict[str, Any] = {"kind": kind, "rows": len(asked), "distinct": len(kept), "views": {}}
    if len(kept) > MOST_ROWS:
        kept = np.sort(np.random.default_rng(seed).choice(kept, MOST_ROWS, replace=False))
    info["searched"] = len(kept)
    if not len(asked) or not len(kept):
        return Near(False, "no rows to compare", info=info)
    with one_blas_thread():
        parts = _parts(kind, small[asked], large, kept, seed)
    return _gathered(parts, asked, alpha, info)


@dataclasses.dataclass(frozen=True)
class _Side:
    """Rows looked up in one view: which rows, how far their neighbours are, and whose rows these are (-1: none)."""

    rows: Array
    distances: Array
    found: Array
    free: Array
    #: how evenly the difference to the nearest row is spread, where that is known
    evenness: Array | None = None


class _Part:
    """One view's answer: p, ratio and neighbour of each row asked for, and p of left-out rows of the large split."""

    def __init__(self, calibration: NullDistribution, rows: int) -> None:
        self.calibration = calibration
        self.p, self.ratio = np.ones(rows), np.ones(rows)
        self.row = np.full(rows, -1, np.int64)
        self.left_out = np.ones(0)


def _parts(kind: str, small: Array, large: Array, kept: Array, seed: int) -> dict[str, _Part]:
    """The answer of each view; of images two more things are asked once their neighbours are known."""
    parts: dict[str, _Part] = {}
    for name, view in views_of(kind, large, seed).items():
        looked_up = _looked_up(view, small, large, kept, seed)
        if looked_up is None:
            why = "the rows are all the same, have no contrast, or share too few values that are not common"
            parts[name] = _Part(NullDistribution(why), len(small))
            continue
        own, asked, count = looked_up
        more = {"columns": _without_shared, "pixels": _with_evenness}.get(name)
        if more is not None:
            own, asked = more(own, large, large), more(asked, small, large)
        parts[name] = _part(own, asked, count, len(small))
        if kind == "image" and name == "spectrum":
            own, asked = _laid_over(own, large, large), _laid_over(asked, small, large)
            parts["aligned"] = _part(own, asked, count, len(small))
    return parts


def _looked_up(view: View, small: Array, large: Array, kept: Array, seed: int) -> tuple[_Side, _Side, int] | None:
    """Rows of the large split, left out, and the rows of the small one among the rows of the large; their number."""
    points, free = in_blocks(view, large, kept if len(kept) < len(large) else None)
    good = free >= LEAST_DIMENSION
    numbers, points, free = kept[good], points[good], free[good]
    if len(points) < 2 or points.shape[1] == 0:
        return None
    index = Index(points, seed=seed)
    out = np.random.default_rng(seed + 1).permutation(len(points))[:LEFT_OUT]
    rows, has = in_blocks(view, small)
    able = np.flatnonzero(has >= LEAST_DIMENSION)

    def side(which: Array, distances: Array, found: Array, free: Array) -> _Side:
        return _Side(which, distances, np.where(found >= 0, numbers[found], -1), free)

    own = side(numbers[out], *index.search(points[out], FARTHEST, out), free[out])
    return own, side(able, *index.search(rows[able], FARTHEST), has[able]), len(points)


def _with_evenness(side: _Side, rows: Array, large: Array) -> _Side:
    parts = [
        evenness(rows[side.rows[start : start + BLOCK]], large[side.found[start : start + BLOCK, 0]])
        for start in range(0, len(side.rows), BLOCK)
    ]
    return dataclasses.replace(side, evenness=np.concatenate([*parts, np.empty(0)]))


def _without_shared(side: _Side, rows: Array, large: Array) -> _Side:
    """Columns whose number a row shares with its neighbours, the very nearest aside, add no dimension to its place.

    Rows with nothing measured, say, that differ in two columns alone lie in two dimensions, however many others have.
    """
    neighbours = side.found[:, 1:BESIDE]
    free = side.free.copy()
    width = int(np.prod(large.shape[1:], dtype=np.int64))
    step = max(1, BLOCK_CELLS // max(1, width))
    for start in range(0, len(free), step):
        part = slice(start, start + step)
        mine = rows[side.rows[part]].reshape(-1, width)
        holes = mine != mine  # noqa: PLR0124 - NaN: a hole is a value as any
        sharers = np.zeros(mine.shape, np.uint8)
        for one in neighbours[part].T:
            theirs = large[one].reshape(-1, width)
            same = mine == theirs
            if holes.any():
                same |= holes & (theirs != theirs)  # noqa: PLR0124
            same[one < 0] = False
            sharers += same
        free[part] = np.minimum(free[part], np.count_nonzero(sharers < SHARED, axis=1))
    return dataclasses.replace(side, free=free)


def _laid_over(side: _Side, rows: Array, large: Array) -> _Side:
    """The nearest rows of each, in the order of their distances when they are laid over it."""
    found = side.found[:, :CANDIDATES]
    distances = np.full(found.shape, np.inf, np.float32)
    step = max(1, BLOCK // CANDIDATES)
    for start in range(0, len(found), step):
        part = slice(start, start + step)
        distances[part] = laid_over(rows[side.rows[part]], large[found[part].ravel()])
    distances[found < 0] = np.inf
    order = np.argsort(distances, axis=1, kind="stable")
    nearer, whose = np.take_along_axis(distances, order, 1), np.take_along_axis(found, order, 1)
    return _Side(side.rows, nearer, whose, np.where(np.isfinite(nearer[:, 0]), side.free, 0.0))


def _part(own: _Side, asked: _Side, count: int, rows: int) -> _Part:
    """Calibrate on rows of the large split, judge the others by it."""
    part = _Part(fit_null(own.distances, own.free, count, own.evenness), rows)
    if part.calibration.testable and len(asked.rows):
        part.left_out = part.calibration.p_values(own.distances, own.free, own.evenness)
        part.p[asked.rows] = part.calibration.p_values(asked.distances, asked.free, asked.evenness)
        part.row[asked.rows] = asked.found[:, 0]
        tenth = asked.distances[:, min(9, count - 1, asked.distances.shape[1] - 1)]
        known = (tenth > 0) & np.isfinite(tenth)
        part.ratio[asked.rows] = asked.distances[:, 0] / np.where(known, tenth, 1.0)
    return part


def _gathered(parts: dict[str, _Part], asked: Array, alpha: float, info: dict[str, Any]) -> Near:
    for name, part in parts.items():
        null = part.calibration
        info["views"][name] = {"why": null.why, "dimension": round(null.dimension, 2), "tail": round(null.rate, 3)}
    able = {name: part for name, part in parts.items() if part.calibration.testable}
    if not able:
        whys = {name: part.calibration.why for name, part in parts.items()}
        listed = whys.values() if len(whys) == 1 else (f"{name}: {why}" for name, why in whys.items())
        return Near(False, "; ".join(listed), info=info)
    level = alpha / (len(asked) * len(able))
    info["level"] = level
    names = list(able)
    p = np.stack([able[name].p for name in names])
    best = p.argmin(0)
    pairs = []
    for at in np.flatnonzero(p.min(0) <= level):
        name = names[best[at]]
        chance = float(min(1.0, p[best[at], at] * len(able)))
        row, ratio = int(able[name].row[at]), float(able[name].ratio[at])
        pairs.append(NearPair(int(asked[at]), row, chance, name, ratio))
    pairs.sort(key=lambda pair: (pair.p, pair.likeness, pair.i))
    within = max(float(np.mean(able[name].left_out <= level)) for name in names)
    info["within"] = within
    return Near(True, "", tuple(pairs), within * len(asked), info=info)


def _checked(small: Array, large: Array, kind: str) -> tuple[Array, Array, str]:
    """Arrays of equal row shape; images too small to have a spectrum are vectors."""
    small, large = np.asarray(small), np.asarray(large)
    if small.dtype.kind not in "biufc" or large.dtype.kind not in "biufc":
        raise TypeError(f"expected numbers, got rows of {small.dtype} and {large.dtype}")
    if small.shape[1:] != large.shape[1:]:
        raise ValueError(f"expected rows of one shape, got {small.shape[1:]} and {large.shape[1:]}")
    if "c" in (small.dtype.kind, large.dtype.kind):
        small, large = (np.stack([each.real, each.imag], -1) for each in (small, large))
        kind = "vector"
    if kind == "image" and (small.ndim not in (3, 4) or (min(small.shape[1:3]) < 4 and min(small.shape[2:]) < 4)):
        kind = "vector"
    if kind == "series" and (small.ndim not in (2, 3) or small.shape[1] < 8):
        kind = "vector"
    return small, large, kind


def _distinct(large: Array, seed: int) -> Array:
    """The first row of each group of equal rows, by a random linear key in float64; rows with NaN keep their own.

    Only rows dropped by mistake would matter, and would cost a possible pair, never a false alarm.
    """
    flat = large.reshape(len(large), int(np.prod(large.shape[1:], dtype=np.int64)))
    weights = np.random.default_rng(seed).normal(size=flat.shape[1])
    keys = np.empty(len(flat))
    step = max(1, (8 << 20) // (8 * max(1, flat.shape[1])))
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(flat), step):
            block = flat[start : start + step].astype(np.float64)
            keys[start : start + step] = np.einsum("ij,j->i", block, weights)
    _, first = np.unique(keys, return_index=True, equal_nan=False)
    return np.sort(first)
