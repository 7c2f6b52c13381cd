"""How far running statistics have followed those of a batch, worked out on arrays of any framework."""

from __future__ import annotations

import numpy as np

from pytest_overfit.adapters.base import RunningStatistics
from pytest_overfit.core.arrays import Array

#: mean and variance
Moments = tuple[Array, Array]

#: a movement of the means by less than this share of the batch's spread leads nowhere in particular
_NEXT_TO_NONE = 0.1


def moved_statistics(
    name: str, momentum: float | None, then: Moments, now: Moments, batch: Moments, calls: int
) -> RunningStatistics:
    """From their values at the start, `then`, and `now`."""
    first, last, goal = (
        np.concatenate([np.ravel(part).astype(np.float64) for part in each]) for each in (then, now, batch)
    )
    way = float(np.linalg.norm(goal - first))
    remaining = float(np.linalg.norm(goal - last)) / way if way > 0 else 0.0
    if np.array_equal(first, last) and way > 0:
        remaining = 1.0
    return RunningStatistics(
        name=name, momentum=momentum, remaining=remaining, stray=_stray(then, now, batch), calls=calls
    )


def _stray(then: Moments, now: Moments, batch: Moments) -> float:
    """Share of the means' movement that leads away from the way to the batch's, each measured in the batch's spread."""
    spread = np.sqrt(np.ravel(batch[1]).astype(np.float64)) + 1e-12
    way, made = ((np.ravel(each) - np.ravel(then[0])) / spread for each in (batch[0], now[0]))
    length, size = float(np.linalg.norm(made)), float(way @ way)
    if not length > 0 or not size > 0:
        return 0.0
    aside = float(np.linalg.norm(made - way * (made @ way) / size))
    share = min(1.0, length / size**0.5)
    return float(aside / max(length, _NEXT_TO_NONE * share * len(way) ** 0.5))
