"""Rows from further on in a source whose first batch cannot tell: spread over all of it, or read ahead."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import OverfitError
from pytest_overfit.core.usercode import user_code
from pytest_overfit.data.arrays import with_shape
from pytest_overfit.data.batch import Batch
from pytest_overfit.data.checked import Choose, checked
from pytest_overfit.data.containers import (
    are_samples,
    gives_samples,
    is_by_place,
    is_columns,
    is_keras_batches,
    is_stream,
    is_torch_loader,
)
from pytest_overfit.data.first_batch import ROWS, can_be_read_again, collated, items_of
from pytest_overfit.data.joined import joined
from pytest_overfit.data.layout import is_plain
from pytest_overfit.data.parts import split
from pytest_overfit.data.rereading import spread
from pytest_overfit.data.splits import rows_of

#: batches of rows that are read at places spread over a source, and batches that are read ahead of an iterable
MOST_SPREAD, MOST_AHEAD = 8, 32

Tells = Callable[[Batch], bool]


class Further(NamedTuple):
    """What was found further on."""

    #: None: nothing that can tell
    batch: Batch | None
    #: which rows were taken, or looked at in vain, in words
    where: str


class _ByPlace(NamedTuple):
    """Rows that can be read at any place."""

    rows: int
    at: Callable[[Sequence[int]], Batch]


def batch_from(given: Any, case: Case, choose: Choose | None = None) -> Batch:
    """A checked batch of what a source gave; `choose`: the places of the rows to take of what may be all the data."""
    if isinstance(given, list) and len(given) > 3 and case.step is None and not is_plain(given) and are_samples(given):
        given = collated(given, case)
    x, y, weights = (with_shape(each) for each in split(given, case))
    return checked(x, y, weights, case, choose)


def rows_further_on(source: Any, case: Case, first: Batch, tells: Tells, labels: AbstractSet[Any]) -> Further:
    """A batch as large as the first one that can tell."""
    try:
        with user_code("reading further on in train="):
            by_place = _rows_by_place(source, case, first)
            if by_place is not None:
                return _spread(by_place, first, tells, labels)
            return _ahead(_batches(source, case), first, tells, labels)
    except OverfitError as error:  # the first batch could be read, and says by itself that it cannot tell
        return Further(None, str(error).splitlines()[0])


# ------------------------------------------------------------------------------------------------ sources with places


def _rows_by_place(source: Any, case: Case, first: Batch) -> _ByPlace | None:
    if first.whole is not None:
        return _ByPlace(first.whole, lambda places: batch_from(source, case, lambda rows: places))
    if is_columns(source):
        return _ByPlace(len(source), lambda places: batch_from(dict(source[list(places)]), case))
    if is_torch_loader(source):
        return _of_loader(source, case)
    if gives_samples(source):
        return _ByPlace(len(source), lambda places: batch_from(collated([source[n] for n in places], case), case))
    return None


def _of_loader(loader: Any, case: Case) -> _ByPlace | None:
    """The dataset of a torch loader, in the order of its sampler and collated as it does; None: it has no places."""
    plain = type(loader.batch_sampler) is sys.modules["torch.utils.data"].BatchSampler
    if not (plain and is_by_place(loader.dataset) and hasattr(loader.sampler, "__len__")):
        return None
    order = list(itertools.islice(loader.sampler, len(loader.sampler)))

    def at(places: Sequence[int]) -> Batch:
        return batch_from(loader.collate_fn([loader.dataset[order[place]] for place in places]), case)

    return _ByPlace(len(order), at)


def _spread(source: _ByPlace, first: Batch, tells: Tells, labels: AbstractSet[Any]) -> Further:
    """Evenly spread rows; where those tell as little, more of them, and of those as many of each target as can be."""
    size, seen, keys = first.rows, list[int](), list[Any]()
    grids = (_grid(source.rows, size, number) for number in range(MOST_SPREAD))
    for places in grids if source.rows > size else ():
        batch = source.at(places)
        if tells(batch):
            return _taken(batch, places, source.rows)
        seen += places
        keys += _keys(batch, labels)
        chosen = sorted(seen[number] for number in _in_turn(keys, size))
        if len(set(keys)) > 1 and tells(batch := source.at(chosen)):
            return _taken(batch, chosen, source.rows)
    looked = f"nor can {len(set(seen))} rows spread over all {source.rows}"
    return Further(None, looked if seen else "it is all the data")


def _grid(rows: int, size: int, number: int) -> list[int]:
    """Places at equal distances over all rows; those of each number lie between those of the others."""
    return [(place * MOST_SPREAD + number) * rows // (MOST_SPREAD * size) for place in range(size)]


def _taken(batch: Batch, places: Sequence[int], count: int) -> Further:
    few = ", ".join(map(str, places[:3]))
    return Further(batch, f"taken in its place: {len(places)} of all {count} rows ({few}, ... {places[-1]})")


def _keys(batch: Batch, labels: AbstractSet[Any]) -> list[Any]:
    """What should differ between the rows of a batch: their targets, or else their inputs."""
    inputs, targets = batch.sides({*labels, *batch.named_targets()})
    return [tuple(each[row].tobytes() for each in targets or inputs) for row in range(batch.rows)]


def _in_turn(keys: Sequence[Any], size: int) -> list[int]:
    """The numbers of at most `size` rows, of each key as many as of the others as long as there are any."""
    groups: dict[Any, list[int]] = {}
    for number, key in enumerate(keys):
        groups.setdefault(key, []).append(number)
    rounds = itertools.zip_longest(*groups.values())
    return list(itertools.islice((each for turn in rounds for each in turn if each is not None), size))


# --------------------------------------------------------------------------------------------- batches one by one


def _batches(source: Any, case: Case) -> Iterator[tuple[int, Batch]]:
    """Batches and their numbers: with places spread over all of them, else those that come first."""
    if is_stream(source):
        samples = iter(source)
        given = enumerate(iter(lambda: list(itertools.islice(samples, ROWS)), []))
        return ((number, batch_from(collated(each, case), case)) for number, each in _first_few(given))
    if is_keras_batches(source) or is_by_place(source):
        count = source.num_batches if is_keras_batches(source) else len(source)
        numbers = range(MOST_AHEAD) if count is None else spread(count, MOST_SPREAD).tolist()
        return ((number, batch_from(source[number], case)) for number in numbers)
    given = enumerate(items_of(source) if can_be_read_again(source) else ())
    return ((number, batch_from(each, case)) for number, each in _first_few(given))


def _first_few(given: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    return itertools.islice(given, MOST_AHEAD)


def _ahead(batches: Iterator[tuple[int, Batch]], first: Batch, tells: Tells, labels: AbstractSet[Any]) -> Further:
    """The first batch that can tell, or rows of several that can together."""
    seen: dict[int, Batch] = {}
    for number, batch in batches:
        seen[number] = batch
        if tells(batch):
            return Further(batch, f"taken in its place: batch {number}, counted from 0")
        mixed = _mixed(list(seen.values()), first.rows, labels)
        if mixed is not None and tells(mixed):
            return Further(mixed, f"taken in its place: {mixed.rows} rows of the batches {', '.join(map(str, seen))}")
    return Further(None, f"nor can any of {len(seen)} batches" if seen else "train= can be read once only")


def _mixed(batches: Sequence[Batch], size: int, labels: AbstractSet[Any]) -> Batch | None:
    """Rows of several batches; None: their rows are all alike, or cannot be put into one batch."""
    keys = [key for batch in batches for key in _keys(batch, labels)]
    if len(set(keys)) < 2:
        return None
    try:
        return rows_of(joined(batches), sorted(_in_turn(keys, size)))
    except (ValueError, RuntimeError, TypeError):
        return None
