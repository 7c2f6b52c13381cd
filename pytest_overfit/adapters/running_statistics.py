"""How far running statistics have followed those of a batch, worked out on arrays of any framework."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pytest_overfit.adapters.base import RunningStatistics
from pytest_overfit.core.arrays import Array

#: mean and variance
Moments = tuple[Array, Array]

#: a movement of the means by less than this share of the batch's spread leads nowhere in particular
_NEXT_TO_NONE = 0.1

#: a share of the way by which no direction can be told: float32 keeps seven digits
_LEAST_WAY = 1e-6


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


def resting_place(then: Moments, now: Moments, left: float) -> Moments:
    """Where statistics go that came from `then` to `now` and have this share of their way left."""
    mean, variance = (a + (b - a) / max(1.0 - left, _LEAST_WAY) for a, b in zip(then, now, strict=True))
    return mean, np.maximum(variance, 0.0)


def apart(one: Moments, other: Moments, epsilon: float) -> float:
    """How differently two statistics normalise, in spreads: the means' distance, or the logarithm of the spreads'.

    The root of the mean square over the channels of the worse of the two; the layer adds `epsilon` to a variance.
    """
    mean, variance = (np.ravel(each).astype(np.float64) for each in one)
    other_mean, other_variance = (np.ravel(each).astype(np.float64) for each in other)
    shift = (mean - other_mean) / np.sqrt(other_variance + epsilon)
    stretch = 0.5 * np.log((variance + epsilon) / (other_variance + epsilon))
    return max((float(np.sqrt(np.mean(each**2))) for each in (shift, stretch) if each.size), default=0.0)


def off_by(place: Moments, draws: Sequence[Moments], epsilon: float) -> float:
    """How far this is from the batch's statistics in several training passes, beyond how far these differ."""
    half = len(draws) // 2
    noise = apart(mean_of(draws[:half]), mean_of(draws[half:]), epsilon)
    return max(0.0, apart(place, mean_of(draws), epsilon) - noise)


def batch_alone(quiet: Sequence[Moments], passes: Sequence[Moments], count: int) -> list[Moments]:
    """The batch's own statistics: those of so many training passes, with what dropout makes of them.

    Where a training pass calls the layer more often than a `quiet` one does, other data pass it too.
    """
    return list(passes) if len(passes) == count * len(quiet) else [*quiet, *quiet]


def mean_of(draws: Sequence[Moments]) -> Moments:
    """Of several passes or calls."""
    means, variances = zip(*draws, strict=True)
    return np.mean(means, axis=0), np.mean(variances, axis=0)


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
