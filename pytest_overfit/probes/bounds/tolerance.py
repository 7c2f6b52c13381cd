"""Bounds out of a model's own spread, with a rate of false alarms that holds whatever shape the spread has.

*The bound.* Calibration measures a quantity on n new seeds; the bound is the range of their values. A later run
breaks an end when the values of more than half of its m seeds (`to_break`: 5 of 8) lie beyond it, in other words when
its median does. Seeds are measured one by one and only until that is certain: 4 where all is well.

*The rate.* Let q be the share of all seeds beyond an end. An unchanged model breaks that end with the binomial
probability `rate(q, m)`, and q is larger than some q* with probability (1 - q*)^n, since then none of n seeds was
beyond q* (Wilks 1941, Ann. Math. Statist. 12, 91; Meeker, Hahn and Escobar, Statistical Intervals, 2nd ed. 2017,
ch. 5). `seeds_wanted` is the least n so that, for all ends of a verdict together, the rate is at most `false_alarms`
with a confidence of 95 %: a tolerance bound. Each end has an equal share of both (Bonferroni), which holds however the
quantities hang together. Over all calibrations the rate is much lower: `mean_rate`, by counting orders of n + m values.

Nothing is assumed about the distribution: heavy tails, skewness and values that tie keep the rate (ties lower it).
Mean plus or minus a factor of the standard deviation needs normal values: benchmarks/error_rates/RESULTS.md,
"Calibrated bounds".

*What a "run" is.* One verdict. The rate is over its seeds, which are never those of the calibration. The same code
with the same seed gives the same values again, so nothing flickers between two runs of the same commit; the values are
drawn anew by another seed, another version of the framework, and by a change of the program that leaves the
distribution as it is, such as layers made in another order. Tests multiply the rate: k verdicts have k times as many.
It is not a rate over machines, whose rounding alone is allowed for (`ROUNDING`). And a run with a value that is not
finite has failed whatever its other seeds say.

*Cannot see*: what befalls less than half of the seeds, or moves a quantity less than its seeds lie apart; 3 standard
deviations of normal values are found in 87 % of all runs. *Cost*: 24 seeds for one end, 34 for two, 57 for six, once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

#: how sure it is, over calibrations, that the rate of false alarms of all later runs is the stated one
CONFIDENCE = 0.95

#: part of a value that another processor may change: sums of float32 in another order
ROUNDING = 1e-5


def to_break(seeds: int) -> int:
    """How many of a run's seeds must lie beyond an end to break it: more than half, 4 at least where there are 4.

    Fewer would take hundreds of seeds of calibration: 2 of 3 seeds are beyond together too easily.
    """
    return max(seeds // 2 + 1, min(4, seeds))


def rate(beyond: float, seeds: int) -> float:
    """Probability that a run breaks an end that each of its seeds is beyond with probability `beyond`."""
    return math.fsum(
        math.comb(seeds, many) * beyond**many * (1 - beyond) ** (seeds - many)
        for many in range(to_break(seeds), seeds + 1)
    )


def seeds_wanted(false_alarms: float, ends: int, seeds: int) -> int:
    """Seeds of calibration for so many ends in one verdict of at most so many `seeds`, at this rate for all ends."""
    if not ends:
        return 1
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rate(middle, seeds) <= false_alarms / ends else (low, middle)
    return math.ceil(math.log((1 - CONFIDENCE) / ends) / math.log1p(-low))


def mean_rate(calibrated_on: int, seeds: int) -> float:
    """Probability, over calibration and run, that an unchanged model breaks one end; exact where no values tie.

    All orders of the n + m values are equally likely, and the end is broken when the outermost `to_break(m)` of them
    are all of the run.
    """
    many = to_break(seeds)
    return math.comb(seeds, many) / math.comb(calibrated_on + seeds, many)


def ends_of(values: Sequence[float], resolution: float = 0.0) -> tuple[float, float]:
    """The range of the values, a little wider: by what other processors round, and to six digits.

    Whole numbers stay as they are. Values that are all the same get one step of the quantity (`resolution`) more on
    either side.
    """
    low, high = min(values), max(values)
    step = resolution if low == high else 0.0
    if low.is_integer() and high.is_integer():
        return low - step, high + step
    room = step + ROUNDING * max(abs(low), abs(high))
    return float(f"{low - room:.6g}"), float(f"{high + room:.6g}")


def beyond(values: Sequence[float], low: float, high: float) -> int:
    """How many of a run's values lie beyond the end that more of them are beyond."""
    return max(sum(each < low for each in values), sum(each > high for each in values))


def run_answer(
    values: Sequence[float], low: float, high: float, seeds: int
) -> Literal["passed", "failed", "inconclusive"]:
    """What the values of a run say so far, of at most so many `seeds`; "inconclusive": measure one more."""
    worst, needed = beyond(values, low, high), to_break(seeds)
    if worst >= needed:
        return "failed"
    return "passed" if worst + seeds - len(values) < needed else "inconclusive"
