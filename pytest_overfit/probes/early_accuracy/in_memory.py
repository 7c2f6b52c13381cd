"""A whole split in memory, so that its rows can be paired with answers, permuted and standardised.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from pytest_overfit.core import foreign
from pytest_overfit.core.arrays import Array
from pytest_overfit.data.batch import Batch, to_numpy
from pytest_overfit.data.splits import Arrays, Split
from pytest_overfit.data.tree import Rows, leaves, length, map_leaves

#: rows of a loader or dataset that are kept in memory; arrays are there already and are kept whole
MOST_ROWS = 50_000


def gathered(split: Split, most: int = MOST_ROWS) -> Arrays | None:
    """The split as arrays, up to `most` rows of it; None: its batches cannot be joined (other lengths in each)."""
    if isinstance(split, Arrays):
        return split
    batches: list[Batch] = []
    for batch in split.chunks():
        batches.append(batch)
        if sum(each.rows for each in batches) >= most:
            break
    whole = _joined(batches)
    return None if whole is None else Arrays(split.source, whole, next(iter(split.epoch(0))).rows)


def _joined(batches: Sequence[Batch]) -> Batch | None:
    columns: list[list[Any]] = []
    for batch in batches:
        parts = list(leaves([batch.x, batch.y, batch.weights]))
        if any(length(each) != batch.rows for each in parts) or (columns and len(parts) != len(columns[0])):
            return None
        columns.append(parts)
    try:
        joined = iter([_concatenated(each) for each in zip(*columns, strict=True)])
    except (ValueError, RuntimeError):  # padded to another length in each batch
        return None
    first = batches[0]
    x, y, weights = (map_leaves(each, lambda _: next(joined)) for each in (first.x, first.y, first.weights))
    return Batch(x, y, sum(each.rows for each in batches), weights, first.labels)


def _concatenated(pieces: Sequence[Any]) -> Any:
    if isinstance(pieces[0], Rows):
        return Rows(row for each in pieces for row in each)
    if foreign.is_torch_tensor(pieces[0]):
        return sys.modules["torch"].cat([each.detach() for each in pieces])
    return np.concatenate([to_numpy(each) for each in pieces])


def with_batch(split: Arrays, batch: Batch) -> Arrays:
    """The same split with other rows."""
    return Arrays(split.source, batch, split.size)


def with_targets_of(split: Arrays, rows: Sequence[int]) -> Arrays | None:
    """The same inputs with the targets of other rows; None: there are no targets apart from the inputs."""
    moved = split.batch.with_targets_of(rows, keep_others=True)
    return None if moved is None else with_batch(split, moved)


def inputs_of(batch: Batch) -> Iterator[Any]:
    """The leaves of the inputs that are no targets."""
    return batch.input_leaves()


def features_of(batch: Batch) -> Array | None:
    """The inputs as one table, a row a sample; None: they are texts, or of other lengths in each row."""
    columns = []
    for leaf in inputs_of(batch):
        if isinstance(leaf, Rows) or length(leaf) != batch.rows:
            return None
        array = to_numpy(leaf)
        if array.dtype.kind not in "fiub":
            return None
        columns.append(array.reshape(batch.rows, -1).astype(np.float64 if array.dtype.kind != "f" else array.dtype))
    return np.concatenate(columns, axis=1) if columns else None


def with_features(split: Arrays, change: Callable[[Array], Array]) -> Arrays:
    """The same split with every floating-point input changed: a function of a leaf as a table of its rows."""
    chosen = {id(leaf) for leaf in inputs_of(split.batch) if not isinstance(leaf, Rows)}

    def changed(leaf: Any) -> Any:
        array = to_numpy(leaf) if id(leaf) in chosen else None
        if array is None or array.dtype.kind != "f" or array.shape[:1] != (split.batch.rows,):
            return leaf
        new = change(array.reshape(len(array), -1)).reshape(array.shape).astype(array.dtype)
        return sys.modules["torch"].as_tensor(new) if foreign.is_torch_tensor(leaf) else new

    return with_batch(split, dataclasses.replace(split.batch, x=map_leaves(split.batch.x, changed)))
