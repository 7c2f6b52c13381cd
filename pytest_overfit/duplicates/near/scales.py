"""The same rows on another scale: one split holds x, the other (x - offset) / scale, and no two numbers are equal.

Masks of 0 and 255 beside 0 and 1, bytes beside x / 127.5 - 1, a table beside its standardised form. One positive scale
and one offset for a whole split, for each channel of pictures, or for each column of a table; never for single rows,
which may differ in brightness by nature.

Measured: of a whole split (or a channel) each row less its mean, of length one, is the same on any scale; rows that
agree so are candidates, and the scale and offset that most of them name is that of the split. Of columns: rows are
looked up among the others after each split's columns are brought to mean 0 and standard deviation 1 by themselves,
which is nearly right; two such pairs name a scale and an offset for each column, and two more must agree with both.
Then every number of a copy is compared, up to what rounding leaves, and there must be three times as many copies as
after a permutation of each column's values: small whole numbers agree on some scale by chance.

Cannot see: rows of fewer than two levels (of a channel as well), fewer than four copies where each column has its own
scale. Cost: some reads of the data; for columns a search for nearest rows. Only where splits differ in their spread.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.duplicates.near.neighbours import Index, one_blas_thread

#: what rounding leaves of a number, as a share of the spread: of single and double precision, of half precision
ROUNDED, ROUNDED_HALF = 1e-5, 1.5e-3
#: marks of two equal rows are no farther apart; rows looked at for each, and scales that are tried
APART, BESIDE, TRIED = 1e-5, 32, 64
#: how far two scales or offsets may be apart to be one, in spreads of the split
ONE = 1e-3
#: numbers of a row from which its shape alone tells a candidate
LEAST_WIDTH = 8
#: a scale brings one split's spread to that of the other up to this factor
PLAUSIBLE = 2.0
#: as many times more copies than where the values of each column are permuted, so that rows agree by chance alone
BEYOND = 3
#: pairs from which scales of columns are guessed, guesses, and pairs that must agree
GUESSED_FROM, GUESSES, AGREEING = 400, 2_000, 4
#: values beyond the two of each column that must agree, over all columns
CONFIRMED = 8
#: nearest rows that are looked at
NEAREST = 5
#: wider tables are not searched for a scale of each column
MOST_COLUMNS = 1_024
#: values that are looked at, and the share of different ones that both splits have where they are on one scale
VALUES, ONE_GRID = 1 << 18, 0.9
#: numbers in a block
BLOCK_NUMBERS = 1 << 20


@dataclasses.dataclass(frozen=True)
class Rescaled:
    """`scale * x + offset` of a row of the small split is a row of the large one, for each number of a row."""

    scale: Array
    offset: Array
    #: rows of the small split and of the large one
    pairs: tuple[Array, Array]

    def of(self, small: Array) -> Array:
        """The small split on the scale of the large one."""
        flat = small.reshape(len(small), -1) * self.scale + self.offset
        return np.asarray(flat.reshape(small.shape))


def find_rescaled(small: Array, large: Array) -> Rescaled | None:
    """The scale on which rows of `small` are rows of `large`; None: there is none but their own."""
    width = math.prod(large.shape[1:])
    if not len(small) or not len(large) or width < 2 or math.prod(small.shape[1:]) != width:
        return None
    if _of_one_grid(small, large):
        return None
    rounded = ROUNDED_HALF if np.float16 in (small.dtype, large.dtype) else ROUNDED
    shape, (small, large) = large.shape[1:], (each.reshape(len(each), width) for each in (small, large))
    with one_blas_thread(), np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        found = _most(small, large, shape, rounded)
        if found is None:
            return None
        chance = _most(np.random.default_rng(0).permuted(small, axis=0), large, shape, rounded)
    return found if chance is None or len(found.pairs[0]) > BEYOND * len(chance.pairs[0]) else None


def _of_one_grid(small: Array, large: Array) -> bool:
    """Nearly all values of the small split are values of the large one: they are on one scale as they are."""
    mine, theirs = (np.unique(each.reshape(-1)[:: max(1, each.size // VALUES)]) for each in (small, large))
    return bool(np.isin(mine, theirs).mean() > ONE_GRID)


def _most(small: Array, large: Array, shape: tuple[int, ...], rounded: float) -> Rescaled | None:
    """The scale with most copies."""
    found = [_by_rows(small, large, channel, rounded) for channel in _channels(shape)]
    if small.shape[1] <= MOST_COLUMNS:
        found.append(_by_columns(small, large, rounded))
    return max((each for each in found if each is not None), key=lambda each: len(each.pairs[0]), default=None)


def _channels(shape: tuple[int, ...]) -> Iterator[Array]:
    """The channel of each number of a row: one for all, and those of pictures, last or first."""
    width = math.prod(shape)
    if width >= LEAST_WIDTH:
        yield np.zeros(width, np.int64)
    if len(shape) == 3 and 1 < shape[2] <= 4:
        yield np.arange(width) % shape[2]
    elif len(shape) == 3 and 1 < shape[0] <= 4:
        yield np.arange(width) // math.prod(shape[1:])


# ------------------------------------------------------------------------------------- one scale for all, or a channel


class _Shapes:
    """What of each row is the same on any scale, as two numbers, and its mean and size in each channel."""

    def __init__(self, rows: Array, channel: Array) -> None:
        weights = np.random.default_rng(0).normal(size=(rows.shape[1], 2))
        count = int(channel.max()) + 1
        self.marks = np.zeros((len(rows), 2))
        self.mean, self.size = np.zeros((2, len(rows), count))
        for part in _blocks(*rows.shape):
            block = rows[part].astype(np.float64)
            for number in range(count):
                of = block[:, channel == number]
                mean = of.mean(1, keepdims=True)
                of -= mean
                size = np.sqrt(np.einsum("ij,ij->i", of, of))
                size[size <= ROUNDED * np.abs(mean[:, 0])] = np.nan  # no two levels
                self.marks[part] += (of @ weights[channel == number]) / size[:, None]
                self.mean[part, number], self.size[part, number] = mean[:, 0], size


def _by_rows(small: Array, large: Array, channel: Array, rounded: float) -> Rescaled | None:
    ours, theirs = _Shapes(small, channel), _Shapes(large, channel)
    i, j = _meet(ours.marks, theirs.marks, APART * rounded / ROUNDED)
    if not len(i):
        return None
    scale = theirs.size[j] / ours.size[i]
    offset = theirs.mean[j] - scale * ours.mean[i]
    spread = _spread(large)
    apart = np.concatenate([scale * _spread(small) / spread, offset / spread], axis=1)
    tried = np.random.default_rng(0).permutation(len(i))[:TRIED]
    agreeing = [np.flatnonzero((np.abs(apart - apart[each]) < ONE).all(1)) for each in tried]
    most = max(agreeing, key=len)
    scale, offset = np.median(scale[most], axis=0)[channel], np.median(offset[most], axis=0)[channel]
    if not 1 / PLAUSIBLE < np.median(scale) * _spread(small) / spread < PLAUSIBLE:
        return None
    reach = np.full(len(channel), 2 * rounded * max(spread, float(np.abs(large[j[most]]).max())))
    return _compared(scale, offset, small, large, (i[most], j[most]), reach)


def _meet(ours: Array, theirs: Array, apart: float) -> tuple[Array, Array]:
    """Rows of both whose two marks are as near as rounding leaves them."""
    mine, other = (np.flatnonzero(np.isfinite(each).all(1)) for each in (ours, theirs))
    other = other[np.argsort(theirs[other, 0], kind="stable")]
    ordered = theirs[other, 0]
    first, last = (np.searchsorted(ordered, ours[mine, 0] + by) for by in (-apart, apart))
    rows = [np.empty((2, 0), np.int64)]
    for turn in range(min(BESIDE, int((last - first).max(initial=0)))):
        here = np.flatnonzero(first + turn < last)
        beside = other[first[here] + turn]
        near = np.abs(ours[mine[here], 1] - theirs[beside, 1]) < apart
        rows.append(np.stack([mine[here][near], beside[near]]))
    i, j = np.concatenate(rows, axis=1)
    return i, j


def _compared(
    scale: Array, offset: Array, small: Array, large: Array, pairs: tuple[Array, Array], reach: Array
) -> Rescaled | None:
    """Every number of the pairs compared, up to `reach`; None where it is the splits' own scale after all."""
    i, j = pairs
    known = np.isfinite(reach)
    least = 10 * ROUNDED
    if np.allclose(scale[known], 1, atol=least) and (np.abs(offset)[known] <= least * _spread(large)).all():
        return None
    equal = [
        part.start + np.flatnonzero((np.abs(small[i[part]] * scale + offset - large[j[part]]) <= reach).all(1))
        for part in _blocks(len(i), small.shape[1])
    ]
    kept = np.concatenate([np.empty(0, np.int64), *equal])
    return Rescaled(scale, offset, (i[kept], j[kept])) if len(kept) else None


