"""Equal fingerprints are candidates: their samples are read again and compared for real, where that is possible."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.duplicates.exact.in_memory import Repeats
from pytest_overfit.duplicates.exact.keys import inside
from pytest_overfit.duplicates.reading.split import Samples
from pytest_overfit.duplicates.values.fingerprints import Coding, Encoder

#: bytes of samples held at once while candidates are compared
_ROOM = 1 << 28


class Verifier:
    """Compares the samples behind equal fingerprints, and numbers them again: equal numbers are equal samples."""

    def __init__(self, splits: Mapping[str, Samples], coding: Coding, numbers: int) -> None:
        self.splits, self.coding = splits, coding
        #: id -> samples that are different in spite of it: split, sample, new number
        self._known: dict[int, list[tuple[str, dict[str, Any], int]]] = {}
        self._next = numbers
        self.unverified = 0

    def __call__(self, members: dict[str, Repeats]) -> None:
        """Change the ids of `members` (by split) where samples are not equal."""
        every = np.unique(np.concatenate([each.ids for each in members.values()]))
        step = self._step(members)
        for start in range(0, len(every), step):
            block = every[start : start + step]
            self._known.clear()
            for name, each in members.items():
                self._compare(name, each.rows, each.ids, np.flatnonzero(inside(each.ids, block)))

    def _step(self, members: Mapping[str, Repeats]) -> int:
        """How many different samples may be held at once."""
        for name, group in members.items():
            sample = self.splits[name].sample(int(group.rows[0])) if len(group.rows) else None
            if sample is not None:
                size = sum(getattr(leaf, "nbytes", 1_000) for leaf in sample.values())
                return max(1, _ROOM // max(1, size))
        return 1_000

    def _compare(self, name: str, rows: Array, ids: Array, mine: Array) -> None:
        split = self.splits[name]
        encoder = self.coding.encoder(name)
        if not len(mine):
            return
        if split.memory is None and split.fetch is None and not (split.again and split.keeps_order):
            self.unverified += len(mine)
            return
        place_of = {int(rows[place]): int(place) for place in mine}
        for row, sample in self._samples(split, sorted(place_of)):
            ids[place_of[row]] = self._number(int(ids[place_of[row]]), name, sample, encoder)

    def _samples(self, split: Samples, rows: list[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        if split.memory is not None or split.fetch is not None:
            yield from ((row, sample) for row in rows if (sample := split.sample(row)) is not None)
        else:
            asked = set(rows)
            for chunk in split.chunks():
                yield from ((int(row), chunk.sample(n)) for n, row in enumerate(chunk.index) if int(row) in asked)

    def _number(self, number: int, name: str, sample: dict[str, Any], encoder: Encoder) -> int:
        known = self._known.setdefault(number, [])
        for split, other, given in known:
            if encoder.same(sample, other, split):
                return given
        given = number if not known else self._next
        self._next += bool(known)
        known.append((name, sample, given))
        return given
