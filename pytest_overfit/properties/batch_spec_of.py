"""The spec of a case's own data: what its batch has, as fields."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.foreign import describe
from pytest_overfit.data.batch import Batch, Rows, leaves, map_leaves, to_numpy
from pytest_overfit.properties.batch_spec import BatchSpec, Field


def spec_of_batch(case: Case, batch: Batch, rows: int | None = None) -> BatchSpec:
    """Shapes, dtypes, ranges, classes and padding of this batch. Raises `CaseError` for data that are not numbers."""
    x = map_leaves(batch.x, lambda leaf: _field(case, batch, leaf, target=False))
    y = map_leaves(batch.y, lambda leaf: _field(case, batch, leaf, target=True))
    return BatchSpec(x=_of_one_length(x, x), y=_of_one_length(x, y), rows=batch.rows if rows is None else rows)


def _field(case: Case, batch: Batch, leaf: Any, target: bool) -> Field:
    array = None if isinstance(leaf, Rows) else to_numpy(leaf)
    if array is None or array.dtype.kind not in "fiub" or array.shape[0] != batch.rows or not array.size:
        given = describe(leaf) if array is None or array.dtype.kind in "fiub" else f"text or objects ({array.dtype})"
        raise CaseError(
            f"Case {case.name!r}: its batch holds {given}, but only arrays of numbers with one entry a row can be "
            "drawn; write the spec yourself, batches(BatchSpec(x=..., y=...)), and map it to what the model takes"
        )
    if target and (found := _classes(case, array)) is not None:
        return found
    real = array[np.isfinite(array)]
    if not real.size:
        raise CaseError(f"Case {case.name!r}: an array of its batch has no finite number, so its range is unknown")
    field = Field(
        shape=array.shape[1:],
        dtype=str(array.dtype),
        low=float(real.min()),
        high=float(real.max()),
        missing=float(np.isnan(array).mean()) if array.dtype.kind == "f" else 0.0,
    )
    return _as_sequence(field, array)


def _classes(case: Case, targets: Array) -> Field | None:
    """Class numbers or one-hot rows; None: the targets are values, or one number a position."""
    if targets.dtype.kind in "iu" and targets.ndim == 1 and targets.min() >= 0:
        return Field(classes=case.classes or int(targets.max()) + 1, dtype=str(targets.dtype))
    one_hot = targets.ndim == 2 and targets.shape[1] > 1 and set(targets.ravel().tolist()) <= {0, 1}
    if one_hot and bool((targets.sum(axis=1) == 1).all()):
        return Field(classes=targets.shape[1], one_hot=True, dtype=str(targets.dtype))
    return None


def _as_sequence(field: Field, array: Array) -> Field:
    """The field as a sequence where its rows end in padding of unequal length.

    Padding is one value that ends rows, in runs of unequal length, and stands nowhere else; a mask is 1 before it and
    0 in it. Floating point needs an axis of features: a table's last columns are not time.
    """
    whole = array.dtype.kind in "iub"
    if array.ndim < 2 or array.shape[1] < 2 or (array.ndim == 2 and not whole):
        return field
    steps = array.reshape(*array.shape[:2], -1)
    for value in sorted({float(each[0]) for each in steps[:, -1] if (each == each[0]).all()}):
        padded = (steps == value).all(axis=2)
        if _ends_rows(padded):
            inside = steps[~padded]
            return dataclasses.replace(
                field,
                shape=array.shape[2:],
                lengths=(1, array.shape[1]),
                width=array.shape[1],
                padding=value,
                mask=bool(whole and value == 0 and (inside == 1).all()),
                low=float(inside.min()),
                high=float(inside.max()),
            )
    return field


def _ends_rows(padded: Array) -> bool:
    """True where each row is False up to its length and True behind it, and the lengths differ."""
    lengths = (~padded).sum(axis=1)
    behind = padded == (lengths[:, None] <= [*range(padded.shape[1])])
    return bool(behind.all() and 1 <= lengths.min() < lengths.max())


def _of_one_length(x: Any, side: Any) -> Any:
    """Sequences keep their lengths only where all of them agree with the inputs'; else they are plain arrays."""
    widths = {each.width for each in leaves(x) if each.width is not None}
    if len(widths) == 1:
        only = widths.pop()
        return map_leaves(side, lambda field: field if field.width in (None, only) else _flat(field))
    return map_leaves(side, lambda field: field if field.width is None else _flat(field))


def _flat(field: Field) -> Field:
    return dataclasses.replace(
        field,
        shape=(field.width or 1, *field.shape),
        lengths=None,
        width=None,
        mask=False,
        low=min(field.low, field.padding),
        high=max(field.high, field.padding),
    )
