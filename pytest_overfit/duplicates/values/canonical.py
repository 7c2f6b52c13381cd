"""When are two numbers the same? One canonical form for every number type, so that equal values have equal bytes.

-0.0 is 0.0, every NaN is one NaN, 1 is 1.0 is True; float widths that differ between splits are compared in the
narrower one; numbers k/255 of one split are compared as k where the other split has k.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from pytest_overfit.core.arrays import Array

#: how far x * 255 may lie from a whole number for x to be a scaled byte; float16 keeps three digits only
_WHOLE, _WHOLE_HALF = 0.02, 0.15


@dataclasses.dataclass(frozen=True)
class ValueComparison:
    """How one part of the input (one leaf) is compared, the same for all splits."""

    #: numpy type that both sides are brought to
    dtype: str
    #: splits that hold k/255 where another holds k
    scaled: tuple[str, ...] = ()
    #: the types that the splits have, where they are not all the same
    types: tuple[str, ...] = ()
    #: samples of another shape but as many numbers are compared number by number
    flat: bool = False

    @property
    def widths_differ(self) -> bool:
        """True if floats of two widths meet: their equality is one of rounded numbers."""
        return len({each for each in self.types if each.startswith(("float", "complex"))}) > 1


def numeric(dtype: Any) -> bool:
    """True for types that hold numbers, truth values or times."""
    return dtype.kind in "biufcmM" or str(dtype) in ("bfloat16", "float8_e4m3fn", "float8_e5m2")


def plain_numbers(array: Array) -> Array:
    """Booleans, times, complex and foreign floats as plain integers and floats, without a copy where there can be."""
    kind = array.dtype.kind
    if kind == "b":
        return array.view(np.uint8)
    if kind == "M" or kind == "m":
        return array.astype(f"{kind}8[ns]", copy=False).view(np.int64)
    if kind == "c":
        return np.stack([array.real, array.imag], axis=-1)
    if kind == "V" or (kind == "f" and array.dtype.itemsize > 8):
        return array.astype(np.float32 if kind == "V" else np.float64)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def common_dtype(dtypes: Sequence[Any]) -> str:
    """The type in which values of these types are compared: never loses what makes equal values equal."""
    floats = [each for each in dtypes if each.kind == "f"]
    whole = [each for each in dtypes if each.kind != "f"]
    if not floats:
        if len({each.str for each in whole}) == 1:
            return str(whole[0].str)
        return "<i8"  # of two values that differ, uint64 above the middle may meet int64 below zero: verified away
    narrowest = min(floats, key=lambda each: each.itemsize)
    if not whole:
        return str(narrowest.str)
    if max(each.itemsize for each in whole) >= 4:
        return "<f8"
    return "<f4" if narrowest.itemsize <= 4 else "<f8"


def canonical(values: Array, dtype: str, scaled: bool = False) -> Array:
    """A new contiguous array of the type, in which equal values have equal bits."""
    target = np.dtype(dtype)
    with np.errstate(all="ignore"):
        if scaled:
            values = np.rint(values.astype(np.float64) * 255)
        if target.kind != "f":
            if values.dtype.kind == "f":
                values = _wrapped(values, target)
            return np.ascontiguousarray(values.astype(target, copy=False))
        found, wider = np.empty(values.shape, target), np.result_type(values.dtype, target)  # rounded once
        np.add(values, target.type(0), out=found, casting="unsafe", dtype=wider)
        if found.size and np.isnan(np.minimum.reduce(found, axis=None)):
            found[np.isnan(found)] = np.nan
    return found


def _wrapped(values: Array, target: Any) -> Array:
    """Floats where integers are expected: equal values stay equal, whatever else happens is sorted out by comparing."""
    bound = 2.0 ** min(8 * target.itemsize, 62)
    whole = np.trunc(np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0))
    return np.asarray(np.fmod(whole, bound).astype(np.int64))


def words(values: Array) -> Array:
    """The bits of a canonical array as unsigned 64-bit words."""
    unsigned = values.view(f"u{values.dtype.itemsize}")
    return unsigned if unsigned.dtype.itemsize == 8 else unsigned.astype(np.uint64)


def compared(samples: dict[str, Array]) -> ValueComparison:
    """How values of the splits are compared, from a few of each: `samples` has plain numbers by split."""
    dtypes = [each.dtype for each in samples.values()]
    names = tuple(dict.fromkeys(str(each) for each in dtypes))
    bytes_in = [name for name, each in samples.items() if _holds_bytes(each)]
    scaled = tuple(name for name, each in samples.items() if _holds_scaled_bytes(each)) if bytes_in else ()
    others = [each.dtype for name, each in samples.items() if name not in scaled]
    dtype = common_dtype(others) if others else common_dtype(dtypes)
    return ValueComparison(dtype, scaled, names if len(names) > 1 else ())


def _holds_bytes(values: Array) -> bool:
    if not values.size or not (np.dtype("u1") == values.dtype or values.dtype.kind in "iuf"):
        return False
    low, high = values.min(), values.max()
    if not (low >= 0 and 1 < high <= 255):  # also False for NaN
        return False
    return values.dtype.kind != "f" or bool((values == np.rint(values)).all())


def _holds_scaled_bytes(values: Array) -> bool:
    """Floats in [0, 1], all of them k / 255, and not of a coarser grid that 255 happens to be a multiple of."""
    if values.dtype.kind != "f" or not values.size or not (values.min() >= 0 and 0 < values.max() <= 1):
        return False
    times = values.astype(np.float64) * 255
    whole = np.rint(times)
    return (
        bool((np.abs(times - whole) < (_WHOLE_HALF if values.dtype.itemsize == 2 else _WHOLE)).all())
        and int(np.gcd.reduce(whole.astype(np.int64), axis=None)) == 1
    )
