"""Inputs by name, noise, and differences, as arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.data.tree import by_place, is_leaf

#: size of the noise on a tensor that is all zeros, which has no size of its own
_OF_ZERO = 0.1


def places(x: Any, names: Sequence[str]) -> Iterator[tuple[str, Array]]:
    """The arrays among the inputs, in the order in which `map_leaves` meets them."""
    if is_leaf(x):
        yield (names[0] if len(names) == 1 else "x"), x
        return
    for place, part in by_place(x).items():
        own = names[place] if isinstance(place, int) and place < len(names) else str(place)
        if is_leaf(part):
            yield own, part
        else:
            for below, leaf in places(part, ()):
                yield f"{own}.{below}", leaf


def noise(values: Array, share: float, index: int) -> Array:
    size = float(np.sqrt((values.astype(np.float64) ** 2).mean())) if values.size else 0.0
    scale = share * size if size > 0 and math.isfinite(size) else share * _OF_ZERO
    return (np.random.default_rng(index).normal(size=values.shape) * scale).astype(values.dtype)


def relative(before: Array, after: Array) -> float:
    a, b = np.nan_to_num(before.astype(np.float64)), np.nan_to_num(after.astype(np.float64))
    difference, size = float(np.abs(a - b).max(initial=0.0)), float(np.abs(a).max(initial=0.0))
    return difference / size if size > 0 else (math.inf if difference > 0 else 0.0)


def largest(values: Iterable[float | None]) -> float | None:
    return max((each for each in values if each is not None), default=None)
