"""One pass over anything that can be read: fingerprints of the smaller splits are held, the largest streams past.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.duplicates.exact.fingerprint_table import FingerprintTable
from pytest_overfit.duplicates.exact.keys import inside
from pytest_overfit.duplicates.reading.endless import FirstRound
from pytest_overfit.duplicates.reading.split import SampleChunk, Samples
from pytest_overfit.duplicates.values.fingerprints import Coding, label_words

#: fingerprints of the streamed split that are held to see how often it repeats itself; beyond, a part of all values
_HELD = 1 << 21


@dataclasses.dataclass
class Read:
    """What one pass over a split, or over a part of it, gave."""

    count: int = 0
    #: fingerprints of a held split
    prints: Any = None
    #: of the streamed split lines of a fingerprint (two words), its row and its label's word: all of them, or those
    #: whose low bits are zero
    held: Any = None
    mask: int = 0
    #: rows of a held split, of the streamed one those whose fingerprint the table has, by its number
    rows: Any = None
    ids: Any = None
    #: labels of `rows`; `labelled`: any row has one
    labelled: bool = False
    labels: list[Any] = dataclasses.field(default_factory=list)
    #: of all rows
    groups: list[Any] | None = None
    times: list[Any] | None = None
    #: which of the watched fingerprints were seen
    seen: Any = None
    errors: dict[int, str] = dataclasses.field(default_factory=dict)
    cut: bool = False
    #: the stream starts again after so many samples
    cycle: int = 0
    widths: set[tuple[int, ...]] = dataclasses.field(default_factory=set)
    #: a sample that was another one when it was read in another process
    strayed: int | None = None


class Thinned:
    """Lines that begin with a fingerprint, all of them until they are too many; then those whose low bits are zero.

    By value, not by row: of equal samples all are held or none.
    """

    def __init__(self) -> None:
        self.mask = 0
        self._parts: list[Array] = []
        self._held = 0

    def add(self, held: Array, mask: int = 0) -> None:
        """`mask`: by which these were thinned already."""
        if mask > self.mask:
            self.mask = mask
            self._again()
        self._parts.append(self._left(held))
        self._held += len(self._parts[-1])
        while self._held > _HELD and self.mask < 2**63:
            self.mask = 2 * self.mask + 1
            self._again()

    def _again(self) -> None:
        self._parts = [self._left(self.whole())]
        self._held = len(self._parts[0])

    def _left(self, held: Array) -> Array:
        return held[(held[:, 1] & np.uint64(self.mask)) == 0] if self.mask else held

    def whole(self) -> Array:
        return np.concatenate(self._parts) if self._parts else np.empty((0, 4), np.uint64)


def read(
    split: Samples,
    coding: Coding,
    table: FingerprintTable | None,
    watched: Array | None = None,
    start: int = 0,
    stop: int | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> Read:
    """One pass. Without a table everything is held; with one, what it has."""
    encoder, reading = coding.encoder(split.name), _Reading(table, watched)
    found, once = reading.found, FirstRound() if split.length is None else None
    coded = ((chunk, encoder.chunk(chunk.leaves)) for chunk in split.chunks(start, stop))
    for chunk, marks in coded if once is None else once(coded):
        reading.add(chunk, marks)
        if split.batched:  # batches of different widths are padded, each to its own longest sample
            found.widths.update(tuple(each.shape[1:]) for each in chunk.leaves.values() if hasattr(each, "shape"))
        progress(found.count)
    reading.done()
    found.errors, found.cut, found.cycle = dict(split.errors), split.cut, once.length if once is not None else 0
    return found


class _Reading:
    """Gathers what one pass gives, chunk by chunk."""

    def __init__(self, table: FingerprintTable | None, watched: Array | None) -> None:
        self.found, self._table, self._watched = Read(), table, watched
        self.found.seen = None if watched is None else np.zeros(len(watched), bool)
        self._held = Thinned()
        self._all: list[Array] = [np.empty((0, 2), np.uint64)]
        self._rows: list[Array] = [np.empty(0, np.int64)]
        self._ids: list[Array] = [np.empty(0, np.int64)]

    def add(self, chunk: SampleChunk, marks: Array) -> None:
        found = self.found
        if self._watched is not None and len(marks):
            found.seen |= inside(self._watched[:, 0], np.sort(marks[:, 0]))
        if self._table is None:
            self._all.append(marks)
            self._rows.append(chunk.index)
            found.labels += [None] * len(marks) if chunk.labels is None else list(chunk.labels)
        else:
            numbers = self._table.find(marks)
            hits = np.flatnonzero(numbers >= 0)
            self._rows.append(chunk.index[hits])
            self._ids.append(numbers[hits])
            found.labels += [None if chunk.labels is None else chunk.labels[hit] for hit in hits.tolist()]
            words = label_words(chunk.labels, len(marks))
            self._held.add(np.column_stack([marks, chunk.index.astype(np.uint64), words]))
        found.labelled |= chunk.labels is not None
        found.groups, found.times = more(found.groups, chunk.groups), more(found.times, chunk.times)
        found.count += len(marks)

    def done(self) -> None:
        found = self.found
        found.prints = np.concatenate(self._all)
        found.held, found.mask = self._held.whole(), self._held.mask
        found.rows, found.ids = np.concatenate(self._rows), np.concatenate(self._ids)


def more(have: list[Any] | None, new: Any) -> list[Any] | None:
    """Values of more rows."""
    if new is None:
        return have
    if have is None:
        return list(new)
    have += new
    return have
