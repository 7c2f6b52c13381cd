"""How tables are looked at by the search: each row by its ranks, or, where much is zero, by its numbers.

Each column by rank, the share of values below, so that it does not matter how it is scaled or how far its outliers lie.
(Standardised by the interquartile range, two rows with an outlier in the same column were neighbours beyond belief: 15
alarms in 77 runs on clean data with heavy tails, by rank none.)

Tables of which much is zero are looked at by their numbers instead, columns of many units brought to one: by rank the
step from zero to the least number above it is large, and noise on zeros is torn apart (MNIST as a table, noise of sd
0.01: none of 25 copies found by rank, 25 by numbers). Tables of up to 128 columns by both.

Columns in which a row has a common value (a zero that 70 % of rows have) add nothing to the dimensions of its place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pytest_overfit.core.arrays import Array

#: share of zeros from which a table is looked at by its numbers, and rows that tell it
ZEROS, FEW = 0.3, 1_024
#: columns are of one unit if sizes of their numbers (those with so many that are not zero) lie within this factor
UNITS, MEASURED = 10, 5
#: numbers between these need no scale for float32 to hold their fourth powers
UNSCALED = (1e-7, 1e7)
#: no larger number is left to float32
LARGE = 1e9
#: columns that are left as they are; more are added up, each with a random sign
MOST_COLUMNS = 2_048
#: points of the curve from a value to its rank
STEPS = 129
#: share of rows from which a value of a column is common
COMMON = 0.1
#: so that differences stay finite
LARGEST = 8e307

#: rows -> (vectors, how many numbers of each row are free: at most so many dimensions has the place where it lies)
Look = Callable[["Array"], "tuple[Array, Array]"]


def many_zeros(sample: Array) -> bool:
    """A table of measured numbers of which so much is zero that ranks would blow up noise on the zeros."""
    some = sample[:FEW]
    return bool(np.count_nonzero(some == 0) > ZEROS * some.size and _measured(np.abs(_wide(some))).mean() >= 0.5)


def _measured(flat: Array) -> Array:
    """Columns of more than yes and no: they hold two values above zero."""
    return np.asarray(((flat != flat.max(0)) & (flat > 0)).any(0))


def numbers(sample: Array) -> Look:
    """Rows as they are, with the columns brought to one unit where they have several."""
    flat = np.abs(np.nan_to_num(_wide(sample[:FEW]), posinf=0.0, neginf=0.0))
    known = np.count_nonzero(flat, axis=0) >= MEASURED
    measured = _measured(flat).astype(np.float32)
    sizes = flat.sum(0) / np.maximum(1, np.count_nonzero(flat, axis=0))
    low, high = np.quantile(sizes[known], (0.1, 0.9)) if known.any() else (0.0, 0.0)
    scale = np.where(sizes > 0, sizes, 1.0) if high > UNITS * low else sizes.max(initial=0) or 1.0
    plain = np.ndim(scale) == 0 and UNSCALED[0] < scale < UNSCALED[1]

    def look(rows: Array) -> tuple[Array, Array]:
        wide = rows.reshape(len(rows), -1)
        with np.errstate(over="ignore", invalid="ignore"):
            wide = (wide if plain else wide / scale).astype(np.float32, copy=False)
            size = np.einsum("ij,ij->i", wide, wide)
            if not np.isfinite(size).all():
                wide = np.clip(np.nan_to_num(wide, posinf=LARGE), -LARGE, LARGE)
                size = np.einsum("ij,ij->i", wide, wide)
            # how many numbers carry the row, as if they were equally large; yes and no have no dimension
            if not measured.all():
                size = (wide * wide) @ measured
            carried = ((np.abs(wide) if wide.min(initial=0) < 0 else wide) @ measured) ** 2
        return wide, carried / np.where(size > 0, size, 1.0)

    return look


def columns(sample: Array, random: Any) -> Look:
    """Each column as its share of smaller values; a second column marks holes where there are any."""
    flat = _wide(sample)
    curves = [(column, *_ranks(flat[:, column])) for column in range(flat.shape[1])]
    curves = [curve for curve in curves if len(curve[1]) > 1]
    common = [_common(flat[:, column]) for column, *_ in curves]
    holes = np.flatnonzero(np.isnan(flat).any(0))
    order = np.argsort(random.integers(0, MOST_COLUMNS // 2, len(curves)), kind="stable")
    signs = random.choice([-1.0, 1.0], len(curves)).astype(np.float32)
    starts = np.linspace(0, len(curves), MOST_COLUMNS // 2, endpoint=False).astype(int)

    def view(rows: Array) -> tuple[Array, Array]:
        flat = _wide(rows)
        z = np.zeros((len(flat), len(curves)), np.float32)
        free = np.zeros(len(flat), np.float32)
        for place, (column, known, share) in enumerate(curves):
            z[:, place] = np.interp(flat[:, column], known, share) - 0.5
            free += ~np.isin(flat[:, column], common[place]) if len(common[place]) else 1
        z = np.nan_to_num(z, copy=False, nan=0.0)
        if len(curves) > MOST_COLUMNS:
            z = np.add.reduceat((z * signs)[:, order], starts, axis=1)
        elif len(holes):
            z = np.concatenate([z, np.isnan(flat[:, holes])], axis=1, dtype=np.float32)
        return z, free

    return view


def _common(column: Array) -> Array:
    """Values that so many rows have that sharing them says nothing; a hole is one."""
    values, count = np.unique(column, return_counts=True)
    return np.append(values[count > COMMON * len(column)], np.nan if np.isnan(column).any() else [])


def _ranks(column: Array) -> tuple[Array, Array]:
    """Values of a column and the shares of values below them, half of the equal ones counted."""
    column = np.clip(column[~np.isnan(column)], -LARGEST, LARGEST)
    if not len(column):
        return column, column
    grid = np.sort(column)
    grid = grid[np.linspace(0, len(grid) - 1, min(len(grid), STEPS)).astype(int)]
    known, first, count = np.unique(grid, return_index=True, return_counts=True)
    return known, (first + (count - 1) / 2) / max(1, len(grid) - 1)


def _wide(rows: Array) -> Array:
    """Rows as (n, columns) float64."""
    return rows.reshape(len(rows), int(np.prod(rows.shape[1:], dtype=np.int64))).astype(np.float64)