def _spread(rows: Array) -> float:
    some = rows[:: max(1, len(rows) // 1_024)].astype(np.float64)
    return float(np.nanstd(some)) or 1.0


def _blocks(rows: int, width: int) -> list[slice]:
    step = max(1, BLOCK_NUMBERS // width)
    return [slice(start, start + step) for start in range(0, rows, step)]


# ------------------------------------------------------------------------------------------------ a scale for a column


def _by_columns(small: Array, large: Array, rounded: float) -> Rescaled | None:
    small, large = small.astype(np.float64), large.astype(np.float64)
    center, size = large.mean(0), large.std(0)
    mine, wide = small.mean(0), small.std(0)
    varying = (size > 0) & (wide > 0) & np.isfinite(size + wide)
    if varying.sum() < 2 or len(small) < AGREEING or len(large) < AGREEING:
        return None
    x, y = small[:, varying], large[:, varying]
    index = Index(((y - center[varying]) / size[varying]).astype(np.float32))
    distances, found = index.search(((x - mine[varying]) / wide[varying]).astype(np.float32), NEAREST)
    i, j = _likely(distances, found)
    fit = _guessed(x[i], y[j], wide[varying], size[varying], rounded)
    if fit is None:
        return None
    nearest = index.search(((x * fit[0] + fit[1] - center[varying]) / size[varying]).astype(np.float32), NEAREST)[1]
    scale, offset = np.ones(len(varying)), np.zeros(len(varying))
    scale[varying], offset[varying], varying[varying] = fit
    i, at = np.nonzero(nearest >= 0)
    reach = np.where(varying, 10 * rounded * size, np.inf)  # a column that does not vary tells nothing
    compared = _compared(scale, offset, small, large, (i, nearest[i, at]), reach)
    return compared if compared is not None and _confirmed(small[compared.pairs[0]]) else None


def _confirmed(rows: Array) -> bool:
    """Two values of a column name its scale and offset, and any two levels fit any two; further ones confirm it."""
    further = sum(max(0, len(np.unique(column)) - 2) for column in rows.T)
    return further >= CONFIRMED


def _likely(distances: Array, found: Array) -> tuple[Array, Array]:
    """Pairs that may be copies: of few rows all their nearest, of more the nearest that stands out most."""
    if len(found) * found.shape[1] <= GUESSED_FROM:
        i, at = np.nonzero(found >= 0)
        return i, found[i, at]
    i = np.argsort(distances[:, 0] / np.maximum(distances[:, 1], 1e-9), kind="stable")[: GUESSED_FROM // 2]
    return i, found[i, 0]


def _guessed(x: Array, y: Array, wide: Array, size: Array, rounded: float) -> tuple[Array, Array, Array] | None:
    """Scale and offset of each column that most of these pairs of rows agree with, and where they tell it."""
    random = np.random.default_rng(0)
    best, most = np.empty(0, np.int64), 0
    for _ in range(GUESSES if len(x) >= AGREEING else 0):
        one, other = random.choice(len(x), 2, replace=False)
        agree, columns = _agreeing(x - x[one], y - y[one], other, wide, size, 100 * rounded)
        if len(agree) * columns > most:
            best, most = agree, len(agree) * columns
    if len(np.unique(x[best], axis=0)) < AGREEING:
        return None
    mean_x, mean_y = x[best].mean(0), y[best].mean(0)
    run, rise = x[best] - mean_x, y[best] - mean_y
    square = (run**2).sum(0)
    scale = np.where(square > 0, (run * rise).sum(0) / np.where(square > 0, square, 1.0), size / wide)
    return scale, mean_y - scale * mean_x, square > 0


def _agreeing(run: Array, rise: Array, other: int, wide: Array, size: Array, rounded: float) -> tuple[Array, int]:
    """Pairs that agree with the scale of columns from the pair in the origin to another, and how many columns tell."""
    apart = np.abs(rise[other]) > ONE * size
    gain = np.abs(
        np.log(np.maximum(rise[other] * run[other], 0)[apart] * (wide / size)[apart] / run[other][apart] ** 2)
    )
    if apart.sum() < 2 or not (gain < math.log(PLAUSIBLE)).all():
        return np.empty(0, np.int64), 0
    scale = rise[other][apart] / run[other][apart]
    off = np.abs(run[:, apart] * scale - rise[:, apart]) <= rounded * size[apart]
    return np.flatnonzero(off.all(1)), int(apart.sum())
