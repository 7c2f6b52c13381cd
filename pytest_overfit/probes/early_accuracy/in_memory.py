"""A whole split in memory, so that its rows can be paired with answers, permuted and standardised."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pytest_overfit.core import foreign
from pytest_overfit.core.arrays import Array
from pytest_overfit.data.batch import Batch, to_numpy
from pytest_overfit.data.joined import joined
from pytest_overfit.data.splits import Arrays, Split
from pytest_overfit.data.tree import Rows, length, map_leaves

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
    try:
        whole = joined(batches)
    except (ValueError, RuntimeError):
        return None
    return Arrays(split.source, whole, next(iter(split.epoch(0))).rows)


def with_batch(split: Arrays, batch: Batch) -> Arrays:
    """The same split with other rows."""
    return Arrays(split.source, batch, split.size)


def with_targets_of(split: Arrays, rows: Sequence[int]) -> Arrays | None:
    """The same inputs with the targets of other rows; None: there are no targets apart from the inputs."""
    moved = split.batch.with_targets_of(rows, keep_others=True)
    return None if moved is None else with_batch(split, moved)


def features_of(batch: Batch) -> Array | None:
    """The inputs as one table, a row a sample; None: they are texts, or of other lengths in each row."""
    columns = []
    for leaf in batch.input_leaves():
        if isinstance(leaf, Rows) or length(leaf) != batch.rows:
            return None
        array = to_numpy(leaf)
        if array.dtype.kind not in "fiub":
            return None
        columns.append(array.reshape(batch.rows, -1).astype(np.float64 if array.dtype.kind != "f" else array.dtype))
    return np.concatenate(columns, axis=1) if columns else None


def with_features(split: Arrays, change: Callable[[Array, int], Array]) -> Arrays:
    """The same split with every floating-point input changed.

    `change` gets a leaf as a table of its rows, and the number that its first column has in `features_of`.
    """
    starts, at = {}, 0
    for leaf in split.batch.input_leaves():
        if not isinstance(leaf, Rows):
            starts[id(leaf)] = at
            array = to_numpy(leaf)
            at += array.reshape(len(array), -1).shape[1] if array.size else 0

    def changed(leaf: Any) -> Any:
        array = to_numpy(leaf) if id(leaf) in starts else None
        if array is None or array.dtype.kind != "f" or array.shape[:1] != (split.batch.rows,):
            return leaf
        new = change(array.reshape(len(array), -1), starts[id(leaf)]).reshape(array.shape).astype(array.dtype)
        return sys.modules["torch"].as_tensor(new) if foreign.is_torch_tensor(leaf) else new

    return with_batch(split, dataclasses.replace(split.batch, x=map_leaves(split.batch.x, changed)))
