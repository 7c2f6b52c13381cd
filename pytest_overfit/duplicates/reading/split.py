"""What every container becomes: a split that is read in chunks, with one column for each part of the input."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.core.errors import CaseError, OverfitError, did_you_mean
from pytest_overfit.core.foreign import brief
from pytest_overfit.core.usercode import text_of
from pytest_overfit.data.rereading import spread
from pytest_overfit.duplicates.reading.fields import (
    Facts,
    extras,
    flat,
    given_values,
    halves,
    label_list,
    parted,
    row_values,
    rows_of,
    selected,
    table_parts,
    takes_samples,
)
from pytest_overfit.duplicates.reading.sources import Lines, Source

#: samples read at once, and rows sliced at once from what is in memory
SAMPLES, ROWS = 1_024, 8_192


@dataclasses.dataclass(frozen=True)
class SampleChunk:
    """Some samples of a split: `leaves` has one column for each part of the input."""

    #: an array of places; a `range` where all of a split is in memory, so that it takes none
    index: Any
    leaves: Mapping[str, Any]
    labels: Sequence[Any] | None = None
    groups: Sequence[Any] | None = None
    times: Sequence[Any] | None = None

    def __len__(self) -> int:
        return len(self.index)

    def part(self, rows: slice) -> SampleChunk:
        """Some of the samples, without a copy where columns are arrays."""
        index = self.index[rows]
        return SampleChunk(
            np.arange(index.start, index.stop, index.step) if isinstance(index, range) else index,
            {name: column[rows] for name, column in self.leaves.items()},
            *(None if each is None else each[rows] for each in (self.labels, self.groups, self.times)),
        )

    def sample(self, place: int) -> dict[str, Any]:
        """The input of one sample."""
        return {name: column[place] for name, column in self.leaves.items()}


@dataclasses.dataclass
class Samples:
    """One split, read in chunks.

    `memory` is everything at once, where it is in memory; else `fetch(places)` gives samples by place, or `open()`
    gives an iterator of samples or of batches.
    """

    name: str
    #: what it was read as, for people
    how: str
    facts: Facts
    length: int | None = None
    memory: SampleChunk | None = None
    #: a dict of equal columns, by name: tables, where columns are found by name
    is_table: bool = False
    fetch: Source | None = None
    open: Callable[[], Iterable[Any]] | None = None
    #: the samples come in batches, rows first
    batched: bool = False
    #: may be opened more than once
    again: bool = True
    #: gives the same samples in the same order each time
    keeps_order: bool = True
    #: at most so many samples are read of what has no length
    most: int = 0
    #: the same dataset with its transforms taken off
    bare: Callable[[], Samples | None] | None = None
    notes: list[str] = dataclasses.field(default_factory=list)
    #: samples that could not be read: place and reason
    errors: dict[int, str] = dataclasses.field(default_factory=dict)
    #: what the first of them raised
    raised: Exception | None = None
    #: more was there than was read
    cut: bool = False

    def read_through(self, wrap: Callable[[Source, bool], Source], *notes: str) -> None:
        """Put another source around that of the samples by place, also where their transforms are taken off."""
        self.notes += notes
        if self.fetch is None:
            return
        self.fetch, inner = wrap(self.fetch, False), self.bare

        def bare() -> Samples | None:
            stripped = None if inner is None else inner()
            if stripped is not None and stripped.fetch is not None:
                stripped.fetch = wrap(stripped.fetch, True)
                stripped.notes += notes
            return stripped

        self.bare = bare

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[SampleChunk]:
        """All samples, or those from `start` to `stop` where places are known."""
        if self.memory is not None:
            yield from self._sliced(self.memory, start, self.length if stop is None else stop)
        elif self.fetch is not None:
            yield from self._fetched(start, self.length if stop is None else stop)
        elif self.open is not None:
            yield from self._streamed()

    def _sliced(self, whole: SampleChunk, start: int, stop: int | None) -> Iterator[SampleChunk]:
        end = len(whole) if stop is None else min(stop, len(whole))
        for first in range(start, end, ROWS):
            yield whole.part(slice(first, min(first + ROWS, end)))

    def _fetched(self, start: int, stop: int | None) -> Iterator[SampleChunk]:
        end = min(self.length or 0, stop or 0)
        for first in range(start, end, SAMPLES):
            places = list(range(first, min(first + SAMPLES, end)))
            yield from gathered(*self._read(places), self)

    def _read(self, places: list[int]) -> tuple[list[int], Any]:
        """Samples at these places, or a dict of their columns; one that raises is noted, the others are still read."""
        if self.fetch is None:  # pragma: no cover - only called where there is one
            return [], []
        try:
            return places, self.fetch(places)
        except OverfitError:
            raise
        except Exception:  # one of them raised: which?
            good, samples = [], []
            columns: dict[str, list[Any]] = {}
        for place in places:
            try:
                found: Any = self.fetch([place])
            except OverfitError:
                raise
            except Exception as error:
                self._note(place, error)
                continue
            good.append(place)
            if isinstance(found, Mapping):
                for name, column in found.items():
                    columns.setdefault(name, []).extend(column)
            else:
                samples += list(found)
        return good, columns or samples

    def _note(self, place: int, error: Exception, before: str = "") -> None:
        self.errors[place] = f"{before}{type(error).__name__}: {text_of(error).splitlines()[0]}"
        self.raised = self.raised or error

    def _streamed(self, most: int = 0) -> Iterator[SampleChunk]:
        first, waiting = 0, []
        most = most or self.most
        for item in self._items():
            if self.batched:
                chunk = batch_chunk(item, first, self)
                yield chunk
                first += len(chunk)
            else:
                waiting.append(item)
                if len(waiting) == SAMPLES:
                    yield from gathered(list(range(first, first + SAMPLES)), waiting, self)
                    first, waiting = first + SAMPLES, []
            if most and first + len(waiting) >= most:
                self.cut = True
                break
        if waiting:
            yield from gathered(list(range(first, first + len(waiting))), waiting, self)

    def _items(self) -> Iterator[Any]:
        """What the iterable gives; if it raises, what came before is kept and the place is noted."""
        number = 0
        try:
            for item in self.open() if self.open is not None else ():
                yield item
                number += 1
        except OverfitError:
            raise
        except Exception as error:
            what = "batch" if self.batched else "sample"
            self._note(number, error, f"the {what} after {number} raised ")

    def peek(self, most: int) -> SampleChunk | None:
        """Some samples, without losing any of what can be read only once."""
        if self.memory is not None:
            at = spread(len(self.memory), most)
            return SampleChunk(at, {name: _taken(each, at) for name, each in self.memory.leaves.items()})
        if self.fetch is not None:
            return next((chunk for chunk in self.chunks(0, most) if len(chunk)), None)
        if not self.again and self.open is not None:
            source = iter(self.open())
            items = list(itertools.islice(source, 1 if self.batched else most))
            waiting: list[Iterable[Any]] = [itertools.chain(items, source), items]
            self.open = waiting.pop
        first = next(self._streamed(1 if self.batched else most), None)
        self.cut = False
        return first

    def sample(self, place: int) -> dict[str, Any] | None:
        """The input of one sample by its place; None where places are not known or the sample cannot be read."""
        if self.memory is not None:
            return self.memory.sample(place)
        chunk = None if self.fetch is None else next(self.chunks(place, place + 1), None)
        return chunk.sample(0) if chunk is not None and len(chunk) else None


def _taken(column: Any, at: Array) -> Any:
    return [column[place] for place in at] if isinstance(column, list) else column[at]


def gathered(places: Sequence[int], samples: Sequence[Any], split: Samples) -> Iterator[SampleChunk]:
    """Chunks of samples: one for each run of samples that are made of the same parts."""
    facts = split.facts
    if isinstance(samples, Mapping):  # a dict of columns, as Hugging Face datasets give it
        index = np.asarray(places, np.int64)
        yield SampleChunk(index, *table_parts(samples, facts, split.name, index))
        return
    inputs, labels = parted(samples, facts)
    if isinstance(facts.label, Mapping):
        labels = given_values(facts.label, split.name, "label", places)
    start = 0
    names = [tuple(each) for each in inputs]
    while start < len(samples):
        stop = start + 1
        while stop < len(samples) and names[stop] == names[start]:
            stop += 1
        some, run = samples[start:stop], inputs[start:stop]
        yield SampleChunk(
            np.asarray(places[start:stop], np.int64),
            {name: [each[name] for each in run] for name in names[start]},
            None if labels is None else labels[start:stop],
            *extras(facts, some, places[start:stop], split.name),
        )
        start = stop


def batch_chunk(batch: Any, first: int, split: Samples) -> SampleChunk:
    """A chunk of one batch: (x, y), (x, y, weights), a dict of columns, or inputs alone, rows first."""
    facts = split.facts
    x, y = halves(batch, facts)
    parts = batch if isinstance(batch, Mapping) else {"": x}
    leaves = {name: rows_of(each) for name, each in flat(x).items()}
    sizes = {len(each) for each in leaves.values()}
    if len(sizes) > 1:
        raise CaseError(f"{split.name}: a batch has parts of {' and '.join(map(str, sorted(sizes)))} rows")
    index = np.arange(first, first + sizes.pop(), dtype=np.int64)
    if takes_samples(facts):
        labels = None if y is None else rows_of(y)
        samples = Lines(leaves)(range(len(index)))
        samples = samples if labels is None else [(x, labels[place]) for place, x in enumerate(samples)]
        return list(gathered(index.tolist(), samples, split))[0]  # noqa: RUF015 - an error in a generator is hidden
    names = [each for each in (facts.group, facts.time) if isinstance(each, str)]
    for name in names:
        if name not in parts:
            raise CaseError(f"{split.name}: a batch has no part {brief(name)}{did_you_mean(name, map(str, parts))}")
    extras = [
        label_list(parts[fact]) if isinstance(fact, str) else row_values(fact, (), index.tolist(), split.name, what)
        for fact, what in ((facts.group, "group"), (facts.time, "time"))
    ]
    leaves = leaves if facts.key is None else selected(leaves, facts)
    return SampleChunk(index, leaves, None if y is None else label_list(rows_of(y)), *extras)
