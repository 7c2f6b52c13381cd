"""Exact copies among rows in memory: keys of a few columns, a filter, and the real comparison of what passes it.

No false positive, because every candidate is compared; no false negative, because equal rows have equal keys.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from pytest_overfit.data.columns import CHUNK, Rows, row_hashes, same_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

#: places of the filter for each key of the smaller side: one in twelve rows passes by chance, then one in 144
_ROOM = 12


@dataclasses.dataclass(frozen=True)
class Overlap:
    """Rows of two splits that have an equal in the other; equal rows carry the same number in `ids`."""

    rows_a: Array
    ids_a: Array
    rows_b: Array
    ids_b: Array


@dataclasses.dataclass(frozen=True)
class Repeats:
    """Rows of one split that have an equal in the same split; equal rows carry the same number in `ids`."""

    rows: Array
    ids: Array


def overlap(a: Rows, keys_a: Array, b: Rows, keys_b: Array) -> Overlap:
    """Rows of `a` that occur in `b`, and the other way round."""
    if len(a) > len(b):
        turned = overlap(b, keys_b, a, keys_a)
        return Overlap(turned.rows_b, turned.ids_b, turned.rows_a, turned.ids_a)
    rows_a, rows_b = candidates(keys_a, keys_b)
    if not len(rows_a):
        return Overlap(rows_a, rows_a, rows_b, rows_b)
    ids = _classes((a, b), (rows_a, rows_b))
    return _shared(rows_a, ids[: len(rows_a)], rows_b, ids[len(rows_a) :])


def candidates(small: Array, large: Array) -> tuple[Array, Array]:
    """Rows of both sides whose key occurs on the other side, in order."""
    import numpy as np

    ordered = _distinct(small)
    filters = _Filter(ordered)
    passed = [start + filters.passing(large[start : start + CHUNK]) for start in range(0, len(large), CHUNK)]
    rows = np.concatenate(passed) if passed else np.empty(0, np.int64)
    keys = large[rows]
    rows = rows[_inside(keys, ordered)]
    shared = _distinct(large[rows])
    return np.flatnonzero(_inside(small, shared)), rows


def _distinct(keys: Array) -> Array:
    """The different keys in order; `numpy.unique` takes ten times as long for whole numbers in some versions."""
    import numpy as np

    ordered = np.sort(keys)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered


def _inside(keys: Array, ordered: Array) -> Array:
    """Which of the keys are among the ordered ones?"""
    import numpy as np

    if not len(ordered):
        return np.zeros(len(keys), bool)
    places = np.searchsorted(ordered, keys)
    places[places == len(ordered)] = 0
    return np.asarray(ordered[places] == keys)


class _Filter:
    """Two bitmaps over different bits of the keys: what misses one is no candidate."""

    def __init__(self, keys: Array) -> None:
        import numpy as np

        bits = max(10, int(_ROOM * max(1, len(keys)) - 1).bit_length())
        self._first, self._second = np.uint64(64 - bits), np.uint64(64 - bits - (64 - bits) // 2)
        self._mask = np.uint64((1 << bits) - 1)
        self._one, self._two = np.zeros(1 << bits, bool), np.zeros(1 << bits, bool)
        self._one[keys >> self._first] = True
        self._two[self._other(keys)] = True

    def _other(self, keys: Array) -> Array:
        import numpy as np

        return np.asarray((keys >> np.uint64(3)) & self._mask)

    def passing(self, keys: Array) -> Array:
        import numpy as np

        first = np.flatnonzero(self._one[keys >> self._first])
        return first[self._two[self._other(keys[first])]]


def repeats(rows: Rows, keys: Array) -> Repeats:
    """Rows that have an equal in the same split."""
    import numpy as np

    ordered = np.sort(keys)
    twice = _distinct(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(twice):
        nothing = np.empty(0, np.int64)
        return Repeats(nothing, nothing)
    filters = _Filter(twice)
    passed = np.concatenate(
        [start + filters.passing(keys[start : start + CHUNK]) for start in range(0, len(keys), CHUNK)]
    )
    found = passed[_inside(keys[passed], twice)]
    return _several(found, _classes((rows,), (found,)))


def _several(rows: Array, ids: Array) -> Repeats:
    """Only those whose number occurs twice or more."""
    import numpy as np

    ordered = np.sort(ids)
    kept = _inside(ids, _distinct(ordered[1:][ordered[1:] == ordered[:-1]]))
    return Repeats(rows[kept], ids[kept])


def _shared(rows_a: Array, ids_a: Array, rows_b: Array, ids_b: Array) -> Overlap:
    """Only those whose number occurs on both sides."""
    in_a, in_b = _inside(ids_a, _distinct(ids_b)), _inside(ids_b, _distinct(ids_a))
    return Overlap(rows_a[in_a], ids_a[in_a], rows_b[in_b], ids_b[in_b])


def _classes(sides: tuple[Rows, ...], rows: tuple[Array, ...]) -> Array:
    """A number for each row, the same for two rows if and only if they are equal.

    Rows are brought together by a hash over all their numbers, then each is compared with the first of its group.
    What differs from it (two rows under one hash) is compared among itself in the next round.
    """
    import numpy as np

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
        for one in range(len(sides)):
            for other in range(len(sides)):
                pair = np.flatnonzero(~same & (side_of[first] == one) & (side_of[left] == other))
                if len(pair):
                    same[pair] = same_rows(sides[one], row_of[first[pair]], sides[other], row_of[left[pair]])
        ids[left[same]] = first[same]
        left = left[~same]
    return ids
