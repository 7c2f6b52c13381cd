"""Other batches made of one: rows in another order or twice, columns of padding, noise, another scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.foreign import describe
from pytest_overfit.data.tree import (
    by_place,
    is_array,
    is_leaf,
    leaves,
    length,
    map_leaves,
    rebuilt,
    take_rows,
    to_numpy,
)
from pytest_overfit.properties.batch_spec import BatchSpec

#: an `(x, y)` pair as the strategies draw it
Pair = tuple[Any, Any]


def rows_of(batch: Pair) -> int:
    """How many rows the batch has."""
    first = next(leaves(pair_of(batch)[0]), None)
    if first is None:
        raise CaseError(f"the batch's inputs: expected arrays, rows first, got {describe(batch[0])}")
    return length(first)


def pair_of(batch: Any) -> Pair:
    """The batch, or a `CaseError` that says what was given instead."""
    if not isinstance(batch, tuple) or len(batch) != 2:
        raise CaseError(f"a batch: expected a pair, got {describe(batch)}; write (x, y), or (x, None)")
    return batch


def with_rows(batch: Pair, rows: Sequence[int]) -> Pair:
    """These rows of inputs and targets, in this order."""
    x, y = take_rows(pair_of(batch), rows)
    return x, y


def noisy(batch: Pair, size: float, seed: int) -> Pair:
    """Gaussian noise on floating-point inputs, `size` standard deviations of each array (of 1 where it is constant)."""
    draw = np.random.default_rng(seed)

    def change(array: Array) -> Array:
        spread = float(np.nanstd(array)) or 1.0
        return (array + size * spread * draw.standard_normal(array.shape)).astype(array.dtype)

    return _with_floats(batch, change)


def scaled(batch: Pair, factor: float) -> Pair:
    """Floating-point inputs times `factor`."""
    return _with_floats(batch, lambda array: (array * factor).astype(array.dtype))


def _with_floats(batch: Pair, change: Any) -> Pair:
    def floats(leaf: Any) -> Any:
        array = to_numpy(leaf) if is_array(leaf) else None
        return leaf if array is None or array.dtype.kind != "f" else change(array)

    return map_leaves(pair_of(batch)[0], floats), batch[1]


def padded(batch: Pair, columns: int, padding: BatchSpec | float) -> Pair:
    """`columns` more steps of padding behind every row of the sequences; targets among the sequences too.

    `padding`: the spec that tells which arrays are sequences and what pads each; or one number, which pads the second
    axis of every input array that has one. Raises `CaseError` where there is no sequence.
    """
    x, y = pair_of(batch)
    if not isinstance(padding, BatchSpec):
        new = map_leaves(x, lambda leaf: leaf if len(leaf.shape) < 2 else _longer(leaf, columns, float(padding)))
        if all(len(leaf.shape) < 2 for leaf in leaves(x)):
            raise CaseError("the batch's inputs have no second axis that could be padded")
        return new, y
    if padding.lengths is None:
        raise CaseError(
            "the spec has no sequences, so there is nothing to pad; write lengths=(shortest, longest) on its fields"
        )
    return _side(x, padding.x, columns), _side(y, padding.y, columns)


def _side(value: Any, fields: Any, columns: int) -> Any:
    """One side of the batch, padded as the same side of its spec says."""
    if value is None or fields is None:
        return value
    if is_leaf(value):
        return value if fields.lengths is None else _longer(value, columns, fields.padding)
    known = by_place(fields)
    return rebuilt(value, {key: _side(each, known[key], columns) for key, each in by_place(value).items()})


def _longer(leaf: Any, columns: int, padding: float) -> Array:
    array = to_numpy(leaf)
    more = np.full((array.shape[0], columns, *array.shape[2:]), padding, array.dtype)
    return np.concatenate([array, more], axis=1)
