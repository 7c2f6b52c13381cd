"""Open any container as a split, each by its own fast path; no library is imported that has not been."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pytest_overfit.core import foreign
from pytest_overfit.core.errors import CaseError
from pytest_overfit.data.containers import called, is_by_place, is_function, is_hugging_face
from pytest_overfit.data.tree import is_array, rank, tensor_trouble
from pytest_overfit.duplicates.reading import containers, tables
from pytest_overfit.duplicates.reading.fields import (
    Facts,
    extras,
    given_values,
    label_list,
    refuse_names,
    rows_of,
    table_parts,
    takes_samples,
)
from pytest_overfit.duplicates.reading.pickling import can_travel
from pytest_overfit.duplicates.reading.sources import Lines, Sliced, Source
from pytest_overfit.duplicates.reading.split import SampleChunk, Samples

EXPECTED = (
    "arrays, (x, y), a table, a list, a dataset, a loader, a folder of images, or a function that returns one of these"
)


def open_samples(name: str, given: Any, facts: Facts, most: int, keep: Callable[[Any], None]) -> Samples:
    """Any container as a split; `most`: samples that are read of an iterable without a length.

    `keep` is shown the container before anything is read of it.
    """
    if given is None:
        raise CaseError(f"{name}= is None; expected {EXPECTED}")
    source = called(given, name)
    keep(source)
    _check_tensors(name, source)
    split = _open(name, source, facts)
    if split.open is not None and split.length is None:
        split.most = most
    if is_function(given):
        _made_again(split, given, isinstance(source, Iterator))
    if split.length == 0:
        raise CaseError(f"{name}= is empty: it has no samples")
    return split


def _check_tensors(name: str, source: Any) -> None:
    for leaf in source if isinstance(source, (tuple, list)) else (source,):
        trouble = tensor_trouble(leaf)
        if trouble:
            raise CaseError(f"{name}= is {trouble}")
    if isinstance(source, tuple) and len(source) == 2 and hasattr(source[1], "toarray"):
        raise CaseError(f"{name}= has labels in a sparse matrix, {foreign.describe(source[1])}; write y.toarray()")


def _made_again(split: Samples, function: Callable[[], Any], is_stream: bool) -> None:
    """What a function returned can be had again: a stream for each pass, samples by place in another process."""
    if is_stream:
        split.open, split.again = function, True
    split.read_through(lambda source, bare: Made(source, function, split.name, split.facts, bare))


def _open(name: str, source: Any, facts: Facts) -> Samples:
    source = np.asarray(source) if isinstance(source, memoryview) else source
    for reader in (
        _path,
        _table,
        containers.torch_data,
        containers.tensorflow_data,
        containers.keras_data,
        _pair,
        _array,
        _named,
    ):
        split: Samples | None = reader(name, source, facts)
        if split is not None:
            return split
    if isinstance(source, (str, bytes, int, float)):
        raise CaseError(f"{name}= is {foreign.describe(source)}; expected {EXPECTED}")
    if isinstance(source, Sequence):
        return _listed(name, list(source), facts)
    if is_by_place(source):
        return containers.indexed(name, source, f"{type(source).__name__}, by index", facts)
    if hasattr(source, "__iter__"):
        return containers.iterable(name, source, facts)
    raise CaseError(f"{name}= is {foreign.describe(source)}; expected {EXPECTED}")


def _path(name: str, source: Any, facts: Facts) -> Samples | None:
    if not isinstance(source, (str, Path)):
        return None
    folder = Path(source)
    if not folder.is_dir():
        raise CaseError(f"{name}= is {str(source)!r}, which is not a folder; give a folder of images, or {EXPECTED}")
    from pytest_overfit.duplicates.reading.image_folder import image_folder

    return image_folder(name, folder, facts)


def _table(name: str, source: Any, facts: Facts) -> Samples | None:
    if is_hugging_face(source):
        return Samples(name, "Hugging Face dataset", facts, len(source), is_table=True, fetch=Sliced(source))
    columns = tables.columns_of(source)
    return None if columns is None else _columns(name, columns, type(source).__name__, facts)


def _columns(name: str, columns: Mapping[str, Any], how: str, facts: Facts) -> Samples:
    """Named columns of one length."""
    sizes = {key: len(each) for key, each in columns.items()}
    if not sizes:
        raise CaseError(f"{name}= is empty: it has no columns")
    if len(set(sizes.values())) > 1:
        raise CaseError(f"{name}= has columns of different lengths: {', '.join(f'{k} {v}' for k, v in sizes.items())}")
    index = np.arange(next(iter(sizes.values())), dtype=np.int64)
    whole = SampleChunk(index, *table_parts(columns, facts, name, index))
    if not whole.leaves:
        raise CaseError(f"{name}= has no input column besides the label; give label= the name of the label's column")
    return Samples(name, how, facts, len(index), whole, is_table=True)


def _pair(name: str, source: Any, facts: Facts) -> Samples | None:
    """(x, y) or (x, y, weights): arrays, tables, or dicts and tuples of arrays, rows first."""
    if isinstance(source, list):
        pair = len(source) == 2 and all(getattr(each, "shape", ()) != () for each in source)
        if not pair or len(source[0]) != len(source[1]):
            return None
    elif not isinstance(source, tuple) or len(source) not in (1, 2, 3):
        return None
    x, y = source[0], source[1] if len(source) > 1 else None
    inner = _open(name, x, facts)
    if y is None:
        return inner
    if is_array(y) and not rank(y):
        raise CaseError(f"{name}=(x, y): y is a single number, {foreign.describe(y)}; expected one label a row")
    labels = label_list(rows_of(_unlabelled(y)))
    if inner.memory is None:
        raise CaseError(
            f"{name}=(x, y): x is {foreign.describe(x)}; expected arrays where y is given apart; give {name}=x alone"
        )
    if len(labels) != inner.length:
        raise CaseError(f"{name}=(x, y): x has {inner.length} rows and y has {len(labels)}")
    if isinstance(facts.label, str) and inner.memory.labels is None:
        raise CaseError(
            f"label={foreign.brief(facts.label)}: x of {name}=(x, y) has no such column, and y holds labels already"
        )
    if inner.memory.labels is None or not callable(facts.label):
        inner.memory = dataclasses.replace(inner.memory, labels=labels)
    return inner


def _unlabelled(y: Any) -> Any:
    """A table of labels as rows."""
    columns = tables.columns_of(y)
    if columns is None:
        return y
    lists = [label_list(rows_of(each)) for each in columns.values()]
    return lists[0] if len(lists) == 1 else [repr(row) for row in zip(*lists, strict=True)]


def _array(name: str, source: Any, facts: Facts) -> Samples | None:
    """An array or tensor, rows first; a sparse matrix row by row."""
    if hasattr(source, "tocsr") and hasattr(source, "nnz"):
        rows = source.tocsr()
        rows.sort_indices()
        rows.eliminate_zeros()
        bounds = rows.indptr
        parts = [slice(int(a), int(b)) for a, b in itertools.pairwise(bounds)]
        leaves = {"places": [rows.indices[part] for part in parts], "values": [rows.data[part] for part in parts]}
        return _memory(name, leaves, "sparse matrix", facts)
    if isinstance(source, (str, bytes)) or not is_array(source) or not hasattr(source, "dtype"):
        return None
    if len(source.shape) == 0:
        raise CaseError(f"{name}= is a single number; expected {EXPECTED}")
    how = f"{type(source).__module__.partition('.')[0]} {type(source).__name__}"
    found = rows_of(source)
    names = getattr(getattr(found, "dtype", None), "names", None)
    if names:
        return _columns(name, {each: found[each] for each in names}, f"{how} with fields", facts)
    return _memory(name, {"": found}, how, facts)


def _memory(name: str, leaves: Mapping[str, Any], how: str, facts: Facts) -> Samples:
    """Columns of one length without names of their own."""
    sizes = {len(each) for each in leaves.values()}
    if len(sizes) > 1:
        raise CaseError(
            f"{name}= has parts of {' and '.join(map(str, sorted(sizes)))} rows, but rows come first in each"
        )
    index = range(sizes.pop())
    if takes_samples(facts):
        return Samples(name, how, facts, len(index), fetch=Lines(leaves))
    refuse_names(facts, name, how)
    labels = given_values(facts.label, name, "label", index) if isinstance(facts.label, Mapping) else None
    return Samples(name, how, facts, len(index), SampleChunk(index, leaves, labels, *extras(facts, (), index, name)))


def _named(name: str, source: Any, facts: Facts) -> Samples | None:
    """A dict of columns; a tuple of many columns is one without names."""
    if isinstance(source, Mapping):
        return _columns(name, {str(key): _column(each) for key, each in source.items()}, "dict of columns", facts)
    if isinstance(source, tuple) and source and all(hasattr(each, "shape") for each in source):
        leaves = {str(number): _column(each) for number, each in enumerate(source)}
        split = _memory(name, leaves, "tuple of arrays", facts)
        split.notes.append(
            f"{name} is a tuple of {len(source)} arrays: all are inputs, none is a label; write ((x1, x2), y)"
        )
        return split
    return None


def _column(value: Any) -> Any:
    """One column of a dict; a container inside it is read whole."""
    if is_array(value) or isinstance(value, (list, tuple)):
        return rows_of(value)
    if not isinstance(value, Iterable):
        raise CaseError(f"a dict of columns holds {foreign.describe(value)}; expected an array or a list in each")
    return list(value)


def _listed(name: str, items: list[Any], facts: Facts) -> Samples:
    """A list: of texts, of numbers, of rows, of samples."""
    if not items:
        raise CaseError(f"{name}= is empty: it has no samples")
    first = items[0]
    if isinstance(first, (tuple, Mapping)) or (isinstance(first, list) and first and hasattr(first[0], "shape")):
        return containers.indexed(name, items, "list of samples", facts)
    if isinstance(first, (int, float, list)) and not isinstance(first, str):
        try:
            array = np.asarray(items)
        except (ValueError, TypeError, OverflowError):  # rows of unequal lengths
            array = np.empty(0, object)
        if array.dtype.kind in "biuf" and len(array) == len(items):
            return _memory(name, {"": array}, "list of numbers", facts)
    return _memory(name, {"": items}, "list", facts)


@dataclasses.dataclass(frozen=True)
class Made(Source):
    """What a function returned. The function travels and is called again; where it cannot, its result does."""

    source: Source
    function: Callable[[], Any]
    name: str
    facts: Facts
    #: read without its transforms
    bare: bool = False

    def __call__(self, places: Sequence[int]) -> Sequence[Any]:
        return self.source(places)

    def part(self, start: int, stop: int) -> Source | None:
        return None if can_travel(self.function) else self.source.part(start, stop)

    def __reduce__(self) -> tuple[Any, ...]:
        if can_travel(self.function):
            return _made, (self.function, self.name, self.facts, self.bare)
        return _same, (self.source,)


def _same(source: Source) -> Source:
    return source


def _made(function: Callable[[], Any], name: str, facts: Facts, bare: bool) -> Source:

    split = open_samples(name, function, facts, 0, keep=lambda container: None)  # the worker's own
    if bare and split.bare is not None:
        split = split.bare() or split
    if split.fetch is None:
        raise CaseError(
            f"the function given as {name} returned {split.how} in another process, and something else here"
        )
    return split.fetch
