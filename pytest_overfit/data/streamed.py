"""Exact copies in anything that can be read: fingerprints of the smaller splits are held, the largest streams past.

A match of fingerprints is a candidate. Candidates are read again and compared for real, where that is possible.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_overfit.data.comparing import Comparison
from pytest_overfit.data.exact import _Filter, _inside
from pytest_overfit.data.fingerprints import Encoder
from pytest_overfit.data.splits import Chunk, Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

#: fingerprints of the streamed split that are held to see how often it repeats itself; beyond, a part of all values
_HELD = 1 << 21
#: samples by which a stream that starts again is recognised
_CYCLE = 64
#: bytes of samples held at once while candidates are compared
_ROOM = 1 << 28


@dataclasses.dataclass(frozen=True)
class Coding:
    """How fingerprints are made: the same in every process."""

    comparisons: Mapping[str, Comparison]
    text: str

    def encoder(self, split: str) -> Encoder:
        return Encoder(split, self.comparisons, self.text)


class Table:
    """The distinct fingerprints of the held splits, for look-up in bulk."""

    def __init__(self, prints: Array) -> None:
        import numpy as np

        order = np.lexsort((prints[:, 1], prints[:, 0]))
        ordered = prints[order]
        new = np.ones(len(ordered), bool)
        new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
        self.prints = np.ascontiguousarray(ordered[new])
        self._first = np.ascontiguousarray(self.prints[:, 0])
        self._filter = _Filter(self._first)

    def find(self, prints: Array) -> Array:
        """The number of each fingerprint, -1 for one that is not there."""
        import numpy as np

        found = np.full(len(prints), -1, np.int64)
        firsts = np.ascontiguousarray(prints[:, 0])
        likely = self._filter.passing(firsts)
        likely = likely[_inside(firsts[likely], self._first)]
        for place in likely:  # few: copies, or one in 2 ** 64
            spot = int(np.searchsorted(self._first, firsts[place]))
            while spot < len(self._first) and self._first[spot] == firsts[place]:
                if self.prints[spot, 1] == prints[place, 1]:
                    found[place] = spot
                    break
                spot += 1
        return found

    def numbers(self, prints: Array) -> Array:
        """The number of each fingerprint, all of which are there."""
        import numpy as np

        spots = np.searchsorted(self._first, prints[:, 0])
        wrong = np.flatnonzero((self.prints[spots] != prints).any(axis=1))
        for place in wrong:
            while not (self.prints[spots[place]] == prints[place]).all():
                spots[place] += 1
        return np.asarray(spots, np.int64)


@dataclasses.dataclass
class Read:
    """What one pass over a split, or over a part of it, gave."""

    count: int = 0
    #: fingerprints: all of a held split, of the streamed one only those that share their low bits
    prints: Any = None
    mask: int = 0
    #: rows whose fingerprint the table has
    rows: Any = None
    ids: Any = None
    #: labels by row: of all rows of a held split, of the streamed one only where `rows` says
    labels: Any = None
    groups: list[Any] | None = None
    times: list[Any] | None = None
    #: which of the watched fingerprints were seen
    seen: Any = None
    errors: dict[int, str] = dataclasses.field(default_factory=dict)
    cut: bool = False
    #: the stream starts again after so many samples
    cycle: int = 0
    widths: set[tuple[int, ...]] = dataclasses.field(default_factory=set)


def read(
    split: Split,
    coding: Coding,
    table: Table | None,
    watched: Array | None = None,
    start: int = 0,
    stop: int | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> Read:
    """One pass. Without a table everything is held; with one, what it has."""
    import numpy as np

    encoder, found = coding.encoder(split.name), Read()
    prints, rows, ids, labels = [], [], [], []
    groups: list[Any] = []
    times: list[Any] = []
    found.seen = None if watched is None else np.zeros(len(watched), bool)
    cycle = _Cycle() if split.length is None else None
    held, places = 0, []
    for chunk in split.chunks(start, stop):
        marks = encoder.chunk(chunk.leaves)
        again = cycle.found(marks) if cycle is not None else None
        if again is not None:
            chunk, marks, found.cycle = _head(chunk, again), marks[:again], found.count + again
        if watched is not None and len(marks):
            found.seen |= _inside(watched[:, 0], np.sort(marks[:, 0]))
        _note_width(found, split, chunk)
        if table is None:
            prints.append(marks)
            places.append(chunk.index)
            labels += list(chunk.labels) if chunk.labels is not None else [None] * len(marks)
        else:
            numbers = table.find(marks)
            hits = np.flatnonzero(numbers >= 0)
            rows.append(chunk.index[hits])
            ids.append(numbers[hits])
            labels += [None if chunk.labels is None else chunk.labels[hit] for hit in hits.tolist()]
            prints.append(marks[(marks[:, 1] & np.uint64(found.mask)) == 0])
            held += len(prints[-1])
            if held > _HELD:
                found.mask = 2 * found.mask + 1
                whole = np.concatenate(prints)
                prints = [whole[(whole[:, 1] & np.uint64(found.mask)) == 0]]
                held = len(prints[0])
        groups += [chunk.groups] if chunk.groups is not None else []
        times += [chunk.times] if chunk.times is not None else []
        found.count += len(marks)
        progress(found.count)
        if again is not None:
            break
    none = np.empty(0, np.int64)
    found.prints = np.concatenate(prints) if prints else np.empty((0, 2), np.uint64)
    found.rows = np.concatenate(rows) if rows else np.concatenate(places) if places else none
    found.ids = np.concatenate(ids) if ids else none
    found.labels = labels
    found.groups = [each for part in groups for each in part] if groups else None
    found.times = [each for part in times for each in part] if times else None
    found.errors, found.cut = dict(split.errors), split.cut
    return found


def _more(have: list[Any] | None, new: Any) -> list[Any] | None:
    return have if new is None else [*(have or []), *new]


def _head(chunk: Chunk, count: int) -> Chunk:
    """The first samples of a chunk."""
    return Chunk(
        chunk.index[:count],
        {name: column[:count] for name, column in chunk.leaves.items()},
        *(None if each is None else each[:count] for each in (chunk.labels, chunk.groups, chunk.times)),
    )


def _note_width(found: Read, split: Split, chunk: Chunk) -> None:
    """Batches of different widths are padded, each to its own longest sample."""
    if split.batched:
        found.widths.update(tuple(each.shape[1:]) for each in chunk.leaves.values() if hasattr(each, "shape"))


class _Cycle:
    """Recognises a stream without a length that starts again, sample by sample, from its first one."""

    def __init__(self) -> None:
        self._start: list[tuple[int, int]] = []
        self._recent: list[tuple[int, int]] = []
        self._count = 0

    def found(self, marks: Array) -> int | None:
        """How many samples of this chunk still belong to the first round; None: no second round has been seen."""
        import numpy as np

        before = len(self._recent)
        if len(self._start) < _CYCLE:
            self._start += [tuple(each) for each in marks[: _CYCLE - len(self._start)].tolist()]
        firsts = np.concatenate([np.array(self._recent, np.uint64).reshape(-1, 2), marks])
        first_place = self._count - before
        self._count += len(marks)
        if len(set(self._start)) >= _CYCLE // 2 and len(self._start) == _CYCLE:
            starts = np.flatnonzero((firsts == np.array(self._start[0], np.uint64)).all(axis=1))
            pattern = np.array(self._start, np.uint64)
            for start in starts:
                whole = first_place + start > 0 and start + _CYCLE <= len(firsts)
                if whole and (firsts[start : start + _CYCLE] == pattern).all():
                    return max(0, int(start) - before)
        self._recent = [tuple(each) for each in firsts[-(_CYCLE - 1) :].tolist()]
        return None


def merged(parts: Sequence[Read]) -> Read:
    """Parts of one split, read apart, as one pass."""
    import numpy as np

    whole = Read(mask=max(part.mask for part in parts))
    prints, rows, labels = [], [], []
    for part in parts:
        rows.append(part.rows)
        labels += part.labels
        prints.append(part.prints[(part.prints[:, 1] & np.uint64(whole.mask)) == 0])
        whole.count += part.count
        whole.errors.update(part.errors)
        whole.groups, whole.times = _more(whole.groups, part.groups), _more(whole.times, part.times)
        whole.widths |= part.widths
        if part.seen is not None:
            whole.seen = part.seen if whole.seen is None else whole.seen | part.seen
    whole.prints, whole.rows = np.concatenate(prints), np.concatenate(rows)
    whole.ids, whole.labels = np.concatenate([part.ids for part in parts]), labels
    return whole


class Verifier:
    """Compares the samples behind equal fingerprints, and numbers them anew: equal numbers are equal samples."""

    def __init__(self, splits: Mapping[str, Split], coding: Coding, table: Table) -> None:
        self.splits, self.coding, self.table = splits, coding, table
        #: id -> samples that are different in spite of it: split, sample, new number
        self._known: dict[int, list[tuple[str, dict[str, Any], int]]] = {}
        self._next = len(table.prints)
        self.unverified = 0

    def __call__(self, members: dict[str, tuple[Array, Array]]) -> None:
        """Change the ids of `members` (by split: rows, ids) where samples are not equal."""
        import numpy as np

        every = np.unique(np.concatenate([ids for _, ids in members.values()]))
        step = self._step(members)
        for start in range(0, len(every), step):
            block = every[start : start + step]
            self._known.clear()
            for name, (rows, ids) in members.items():
                mine = np.flatnonzero(_inside(ids, block))
                self._compare(name, rows, ids, mine)

    def _step(self, members: Mapping[str, tuple[Array, Array]]) -> int:
        """How many different samples may be held at once."""
        for name, (rows, _) in members.items():
            chunk = self.splits[name].sample(int(rows[0])) if len(rows) else None
            if chunk is not None and len(chunk):
                size = sum(getattr(each, "nbytes", 1_000) for each in chunk.sample(0).values())
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
            place = place_of.get(row)
            if place is not None:
                ids[place] = self._number(int(ids[place]), name, sample, encoder)

    def _samples(self, split: Split, rows: list[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        if split.memory is not None:
            yield from ((row, split.memory.sample(row)) for row in rows)
        elif split.fetch is not None:
            for row in rows:
                chunk = split.sample(row)
                if chunk is not None and len(chunk):
                    yield row, chunk.sample(0)
        else:
            wanted = set(rows)
            for chunk in split.chunks():
                yield from ((int(row), chunk.sample(n)) for n, row in enumerate(chunk.index) if int(row) in wanted)

    def _number(self, number: int, name: str, sample: dict[str, Any], encoder: Encoder) -> int:
        known = self._known.setdefault(number, [])
        for split, other, given in known:
            if encoder.same(sample, other, split):
                return given
        given = number if not known else self._next
        self._next += bool(known)
        known.append((name, sample, given))
        return given
