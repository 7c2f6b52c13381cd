"""Where the edges of large rows stand inside small ones: values, or runs of values, looked up by their hashes.

An edge is the first and the last value of a row that is not the one most values are, or, where values repeat so much
that one says little, the first and the last run in which something changes. Every overlap that tells anything holds one
of these edges: a value other than the common one is in it, and one of two overlapping rows begins inside the other.

Cost: a hash for each value of the small split, and of each large row as far as its first value that is not common. With
one value the hash needs no sums: of a table of floats that is not a series half of the time of runs.
"""

from __future__ import annotations

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.duplicates.exact.keys import Filter, inside, once
from pytest_overfit.duplicates.values.canonical import canonical

#: the shortest run that counts, and the longest that is hashed
RUN, LONGEST = 8, 16
#: numbers hashed at once; rows looked at for one that shares an edge
BLOCK, TRIES = 1 << 17, 3
#: edges that a small row may hold by chance so that one value is enough for an edge
BY_CHANCE = 8
_ODD64, _ODD, _BASE = 0x9E3779B97F4A7C15, 0x9E3779B1, 0x85EBCA77


class Edges:
    """The first and the last value, or run, of each row that tells something, by their hashes."""

    def __init__(self, rows: Array, least: int) -> None:
        self.least = least
        common, chance = _common(rows)
        single = 2 * len(rows) * rows.shape[1] * chance < BY_CHANCE
        self.run = 1 if single else min(least, LONGEST)
        self.keys, self.row, self.at = _single_edges(rows, common) if single else _edge_runs(rows, self.run)
        self.filter = Filter(once(self.keys))

    def inside(self, rows: Array) -> tuple[Array, Array, Array]:
        """Where these rows have such an edge: the row, how far it is moved, and the row that begins or ends there."""
        marks = _marks(rows, self.run)
        keys, places = marks.ravel(), marks.shape[1]
        hits = self.filter.passing(keys)
        hits = hits[inside(keys[hits], self.keys)]
        first, last = (np.searchsorted(self.keys, keys[hits], side) for side in ("left", "right"))
        row, at = np.divmod(hits, places)
        found = []
        for turn in range(TRIES):  # equal keys of several rows: a few of them, spread
            here = np.flatnonzero(last - first > turn)
            edge = first[here] + (turn * 7919 + here) % (last[here] - first[here])
            found.append((row[here], self.at[edge] - at[here], self.row[edge]))
        row, offset, theirs = (np.concatenate(each) for each in zip(*found, strict=True))
        moved = (offset != 0) & (np.abs(offset) <= rows.shape[1] - self.least)
        return row[moved], offset[moved], theirs[moved]


