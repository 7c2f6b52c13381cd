"""Limited-memory BFGS, small: finds the outputs that a loss likes best.

Written here because numpy has none and scipy is not a dependency of ours. Two-loop recursion and a backtracking
line search after Nocedal and Wright, *Numerical Optimization*, chapter 7.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from pytest_overfit.core.arrays import Array

if TYPE_CHECKING:
    Vector = Array

#: a value this many times the start's size below zero is taken for minus infinity
_UNBOUNDED = 1e4

#: a gradient below this share of the first one has vanished
_FLAT = 1e-2

#: Armijo's sufficient decrease, the customary value
_DECREASE = 1e-4


@dataclasses.dataclass(frozen=True)
class Minimum:
    """Where the search ended."""

    point: Vector
    value: float
    #: False: the value fell without limit
    bounded: bool
    #: value where the search began
    start: float
    #: False: the function gave no finite value at the start
    valid: bool = True
    #: the gradient has vanished, beside what it was at the start
    stationary: bool = True


def minimise(
    function: Callable[[Vector], tuple[float, Vector]], start: Vector, *, iterations: int = 150, memory: int = 8
) -> Minimum:
    """Minimise `function` (value and gradient) from `start`.

    Stops when the gradient vanishes or three successive gains are negligible beside the value reached. Cost: one or
    two calls an iteration. Raises nothing of its own.
    """
    point = start.astype(np.float64)
    value, gradient = function(point)
    if not math.isfinite(value) or not np.all(np.isfinite(gradient)):
        return Minimum(point, value, bounded=value != -math.inf, start=value, valid=False)
    first, steepest = value, float(np.max(np.abs(gradient), initial=0.0))
    pairs: deque[tuple[Vector, Vector]] = deque(maxlen=memory)
    idle = 0
    for _ in range(iterations):
        if float(np.max(np.abs(gradient), initial=0.0)) < 1e-12:
            break
        found = _line_search(function, point, value, gradient, _direction(gradient, pairs))
        if found is None:
            break
        new_point, new_value, new_gradient = found
        if new_value < -_UNBOUNDED * (1.0 + abs(first)):
            return Minimum(new_point, new_value, bounded=False, start=first)
        step, change = new_point - point, new_gradient - gradient
        if float(step @ change) > 1e-12 * float(change @ change):
            pairs.append((step, change))
        gain = value - new_value
        idle = idle + 1 if gain <= 1e-6 * abs(new_value) + 1e-12 * (first - new_value) else 0
        point, value, gradient = new_point, new_value, new_gradient
        if idle >= 3:
            break
    flat = float(np.max(np.abs(gradient), initial=0.0)) <= _FLAT * steepest
    return Minimum(point, value, bounded=True, start=first, stationary=flat)


def _direction(gradient: Vector, pairs: deque[tuple[Vector, Vector]]) -> Vector:
    if not pairs:
        return -gradient / max(1.0, float(np.linalg.norm(gradient)))
    direction = gradient.copy()
    weights = []
    for step, change in reversed(pairs):
        weight = float(step @ direction) / float(step @ change)
        weights.append(weight)
        direction -= weight * change
    step, change = pairs[-1]
    direction *= float(step @ change) / float(change @ change)
    for (step, change), weight in zip(pairs, reversed(weights), strict=True):
        direction += step * (weight - float(change @ direction) / float(step @ change))
    return -direction


def _line_search(
    function: Callable[[Vector], tuple[float, Vector]],
    point: Vector,
    value: float,
    gradient: Vector,
    direction: Vector,
) -> tuple[Vector, float, Vector] | None:
    """Halve the step until the value falls enough; double it while the very first try keeps falling."""
    slope = float(gradient @ direction)
    if slope >= 0:
        direction, slope = -gradient, -float(gradient @ gradient)
    length, best = 1.0, None
    for _ in range(30):
        candidate = point + length * direction
        new_value, new_gradient = function(candidate)
        good = math.isfinite(new_value) and bool(np.all(np.isfinite(new_gradient)))
        if good and new_value <= value + _DECREASE * length * slope:
            if best is not None and new_value >= best[1]:
                return best
            best = (candidate, new_value, new_gradient)
            still_steep = float(new_gradient @ direction) < 0.5 * slope
            if not still_steep or length >= 2.0**20:
                return best
            length *= 2.0
        elif best is not None:
            return best
        else:
            length *= 0.5
    return best
