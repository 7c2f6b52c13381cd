"""Exact copies among rows in memory: keys of a few columns, and the real comparison of the rows that share one.

No false positive, because every candidate is compared; no false negative, because equal rows have equal keys.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.duplicates.exact.keys import Keys, distinct, inside, once, twice
from pytest_overfit.duplicates.exact.rows import RowsInMemory, row_hashes, same_rows


@dataclasses.dataclass(frozen=True)
class Overlap:
    """Rows of two splits that have an equal in the other; equal rows carry the same number in `ids`."""

    rows_a: Array
    ids_a: Array
    rows_b: Array
    ids_b: Array


@dataclasses.dataclass(frozen=True)
class Repeats:
    """Rows of one split that may have an equal; equal rows carry the same number in `ids`."""

    rows: Array
    ids: Array

    def among(self, numbers: Array) -> Repeats:
        """Only those with one of these numbers, which are in order."""
        kept = inside(self.ids, numbers)
        return Repeats(self.rows[kept], self.ids[kept])

    def several(self) -> Repeats:
        """Only those whose number occurs twice or more."""
        return self.among(twice(np.sort(self.ids)))


def overlap(a: RowsInMemory, keys_a: Keys, b: RowsInMemory, keys_b: Keys) -> Overlap:
    """Rows of `a` that occur in `b`, and the other way round."""
    small, large = sorted((keys_a.ordered, keys_b.ordered), key=len)
    small = once(small)
    both = small[inside(small, large)]
    rows_a, rows_b = keys_a.rows_with(both), keys_b.rows_with(both)
    ids = _classes((a, b), (rows_a, rows_b))
    return shared(Repeats(rows_a, ids[: len(rows_a)]), Repeats(rows_b, ids[len(rows_a) :]))


def repeats(rows: RowsInMemory, keys: Keys) -> Repeats:
    """Rows that have an equal in the same split."""
    found = keys.rows_with(twice(keys.ordered))
    return Repeats(found, _classes((rows,), (found,))).several()


def shared(a: Repeats, b: Repeats) -> Overlap:
    """Only those whose number occurs on both sides."""
    a, b = a.among(distinct(b.ids)), b.among(distinct(a.ids))
    return Overlap(a.rows, a.ids, b.rows, b.ids)


def _classes(sides: tuple[RowsInMemory, ...], rows: tuple[Array, ...]) -> Array:
    """A number for each row, the same for two rows if and only if they are equal.

    Rows are brought together by a hash over all their numbers, then each is compared with the first of its group.
    What differs from it (two rows under one hash) is compared among itself in the next round.
    """
    hashes = np.concatenate([row_hashes(side, which) for side, which in zip(sides, rows, strict=True)])
    side_of = np.repeat(np.arange(len(sides)), [len(each) for each in rows])
    row_of = np.concatenate(rows)
    ids = np.full(len(hashes), -1, np.int64)
    left = np.argsort(hashes, kind="stable")
    while len(left):
        group = hashes[left]
        starts = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
        first = np.repeat(left[starts], np.diff(np.append(starts, len(left))))
        same = first == left
        for side in range(len(sides)):
            for other in range(len(sides)):
                pair = np.flatnonzero(~same & (side_of[first] == side) & (side_of[left] == other))
                if len(pair):
                    same[pair] = same_rows(sides[side], row_of[first[pair]], sides[other], row_of[left[pair]])
        ids[left[same]] = first[same]
        left = left[~same]
    return ids
