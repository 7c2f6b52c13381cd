"""What batches of a kind look like, written down: shapes, dtypes, ranges, classes, lengths, padding, holes."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.foreign import describe
from pytest_overfit.data.tree import leaves


@dataclasses.dataclass(frozen=True, kw_only=True)
class Field:
    """One array of a batch. Raises `CaseError` where no array could be as it says.

    Its attribute `shape` makes it a leaf of the tree functions, so a spec is nested exactly as its batches are.
    """

    #: axes of one row, without the axis of rows and, in a sequence, without the axis of time
    shape: tuple[int, ...] = ()
    #: default: float32, and int64 for classes
    dtype: str = ""
    #: least and largest value, both included
    low: float = -1.0
    high: float = 1.0
    #: whole numbers 0 ... classes - 1 in place of the range
    classes: int | None = None
    #: a last axis of 0 and 1 in place of the class numbers
    one_hot: bool = False
    #: shortest and longest real length of a row, for sequences; all sequences of a batch have the same lengths
    lengths: tuple[int, int] | None = None
    #: size of the axis of time, the rest is padding; default: the longest row of the batch
    width: int | None = None
    #: what stands behind the end of a shorter row
    padding: float = 0.0
    #: 1 where a row is real and `padding` behind its end: a mask of another sequence
    mask: bool = False
    #: at most this share of the numbers is NaN
    missing: float = 0.0

    def __post_init__(self) -> None:
        dtype = self.dtype or ("int64" if self.classes is not None and not self.one_hot else "float32")
        try:
            kind = np.dtype(dtype).kind
        except TypeError:
            raise CaseError(f"Field(dtype={self.dtype!r}): not a dtype of numpy; write e.g. 'float32'") from None
        if kind not in "fiub":
            raise CaseError(f"Field(dtype={dtype!r}): expected numbers or truth values; write e.g. 'float32'")
        object.__setattr__(self, "dtype", str(np.dtype(dtype)))
        object.__setattr__(self, "shape", _shape(self.shape))
        self._check_values(kind)
        self._check_lengths()

    def _check_values(self, kind: str) -> None:
        if self.classes is not None and (isinstance(self.classes, bool) or self.classes < 1):
            raise CaseError(f"Field(classes={self.classes!r}): expected at least one class; write e.g. classes=10")
        if self.one_hot and self.classes is None:
            raise CaseError("Field(one_hot=True): say how many classes there are; write e.g. classes=10")
        if not (np.isfinite(self.low) and np.isfinite(self.high)) or self.low > self.high:
            raise CaseError(f"Field(low={self.low!r}, high={self.high!r}): expected finite numbers with low <= high")
        if not 0 <= self.missing < 1 or (self.missing and kind != "f"):
            raise CaseError(
                f"Field(missing={self.missing!r}, dtype={self.dtype!r}): expected a share from 0 to below 1, and NaN "
                "exists in floating point only"
            )
        if kind in "iu" and not self.one_hot:
            low, high = self.bounds
            info = np.iinfo(self.dtype)
            if not info.min <= low <= high <= info.max:
                raise CaseError(
                    f"Field(dtype={self.dtype!r}): no whole number of this dtype lies from {low:g} to {high:g}; "
                    f"it holds {info.min} to {info.max}"
                )

    def _check_lengths(self) -> None:
        if self.lengths is None:
            if self.mask or self.width is not None:
                raise CaseError("Field: mask= and width= are of sequences; write lengths=(shortest, longest) too")
            return
        given = self.lengths
        whole = isinstance(given, tuple) and len(given) == 2 and all(type(each) is int for each in given)
        if not whole or not 1 <= given[0] <= given[1]:
            raise CaseError(f"Field(lengths={given!r}): expected 1 <= shortest <= longest, whole; write (1, 12)")
        if self.width is not None and self.width < given[1]:
            raise CaseError(f"Field(lengths={given!r}, width={self.width!r}): the longest row does not go in")

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and largest value; of whole numbers the whole numbers inside the range."""
        if self.classes is not None:
            return 0, self.classes - 1
        if not self.dtype.startswith("float"):
            return math.ceil(self.low), math.floor(self.high)
        return self.low, self.high


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchSpec:
    """Batches `(x, y)`: inputs and targets are fields, or dicts, tuples and lists of fields.

    Raises `CaseError` for an `x` without a field, and for sizes below one row.
    """

    x: Any
    #: None: there are no targets, or they are among the inputs
    y: Any = None
    #: the largest batch
    rows: int = 8
    #: rows of the last, odd batch of an epoch, which is then drawn more often; any size from 1 to `rows` is drawn
    last: int | None = None

    def __post_init__(self) -> None:
        for name, size in (("rows", self.rows), ("last", self.last)):
            if size is not None and (type(size) is not int or not 1 <= size <= self.rows):
                raise CaseError(f"BatchSpec({name}={size!r}): expected a whole number from 1 to rows")
        found = [*leaves([self.x, self.y])]
        if next(leaves(self.x), None) is None or not all(isinstance(each, Field) for each in found):
            given = next((each for each in found if not isinstance(each, Field)), self.x)
            raise CaseError(
                f"BatchSpec: expected fields, got {describe(given)}; write BatchSpec(x=Field(shape=(64,)), "
                "y=Field(classes=10)), or dicts and tuples of fields"
            )
        if len({each.lengths for each in found if each.lengths is not None}) > 1:
            raise CaseError(
                "BatchSpec: its sequences have different lengths=, and all sequences of a batch share their rows' "
                "lengths; give all the same"
            )

    @property
    def lengths(self) -> tuple[int, int] | None:
        """Shortest and longest row of its sequences; None: there are none."""
        return next((each.lengths for each in leaves([self.x, self.y]) if each.lengths is not None), None)


def _shape(given: Any) -> tuple[int, ...]:
    shape = tuple(given) if isinstance(given, (tuple, list)) else given
    if not isinstance(shape, tuple) or not all(type(each) is int and each > 0 for each in shape):
        raise CaseError(
            f"Field(shape={given!r}): expected a tuple of whole numbers of 1 or more, the axes of one row; write "
            "shape=(64,), or shape=() for one number a row"
        )
    return shape