def _common(rows: Array) -> tuple[int, float]:
    """The value that most places of some rows hold, by its hash; the chance that two others of a row are equal."""
    few = max(100, min(500, BLOCK // max(1, rows[:1].size)))
    some = np.sort(_words(rows[:: max(1, -(-len(rows) // few))]), axis=1)
    values, counts = np.unique(some, return_counts=True)
    common = int(values[counts.argmax()])
    equal = np.count_nonzero((some[:, 1:] == some[:, :-1]) & (some[:, 1:] != common))
    return common, (equal + 1) / (len(some) * some.shape[1] * (some.shape[1] - 1) / 2)


def _single_edges(rows: Array, common: int) -> tuple[Array, Array, Array]:
    """The first and the last value of each row that is not the common one: keys in order, rows, places."""
    found = []
    for turned in (False, True):
        at, key = _first_other(rows[:, ::-1] if turned else rows, common)
        row = np.flatnonzero(at >= 0)
        found.append((key[row], row, rows.shape[1] - 1 - at[row] if turned else at[row]))
    return _ordered(*(np.concatenate(each) for each in zip(*found, strict=True)))


def _first_other(rows: Array, common: int) -> tuple[Array, Array]:
    """The first place of each row with another value than the common one, -1 where there is none, and its hash."""
    found, keys = np.full(len(rows), -1, np.int64), np.zeros(len(rows), np.uint32)
    left, width = np.arange(len(rows)), RUN
    while len(left):
        for part in parts(len(left), width * rows.shape[2]):
            hashed = _words(rows[left[part], :width])
            at = (hashed != common).argmax(1)
            key = hashed[np.arange(len(at)), at]
            found[left[part]], keys[left[part]] = np.where(key != common, at, -1), key
        left, width = left[found[left] < 0] if width < rows.shape[1] else left[:0], 4 * width
    return found, keys


def _edge_runs(rows: Array, run: int) -> tuple[Array, Array, Array]:
    """The first and the last run of each row in which something changes: keys in order, rows, places."""
    first, last = _first_change(rows), _first_change(rows[:, ::-1])
    varied = np.flatnonzero(first)
    heads = np.maximum(0, first[varied] + 1 - run)
    tails = np.minimum(rows.shape[1] - run, rows.shape[1] - 1 - last[varied])
    row, at = np.concatenate([varied, varied]), np.concatenate([heads, tails])
    marks = [
        _marks(rows[row[part, None], at[part, None] + np.arange(run)], run)[:, 0]
        for part in parts(len(row), run * rows.shape[2])
    ]
    return _ordered(np.concatenate([*marks, np.empty(0, np.uint32)]), row, at)


def _ordered(keys: Array, row: Array, at: Array) -> tuple[Array, Array, Array]:
    whole = np.sort((keys.astype(np.uint64) << 32) | np.arange(len(keys), dtype=np.uint64))  # a sixth of `argsort`
    order = (whole & 0xFFFFFFFF).astype(np.int64)
    return keys[order], row[order], at[order]


def _first_change(rows: Array) -> Array:
    """The first place of each row whose value is not that of place 0; 0 where all are the same."""
    found = np.zeros(len(rows), np.int64)
    left, width = np.arange(len(rows)), RUN
    while len(left):
        for part in parts(len(left), width * rows.shape[2]):
            some = rows[left[part], :width]
            changed = (some != some[:, :1]) & ((some == some) | (some[:, :1] == some[:, :1]))  # noqa: PLR0124 - NaN
            found[left[part]] = changed.any(2).argmax(1)
        left, width = left[found[left] == 0] if width < rows.shape[1] else left[:0], 4 * width
    return found


def parts(count: int, width: int) -> list[slice]:
    """Blocks of rows of this width."""
    step = max(1, BLOCK // width)
    return [slice(start, start + step) for start in range(0, count, step)]


def _marks(rows: Array, run: int) -> Array:
    """A hash of the run at each place of each row: a polynomial in an odd number modulo 2**32, by running sums."""
    mixed = _words(rows)
    if run == 1:
        return mixed
    count, length = mixed.shape
    mixed *= _powers(_BASE, length)
    sums = np.zeros((count, length + 1), np.uint32)
    np.cumsum(mixed, axis=1, out=sums[:, 1:])
    marks = sums[:, run:] - sums[:, :-run]
    marks *= _powers(pow(_BASE, -1, 1 << 32), length - run + 1)
    marks ^= marks >> np.uint32(16)
    return np.asarray(marks)


def _words(rows: Array) -> Array:
    """A hash of the value, or of those of all channels, at each place of each row."""
    values = canonical(rows, rows.dtype.str)
    bits = values.view(f"u{values.dtype.itemsize}")
    if bits.dtype.itemsize > 4:
        bits = (bits * np.uint64(_ODD64)) >> np.uint64(32)
    bits = bits.astype(np.uint32, copy=False)
    bits *= _powers(_ODD, rows.shape[2] + 1)[1:]
    bits ^= bits >> np.uint32(15)
    return np.asarray(bits[:, :, 0] if rows.shape[2] == 1 else bits.sum(2, dtype=np.uint32))


def _powers(base: int, count: int) -> Array:
    """Powers from the zeroth on, modulo 2**32."""
    found = np.full(count, base, np.uint32)
    found[:1] = 1
    return np.multiply.accumulate(found)
