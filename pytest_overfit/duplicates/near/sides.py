"""Rows looked up among those of the large split, and what their neighbours tell beside how far they are."""

from __future__ import annotations

import dataclasses

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.duplicates.near.neighbours import Index
from pytest_overfit.duplicates.near.overlay import CANDIDATES, evenness, laid_over
from pytest_overfit.duplicates.near.p_values import FARTHEST, LEAST_DIMENSION, LEFT_OUT, NullDistribution
from pytest_overfit.duplicates.near.views import BLOCK, View, in_blocks

#: neighbours of a row that are looked at for numbers it shares, as many as the usual scale has; and how many sharers
#: make a column common there: two or three rows that are equal in all but some columns are copies, not a kind of rows
BESIDE, SHARED = 10, 3
#: two insides that nothing is alike in, as those are counted that have too little contrast
NOT_LAID = 2**0.5 * (1 - 1e-6)
#: numbers compared at once
BLOCK_CELLS = 1 << 17


@dataclasses.dataclass(frozen=True)
class Side:
    """Rows looked up in one view: which rows, how far their neighbours are, and whose rows these are (-1: none)."""

    rows: Array
    distances: Array
    found: Array
    free: Array
    #: how evenly the difference to the nearest row is spread, where that is known
    evenness: Array | None = None


class Lookup:
    """The rows of the large split in one view, to look up those of either split."""

    def __init__(self, view: View, large: Array, kept: Array, seed: int) -> None:
        points, free = in_blocks(view, large, kept if len(kept) < len(large) else None)
        good = free >= LEAST_DIMENSION
        if not good.all():
            points, free, kept = points[good], free[good], kept[good]
        self.view, self.count, self.able = view, len(points), len(points) > 1 and points.shape[1] > 0
        self._points, self._free, self._numbers, self._seed = points, free, kept, seed
        if self.able:
            self._index = Index(points, seed=seed)

    def left_out(self) -> Side:
        """Rows of the large split among all others of it."""
        out = np.random.default_rng(self._seed + 1).permutation(self.count)[:LEFT_OUT]
        return self._side(self._numbers[out], self._points[out], self._free[out], out)

    def rows(self, small: Array) -> Side:
        """Every row of the small split that has contrast enough."""
        points, free = in_blocks(self.view, small)
        able = np.flatnonzero(free >= LEAST_DIMENSION)
        return self._side(able, points[able], free[able])

    def close_rows(self, small: Array, null: NullDistribution, level: float) -> Side:
        """Of these only the ones whose p may be below `level`: most are known from their nearest row and one cell."""
        points, free = in_blocks(self.view, small)
        able = np.flatnonzero(free >= LEAST_DIMENSION)
        reach = self._index.reach(points[able], [k for k, _ in null.dimensions])
        if reach is not None:
            able = able[null.least_p(*reach, free[able]) <= level]
        return self._side(able, points[able], free[able])

    def _side(self, rows: Array, points: Array, free: Array, own: Array | None = None) -> Side:
        distances, found = self._index.search(points, FARTHEST, own)
        return Side(rows, distances, np.where(found >= 0, self._numbers[found], -1), free)


def with_evenness(side: Side, view: View, rows: Array, large: Array) -> Side:
    parts = [
        evenness(rows[side.rows[part]], large[side.found[part, 0]], view.look)
        for part in _blocks(len(side.rows), BLOCK)
    ]
    return dataclasses.replace(side, evenness=np.concatenate([*parts, np.empty(0)]))


def without_shared(side: Side, which: Array, rows: Array, large: Array) -> Side:
    """Columns whose number a row shares with its neighbours, the very nearest aside, add no dimension to its place.

    Rows with nothing measured, say, that differ in two columns alone lie in two dimensions, however many others have.
    `which`: the places of the rows for which it matters.
    """
    free = side.free.copy()
    width = int(np.prod(large.shape[1:], dtype=np.int64))
    for part in _blocks(len(which), max(1, BLOCK_CELLS // max(1, width))):
        at = which[part]
        mine = rows[side.rows[at]].reshape(-1, width)
        holes = mine != mine  # noqa: PLR0124 - NaN: a hole is a value as any
        sharers = np.zeros(mine.shape, np.uint8)
        for neighbour in side.found[at, 1:BESIDE].T:
            theirs = large[neighbour].reshape(-1, width)
            same = mine == theirs
            if holes.any():
                same |= holes & (theirs != theirs)  # noqa: PLR0124
            same[neighbour < 0] = False
            sharers += same
        free[at] = np.minimum(free[at], np.count_nonzero(sharers < SHARED, axis=1))
    return dataclasses.replace(side, free=free)


def overlaid(side: Side, rows: Array, large: Array) -> Side:
    """The nearest rows of each, in the order of their distances when they are laid over it, where any can be."""
    found = side.found[:, :CANDIDATES]
    distances = np.full(found.shape, np.inf, np.float32)
    for part in _blocks(len(found), max(1, BLOCK // CANDIDATES)):
        distances[part] = laid_over(rows[side.rows[part]], large[found[part].ravel()])
    distances[found < 0] = np.inf
    order = np.argsort(distances, axis=1, kind="stable")
    nearer, whose = np.take_along_axis(distances, order, 1), np.take_along_axis(found, order, 1)
    laid = nearer[:, 0] < NOT_LAID
    return Side(side.rows[laid], nearer[laid], whose[laid], side.free[laid])


def _blocks(count: int, step: int) -> list[slice]:
    return [slice(start, start + step) for start in range(0, count, step)]
