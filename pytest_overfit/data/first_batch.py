"""The first batch of whatever holds the training data: arrays, tables, datasets, loaders, generators."""

from __future__ import annotations

import itertools
import numbers
import sys
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import numpy as np

from pytest_overfit.core import foreign
from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.usercode import user_code
from pytest_overfit.data.containers import (
    gives_samples,
    holds_a_split,
    is_columns,
    is_keras_batches,
    is_stream,
    is_table,
    is_whole,
)
from pytest_overfit.data.layout import is_plain
from pytest_overfit.data.tree import is_array, parts_of, rebuilt

#: rows taken from arrays and datasets, which have no batch size of their own
ROWS = 32

#: what an iterator without items gives
_NOTHING = object()

#: what was read of iterators that can be read once only, so that no probe takes away what the next one needs
_READ: weakref.WeakKeyDictionary[Any, list[Any]] = weakref.WeakKeyDictionary()


def first_batch(train: Any, case: Case) -> tuple[Any, bool]:
    """The first batch, and whether it is rather all the data, of which the first rows are to be taken."""
    check_source(train, case)
    if is_columns(train):
        return _columns(train, case), False
    if is_whole(train):
        return train, True
    with user_code("reading the dataset given as train"):
        samples = _samples(train)
    if samples is not None:
        if not samples:
            _empty(case)
        return collated(samples, case), False
    return _batch_of_container(train, case)


def check_source(train: Any, case: Case, name: str = "train") -> None:
    """Refuse what holds no rows, and tables whose targets nobody named."""
    if train is None or isinstance(train, (str, bytes, numbers.Number)):
        _refuse(train, case, name)
    if is_table(train):
        raise CaseError(
            f"Case {case.name!r}: {name}= is {foreign.describe(train)}, one table; say which of its columns are the "
            f"targets: {name}=(table[inputs], table[target])"
        )


def _columns(train: Any, case: Case) -> dict[Any, Any]:
    if isinstance(train, Mapping):
        _check_splits(train, case)
    with user_code("reading the dataset given as train"):
        return dict(train[:ROWS])


def _batch_of_container(train: Any, case: Case) -> tuple[Any, bool]:
    if is_keras_batches(train):
        with user_code("reading the dataset given as train"):
            return train[0], False
    parts = parts_of(train)
    if parts is not None:
        _check_splits(parts, case)
        return train, True
    if not hasattr(train, "__iter__"):
        _refuse(train, case)
    with user_code("reading the loader given as train"):
        found = first_item(train)
    if found is _NOTHING:
        _empty(case)
    return found, False


def can_be_read_again(source: Any) -> bool:
    """Its first items are had again by reading it once more, or can be remembered."""
    try:
        return not hasattr(source, "__next__") or weakref.ref(source) is not None
    except TypeError:
        return False


def items_of(source: Any) -> Iterator[Any]:
    """All items from the first one on, also of an iterator that has given some of them already."""
    if not (hasattr(source, "__next__") and can_be_read_again(source)):
        return iter(source)
    if source not in _READ:
        iter(source)  # an object may get ready in it
        _READ[source] = []
    return _again(source, _READ[source])


def _again(iterator: Iterator[Any], read: list[Any]) -> Iterator[Any]:
    for number in itertools.count():
        if number == len(read):
            item = next(iterator, _NOTHING)
            if item is _NOTHING:
                return
            read.append(item)
        yield read[number]


def first_item(source: Any) -> Any:
    """The first item of an iterable. What was opened for it (workers, files) is closed again."""
    iterator = items_of(source)
    try:
        return next(iterator, _NOTHING)
    finally:
        if iterator is not source and hasattr(iterator, "close"):
            iterator.close()
        del iterator  # a loader's workers end with it


def _samples(train: Any) -> list[Any] | None:
    """The first samples of a dataset; None: it holds batches, or whole columns."""
    if is_stream(train):
        return list(itertools.islice(train, ROWS))
    if not gives_samples(train):
        return None
    if isinstance(train, list):
        return train[:ROWS]
    return [train[index] for index in range(min(ROWS, len(train)))]


def collated(samples: list[Any], case: Case) -> Any:
    """Samples as one batch: arrays stacked, containers kept, as a loader's default does."""
    try:
        return _collated(samples)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise CaseError(
            f"Case {case.name!r}: the samples of train= cannot be stacked to one batch ({error}); give the loader that "
            "you train with, train=lambda: DataLoader(dataset, batch_size=16, collate_fn=...)"
        ) from None


def _collated(samples: list[Any]) -> Any:
    first = samples[0]
    if is_array(first):
        if not foreign.is_torch_tensor(first):
            return np.stack([np.asarray(each) for each in samples])
        return sys.modules["torch"].stack(samples)
    parts = parts_of(first)
    if parts is not None:
        columns = [parts_of(each) or {} for each in samples]
        return {key: _collated([each[key] for each in columns]) for key in parts}
    if isinstance(first, (tuple, list)) and not is_plain(first):
        several = [_collated(list(column)) for column in zip(*samples, strict=True)]
        return rebuilt(first, dict(enumerate(several)))
    if isinstance(first, numbers.Number) or is_plain(first):
        stacked = np.asarray(samples)
        return samples if stacked.dtype.kind in "US" else stacked
    return None if first is None else samples


def _check_splits(parts: Mapping[Any, Any], case: Case) -> None:
    """A dict of datasets is one of splits."""
    for key, part in parts.items():
        if holds_a_split(part):
            raise CaseError(
                f"Case {case.name!r}: train= is a dict of datasets ({', '.join(map(repr, parts))}); expected one; "
                f"write train=datasets[{key!r}]"
            )


def _empty(case: Case) -> NoReturn:
    raise CaseError(f"Case {case.name!r}: train= gave no batch: it is empty")


def _refuse(train: Any, case: Case, name: str = "train") -> NoReturn:
    raise CaseError(
        f"Case {case.name!r}: {name}= is {foreign.describe(train)}; expected (x, y), a dataset, a loader, or a "
        "function that returns one of these"
    )
