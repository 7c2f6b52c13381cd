"""What a row looks like to the search: short float32 vectors in which a copy lies next to its source.

Images: `pixels`, mean taken off and scaled to length one (blind to brightness and contrast), and `spectrum`, the
magnitudes of the lowest spatial frequencies (blind to a shift as well), the two mirror frequencies of each pair put in
order of size (blind to a flip). Images above 32 x 32 are averaged down to that first. Neither sees rotation, crop or
scale; embeddings given as vectors do. Shifts that push something over the border are seen through in `pictures`.
Series: the same in one dimension. Vectors: see `tables`.
More than 128 numbers are reduced to the 128 main components of a sample (64 of a table with many zeros), after 2,048
by adding columns up with random signs (Charikar et al. 2002): distances shrink by about the same factor, for copies and
for clean rows.

The pixels of a plain background add nothing to the dimensions of a picture's place: a picture of one dot is left out,
because the spectra of all dots are the same.

Cost: one FFT of 32 x 32 an image; memory 512 bytes a row and view, and one block of rows.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.duplicates.near.tables import UNSCALED, Look, columns, many_zeros, numbers

#: numbers a row in the search, and those of a table with many zeros that has more
WIDTH, SPARSE_WIDTH = 128, 64
SIDE = 32
#: rows of one block, and of the sample that medians and components come from
BLOCK, SAMPLE = 1_024, 4_096
#: rows of the sample that main components are found on
COMPONENTS_FROM = 2_048
#: numbers of one block, so that it stays in the second-level cache of common machines
BLOCK_NUMBERS = 1 << 18
#: contrast of a row, as a share of its numbers, that may be rounding
ROUNDING = 1e-6
#: rounds of the search for main components; rows that are so many times fewer than their numbers are decomposed
ROUNDS, WIDE = 4, 8


@dataclasses.dataclass(frozen=True)
class View:
    """How rows are looked at, on the main components of a sample where that is wider than the search wants."""

    look: Look
    basis: Array | None = None
    #: it counts how evenly the difference to the nearest row is spread, and which numbers a row shares with others
    even: bool = False
    shared: bool = False

    def __call__(self, rows: Array) -> tuple[Array, Array]:
        seen, free = self.look(rows)
        return seen if self.basis is None else seen @ self.basis, free


def views_of(kind: str, large: Array, seed: int = 0) -> dict[str, View]:
    """The views for this kind of rows, fitted to a sample of the large split."""
    random = np.random.default_rng(seed)
    rows = np.sort(random.choice(len(large), min(len(large), SAMPLE), replace=False))
    sample = large[rows]
    if kind == "image":
        return {"pixels": _reduced(pixels, sample, even=True), "spectrum": _reduced(spectrum, sample)}
    if kind == "series":
        return {"values": _reduced(values, sample), "spectrum": _reduced(frequencies, sample)}
    found = {}
    if many_zeros(sample):
        found["numbers"] = _reduced(numbers(sample), sample, SPARSE_WIDTH, even=True, shared=True)
    if not found or math.prod(sample.shape[1:]) <= WIDTH:
        found["columns"] = _reduced(columns(sample, random), sample, shared=True)
    return found


def in_blocks(view: View, rows: Array, kept: Array | None = None) -> tuple[Array, Array]:
    """A view of all rows, or of those kept, a block at a time: none is copied but for its block."""
    count = len(rows) if kept is None else len(kept)
    step = max(64, min(BLOCK, BLOCK_NUMBERS // max(1, math.prod(rows.shape[1:]))))
    blocks = (slice(start, start + step) for start in range(0, max(1, count), step))
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


def _reduced(look: Look, sample: Array, components: int = WIDTH, *, even: bool = False, shared: bool = False) -> View:
    """The same view on the main components of its sample, if it is wider than the search wants."""
    view = View(look, None, even, shared)
    seen, free = in_blocks(view, sample)
    good = free > 0
    if seen.shape[1] <= WIDTH or good.sum() < 2:
        return view
    centred = seen[np.flatnonzero(good)[:: -(-int(good.sum()) // COMPONENTS_FROM)]]
    centred = centred - centred.mean(0)
    return dataclasses.replace(view, basis=_main_components(centred, components))


def _main_components(centred: Array, count: int) -> Array:
    """A basis of the main components of rows without their mean.

    Few rows are decomposed themselves, which is exact; of too few, what is missing is drawn, so that other rows keep
    what they have beside these. The products of many rows are iterated, in a third of the time of all eigenvectors.
    """
    basis = np.random.default_rng(0).normal(size=(centred.shape[1], count)).astype(np.float32)
    if len(centred) <= centred.shape[1] // WIDE:
        main = np.linalg.svd(centred, full_matrices=False)[2][:count].T
        return main if main.shape[1] == count else np.linalg.qr(np.concatenate([main, basis], 1)[:, :count])[0]
    products = centred.T @ centred
    for _ in range(ROUNDS):
        basis, _ = np.linalg.qr(products @ basis)
    return basis


def _unit(rows: Array, *, centre: bool = True, free: Array | None = None) -> tuple[Array, Array]:
    """Rows of length one; those without any contrast have no direction and are left out."""
    mean = rows.mean(1, keepdims=True)
    rows = rows - mean if centre else rows
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    rows = rows * (1 / np.where(norms > 0, norms, 1.0)).astype(np.float32)[:, None]
    if free is None:  # how many numbers carry the contrast of each row, as in `_free`
        fourth = np.einsum("ij,ij->i", squares := rows * rows, squares)
        free = np.where(
            norms > ROUNDING * np.sqrt(rows.shape[1]) * np.abs(mean[:, 0]), 1 / np.where(fourth > 0, fourth, 1.0), 0.0
        )
    return rows, np.where(norms > 0, free, 0.0)


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


def _finite(rows: Array) -> Array:
    """float32 with NaN as 0; rows of huge or tiny numbers are divided by a power of two each, which rounds nothing."""
    rows = rows.astype(np.float32 if rows.dtype.itemsize <= 2 or rows.dtype == np.float32 else np.float64, copy=False)
    axes = tuple(range(1, rows.ndim))
    largest = np.maximum(rows.max(axes, keepdims=True, initial=0), -rows.min(axes, keepdims=True, initial=0))
    if ((largest < UNSCALED[1]) & ((largest > UNSCALED[0]) | (largest == 0))).all():
        return rows.astype(np.float32, copy=False)
    rows = np.nan_to_num(rows, nan=0.0, posinf=0.0, neginf=0.0)
    _, power = np.frexp(np.abs(rows).max(axes, keepdims=True, initial=0))
    return np.asarray(np.ldexp(rows, -power), np.float32)


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
