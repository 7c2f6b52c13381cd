"""How often do the tests behind `early_accuracy` see something where nothing is?

    python -m benchmarks.error_rates.early_accuracy     # some two minutes

Three statements, each at the probe's `alpha` of 0.001, and what follows from them:

* "answers go with the targets" of answers that do not: permutation tests on simulated answers, 20,000 a row;
* "this accuracy is clearly above that one" of two that are equal: computed exactly from the binomial distribution;
* "permuted labels beat chance", which fails a model: two such tests for each of `repeats` trainings, all of which must
  say yes. Simulated as the probe does it, on answers that know nothing.

All of it runs through the package's own functions.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy import stats

from pytest_overfit.probes.early_accuracy import EarlyAccuracyLimits
from pytest_overfit.probes.early_accuracy.estimates import Predictions, clearly_above, estimate, shrunk
from pytest_overfit.probes.early_accuracy.symptoms import random_labels_beat_chance

ALPHA, REPEATS = EarlyAccuracyLimits().alpha, EarlyAccuracyLimits().repeats
RUNS = 20_000


def classes(random: np.random.Generator, rows: int, share: float, kinds: int) -> Predictions:
    """Guesses: the first class is right in this share of the rows, the others as often as each other."""
    weights = [share, *[(1 - share) / (kinds - 1)] * (kinds - 1)]
    target = random.choice(kinds, (rows, 1), p=weights)
    raw = random.normal(size=(rows, kinds))
    return Predictions(
        kind="classes", predicted=raw.argmax(1)[:, None], target=target, counted=np.ones((rows, 1), bool), raw=raw
    )


def values(random: np.random.Generator, rows: int, heavy: bool) -> Predictions:
    draw = random.standard_cauchy if heavy else random.standard_normal
    predicted, target = draw((rows, 1)), draw((rows, 1))
    return Predictions(
        kind="values", predicted=predicted, target=target, counted=np.ones((rows, 1), bool), raw=predicted
    )


KINDS = {
    "2 classes": lambda random, rows: classes(random, rows, 0.5, 2),
    "10 classes": lambda random, rows: classes(random, rows, 0.1, 10),
    "2 classes, 95:5": lambda random, rows: classes(random, rows, 0.95, 2),
    "normal values": lambda random, rows: values(random, rows, heavy=False),
    "Cauchy values": lambda random, rows: values(random, rows, heavy=True),
}


def by_luck() -> float:
    print("\n### Answers that know nothing: related by their predictions, by their outputs, in 1,000\n")
    print("| answers | rows | predictions | outputs | either |\n|---|---:|---:|---:|---:|")
    worst = 0.0
    for name, make in KINDS.items():
        for rows in (20, 100):
            random = np.random.default_rng(0)
            found = [estimate(make(random, rows)) for _ in range(RUNS)]
            rates = [float(np.mean([each[key] <= ALPHA for each in found])) for key in ("related", "signal")]
            either = float(np.mean([min(each["related"], each["signal"]) <= ALPHA for each in found]))
            worst = max(worst, *rates)
            print(
                f"| {name} | {rows} | " + " | ".join(f"{1000 * each:.2f}" for each in (*rates, either)) + " |",
                flush=True,
            )
    return worst


def above() -> float:
    """Exact: all pairs of counts, weighted by their probability."""
    print("\n### Two equal accuracies: one clearly above the other, in 1,000\n")
    print("| rows | 0.02 | 0.1 | 0.5 | 0.9 | 0.98 |\n|---:|---:|---:|---:|---:|---:|")
    worst = 0.0
    for first, second in ((20, 20), (50, 50), (200, 200), (1000, 50), (50, 1000), (1000, 200)):
        one, other = (
            [dict(zip(("centre", "error"), shrunk(count / rows, rows), strict=True)) for count in range(rows + 1)]
            for rows in (first, second)
        )
        larger = np.array([[clearly_above(a, b, ALPHA) for b in other] for a in one])
        rates = []
        for share in (0.02, 0.1, 0.5, 0.9, 0.98):
            p, q = stats.binom.pmf(range(first + 1), first, share), stats.binom.pmf(range(second + 1), second, share)
            rates.append(float(p @ larger @ q))
        worst = max(worst, *rates)
        print(f"| {first} above {second} | " + " | ".join(f"{1000 * each:.2f}" for each in rates) + " |")
    return worst


def pipeline() -> float:
    """A run of the control on a model that learns nothing from permuted labels, up to `REPEATS` of them."""
    random = np.random.default_rng(1)
    failed = 0
    for _ in range(RUNS):
        runs = []
        for _ in range(REPEATS):
            make = KINDS["10 classes"]
            runs.append({"val": estimate(make(random, 100)), "before": {"val": estimate(make(random, 100))}})
            if not random_labels_beat_chance(runs[-1:], ALPHA):
                break
        failed += len(runs) == REPEATS and random_labels_beat_chance(runs, ALPHA)
    rate = failed / RUNS
    print(f"\nPermuted labels beat chance, {REPEATS} trainings running, of {RUNS:,} models that know nothing: {failed}")
    return rate


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    rates = (by_luck(), above(), pipeline())
    print(f"\nhighest rates, in 1,000: {', '.join(f'{1000 * each:.2f}' for each in rates)}; alpha: {1000 * ALPHA:g}")
    return int(rates[0] > 2 * ALPHA or rates[2] > ALPHA)


if __name__ == "__main__":
    raise SystemExit(main())
