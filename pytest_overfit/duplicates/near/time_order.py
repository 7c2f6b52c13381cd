"""Splits in time: everything that is evaluated must lie after everything that was learnt from, a gap between them.

Measured: rows of the small split that are not later than the last row of the large one plus `gap`. The gap is for
targets that reach into the future (a return over the next 5 days needs 5 days) and for windows of the past.
Exact; times may be numbers, dates, numpy or pandas times, or ISO 8601 strings. Missing times are counted and left out.
Cost: one pass.
"""

from __future__ import annotations

import datetime
from numbers import Real
from typing import Any

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.duplicates.near.groups import is_missing
from pytest_overfit.duplicates.near.results import Order


def out_of_order(time_small: Any, time_large: Any, gap: Any = 0) -> Order:
    """Rows of the small split whose time is not later than the last time of the large split plus `gap`."""
    small, large = _times(time_small, "the small split"), _times(time_large, "the large split")
    for where, times in (("small", small), ("large", large)):
        if times.dtype.kind == "f" and np.isinf(times).any():
            raise TypeError(f"the {where} split: expected finite times, got {times[np.isinf(times)][0]}")
    if (small.dtype.kind == "M") != (large.dtype.kind == "M"):
        raise TypeError(f"expected times of one kind, got {small.dtype} and {large.dtype}")
    known, others = ~_missing(small), ~_missing(large)
    missing = int((~known).sum() + (~others).sum())
    if not known.any() or not others.any():
        return Order((), 0.0, "", "", missing)
    last = large[others].max()
    border = last + _gap(gap, large.dtype)
    rows = np.flatnonzero(known & (small <= border))
    rows = rows[np.argsort(small[rows], kind="stable")]
    backwards = bool(small[known].max() < large[others].min())
    return Order(
        tuple(rows.tolist()), len(rows) / int(known.sum()), str(last), str(small[known].min()), missing, backwards
    )


def _times(given: Any, where: str) -> Array:
    """Times as float64, int64 or datetime64."""
    values = np.asarray(given)
    if values.dtype.kind in "OUS":
        flat = [None if is_missing(each) else each for each in values.ravel().tolist()]
        plain = [getattr(each, "to_datetime64", lambda each=each: each)() for each in flat]
        if all(each is None or isinstance(each, (int, float)) for each in plain):
            return np.array([np.nan if each is None else each for each in plain], float)
        try:
            return np.array(
                [np.datetime64("NaT") if each is None else _moment(each) for each in plain], "datetime64[us]"
            )
        except (TypeError, ValueError) as error:
            raise TypeError(f"{where}: expected times as numbers, dates or ISO 8601 strings: {error}") from None
    if values.dtype.kind not in "biufM":
        raise TypeError(f"{where}: expected times as numbers or dates, got {values.dtype}")
    return values.ravel()


def _moment(value: Any) -> Any:
    """A date as numpy's, in UTC where it has a time zone."""
    if isinstance(value, (str, bytes)):
        value = datetime.datetime.fromisoformat(value.decode() if isinstance(value, bytes) else value)
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        value = value.astimezone(datetime.UTC).replace(tzinfo=None)
    return np.datetime64(value)


def _missing(times: Array) -> Array:
    if times.dtype.kind == "M":
        return np.isnat(times)
    return np.isnan(times) if times.dtype.kind == "f" else np.zeros(len(times), bool)


def _gap(gap: Any, kind: Any) -> Any:
    """The gap in the unit of the times; a number is in days where the times are dates."""
    if kind.kind != "M":
        if isinstance(gap, (datetime.timedelta, np.timedelta64)):
            raise TypeError(f"gap={gap!r}, but the times are numbers: write the gap as a number in their unit")
        return gap
    if isinstance(gap, Real):
        return np.timedelta64(round(float(gap) * 86_400_000_000), "us")
    return np.timedelta64(gap)
