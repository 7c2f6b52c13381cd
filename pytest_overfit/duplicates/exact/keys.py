"""Keys of rows, many at once: which are equal, and which rows have one of them.

Keys are 32 bits wide: sorted, they take half the time and half the memory of 64 bits, and the rows that share one by
chance (among five million about 3,000 pairs) are separated by comparing them.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from pytest_overfit.core.arrays import Array

#: keys looked up at once: they stay in a core's own cache
CHUNK = 32_768
#: places of a bitmap for each key in it: one in eight others passes by chance, after two bitmaps one in 64
_ROOM = 8
#: more places are taken as long as a bitmap stays in a core's own cache: a look-up takes a third of the time there
_AMPLE, _CACHED_BITS, _LEAST_BITS = 32, 20, 16


@dataclasses.dataclass(frozen=True)
class Keys:
    """A key for each row of a split; equal rows have equal keys."""

    each: Array

    @functools.cached_property
    def ordered(self) -> Array:
        """The keys in order; sorted once, for all splits that this one is compared with and for itself."""
        return np.sort(self.each)

    def rows_with(self, asked: Array) -> Array:
        """Rows whose key is among `asked`, which are different and in order."""
        if not len(asked):
            return np.empty(0, np.int64)
        passing = Filter(asked).passing
        starts = range(0, len(self.each), CHUNK)
        rows = np.concatenate([start + passing(self.each[start : start + CHUNK]) for start in starts])
        return rows[inside(self.each[rows], asked)]


class Filter:
    """Two bitmaps over different bits of the keys: what misses one is none of them."""

    def __init__(self, keys: Array) -> None:
        width, count = 8 * keys.dtype.itemsize, max(1, len(keys))
        bits = max((_ROOM * count).bit_length(), min((_AMPLE * count).bit_length(), _CACHED_BITS), _LEAST_BITS)
        bits = min(bits, width)
        number = keys.dtype.type
        self._first, self._second, self._mask = number(width - bits), number(3), number((1 << bits) - 1)
        self._one, self._two = np.zeros(1 << bits, bool), np.zeros(1 << bits, bool)
        self._one[keys >> self._first] = True
        self._two[self._other(keys)] = True

    def _other(self, keys: Array) -> Array:
        other: Array = (keys >> self._second) & self._mask
        return other

    def passing(self, keys: Array) -> Array:
        """Places of the keys that may be among those given."""
        # `take`: an index of unsigned numbers is copied to a signed one first, in three to six times as long
        first = np.flatnonzero(self._one.take(keys >> self._first))
        return first[self._two.take(self._other(keys[first]))]


def inside(keys: Array, ordered: Array) -> Array:
    """Which of the keys are among the ordered ones?"""
    if not len(ordered):
        return np.zeros(len(keys), bool)
    places = np.searchsorted(ordered, keys)
    places[places == len(ordered)] = 0
    return np.asarray(ordered[places] == keys)


def distinct(keys: Array) -> Array:
    """The different keys in order; `numpy.unique` takes ten times as long for whole numbers in some versions."""
    return once(np.sort(keys))


def once(ordered: Array) -> Array:
    """The different ones among ordered keys."""
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered


def twice(ordered: Array) -> Array:
    """The different ones among ordered keys that occur twice or more."""
    return once(ordered[1:][ordered[1:] == ordered[:-1]])
