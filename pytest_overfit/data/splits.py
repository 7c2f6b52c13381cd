"""A whole split in batches: in an order of our own to train on, in its own order to be judged by."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from pytest_overfit.core import foreign
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.usercode import user_code
from pytest_overfit.data.batch import Batch
from pytest_overfit.data.checked import checked
from pytest_overfit.data.containers import (
    called,
    given_as,
    gives_samples,
    is_columns,
    is_keras_batches,
    is_torch_stream,
    is_whole,
    keras_batches,
)
from pytest_overfit.data.first_batch import ROWS, check_source, collated
from pytest_overfit.data.parts import split
from pytest_overfit.data.rereading import seeded_generators
from pytest_overfit.data.tree import is_array, length, parts_of, take_rows, taker

#: rows of a forward pass where nothing is trained, and the most that small rows of numbers may come to
CHUNK, _LARGEST = 512, 2048

#: so many numbers of the input are small
_SMALL = 300_000

#: batches read for one epoch of a loader that does not end
MOST_BATCHES = 100_000

Change = Callable[[Batch], Batch]

#: what an iterator without further items gives
_END = object()


class Split(Protocol):
    """One split of a case."""

    #: what the user gave, after calling a function
    source: Any

    @property
    def rows(self) -> int | None:
        """How many; None: unknown before it was read."""

    def epoch(self, order: int) -> Iterator[Batch]:
        """The batches of one epoch; the same for the same `order`, where the data allow it."""

    def chunks(self) -> Iterator[Batch]:
        """Every row once, in the order in which it stands."""

    def prepared(self, change: Change) -> Split:
        """The same split with every batch changed; arrays are changed once, as a whole."""


def open_split(case: Case, name: str, batch_size: int | None = None) -> Split:
    """The split of this name, `train`, `val` or `test`.

    Arrays and datasets are cut into batches of `batch_size` (default: `fit_kwargs["batch_size"]`, else 32) and
    shuffled again each epoch, as training loops do; loaders, `tf.data` and other iterables of batches keep their own
    batches and order. Raises `CaseError` for what cannot be read as batches, and later for a batch that cannot be used.
    """
    given = getattr(case, name)
    source = called(given, name, f"Case {case.name!r}: {given_as(given, name)}")
    if source is None:
        raise CaseError(f"Case {case.name!r}: it has no {name} data; give {name}=(x, y), a dataset or a loader")
    check_source(source, case, name)
    size = batch_size or int(case.fit_kwargs.get("batch_size") or ROWS)
    named = _Named(case, name)
    if is_columns(source):
        return MapStyle(source, named, size, lambda rows: dict(source[rows]))
    if is_whole(source) or parts_of(source) is not None:
        return Arrays(source, named.batch(source), size)
    if gives_samples(source):
        return MapStyle(source, named, size, lambda rows: collated([source[row] for row in rows], case))
    if hasattr(source, "__next__"):
        raise CaseError(
            f"Case {case.name!r}: {name}= is {foreign.describe(source)}, which can be read once only, but every epoch "
            f"reads it again; give {name}= a list of batches, or an object that starts again each time it is iterated"
        )
    return Loader(source, named, size)


def judged_by(case: Case) -> str:
    """The split that a trained model is judged by: val, else test."""
    return "val" if case.val is not None else "test"


@dataclasses.dataclass(frozen=True)
class _Named:
    """Makes checked batches, and says which split they are of."""

    case: Case
    name: str
    change: Change = lambda batch: batch

    def batch(self, given: Any) -> Batch:
        try:
            return self.change(checked(*split(given, self.case), self.case))
        except CaseError as error:
            raise type(error)(str(error).replace("the batch", f"{self.name}=: the batch", 1)) from None

    def changed(self, change: Change) -> _Named:
        """The same, with one more change after those made so far."""
        return _Named(self.case, self.name, lambda batch: change(self.change(batch)))

    def reading(self) -> contextlib.AbstractContextManager[None]:
        return user_code(f"Case {self.case.name!r}: reading {self.name}=")


class Arrays:
    """Arrays that hold all rows."""

    def __init__(self, source: Any, batch: Batch, size: int) -> None:
        self.source, self.batch, self.size, self.rows = source, batch, size, batch.rows

    def epoch(self, order: int) -> Iterator[Batch]:
        rows, pick = permutation(self.rows, order), picker(self.batch)
        return (pick(rows[start : start + self.size]) for start in range(0, self.rows, self.size))

    def chunks(self) -> Iterator[Batch]:
        size, pick = self._chunk(), picker(self.batch)
        ends = ((start, min(start + size, self.rows)) for start in range(0, self.rows, size))
        return (pick(np.arange(start, end)) for start, end in ends)

    def _chunk(self) -> int:
        """More rows at once save calls; not of whole numbers: tokens may have answers of any length."""
        x = self.batch.x
        if not is_array(x) or "float" not in str(getattr(x, "dtype", "")) or not self.rows:
            return CHUNK
        rows = _SMALL * self.rows // max(1, math.prod(x.shape))
        return max(CHUNK, min(_LARGEST, int(rows)))

    def prepared(self, change: Change) -> Arrays:
        return Arrays(self.source, change(self.batch), self.size)


class MapStyle:
    """Rows by number, read again each time, because reading may augment them."""

    def __init__(self, source: Any, named: _Named, size: int, read: Callable[[list[int]], Any]) -> None:
        self.source, self._named, self._size, self._read = source, named, size, read
        with named.reading():
            self.rows = len(source)
        if not self.rows:
            raise CaseError(f"Case {named.case.name!r}: {named.name}= is empty")

    def at(self, rows: list[int]) -> Batch:
        """The rows that stand at these places."""
        with self._named.reading():
            given = self._read(rows)
        return self._named.batch(given)

    def epoch(self, order: int) -> Iterator[Batch]:
        return map(self.at, shuffled(self.rows, self._size, order))

    def chunks(self) -> Iterator[Batch]:
        return map(self.at, in_order(self.rows, CHUNK))

    def prepared(self, change: Change) -> MapStyle:
        return MapStyle(self.source, self._named.changed(change), self._size, self._read)


class Loader:
    """Anything that yields batches each time it is iterated. Global generators are the caller's to seed."""

    rows: int | None = None

    def __init__(self, source: Any, named: _Named, size: int) -> None:
        self.source, self._named, self._size = source, named, size

    def epoch(self, order: int) -> Iterator[Batch]:
        with seeded_generators(self.source, order):
            yield from self._batches()

    def chunks(self) -> Iterator[Batch]:
        return self.epoch(0)

    def prepared(self, change: Change) -> Loader:
        return Loader(self.source, self._named.changed(change), self._size)

    def _batches(self) -> Iterator[Batch]:
        with self._named.reading():
            items = self._items()
        for number in range(MOST_BATCHES):
            with self._named.reading():
                item = next(items, _END)
            if item is _END and not number:
                raise CaseError(f"Case {self._named.case.name!r}: {self._named.name}= gave no batch: it is empty")
            if item is _END:
                return
            yield self._named.batch(item)

    def _items(self) -> Iterator[Any]:
        source = self.source
        if is_keras_batches(source):
            return keras_batches(source)
        if is_torch_stream(source):
            samples = iter(source)
            groups = iter(lambda: list(itertools.islice(samples, self._size)), [])
            return (collated(each, self._named.case) for each in groups)
        return iter(source)


