"""One pass over anything that can be read: fingerprints of the smaller splits are held, the largest streams past."""

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


def _no_words(width: int) -> Callable[[], Array]:
    return lambda: np.empty((0, width), np.uint64)


def _no_rows() -> Array:
    return np.empty(0, np.int64)


@dataclasses.dataclass
class Read:
    """What one pass over a split, or over a part of it, gave."""

    count: int = 0
    #: fingerprints of a held split
    prints: Array = dataclasses.field(default_factory=_no_words(2))
    #: of the streamed split lines of a fingerprint (two words), its row and its label's word: all of them, or those
    #: whose low bits are zero
    held: Array = dataclasses.field(default_factory=_no_words(4))
    mask: int = 0
    #: rows of a held split, of the streamed one those whose fingerprint the table has, by its number
    rows: Array = dataclasses.field(default_factory=_no_rows)
    ids: Array = dataclasses.field(default_factory=_no_rows)
    #: labels of `rows`; `labelled`: any row has one
    labelled: bool = False
    labels: list[Any] = dataclasses.field(default_factory=list)
    #: of all rows
    groups: Any = None
    times: Any = None
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


class Gathered:
    """One pass put together: from chunks as they are read, or from parts that were read apart."""

    def __init__(self, watched: Array | None = None) -> None:
        self.whole, self._held = Read(seen=None if watched is None else np.zeros(len(watched), bool)), Thinned()
        self._parts: dict[str, list[Array]] = {name: [getattr(self.whole, name)] for name in ("prints", "rows", "ids")}

    def add(self, part: Read) -> None:
        whole = self.whole
        for name, parts in self._parts.items():
            parts.append(getattr(part, name))
        self._held.add(part.held, part.mask)
        whole.count += part.count
        whole.labels += part.labels
        whole.labelled |= part.labelled
        whole.groups, whole.times = _more(whole.groups, part.groups), _more(whole.times, part.times)
        whole.seen = part.seen if whole.seen is None else whole.seen if part.seen is None else whole.seen | part.seen
        whole.errors.update(part.errors)
        whole.widths |= part.widths
        whole.strayed = part.strayed if whole.strayed is None else whole.strayed

    def done(self) -> Read:
        for name, parts in self._parts.items():
            setattr(self.whole, name, np.concatenate(parts))
        self.whole.held, self.whole.mask = self._held.whole(), self._held.mask
        return self.whole


def _more(have: list[Any] | None, new: Any) -> list[Any] | None:
    """Values of more rows."""
    if have is None:
        return None if new is None else list(new)
    have += [] if new is None else new
    return have


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
    encoder, gathered = coding.encoder(split.name), Gathered(watched)
    once = FirstRound() if split.length is None else None
    coded = ((chunk, encoder.chunk(chunk.leaves)) for chunk in split.chunks(start, stop))
    for chunk, marks in coded if once is None else once(coded):
        part = _of_chunk(chunk, marks, table, watched)
        if split.batched:  # batches of different widths are padded, each to its own longest sample
            part.widths = {tuple(leaf.shape[1:]) for leaf in chunk.leaves.values() if hasattr(leaf, "shape")}
        gathered.add(part)
        progress(gathered.whole.count)
    found = gathered.done()
    found.errors, found.cut, found.cycle = dict(split.errors), split.cut, once.length if once is not None else 0
    return found


def _of_chunk(chunk: SampleChunk, marks: Array, table: FingerprintTable | None, watched: Array | None) -> Read:
    labels = [None] * len(marks) if chunk.labels is None else chunk.labels
    found = Read(len(marks), labelled=chunk.labels is not None, groups=chunk.groups, times=chunk.times)
    if watched is not None and len(marks):
        found.seen = inside(watched[:, 0], np.sort(marks[:, 0]))
    if table is None:
        found.prints, found.rows, found.labels = marks, chunk.index, list(labels)
        return found
    numbers = table.find(marks)
    hits = np.flatnonzero(numbers >= 0)
    found.rows, found.ids, found.labels = chunk.index[hits], numbers[hits], [labels[hit] for hit in hits.tolist()]
    words = label_words(chunk.labels, len(marks))
    found.held = np.column_stack([marks, chunk.index.astype(np.uint64), words])
    return found
