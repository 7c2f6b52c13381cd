"""The mean of a quantity over seeds, with an interval that holds although seeds are added until it is known enough."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence

from pytest_overfit.measures.sequential.boundaries import boundaries

#: seeds after which it is asked whether the answer is known, as far as the most that are allowed; and after the last
LOOKS = (4, 6, 8, 12, 16, 24, 32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedMean:
    """A mean at the last look, and its interval."""

    mean: float
    #: infinite before the first look
    low: float
    high: float
    #: seeds that were looked at
    seeds: int


def looks(most: int) -> tuple[int, ...]:
    """The numbers of seeds at which there may be an answer."""
    return (*(each for each in LOOKS if each < most), max(3, most))


def mean_over_seeds(values: Sequence[float], alpha: float, most: int, resolution: float = 0.0) -> SeedMean:
    """The mean of the values so far, one a seed, and its interval at the last look.

    Intervals at all looks hold together with probability 1 - alpha for normal values: mean plus or minus c s / sqrt(k)
    with c from a spending function (`boundaries`). `resolution`: the least step of the quantity; the standard
    deviation is not taken to be smaller. Cost: some 0.2 s for the first call in a process.
    """
    made = looks(most)
    done = [each for each in made if each <= len(values)]
    if not done:
        return SeedMean(mean=statistics.fmean(values), low=-math.inf, high=math.inf, seeds=len(values))
    used = list(values[: done[-1]])
    error = max(statistics.stdev(used), resolution) / math.sqrt(len(used))
    width = boundaries(made, alpha)[len(done) - 1] * error if error else 0.0
    mean = statistics.fmean(used)
    return SeedMean(mean=mean, low=mean - width, high=mean + width, seeds=len(used))