class Subset:
    """Some rows of a split, by their numbers in the order in which it stands; to be read, not to be trained on."""

    def __init__(self, whole: Split, rows: Iterable[int]) -> None:
        self.source, self._whole, self._chosen = whole.source, whole, frozenset(rows)
        self.rows = len(self._chosen)

    def epoch(self, order: int) -> Iterator[Batch]:
        del order
        return self.chunks()

    def chunks(self) -> Iterator[Batch]:
        first = 0
        for batch in self._whole.chunks():
            kept = [row for row in range(batch.rows) if first + row in self._chosen]
            first += batch.rows
            if kept:
                yield rows_of(batch, kept)

    def prepared(self, change: Change) -> Subset:
        return Subset(self._whole.prepared(change), self._chosen)


def rows_of(batch: Batch, rows: Sequence[int] | Array) -> Batch:
    """These rows of a batch, in this order."""
    x, y, weights = take_rows((batch.x, batch.y, batch.weights), rows, batch.rows)
    return Batch(x, y, len(rows), weights, batch.labels, axes=batch.axes)


def picker(batch: Batch) -> Callable[[Array], Batch]:
    """`rows_of` for many picks of one batch: of a pair of arrays, by what is found out once."""
    x, y = batch.x, batch.y
    if not (is_array(x) and is_array(y) and batch.weights is None and length(x) == length(y) == batch.rows):
        return lambda rows: rows_of(batch, rows)
    of_x, of_y = taker(x), taker(y)
    return lambda rows: Batch(of_x(rows), of_y(rows), len(rows), None, batch.labels, axes=batch.axes)


def in_order(rows: int, size: int) -> Iterator[list[int]]:
    """Row numbers as they stand, `size` at a time."""
    return (list(range(start, min(start + size, rows))) for start in range(0, rows, size))


def in_parts(rows: int, parts: int) -> Iterator[list[int]]:
    """Row numbers as they stand, in so many parts of about the same size."""
    ends = [number * rows // parts for number in range(parts + 1)]
    return (list(range(*pair)) for pair in itertools.pairwise(ends))


def shuffled(rows: int, size: int, order: int) -> Iterator[list[int]]:
    """Row numbers in the order of a seed, `size` at a time."""
    permuted = permutation(rows, order).tolist()
    return (permuted[start : start + size] for start in range(0, rows, size))


def permutation(rows: int, order: int) -> Array:
    """All row numbers in the order of a seed."""
    return np.random.default_rng(order).permutation(rows)
