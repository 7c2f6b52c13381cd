"""Which of the held fingerprints is this one?"""

from __future__ import annotations

from typing import Any

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.duplicates.exact.keys import Filter, inside


def numbered(prints: Array) -> tuple[Array, Array]:
    """The distinct fingerprints in order, and for each given one its number among them."""
    order = np.lexsort((prints[:, 1], prints[:, 0]))
    ordered = prints[order]
    new = np.ones(len(ordered), bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    numbers = np.empty(len(ordered), np.int64)
    numbers[order] = np.cumsum(new) - 1
    return np.ascontiguousarray(ordered[new]), numbers


class FingerprintTable:
    """The distinct fingerprints of the held splits, for look-up in bulk."""

    def __init__(self, prints: Array) -> None:
        #: `numbers`: for each fingerprint that was given
        self.prints, self.numbers = numbered(prints)
        self._first = np.ascontiguousarray(self.prints[:, 0])
        self._filter = Filter(self._first)

    def __reduce__(self) -> tuple[Any, ...]:
        return FingerprintTable, (self.prints,)

    def find(self, prints: Array) -> Array:
        """The number of each fingerprint, -1 for one that is not there."""
        found = np.full(len(prints), -1, np.int64)
        firsts = np.ascontiguousarray(prints[:, 0])
        likely = self._filter.passing(firsts)
        likely = likely[inside(firsts[likely], self._first)]
        spots = np.searchsorted(self._first, firsts[likely])
        last = len(self._first) - 1
        while len(likely):
            same = self.prints[spots, 1] == prints[likely, 1]
            found[likely[same]] = spots[same]
            # two fingerprints with one first word: one in 2 ** 64
            more = ~same & (self._first[np.minimum(spots + 1, last)] == firsts[likely]) & (spots < last)
            likely, spots = likely[more], spots[more] + 1
        return found
