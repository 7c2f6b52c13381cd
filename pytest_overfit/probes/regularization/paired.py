"""Which of two ways to train scores better, judged while pairs of trainings come in one by one?

One pair is one seed: both runs start from the same weights, see the same order of the data, and the difference is the
score of the first run minus the score of the second. `paired` may be asked after every pair. It answers as soon as
the answer is known, and looks no further: a t test after each seed would be wrong one time in five.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.measures.sequential.boundaries import boundaries
from pytest_overfit.measures.training_runs import TrainingRun, resolution_of

Outcome = Literal["helps", "harms", "no measurable effect", "undecided", "inconclusive"]

#: the first look: what three seeds in ten do not show is unseen by 10 of them in 2.8 % of all runs, by 8 in 5.8 %
FIRST_LOOK = 10

#: seeds between looks: a look after each seed saves at most half a seed, and answers up to 4 runs in 100 less
LOOK_EVERY = 3

#: seeds at most by default; 16 left one comparison in ten open (benchmarks/error_rates/RESULTS.md)
MOST = 40

#: how much of the sample's skewness widens the interval: enough to keep wrong answers below 5 % for lognormal
#: differences (skewness 6). What it costs: benchmarks/error_rates/RESULTS.md, "Paired comparison"
SKEW = 2.5


@dataclasses.dataclass(frozen=True, slots=True)
class PairedComparison:
    """What the differences so far say about the mean difference.

    `outcome`: "helps", "harms", "no measurable effect"; "undecided" (train more seeds), or "inconclusive" (undecided
    after the last seed that was allowed). `mean` is the mean of the first `seeds` differences, `low` and `high` the
    confidence interval of the true mean, in the units of the score; they are infinite before the first look. The
    interval may be read at any look, whatever made one stop there. `next_look`: the number of differences at which
    it is worth asking again, None where nothing more is to come.
    """

    outcome: Outcome
    mean: float
    low: float
    high: float
    seeds: int
    next_look: int | None

    @property
    def decided(self) -> bool:
        """Is there an answer?"""
        return self.outcome in ("helps", "harms", "no measurable effect")


def paired(differences: Sequence[float], margin: float, alpha: float = 0.05, most: int = MOST) -> PairedComparison:
    """Judge the differences that are in so far; more of them may follow, up to `most`.

    `differences`: higher is better; `margin`: the least difference that matters, stated before the first training, and
    for an accuracy on n samples at least the 1 / n that it moves by. Raises ValueError for numbers that cannot be
    judged. The first call of a process takes some 0.4 s, for the boundaries; each later one 0.1 ms.

    Every answer is a statement of one interval. It lies inside (-margin, margin): "no measurable effect", whether 0
    is inside or not. Else it lies above 0: "helps", or below: "harms". Inside the margins is two one-sided tests
    (Schuirmann 1987), each at alpha / 2; never a test that failed to show something. "helps" is better than 0 and not
    better than the margin: so for every true mean there is a true answer that enough seeds will reach, also for one
    at the margin itself. Between 0 and the margin both answers are true. "helps" then also means that an effect
    that matters has not been ruled out.

    The interval is a repeated confidence interval (Jennison and Turnbull 1989, J. R. Stat. Soc. B 51, 305): mean plus
    or minus c s / sqrt(k), with c from an alpha-spending function and computed for Student's t (`boundaries`). For
    normal differences it holds the true mean at all looks together with probability 1 - alpha, so all wrong answers
    together are at most alpha, wherever one stops. Two things make it wider, for differences that are not normal:

    * one tail longer than the other: that side moves out by SKEW g c^2 s / k, g the sample's skewness. It has the
      form of Johnson's correction (1978, JASA 73, 536), where SKEW is 1/3 and the interval may get narrower too; so few
      differences show only a part of their skewness, so it has to be several times as much;
    * it is never narrower than log(1 / alpha) / k times the margin. A difference of that much, absent from k seeds, may
      still happen in so large a share of all trainings (the rule of three). Differences that are all the same
      therefore have an interval too, and it gets narrower with their number.

    Simulated wrong answers at alpha 0.05 and at most 40 seeds: 3.5 % or less, heavy tails, skewness and accuracies of
    few samples included (benchmarks/error_rates/RESULTS.md, "Paired comparison"). No other alpha was simulated.

    What it assumes: differences of seeds that were drawn independently. What it cannot see: a rare large difference
    that none of the seeds showed. One that happens in a share p of all trainings is absent from k seeds with
    probability (1 - p)^k.
    """
    _check(differences, margin, alpha, most)
    stages = looks(most)
    done = [each for each in stages if each <= len(differences)]
    following = stages[len(done)] if len(done) < len(stages) else None
    if not done:
        mean = math.fsum(differences) / len(differences)
        return PairedComparison("undecided", mean, -math.inf, math.inf, len(differences), following)
    values = np.asarray(differences[: done[-1]], float)
    narrowest = unseen(margin, len(values), alpha)
    low, high = (float(each) for each in interval(values, boundaries(stages, alpha)[len(done) - 1], narrowest))
    outcome = answer(low, high, margin) or ("undecided" if following else "inconclusive")
    ended = outcome != "undecided"
    return PairedComparison(outcome, float(values.mean()), low, high, done[-1], None if ended else following)


def needed(comparison: PairedComparison, margin: float) -> int | None:
    """About how many seeds in all would decide this comparison; None before its first look.

    For messages: it takes the mean and the spread as they are now for the true ones, so it is as uncertain as they
    are. The half-width falls with the root of the number of seeds, and has to fall below the larger of |mean| (then 0
    is outside) and margin - |mean| (then the margins are).
    """
    width = max(comparison.high - comparison.mean, comparison.mean - comparison.low)
    if comparison.decided:
        return comparison.seeds
    if math.isinf(width):
        return None
    enough = max(abs(comparison.mean), margin - abs(comparison.mean))
    return max(comparison.seeds + 1, math.ceil(comparison.seeds * (width / enough) ** 2))


def looks(most: int) -> tuple[int, ...]:
    """The numbers of differences at which there may be an answer: the first look, every third from there, the last."""
    return tuple(dict.fromkeys([*range(FIRST_LOOK, most - LOOK_EVERY + 2, LOOK_EVERY), most]))


def batch_of_pairs(done: int, most: int) -> int:
    """How many further differences there are up to the next look: nothing can end a comparison before it."""
    return next(each for each in looks(most) if each > done) - done


def unseen(step: float, seeds: int, alpha: float) -> float:
    """The mean that differences of one `step` may have at most, if none of so many seeds showed one."""
    return -math.log(alpha) * step / seeds


def interval(differences: Array, boundary: float, narrowest: float, skew: float = SKEW) -> tuple[Array, Array]:
    """The ends of the interval: `paired` says how it is made.

    `differences`: [..., k], one comparison a row; `boundary`: c; `narrowest`: the least half-width, above 0.
    """
    k = differences.shape[-1]
    mean = differences.mean(-1)
    if math.isinf(boundary):
        return np.full_like(mean, -math.inf), np.full_like(mean, math.inf)
    off = differences - mean[..., None]
    unit = np.maximum(np.abs(off).max(-1), narrowest)  # keeps the third powers finite
    off = off / unit[..., None]
    error = np.maximum(np.sqrt((off**2).sum(-1) / (k - 1) / k), narrowest / unit / boundary)
    skewness = (off**3).mean(-1) / (error * math.sqrt(k - 1)) ** 3
    further = skew * skewness * boundary**2 * error / math.sqrt(k)
    low, high = -boundary * error + np.minimum(further, 0), boundary * error + np.maximum(further, 0)
    return mean + unit * low, mean + unit * high


def answer(low: float, high: float, margin: float) -> Outcome | None:
    """What an interval says; None where it says nothing."""
    if -margin < low and high < margin:
        return "no measurable effect"
    if low > 0:
        return "helps"
    return "harms" if high < 0 else None


def least_difference(run: TrainingRun, margin: float) -> float:
    """The least difference that counts: the margin, or one row of the validation split where that is more.

    Of 45 rows one is 0.022 of the accuracy. No model is better or worse by half a row, and dozens of pairs would be
    needed to show it of a mean.
    """
    return max(margin, resolution_of(run))


def compare(
    own: Sequence[TrainingRun], plain: Sequence[TrainingRun], margin: float, alpha: float, most: int
) -> PairedComparison:
    """Score of the own runs minus that of the plain ones, over the pairs.

    Harm that is shown but, as far as the pairs tell, smaller than the least difference that counts settles nothing yet:
    further pairs may show that it lies within the margin. To call a model harmed fails its test.
    """
    differences = [mine.score - other.score for mine, other in zip(own, plain, strict=True)]
    if len(differences) < 2:
        return PairedComparison("undecided", differences[0], -math.inf, math.inf, 1, None)
    least = least_difference(own[0], margin)
    found = paired(differences, least, alpha, most)
    small = found.outcome == "harms" and found.mean > -least
    return dataclasses.replace(found, outcome="undecided") if small else found


def _check(differences: Sequence[float], margin: float, alpha: float, most: int) -> None:
    for name, value, good, expected in (
        ("margin", margin, 0 < margin < math.inf, "a finite number above 0, the least difference that matters"),
        ("alpha", alpha, 0 < alpha < 1, "a number between 0 and 1, the share of wrong answers allowed; 0.05 is usual"),
        ("most", most, most >= FIRST_LOOK, f"{FIRST_LOOK} seeds or more, fewer cannot give an answer"),
    ):
        if not good:
            raise ValueError(f"{name}: expected {expected}, got {value!r}")
    if not 2 <= len(differences) <= most:
        raise ValueError(f"expected 2 to {most} differences (most={most}), one for each seed, got {len(differences)}")
    for seed, value in enumerate(differences):
        if not math.isfinite(value):
            raise ValueError(
                f"difference {seed}: expected a finite number, got {value}; leave the comparison undecided where a "
                "training gave no score"
            )
