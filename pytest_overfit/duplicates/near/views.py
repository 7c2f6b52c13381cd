"""What a row looks like to the search: short float32 vectors in which a copy lies next to its source.

Images: `pixels`, mean taken off and scaled to length one (blind to brightness and contrast), and `spectrum`, the
magnitudes of the lowest spatial frequencies (blind to a shift as well), the two mirror frequencies of each pair put in
order of size (blind to a flip). Images above 32 x 32 are averaged down to that first. Neither sees rotation, crop or
scale; embeddings given as vectors do. Shifts that push something over the border are seen through in `pictures`.
Series: the same in one dimension. Vectors: each column by rank, the share of values below, so that it does not matter
how it is scaled or how far its outliers lie. (Standardised by the interquartile range, two rows with an outlier in the
same column were neighbours beyond belief: 15 alarms in 77 runs on clean data with heavy tails, by rank none.)
More than 128 numbers are reduced to the 128 main components of a sample, after 2,048 by adding columns up with random
signs (Charikar et al. 2002): distances shrink by about the same factor, for copies and for clean rows.

Columns in which a row has a common value (a zero that 70 % of rows have) add nothing to the dimensions of its place,
nor do the pixels of a plain background: a picture of one dot is left out, because the spectra of all dots are the same.

Cost: one FFT of 32 x 32 an image; memory 512 bytes a row and view, and one block of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pytest_overfit.core.arrays import Array

#: numbers a row in the search
WIDTH = 128
SIDE = 32
#: rows of one block, and of the sample that medians and components come from
BLOCK, SAMPLE = 1_024, 4_096
MOST_COLUMNS = 2_048
#: points of the curve from a value to its rank
STEPS = 129
#: share of rows from which a value of a column is common
COMMON = 0.1
#: so that differences stay finite
LARGEST = 8e307

#: rows -> (vectors, how many numbers of each row are free: at most so many dimensions has the place where it lies)
View = Callable[["Array"], "tuple[Array, Array]"]


def views_of(kind: str, large: Array, seed: int = 0) -> dict[str, View]:
    """The views for this kind of rows, fitted to a sample of the large split."""
    random = np.random.default_rng(seed)
    rows = np.sort(random.choice(len(large), min(len(large), SAMPLE), replace=False))
    sample = large[rows]
    if kind == "image":
        return {"pixels": _reduced(pixels, sample), "spectrum": _reduced(spectrum, sample)}
    if kind == "series":
        return {"values": _reduced(values, sample), "spectrum": _reduced(frequencies, sample)}
    return {"columns": _reduced(_columns(sample, random), sample)}


def in_blocks(view: View, rows: Array, kept: Array | None = None) -> tuple[Array, Array]:
    """A view of all rows, or of those kept, a block at a time: none is copied but for its block."""
    count = len(rows) if kept is None else len(kept)
    blocks = (slice(start, start + BLOCK) for start in range(0, max(1, count), BLOCK))
    parts = [view(rows[block if kept is None else kept[block]]) for block in blocks]
    return np.concatenate([part for part, _ in parts]), np.concatenate([free for _, free in parts])


def pixels(images: Array) -> tuple[Array, Array]:
    """Mean-free pixels of length one, averaged down to 32 x 32 at most."""
    small = _images(images)
    return _unit(small.reshape(len(small), -1))


def spectrum(images: Array) -> tuple[Array, Array]:
    """Magnitudes of the lowest frequencies of the grey image, mirror pairs in order of size, without the mean."""
    grey = grey_pictures(images)
    free = _free(grey)
    grey = grey - grey.mean((1, 2), keepdims=True)  # no step at the border but the image's own
    size = np.abs(np.fft.rfft2(grey)).astype(np.float32)
    up, across = size.shape[1] // 2, size.shape[2]
    mirrored = size[:, (-np.arange(size.shape[1])) % size.shape[1]]
    both = np.stack([np.maximum(size, mirrored), np.minimum(size, mirrored)], -1)[:, : up + 1]
    vertical, horizontal = np.mgrid[: up + 1, :across]
    single = (vertical == 0) | (2 * vertical == size.shape[1])  # its own mirror image
    distance = np.hypot(vertical / size.shape[1], horizontal / grey.shape[2])
    distance = np.stack([distance, np.where(single, np.inf, distance)], -1).ravel()
    distance[0] = np.inf
    lowest = np.argsort(distance, kind="stable")[: min(WIDTH, int(np.isfinite(distance).sum()))]
    return _unit(both.reshape(len(grey), -1)[:, lowest], centre=False, free=free)


def values(series: Array) -> tuple[Array, Array]:
    """A series less its mean, of length one."""
    return _unit(_finite(series.reshape(len(series), -1)))


def frequencies(series: Array) -> tuple[Array, Array]:
    """Magnitudes of all frequencies of a series but the mean: blind to a shift in time that wraps around."""
    flat = _finite(series.reshape(len(series), series.shape[1], -1))
    free = _free(flat)
    flat = flat - flat.mean(1, keepdims=True)
    size = np.abs(np.fft.rfft(flat, axis=1))[:, 1:].reshape(len(flat), -1)
    return _unit(size.astype(np.float32), centre=False, free=free)


def _columns(sample: Array, random: Any) -> View:
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


def _reduced(view: View, sample: Array) -> View:
    """The same view on the main components of its sample, if it is wider than the search wants."""
    if len(sample) == 0:
        return view
    seen, free = in_blocks(view, sample)
    good = free > 0
    if seen.shape[1] <= WIDTH or good.sum() < 2:
        return view
    centred = seen[good] - seen[good].mean(0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    basis = np.ascontiguousarray(vectors[:, -WIDTH:], dtype=np.float32)

    def reduced(rows: Array) -> tuple[Array, Array]:
        wide, free = view(rows)
        return wide @ basis, free

    return reduced


def _unit(rows: Array, *, centre: bool = True, free: Array | None = None) -> tuple[Array, Array]:
    """Rows of length one; those without any contrast have no direction and are left out."""
    free = _free(rows) if free is None else free
    rows = rows - rows.mean(1, keepdims=True) if centre else rows
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    good = (free > 0) & (norms > 0)
    return (rows / np.where(good, norms, 1.0)[:, None]).astype(np.float32), np.where(good, free, 0.0)


def _free(rows: Array) -> Array:
    """How many numbers carry the contrast of each row, as if they had equal parts; 0 if there is none but rounding.

    One dot on a black picture is as good as any other dot: it has one.
    """
    flat = rows.reshape(len(rows), -1)
    if not flat.shape[1]:
        return np.zeros(len(rows))
    good = np.ptp(flat, axis=1) > 1e-5 * np.abs(flat).max(1, initial=0)
    squares = (flat - flat.mean(1, keepdims=True)) ** 2
    fourth = np.einsum("ij,ij->i", squares, squares)
    parts = squares.sum(1) ** 2 / np.where(fourth > 0, fourth, 1.0)
    return np.asarray(np.where(good & (fourth > 0), parts, 0.0))


def _wide(rows: Array) -> Array:
    """Rows as (n, columns) float64."""
    return rows.reshape(len(rows), int(np.prod(rows.shape[1:], dtype=np.int64))).astype(np.float64)


def _finite(rows: Array) -> Array:
    """float32 with NaN as 0, each row scaled by its own largest value, so that huge numbers stay finite."""
    rows = rows.astype(np.float32 if rows.dtype.itemsize <= 2 or rows.dtype == np.float32 else np.float64)
    rows = np.nan_to_num(rows, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    largest = np.abs(rows).max(axis=tuple(range(1, rows.ndim)), keepdims=True, initial=0)
    return (rows / np.where(largest > 0, largest, 1.0)).astype(np.float32)


def _images(images: Array) -> Array:
    """(n, height, width, channels) float32, at most 32 x 32, channels last."""
    if images.ndim == 3:
        images = images[..., None]
    elif images.shape[3] > 4 and images.shape[1] <= 4:
        images = images.transpose(0, 2, 3, 1)
    return _pooled(_pooled(_finite(images), 1), 2)


def grey_pictures(images: Array) -> Array:
    """(n, height, width) float32, at most 32 x 32."""
    return np.asarray(_images(images).mean(3))


def _pooled(images: Array, axis: int) -> Array:
    """Average along an axis in whole blocks until at most 32 are left; a last block may be smaller."""
    side = images.shape[axis]
    if side <= SIDE:
        return images
    starts = np.arange(0, side, -(-side // SIDE))
    counts = np.diff(starts, append=side).astype(np.float32)
    shape = [1] * images.ndim
    shape[axis] = len(starts)
    return np.add.reduceat(images, starts, axis=axis) / counts.reshape(shape)
