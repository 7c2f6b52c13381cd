"""How large may a t statistic get when it is looked at again and again while observations come in?

Written here because no well-kept library has boundaries for a walk of t: scipy has the quantiles of single tests only.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

#: cells of the grid and of the integral: the boundaries are right to 0.1 % (tests of `paired` have the check)
_CELLS = 600

#: less than this is not spent: the grid cannot resolve it, and no look could be decided by it
_LEAST = 1e-7

#: the exponent of the spending function; see `spent` and benchmarks/error_rates/RESULTS.md, "Paired comparison"
_POWER = 1.5


def spent(share: float, alpha: float) -> float:
    """The part of `alpha` that may be used up when this share of all observations is in.

    alpha * share^1.5, of the power family of Kim and DeMets (1987, Biometrika 74, 149), in which 1 and 3 are near the
    boundaries of Pocock and of O'Brien and Fleming. Clear answers come at the first look, which 3 would not allow
    where many observations may follow, and the last look is nearly as sharp as a single test.
    """
    return float(alpha * share**_POWER)


@functools.lru_cache(maxsize=32)
def boundaries(looks: tuple[int, ...], alpha: float) -> tuple[float, ...]:
    """For each look the least |t| that counts, so that a walk with mean 0 ever gets there with probability `alpha`.

    `looks`: numbers of observations, rising, the first at least 3; the last one is the end. A look at which next to
    nothing may be spent has the boundary infinity. Computed for t itself: the boundaries of its normal limit would be
    crossed with 8.5 % instead of 5 % at looks at 10, 13 and 16 (benchmarks/error_rates/sequential.py). It takes some
    0.2 s for 16 observations, and is then remembered.

    How: let S be the sum and Q the sum of squares of k observations, and U = S / sqrt(Q). U tells t, since
    t^2 = (k - 1) U^2 / (k - U^2). For independent normal observations with mean 0 the direction of the vector
    (x_1, ..., x_k) says nothing about its length, so x_{k+1} / sqrt(Q) does not depend on the U so far, and
    U' = U cos(phi) + sin(phi) with tan(phi) = x_{k+1} / sqrt(Q) and a density of phi that goes with cos(phi)^(k-1).
    U is a Markov chain with one number as its state, and the recursive integration of Armitage, McPherson and Rowe
    (1969, J. R. Stat. Soc. A 132, 235) is exact for it (for t: Jennison and Turnbull 1991, Biometrika 78, 133).
    The grid holds the angle arcsin(|U| / sqrt(k)); then |t| = sqrt(k - 1) tan(angle).
    """
    quarter = np.pi / 2 / _CELLS  # one cell, as an angle
    turn = (np.arange(_CELLS) + 0.5) / _CELLS * np.pi - np.pi / 2
    alive: Any = np.zeros(_CELLS + 1)
    alive[-1] = 1.0  # one observation: |U| = 1
    found: list[float] = []
    used = 0.0
    for k in range(1, looks[-1]):
        chance = np.cos(turn) ** (k - 1)
        before = math.sqrt(k) * np.sin(np.arange(_CELLS + 1) * quarter)
        u = np.abs(before[:, None] * np.cos(turn) + np.sin(turn)) / math.sqrt(k + 1)
        place = (np.arcsin(np.minimum(u, 1.0)) / quarter).ravel()
        mass = (alive[:, None] * (chance / chance.sum())).ravel()
        if k + 1 in looks:
            due = spent((k + 1) / looks[-1], alpha) - used
            cut = _upper_quantile(place, mass, due) if due > _LEAST else math.inf
            found.append(math.inf if math.isinf(cut) else math.sqrt(k) * math.tan(cut * quarter))
            used += due if due > _LEAST else 0.0
            mass[place >= cut] = 0.0
        cell = np.minimum(place.astype(np.intp), _CELLS - 1)
        above = mass * (place - cell)
        alive = np.bincount(cell, mass - above, _CELLS + 1)
        alive += np.bincount(cell + 1, above, _CELLS + 1)
    return tuple(found)


def _upper_quantile(values: Any, mass: Any, tail: float) -> float:
    """The value that so much of the mass lies above."""
    order = np.argsort(-values)
    return float(values[order][np.searchsorted(np.cumsum(mass[order]), tail)])
