"""How surprising is it that a row lies so close to its nearest neighbour? A p-value without a threshold to choose.

Measured: the ratio of the distance to the nearest row over the distance to the k-th, for k = 2, 5, 10 and 40. Where
rows are locally spread evenly in m dimensions, P(d1 / dk <= r) = 1 - (1 - r**m)**(k - 1): the k - 1 nearest rows are
uniform in the ball of radius dk. A near-copy breaks this; a dense region does not, because all distances shrink there.
Several k, because copies that the large split repeats hide behind each other: 40 sees through up to 30 of them.

Dimension m: for each k from the median ratio of rows of the large split, each against all others ("leave one out": the
same density, and the same search, as for a row of the small split; halves would double the volume a neighbour has).
The median stands while fewer than half of the rows are copies. A row whose own neighbourhood has fewer dimensions is
judged by that one: the maximum-likelihood estimate of Levina and Bickel (2004) from d_k to d_64, which under the
formula is independent of d1 / dk.

Tail: real data are not locally even, so p is not believed, it is calibrated. Of the left-out rows, x = -log p is
fitted above 0.1 by an exponential tail (under the formula: rate 1), truncated at p = 1e-6, beyond which rows are
taken to be repetitions of the data themselves. The rate is used at its lower 95 % bound and never above 1.

Free numbers: columns in which a row has a common value add no dimension to its place (`views`), nor do those whose
number it shares with its neighbours (`search`), so m is at most the number of the others.

Evenness, of pictures (`pictures`): how evenly the difference to the nearest row is spread counts beside how small it
is, in the same unit (x = log 10 where one left-out row in ten is as even), but for no more than that: a row that is
far from all others stays far. x is then the sum of both, and the tail that of the sum. It is used where a copy with
noise needs to be less close with it than without, by the fitted tails; where all rows have noise it is not.

Cannot see: copies in data of fewer than three dimensions, where clean rows are as close (`testable` says so); rows that
take few distinct distances (categories, counts); copies repeated more than 30 times with small changes; copies whose
change is as large as the distance between clean neighbours (MNIST: 0.07 of copies with noise of sd 0.1); copies that
the large split repeats four times and more with all columns but one or two unchanged. What it takes for copies: a dozen
to forty rows that lie closely in one or two dimensions, with a little noise of their own in all other columns.
Cost: one search of 4,000 left-out rows.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from pytest_overfit.core.arrays import Array

NEIGHBOURS = (2, 5, 10, 40)
#: looked up, so that the neighbourhood beyond the 40th tells its dimension, too
FARTHEST = 64
#: rows of the large split that are looked up among the others
LEFT_OUT = 4_000
#: fewer rows leave fewer than ten in the tail that is fitted
LEAST_ROWS = 100
#: below, clean rows are as close as copies: at m = 2 a ratio of 0.001 is needed among 1,000 rows
LEAST_DIMENSION = 3.0
#: of all rows, those whose two nearest are equally far: with continuous numbers none
MOST_TIES = 0.2
#: the tail is fitted between these p
TAIL_FROM, TAIL_TO = 0.1, 1e-6
#: rows at rate 1 that the fit starts from, so that a thin tail is not believed blindly
PRIOR = 5
#: evenness of normal noise: three is the fourth moment over the second one's square
OF_NOISE = -math.log(3)
#: false alarms allowed per run; well below 0.05, because the tail is extrapolated
ALPHA = 0.01


@dataclasses.dataclass(frozen=True)
class NullDistribution:
    """The null distribution of one view of one data set; or why there is none."""

    why: str = ""
    dimensions: tuple[tuple[int, float], ...] = ()
    share: float = 1.0  #: of clean rows in the tail
    rate: float = 1.0
    #: evenness of the difference to the nearest row: its median, and how far above that one row in ten is
    even: tuple[float, float] = (0.0, math.inf)

    @property
    def testable(self) -> bool:
        return not self.why

    @property
    def dimension(self) -> float:
        """At the usual scale, ten neighbours."""
        return dict(self.dimensions).get(10, 0.0)

    def p_values(self, distances: Array, free: Array, evenness: Array | None = None) -> Array:
        """The calibrated p of each row of distances (rows, neighbours) with so many free numbers."""
        closeness = surprise(distances, free, self.dimensions)
        return self._p(_with_evenness(closeness, evenness, self.even))

    def least_p(self, nearest: Array, beyond: Array, free: Array) -> Array:
        """No p of `p_values` is below this, for rows no closer than `nearest`, their k-th no farther than `beyond`."""
        most = np.zeros(len(nearest))
        for (k, dimension), kth in zip(self.dimensions, beyond.T, strict=True):
            ratio = nearest / np.maximum(kth.astype(np.float64), np.finfo(np.float64).tiny)
            most = np.maximum(most, _minus_log_p(ratio, np.minimum(dimension, free), k))
        return self._p(most if math.isinf(self.even[1]) else 2 * most)

    def _p(self, surprising: Array) -> Array:
        beyond = surprising + math.log(TAIL_FROM)
        tail = np.minimum(1.0, self.share * np.exp(-self.rate * np.maximum(beyond, 0.0)))
        return np.where(beyond > 0, tail, 1.0)


def unusual(distances: Array, free: Array, rows: int) -> Array:
    """Places of rows that may be in the tail that `fit_null` fits; for the others it does not matter if `free` is less.

    Half of what the tail begins with, because evenness may add as much.
    """
    with np.errstate(invalid="ignore"):
        closeness = surprise(distances, free, _dimensions(distances, rows))
    return np.flatnonzero(closeness > -math.log(TAIL_FROM) / 2)


def fit_null(
    distances: Array, free: Array, rows: int, evenness: Array | None = None, least: float = LEAST_DIMENSION
) -> NullDistribution:
    """Fit the null to the neighbours (left-out rows, neighbours) of rows of the large split among its `rows` rows."""
    if rows < LEAST_ROWS:
        return NullDistribution(f"{rows} distinct rows, and {LEAST_ROWS} are needed to know how close clean rows are")
    ties = float(np.mean(distances[:, 0] >= distances[:, 1] * (1 - 1e-6)))
    if ties > MOST_TIES:
        return NullDistribution(
            f"{ties:.0%} of rows have two nearest rows equally far: the columns take too few values"
        )
    dimensions = _dimensions(distances, rows)
    lowest = min(m for k, m in dimensions if k > 2)
    if lowest < least:
        return NullDistribution(
            f"the data have {lowest:.1f} dimensions, and with fewer than {least:g} clean rows are as close as copies",
            dimensions,
        )
    closeness = surprise(distances, free, dimensions)
    plain = _with_tail(closeness, dimensions)
    if evenness is None or not plain.testable:
        return plain
    even = _usual(evenness)
    both = dataclasses.replace(_with_tail(_with_evenness(closeness, evenness, even), dimensions), even=even)
    return min(plain, both, key=_needed) if both.testable else plain


def _dimensions(distances: Array, rows: int) -> tuple[tuple[int, float], ...]:
    usable = [k for k in NEIGHBOURS if k <= min(distances.shape[1], rows // 3)]
    return tuple((k, _dimension(_ratio(distances, k), k)) for k in usable)


def _usual(evenness: Array) -> tuple[float, float]:
    """Median, and the distance of the ninth decile from it; infinite where all are the same."""
    median, high = np.quantile(evenness, (0.5, 1 - TAIL_FROM))
    return float(median), float(high - median) if high > median else math.inf


def _needed(calibration: NullDistribution) -> float:
    """How close a copy that differs by noise must be to be found: evenness pays only where clean rows have little."""
    both = math.log(calibration.share / TAIL_TO) / calibration.rate - math.log(TAIL_FROM)
    usual, scale = calibration.even
    return max(both / 2, both + math.log(TAIL_FROM) * max(0.0, (OF_NOISE - usual) / scale))


def _with_evenness(closeness: Array, evenness: Array | None, even: tuple[float, float]) -> Array:
    """Both surprises together; how even a difference is counts for no more than how small it is."""
    if evenness is None:
        return closeness
    surprising = -math.log(TAIL_FROM) * np.maximum(0.0, (evenness - even[0]) / even[1])
    return closeness + np.minimum(surprising, closeness)


def surprise(distances: Array, free: Array, dimensions: tuple[tuple[int, float], ...]) -> Array:
    """-log of the smallest p over all k; 0 where that is not known."""
    most = np.zeros(len(distances))
    for k, dimension in dimensions:
        m = np.minimum(np.minimum(dimension, free), _local_dimension(distances, k))
        most = np.maximum(most, _minus_log_p(_ratio(distances, k), m, k))
    return most


def _minus_log_p(ratio: Array, m: Array, k: int) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = m * np.log(ratio)  # log of r**m
        log_p = np.where(
            inside < -20,
            inside + math.log(k - 1),
            np.log(-np.expm1((k - 1) * np.log1p(-np.exp(np.minimum(inside, -1e-12))))),
        )
    return np.minimum(-log_p, 700.0)


def _ratio(distances: Array, k: int) -> Array:
    """d1 / dk; 1, which tells nothing, where there is no k-th neighbour or even it is at distance zero."""
    kth = distances[:, k - 1].astype(np.float64)
    known = np.isfinite(kth) & (kth > 0)
    return np.where(known, distances[:, 0] / np.where(known, kth, 1.0), 1.0)


def _dimension(ratio: Array, k: int) -> float:
    """M at which half of the rows have a ratio below the median: 1 - (1 - r**m)**(k - 1) = 1/2."""
    median = float(np.median(ratio))
    if not 0 < median < 1:
        return 0.0
    return math.log(1 - 0.5 ** (1 / (k - 1))) / math.log(median)


def _local_dimension(distances: Array, k: int) -> Array:
    """The dimension around each row from its k-th to its last neighbour; infinite where too few are left to tell."""
    last = distances.shape[1]
    if last - k < 10:
        return np.full(len(distances), np.inf)
    far = distances[:, k - 1 :].astype(np.float64)
    known = np.isfinite(far[:, -1]) & (far[:, 0] > 0)
    far = np.where(known[:, None], far, 1.0)
    spread = np.log(far[:, -1:] / far[:, :-1]).sum(1)
    with np.errstate(divide="ignore"):
        local = (last - k - 1) / spread
    return np.where(known, local, np.inf)


def _with_tail(x: Array, dimensions: tuple[tuple[int, float], ...]) -> NullDistribution:
    """Share and rate of the tail of x between TAIL_FROM and TAIL_TO."""
    start, width = -math.log(TAIL_FROM), math.log(TAIL_FROM / TAIL_TO)
    beyond = x[x > start] - start
    tail = beyond[beyond <= width]
    mean = (float(tail.sum()) + PRIOR * _truncated_mean(1.0, width)) / (len(tail) + PRIOR)
    rate = _rate(mean, width) * (1 - 1.645 / math.sqrt(len(tail) + PRIOR))
    rate = min(1.0, rate)
    clean = max(1.0, len(x) - len(beyond) + len(tail))
    inside = len(tail) + 1.645 * math.sqrt(len(tail) + PRIOR)
    share = min(1.0, max(TAIL_FROM, inside / clean / -math.expm1(-rate * width)))
    if rate < LEAST_RATE:
        why = (
            "rows of the large split are close to each other by all degrees (groups, repeated measurements), "
            "so that no distance shows a copy; compare groups instead"
        )
        return NullDistribution(why, dimensions, share, rate)
    return NullDistribution("", dimensions, share, rate)


#: below, ten times as close is hardly less usual
LEAST_RATE = 0.15


def _truncated_mean(rate: float, width: float) -> float:
    """Mean of an exponential of this rate, cut off at width."""
    return 1 / rate - width / math.expm1(rate * width)


def _rate(mean: float, width: float) -> float:
    """The rate whose truncated mean this is: the maximum-likelihood estimate, by bisection."""
    low, high = 1e-3, 20.0
    if mean >= _truncated_mean(low, width):
        return low
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _truncated_mean(middle, width) > mean else (low, middle)
    return (low + high) / 2
