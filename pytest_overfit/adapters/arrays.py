"""What adapters work out on arrays, whatever framework these came from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from pytest_overfit.adapters.base import Head
from pytest_overfit.core.arrays import Array
from pytest_overfit.data.tree import to_numpy


def alike(first: Sequence[Any], second: Sequence[Any]) -> bool:
    """Equal but for rounding, in whatever layout and precision; whole numbers and text are equal or not."""
    pairs = [(to_numpy(a), to_numpy(b)) for a, b in zip(first, second, strict=False)]
    return len(first) == len(second) and all(
        a.shape == b.shape
        and (np.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True) if a.dtype.kind in "fc" else np.array_equal(a, b))
        for a, b in pairs
    )


def in_shape_of(outputs: Array, targets: Array) -> Array:
    """Targets in the outputs' shape where they are the same numbers, (N,) with (N, 1)."""
    return targets.reshape(outputs.shape) if targets.size == outputs.size else targets


def counting_only(head: Head, mask: Array) -> Head:
    """The head with fewer targets that count: those of this mask alone."""
    return dataclasses.replace(head, mask=mask if head.mask is None else mask & head.mask)


def by_each_output(gradients: Iterable[Any], outputs: Iterable[Array]) -> list[Array]:
    """A gradient for each output; zeros where the loss does not depend on it."""
    pairs = zip(gradients, outputs, strict=True)
    return [np.zeros(output.shape) if each is None else to_numpy(each).astype(np.float64) for each, output in pairs]


#: functions whose units can be idle
Activation = Literal["relu", "sigmoid", "tanh"]

#: a unit nearer to its end than this share of its range lets next to nothing through
_NEAR_END = 0.01


def idle_units(values: Array, function: Activation, axis: int) -> tuple[int, int]:
    """How many units along this axis are idle on every row, of how many: ReLUs that give 0, others at their ends."""
    low = -1.0 if function == "tanh" else 0.0
    near = _NEAR_END * (1.0 - low)
    idle = values == 0 if function == "relu" else (values < low + near) | (values > 1.0 - near)
    units = np.moveaxis(idle, axis, 0)
    return int(units.all(axis=tuple(range(1, units.ndim))).sum()), len(units)


def dead_and_saturated(found: Iterable[tuple[str, tuple[int, int]]]) -> dict[str, tuple[int, int]]:
    """The counts of all activations together, by the name of their function."""
    total = {"dead": (0, 0), "saturated": (0, 0)}
    for function, (idle, of) in found:
        name = "dead" if function == "relu" else "saturated"
        total[name] = (total[name][0] + idle, total[name][1] + of)
    return total
