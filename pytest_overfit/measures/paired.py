"""Which of two arms is better, from paired differences that are added until the answer is known.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Literal

from pytest_overfit.measures.student import two_sided

Answer = Literal["helps", "harms", "no measurable effect", "undecided"]

#: pairs after which it is asked whether the answer is known, as far as `most` allows; and after `most`
LOOKS = (4, 6, 8, 12, 16, 24, 32, 48, 64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is known at the last look."""

    outcome: Answer
    #: mean of the paired differences
    mean: float
    #: interval of the mean that holds with probability 1 - alpha over all looks together
    low: float
    high: float
    #: pairs that were looked at; 0 before the first look, when there is no interval
    pairs: int

    @property
    def decided(self) -> bool:
        """No further pair is wanted."""
        return self.outcome != "undecided"


def paired(
    differences: Sequence[float], margin: float, alpha: float = 0.05, most: int = 16, resolution: float = 0.0
) -> Comparison:
    """Compare two arms by the differences of their pairs, in the order in which the pairs were made.

    *no measurable effect*: two one-sided tests show the mean difference to lie within `margin` of 0 (equivalence, not
    a failure to find a difference). *helps*, *harms*: its interval lies above, below 0, and the mean is at least
    `margin` away. *undecided*: none of these.

    Asking again and again would find something at last: a t test at 5 % after each of 3 to 16 pairs is wrong in 20 %
    of the runs without any difference. So it is asked after 4, 6, 8, 12, 16, ... pairs and after `most`, and look k
    has its own part of alpha: what the power family of Kim and DeMets (1987) with exponent 2, alpha * (pairs/most)^2,
    has gained since the look before. Parts add up to alpha, so by Bonferroni's inequality the intervals hold together,
    whatever their correlation. Student's t assumes normal differences. Those of arms that do not differ are symmetric;
    how much heavy tails and skewness change is measured by `benchmarks/sequential.py`.

    `resolution`: least step of the score (one row of the validation split): the standard deviation is not taken to be
    smaller, because a score of few rows often repeats exactly. Raises `ValueError` for numbers that cannot be used.
    Cost: microseconds.
    """
    _check(differences, margin, alpha, most)
    found = Comparison(outcome="undecided", mean=_mean(differences), low=-math.inf, high=math.inf, pairs=0)
    for pairs, part in looks(most, alpha):
        if pairs > len(differences):
            break
        found = _look(differences[:pairs], margin, part, resolution)
        if found.decided:
            return found
    return found


def interval(values: Sequence[float], alpha: float = 0.05, most: int = 16, resolution: float = 0.0) -> Comparison:
    """The interval of a mean at the last look; together with those of earlier looks it holds with 1 - alpha."""
    _check(values, 1.0, alpha, most)
    parts = [(pairs, part) for pairs, part in looks(most, alpha) if pairs <= len(values)]
    if not parts:
        return Comparison(outcome="undecided", mean=_mean(values), low=-math.inf, high=math.inf, pairs=0)
    pairs, part = parts[-1]
    return dataclasses.replace(_look(values[:pairs], 1.0, part, resolution), outcome="undecided")


def looks(most: int, alpha: float) -> Iterator[tuple[int, float]]:
    """Pairs at each look, and the part of alpha that is spent there."""
    spent = 0.0
    for pairs in (*(each for each in LOOKS if each < most), most):
        until = alpha * (pairs / most) ** 2
        yield pairs, until - spent
        spent = until


def _look(differences: Sequence[float], margin: float, part: float, resolution: float) -> Comparison:
    count, mean = len(differences), _mean(differences)
    variance = math.fsum((each - mean) ** 2 for each in differences) / (count - 1)
    error = math.sqrt(max(variance, resolution**2) / count)
    wide, narrow = (error * two_sided(each, count - 1) for each in (part, min(1.0, 2 * part)))
    outcome: Answer = "undecided"
    if abs(mean) + narrow < margin:
        outcome = "no measurable effect"
    elif abs(mean) >= max(margin, wide):
        outcome = "helps" if mean > 0 else "harms"
    return Comparison(outcome=outcome, mean=mean, low=mean - wide, high=mean + wide, pairs=count)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _check(differences: Sequence[float], margin: float, alpha: float, most: int) -> None:
    if not all(map(math.isfinite, differences)):
        raise ValueError("a difference is not finite")
    if not margin > 0 or not 0 < alpha < 1:
        raise ValueError(f"margin={margin}, alpha={alpha}: a margin above 0 and an alpha between 0 and 1 are wanted")
    if most < 2 or len(differences) > most:
        raise ValueError(
            f"{len(differences)} differences, at most {most}: two or more are wanted, and no more than most"
        )
