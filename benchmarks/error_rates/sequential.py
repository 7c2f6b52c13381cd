"""How often is a paired comparison wrong that stops as soon as it knows?

    python -m benchmarks.error_rates.sequential     # some five minutes

Simulated differences of many kinds, 20,000 comparisons a cell, every random number from a fixed seed. A comparison is
wrong that claims "helps" or "harms" where the true mean is 0, the wrong sign, or "no measurable effect" where the true
mean is a margin or more. All numbers are in margins. All of it runs through
`pytest_overfit.probes.regularization.paired.interval`; `test_paired.py` checks `answers` against `paired`.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
import sys
from collections.abc import Callable, Sequence

import numpy as np

from pytest_overfit.measures.sequential.boundaries import boundaries, spent
from pytest_overfit.probes.regularization.paired import MOST, SKEW, interval, looks, unseen

RUNS = 20_000
HELPS, HARMS, NO_EFFECT, OPEN = 1, -1, 2, 0

Array = np.ndarray
Noise = Callable[[np.random.Generator, tuple[int, int]], Array]


def lognormal(sigma: float) -> Noise:
    mean, sd = math.exp(sigma**2 / 2), math.sqrt((math.exp(sigma**2) - 1) * math.exp(sigma**2))
    return lambda random, shape: (random.lognormal(0, sigma, shape) - mean) / sd


def two_points(share: float) -> Noise:
    """A large value in this share of all seeds, a small one of the other sign in all others."""
    large, small = math.sqrt((1 - share) / share), -math.sqrt(share / (1 - share))
    return lambda random, shape: np.where(random.random(shape) < share, large, small)


def outliers(random: np.random.Generator, shape: tuple[int, int]) -> Array:
    return random.normal(size=shape) * np.where(random.random(shape) < 0.1, 5, 1) / math.sqrt(0.9 + 2.5)


#: mean 0, standard deviation 1
NOISE: dict[str, Noise] = {
    "normal": lambda random, shape: random.normal(size=shape),
    "t, 3 degrees of freedom": lambda random, shape: random.standard_t(3, shape) / math.sqrt(3),
    "normal, one in ten 5 times as wide": outliers,
    "two values, 50:50": two_points(0.5),
    "two values, 70:30": two_points(0.3),
    "exponential": lambda random, shape: random.exponential(size=shape) - 1,
    "lognormal, sigma 0.5": lognormal(0.5),
    "lognormal, sigma 1": lognormal(1.0),
}
#: rare and large: ten seeds in which it does not happen look alike, and no rule can know
UNSEEN: dict[str, Noise] = {"two values, 80:20": two_points(0.2), "two values, 90:10": two_points(0.1)}


@dataclasses.dataclass(frozen=True)
class Rule:
    """The looks, and what widens the interval."""

    looks: tuple[int, ...] = looks(MOST)
    skew: float = SKEW
    floor: float = 1.0

    def answers(self, x: Array) -> tuple[Array, Array, Array, Array]:
        """For comparisons with margin 1, one a row: answer, seeds, ends of the interval where it stopped."""
        what, seeds = np.zeros(len(x), int), np.full(len(x), self.looks[-1])
        ends = np.zeros((2, len(x)))
        for k, boundary in zip(self.looks, boundaries(self.looks, 0.05), strict=True):
            going = np.flatnonzero(what == OPEN)
            narrowest = self.floor * unseen(1.0, k, 0.05)
            low, high = interval(x[going, :k], boundary, narrowest, self.skew)
            answers = np.select([(low > -1) & (high < 1), low > 0, high < 0], [NO_EFFECT, HELPS, HARMS], OPEN)
            what[going], seeds[going], ends[:, going] = answers, np.where(answers == OPEN, seeds[going], k), (low, high)
        return what, seeds, ends[0], ends[1]


def wrong(answers: Array, effect: float) -> float:
    """Share of the answers that are wrong when this is the true mean."""
    sign = (answers == HELPS) | (answers == HARMS) if effect == 0 else answers == (HARMS if effect > 0 else HELPS)
    return float(np.mean(sign | ((answers == NO_EFFECT) & (abs(effect) >= 1))))


def worst(noise: Noise, sd: float, rule: Rule, runs: int = RUNS, seed: int = 0) -> tuple[float, float]:
    """The highest share of wrong answers and the lowest coverage over effects of 0 and one margin either way."""
    x = sd * noise(np.random.default_rng(seed), (runs, rule.looks[-1]))
    errors, covered = [], []
    for effect in (0.0, 1.0, -1.0):
        answers, _, low, high = rule.answers(x + effect)
        errors.append(wrong(answers, effect))
        covered.append(float(np.mean((low <= effect) & (effect <= high))))
    return max(errors), min(covered)


def percent(values: Sequence[float]) -> str:
    return " | ".join(f"{100 * each:.1f}" for each in values)


# -------------------------------------------------------------------------------------------------------------- tables


def plain_t() -> None:
    from scipy import stats

    print("\n### A t test at 5 % after each seed, and four boundaries, on normal differences without an effect\n")
    print("| rule | wrong stops, % |\n|---|---:|")
    x = np.random.default_rng(1).normal(size=(10 * RUNS, MOST))
    k = np.arange(1, MOST + 1)
    mean = np.cumsum(x, 1) / k
    error = np.sqrt(np.maximum(np.cumsum(x**2, 1) - k * mean**2, 0) / np.maximum(k - 1, 1) / k)
    t = np.abs(mean[:, 1:]) / error[:, 1:]  # column i: i + 2 seeds

    def crossed(at: Sequence[int], bounds: Sequence[float]) -> float:
        return float(np.mean((t[:, np.array(at) - 2] > np.array(bounds)).any(1)))

    for first, last in ((2, 10), (3, 10), (3, MOST), (4, MOST)):
        at = range(first, last + 1)
        share = crossed(at, [stats.t.ppf(0.975, each - 1) for each in at])
        print(f"| plain t test after each of {first} to {last} seeds | {100 * share:.1f} |")
    for at in (looks(MOST), tuple(range(4, MOST + 1))):
        when = ", ".join(map(str, at)) if len(at) < 5 else f"each from {at[0]}"
        normal = normal_boundaries(at)
        as_t = [float(stats.t.isf(stats.norm.sf(z), each - 1)) for z, each in zip(normal, at, strict=True)]
        print(f"| spending, boundaries of a normal walk (looks at {when}) | {100 * crossed(at, normal):.2f} |")
        print(f"| the same, as t at the same level | {100 * crossed(at, as_t):.2f} |")
        print(f"| spending, boundaries of the t walk | {100 * crossed(at, boundaries(at, 0.05)):.2f} |")


def normal_boundaries(at: tuple[int, ...]) -> list[float]:
    """Boundaries for a known standard deviation, from simulated walks."""
    x = np.cumsum(np.random.default_rng(2).normal(size=(20 * RUNS, MOST)), 1) / np.sqrt(np.arange(1, MOST + 1))
    alive, found, used = np.ones(len(x), bool), [], 0.0
    for k in at:
        due = round((spent(k / at[-1], 0.05) - used) * len(x))
        z = np.abs(x[:, k - 1])
        found.append(float(np.sort(z[alive])[-due - 1]) if due else math.inf)
        alive &= z <= found[-1]
        used += due / len(x)
    return found


def wrong_answers() -> float:
    sds = (0.25, 0.5, 1.0, 2.0, 5.0)
    print("\n### Wrong answers, %: the worst of the effects 0, +1 and -1 margin\n")
    print(f"| differences | {' | '.join(f'sd {sd:g}' for sd in sds)} | coverage where it stopped, lowest |")
    print(f"|---|{'---:|' * (len(sds) + 1)}")
    most = 0.0
    for name, noise in {**NOISE, **UNSEEN}.items():
        cells = [worst(noise, sd, Rule()) for sd in sds]
        print(f"| {name} | {percent([each[0] for each in cells])} | {percent([min(each[1] for each in cells)])} |")
        most = max(most, *(each[0] for each in cells)) if name in NOISE else most
    return most


def accuracies() -> float:
    """Differences of two accuracies on the same n samples: gained minus lost samples, often exactly 0."""
    print("\n### Accuracies: wrong answers, %, and how often an effect of 0 is answered `no measurable effect`, %\n")
    print(
        "Each sample is lost with probability q, and gained with q plus the effect. A margin below one sample is taken"
    )
    print("to be one sample, as the probe does.\n")
    print("| margin | samples | q | of differences 0 | wrong, effect 0 | wrong, effect = margin | answered | seeds |")
    print(f"|{'---:|' * 8}")
    most = 0.0
    for margin, n, q in itertools.product((0.01, 0.02), (20, 50, 100, 400), (0.0, 0.002, 0.01, 0.05)):
        random, least = np.random.default_rng(3), max(margin, 1 / n)
        errors = []
        for effect in (least, 0.0):
            drawn = random.multinomial(n, [q, q + effect, 1 - 2 * q - effect], (RUNS, MOST))
            x = (drawn[..., 1] - drawn[..., 0]) / n
            answers, seeds, _, _ = Rule().answers(x / least)
            errors.append(wrong(answers, effect / least))
        most = max(most, *errors)
        row = percent([float(np.mean(x == 0)), errors[1], errors[0], float(np.mean(answers == NO_EFFECT))])
        print(f"| {margin} | {n} | {q} | {row} | {seeds.mean():.1f} |")
    return most


def power() -> None:
    effects = (0.0, 0.5, 1.0, 2.0, 4.0)
    print("\n### Answers on normal differences: no measurable effect / helps, % (mean number of seeds)\n")
    print(f"| sd | {' | '.join(f'effect {each:g}' for each in effects)} |\n|---|{'---|' * len(effects)}")
    for sd in (0.25, 0.5, 1.0, 2.0):
        row = []
        for effect in effects:
            x = effect + sd * NOISE["normal"](np.random.default_rng(4), (RUNS, MOST))
            answers, seeds, _, _ = Rule().answers(x)
            none, helps = np.mean(answers == NO_EFFECT), np.mean(answers == HELPS)
            row.append(f"{100 * none:.0f} / {100 * helps:.0f} ({seeds.mean():.1f})")
        print(f"| {sd:g} | {' | '.join(row)} |")


def choices() -> None:
    """What each part of the rule buys, and what it costs."""
    rules = {
        "as it is": Rule(),
        "skewness: not used": Rule(skew=0.0),
        "skewness: Johnson's third": Rule(skew=1 / 3),
        "skewness: 1": Rule(skew=1.0),
        "skewness: 4/3": Rule(skew=4 / 3),
        "no least width": Rule(floor=1e-9),
        "looks after each seed from 4": Rule(looks=tuple(range(4, MOST + 1))),
        "looks after each seed from 10": Rule(looks=tuple(range(10, MOST + 1))),
        "looks at 10, 20, 40": Rule(looks=(10, 20, 40)),
        "one look, at the end": Rule(looks=(MOST,)),
        "most = 16": Rule(looks=looks(16)),
        "most = 24": Rule(looks=looks(24)),
        "plain interval, looks after each seed from 4": Rule(looks=tuple(range(4, MOST + 1)), skew=0.0, floor=1e-9),
    }
    kinds = ("normal", "t, 3 degrees of freedom", "two values, 50:50", "two values, 70:30", "exponential")
    kinds += ("lognormal, sigma 0.5", "lognormal, sigma 1")
    print("\n### Choices: wrong answers, % (worst of sd 0.5, 1, 2, 5), and what sd 1 costs on normal differences\n")
    print(f"| rule | {' | '.join(kinds)} | effect 0: answered, seeds | effect 1: helps, seeds | effect 4: seeds |")
    print(f"|---|{'---:|' * len(kinds)}---|---|---:|")
    for name, rule in rules.items():
        errors = [max(worst(NOISE[kind], sd, rule)[0] for sd in (0.5, 1.0, 2.0, 5.0)) for kind in kinds]
        x = NOISE["normal"](np.random.default_rng(5), (RUNS, rule.looks[-1]))
        (none, first, *_), (some, second, *_), (_, third, *_) = (rule.answers(x + each) for each in (0, 1, 4))
        print(
            f"| {name} | {percent(errors)} | {100 * np.mean(none == NO_EFFECT):.0f} %, {first.mean():.1f} "
            f"| {100 * np.mean(some == HELPS):.0f} %, {second.mean():.1f} | {third.mean():.1f} |"
        )


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    stages = looks(MOST)
    listed = ", ".join(f"{c:.3f} at {k}" for k, c in zip(stages, boundaries(stages, 0.05), strict=True))
    print(f"Boundaries of |t|: {listed} seeds")
    plain_t()
    most = max(wrong_answers(), accuracies())
    power()
    choices()
    print(f"\nwrong answers at most {100 * most:.1f} % (without the rare and large); the limit is 5 %")
    return int(most > 0.05)


if __name__ == "__main__":
    sys.exit(main())
