"""The outputs that a loss likes best: scipy's L-BFGS-B, which also notices that a loss falls without limit.

scipy is imported here, at the first search: 0.3 s of CPU that the first verdict of a process pays where its reference
losses have no closed form (benchmarks/speed/RESULTS.md has the ratio); tensorflow and keras have imported it already.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from pytest_overfit.core.arrays import Array

Function = Callable[[Array], tuple[float, Array]]

#: a value this many times the start's size below zero is taken for minus infinity
_UNBOUNDED = 1e4

#: a gradient below this share of the first one has vanished
_FLAT = 1e-2

#: iterations whose gains are negligible, one after the other, before the search ends
_PATIENCE = 3

#: in place of infinity and NaN: a wall that the line search, which interpolates, can step back from
_WALL = 1e300


@dataclasses.dataclass(frozen=True)
class Minimum:
    """Where the search ended."""

    point: Array
    value: float
    #: False: the value fell without limit
    bounded: bool
    #: value where the search began
    start: float
    #: False: the function gave no finite value at the start
    valid: bool = True
    #: the gradient has vanished, compared with what it was at the start
    stationary: bool = True


class _Falling(Exception):  # noqa: N818 - ends a search, and is not an error
    """The value fell below any limit."""


class _Search:
    """The function as scipy calls it, and the best point it was asked at."""

    def __init__(self, function: Function, point: Array, value: float, gradient: Array) -> None:
        self.function, self.first, self.last = function, value, value
        self.point, self.value, self.gradient = point, value, gradient
        self.idle = 0

    def __call__(self, point: Array) -> tuple[float, Array]:
        value, gradient = self.function(point)
        if not _finite(value, gradient):
            return _WALL, np.zeros_like(point)
        if value <= self.value:
            self.point, self.value, self.gradient = point.copy(), value, gradient
        if value < -_UNBOUNDED * (1.0 + abs(self.first)):
            raise _Falling
        return value, gradient

    def after_iteration(self, intermediate_result: object) -> None:
        """Count the gains that are negligible compared with the value reached; scipy asks for this argument's name."""
        value = float(getattr(intermediate_result, "fun"))  # noqa: B009 - scipy has no types
        negligible = self.last - value <= 1e-6 * abs(value) + 1e-12 * (self.first - value)
        self.idle, self.last = self.idle + 1 if negligible else 0, value
        if self.idle >= _PATIENCE:
            raise StopIteration


def minimise(function: Function, start: Array, *, iterations: int = 150, memory: int = 8) -> Minimum:
    """Minimise `function` (value and gradient) from `start`.

    Stops when the gradient vanishes or `_PATIENCE` successive gains are negligible compared with the value reached.
    Cost: one or two calls an iteration. Raises nothing of its own.
    """
    from scipy.optimize import minimize

    point = start.astype(np.float64)
    value, gradient = function(point)
    if not _finite(value, gradient):
        return Minimum(point, value, bounded=value != -math.inf, start=value, valid=False)
    steepest = _largest(gradient)
    search = _Search(function, point, value, gradient)
    # no tolerance of scipy's own: the patience above ends the search
    options = {"maxiter": iterations, "maxcor": memory, "maxfun": 10 * iterations, "ftol": 0.0, "gtol": 1e-12}
    try:
        minimize(search, point, jac=True, method="L-BFGS-B", callback=search.after_iteration, options=options)
    except _Falling:
        return Minimum(search.point, search.value, bounded=False, start=value)
    flat = _largest(search.gradient) <= _FLAT * steepest
    return Minimum(search.point, search.value, bounded=True, start=value, stationary=flat)


def _finite(value: float, gradient: Array) -> bool:
    return math.isfinite(value) and bool(np.all(np.isfinite(gradient)))


def _largest(gradient: Array) -> float:
    return float(np.max(np.abs(gradient), initial=0.0))
