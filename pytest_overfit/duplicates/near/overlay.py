"""Two pictures laid over each other: how far apart their insides are, and how evenly their difference is spread.

`laid_over`: the inside of one picture (without a margin of 2 pixels; of 1 where a side has fewer than 16) is looked for
in the other, moved by up to the margin either way, mirrored or not. What a shift pushed over the border is compared no
more, so that a shifted copy is as near as an unshifted one. Insides with less than half of their share of a picture's
contrast say too little and are left out. Only the few nearest pictures by spectrum are laid over each other.

`evenness`: the share of pixels that the difference of two pictures would fill if it were spread evenly over them (the
participation ratio of its squares; Bell and Dean 1970). Noise, rounding and grey levels fill the whole picture, while
two clean pictures differ where one of them has something. Only with the distance does it say something: a picture of
noise differs evenly from all others.

Cost: 50 products of a picture's inside for each candidate; one difference a row.
"""

from __future__ import annotations

import math

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.duplicates.near.tables import Look
from pytest_overfit.duplicates.near.views import grey_pictures, pixels

#: nearest pictures that each is laid over
CANDIDATES = 10
#: likeness below one of which single precision leaves a distance
SWALLOWED = 1e-4
#: pixels at each border, of pictures with sides of 16 and more; half of it of smaller ones
MARGIN, LARGE_SIDE = 2, 16
#: squared contrast that an inside must have for each of its pixels, as a share of its whole picture's
LEAST_CONTRAST = 0.5


def evenness(rows: Array, others: Array, look: Look = pixels) -> Array:
    """Logarithm of the share of numbers that each difference fills; where there is none, the least possible."""
    squares = (look(rows)[0] - look(others)[0]) ** 2
    fourth = np.einsum("ij,ij->i", squares, squares) * squares.shape[1]
    filled = np.divide(squares.sum(1) ** 2, fourth, out=np.zeros(len(squares), np.float32), where=fourth > 0)
    return np.asarray(np.log(np.maximum(filled, 1 / max(1, squares.shape[1]))))


def laid_over(images: Array, candidates: Array) -> Array:
    """Distances (n, k) between the insides of each image and of its k candidates (n * k images, row by row)."""
    ours, theirs = grey_pictures(images), grey_pictures(candidates)
    side = min(ours.shape[1:])
    margin = MARGIN if side >= LARGE_SIDE else MARGIN // 2
    shape = tuple(each - 2 * margin for each in ours.shape[1:])
    moved = np.lib.stride_tricks.sliding_window_view(ours, shape, axis=(1, 2))
    windows = _unit_insides(moved.reshape(len(ours), -1, shape[0] * shape[1]), ours)
    inside = theirs[:, margin : margin + shape[0], margin : margin + shape[1]]
    plain, mirrored = (
        _unit_insides(each.reshape(len(theirs), 1, -1), theirs).reshape(len(ours), -1, shape[0] * shape[1])
        for each in (inside, inside[:, :, ::-1])
    )
    return np.minimum(_apart(windows, plain), _apart(windows, mirrored))


def _apart(windows: Array, insides: Array) -> Array:
    """How far each inside is from the nearest window; from their differences where rounding would swallow these."""
    like = windows @ insides.transpose(0, 2, 1)
    best = like.max(1)
    apart = np.sqrt(np.maximum(0, 2 - 2 * best))
    row, candidate = np.nonzero(best > 1 - SWALLOWED)
    nearest = windows[row, like[row, :, candidate].argmax(1)]
    apart[row, candidate] = np.sqrt(((nearest - insides[row, candidate]) ** 2).sum(1))
    return np.asarray(apart)


def _unit_insides(insides: Array, pictures: Array) -> Array:
    """Insides (n, windows, pixels) without their mean and of length one; 0 where they have too little contrast."""
    centred = insides - insides.mean(2, keepdims=True)
    energy = np.einsum("ijk,ijk->ij", centred, centred)
    whole = pictures.reshape(len(pictures), -1)
    whole = np.einsum("ij,ij->i", whole, whole) - whole.shape[1] * whole.mean(1) ** 2
    least = LEAST_CONTRAST * insides.shape[2] / math.prod(pictures.shape[1:])
    enough = (energy >= least * whole[:, None]) & (energy > 0)
    centred *= np.where(enough, 1 / np.sqrt(np.where(enough, energy, 1.0)), 0.0)[:, :, None]
    return np.asarray(centred)
