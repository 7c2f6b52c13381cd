"""How often does a calibrated bound fail a model that did not change?

    python -m benchmarks.error_rates.calibration                # simulated: four minutes
    python -m benchmarks.error_rates.calibration --real 800     # the whole probe on a small model, some 0.4 s each

Simulated: 100,000 times a calibration and one later run, for each kind of values, every random number from a fixed
seed, through `seeds_wanted`, `ends_of` and `run_answer` of `pytest_overfit.probes.bounds.tolerance`, and on the same
values two bounds that assume normal ones. `--real N`: N times the whole probe on a small model, calibration and run,
from N seeds. `--changed N`: that model changed after N calibrations.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from pytest_overfit import Case, Verdict, calibrated, run_probes
from pytest_overfit.core.calibration import Calibration
from pytest_overfit.probes.bounds.tolerance import ends_of, mean_rate, rate, run_answer, seeds_wanted
from pytest_overfit.settings import Settings, set_settings

RUNS = 100_000
FALSE_ALARMS = 1e-3
#: the rate of the real repeats
REAL = 1e-2
#: of a run at most, as in the probe
SEEDS = 8

Array = np.ndarray
Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]
#: (share of all values below low, share above high)
Tails = Callable[[Array, Array], tuple[Array, Array]]


def of_scipy(distribution: object) -> Tails:
    return lambda low, high: (distribution.cdf(low), distribution.sf(high))  # type: ignore[attr-defined]


def rounded_tails(low: Array, high: Array) -> tuple[Array, Array]:
    """Of whole numbers that normal values were rounded to: strictly below low, strictly above high."""
    return stats.norm.cdf(np.ceil(low) - 0.5), stats.norm.sf(np.floor(high) + 0.5)


def rare_tails(low: Array, high: Array) -> tuple[Array, Array]:
    """Of 0, and 1 in one seed of ten."""
    return np.where(low > 0, 0.9, 0.0), np.where(high < 1, 0.1, 0.0)


KINDS: dict[str, tuple[Draw, Tails]] = {
    "normal": (lambda random, shape: random.normal(size=shape), of_scipy(stats.norm)),
    "t, 3 degrees of freedom": (lambda random, shape: random.standard_t(3, shape), of_scipy(stats.t(3))),
    "Cauchy": (lambda random, shape: random.standard_cauchy(shape), of_scipy(stats.cauchy)),
    "exponential": (lambda random, shape: random.exponential(size=shape), of_scipy(stats.expon)),
    "lognormal, sigma 1": (lambda random, shape: random.lognormal(size=shape), of_scipy(stats.lognorm(1))),
    "normal, rounded to 1 sd": (lambda random, shape: np.round(random.normal(size=shape)), rounded_tails),
    "0, and 1 in one seed of ten": (lambda random, shape: (random.random(shape) < 0.1) * 1.0, rare_tails),
}


# --------------------------------------------------------------------------------------------------------------- rules


def one_run(values: Sequence[float], low: float, high: float) -> tuple[bool, int]:
    """Does the run fail, and after how many seeds is it known?"""
    for seen in range(1, SEEDS + 1):
        answer = run_answer(values[:seen], low, high, SEEDS)
        if answer != "inconclusive":
            return answer == "failed", seen
    raise AssertionError("a run of all seeds has an answer")


def ours(old: Array, new: Array, shifts: Sequence[float] = (0.0,)) -> tuple[Array, Array, Array]:
    """The ends of each calibration; failures and seeds of each run at each shift."""
    ends = np.array([ends_of(each) for each in old.tolist()])
    answers = [
        [
            one_run([each + shift for each in run], low, high)
            for run, (low, high) in zip(new.tolist(), ends, strict=True)
        ]
        for shift in shifts
    ]
    found = np.array(answers, float)
    return ends, found[..., 0], found[..., 1]


def howe(seeds: int, run: int, false_alarms: float) -> float:
    """Factor of the tolerance bound for the mean of a normal run (Howe 1969, J. Am. Stat. Assoc. 64, 610)."""
    spread = math.sqrt((seeds - 1) / stats.chi2.ppf(0.05, seeds - 1))
    return float(stats.norm.isf(false_alarms / 2) * math.sqrt(1 / run + 1 / seeds) * spread)


def of_mean(old: Array, new: Array, factor: float, run: int, shift: float = 0.0) -> Array:
    """Does the mean of the first values of a run lie beyond mean plus or minus factor sd?"""
    away = np.abs(new[:, :run].mean(1) + shift - old.mean(1))
    return away > factor * old.std(1, ddof=1)


# -------------------------------------------------------------------------------------------------------------- tables


def shown(failed: Array) -> str:
    """A rate with its 95 % interval (Clopper and Pearson), in units of one in a thousand."""
    many, of = int(failed.sum()), failed.size
    low = stats.beta.ppf(0.025, many, of - many + 1) if many else 0.0
    high = stats.beta.ppf(0.975, many + 1, of - many)
    return f"{1e3 * many / of:.2f} ({1e3 * low:.2f}-{1e3 * high:.2f})"


def false_alarms() -> None:
    seeds = seeds_wanted(FALSE_ALARMS, 2, SEEDS)
    print(f"\n### False alarms in 1,000 runs, {RUNS:,} calibrations on {seeds} seeds with one run each\n")
    print("Stated: 1. By counting orders, for values that do not tie:", f"{2e3 * mean_rate(seeds, SEEDS):.2f}.\n")
    print(
        "| values | ours | calibrations whose runs have more than 1, % | tolerance bound for normal means of 4 |"
        " mean and 3 sd of 8 seeds, one seed | mean seeds of a run |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    for number, (name, (draw, tails)) in enumerate(KINDS.items()):
        random = np.random.default_rng(number)
        old, new = draw(random, (RUNS, seeds)), draw(random, (RUNS, SEEDS))
        ends, failed, seen = ours(old, new)
        below, above = tails(ends[:, 0], ends[:, 1])
        each = np.vectorize(rate)(below, SEEDS) + np.vectorize(rate)(above, SEEDS)
        unlucky = 100 * np.mean(each > FALSE_ALARMS)
        normal = of_mean(old, new, howe(seeds, 4, FALSE_ALARMS), 4)
        naive = of_mean(old[:, :8], new, 3, 1)
        print(f"| {name} | {shown(failed)} | {unlucky:.1f} | {shown(normal)} | {shown(naive)} | {seen.mean():.2f} |")


def several() -> None:
    """Three quantities of one verdict that hang together; six ends share the rate."""
    seeds, random = seeds_wanted(FALSE_ALARMS, 6, SEEDS), np.random.default_rng(100)
    common, own = random.normal(size=(RUNS, 1, seeds + SEEDS)), random.normal(size=(RUNS, 3, seeds + SEEDS))
    values = np.exp(0.8 * common + 0.6 * own)
    failed = np.zeros(RUNS, bool)
    for quantity in range(3):
        failed |= ours(values[:, quantity, :seeds], values[:, quantity, seeds:])[1][0] > 0
    print(
        f"\nThree lognormal quantities in one verdict, correlated by 0.64, six ends, {seeds} seeds: {shown(failed)} "
        "false alarms in 1,000 verdicts."
    )


def power() -> None:
    shifts = (1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
    seeds, runs = seeds_wanted(FALSE_ALARMS, 2, SEEDS), 10_000
    random = np.random.default_rng(200)
    old, new = random.normal(size=(runs, seeds)), random.normal(size=(runs, SEEDS))
    _, failed, seen = ours(old, new, shifts)
    factor = howe(seeds, 4, FALSE_ALARMS)
    print(f"\n### What is found: normal values shifted by so many sd, {runs:,} calibrations on {seeds} seeds\n")
    print(f"| rule | {' | '.join(f'{each:g}' for each in shifts)} |\n|---|{'---:|' * len(shifts)}")
    print(f"| ours, % failed | {' | '.join(f'{100 * each.mean():.0f}' for each in failed)} |")
    print(f"| ours, seeds of a run | {' | '.join(f'{each.mean():.1f}' for each in seen)} |")
    normal = [of_mean(old, new, factor, 4, shift).mean() for shift in shifts]
    print(f"| tolerance bound for normal means of 4, % failed | {' | '.join(f'{100 * each:.0f}' for each in normal)} |")


# ---------------------------------------------------------------------------------------------------------------- real


BOUNDS = ("initial_loss", "loss_after_k_steps", "gradient_norm")

#: what is changed after the calibration, by the arguments of `small_case`
CHANGES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "learning rate 0.01 to 0.007": {"lr": 0.007},
    "learning rate 0.01 to 0.005": {"lr": 0.005},
    "16 hidden units to 14": {"hidden": 14},
    "16 hidden units to 8": {"hidden": 8},
    "last layer's weights 1.5 times as large": {"last": 1.5},
    "last layer's weights twice as large": {"last": 2.0},
    "tanh in place of ReLU": {"activation": "Tanh"},
    "SGD in place of Adam": {"optimizer": "SGD"},
}


def small_case(
    lr: float = 0.01, hidden: int = 16, last: float = 1.0, activation: str = "ReLU", optimizer: str = "Adam"
) -> Case:
    import torch
    from sklearn.datasets import load_digits
    from torch import nn

    torch.set_num_threads(1)
    x, y = load_digits(return_X_y=True)

    def make() -> nn.Module:
        model = nn.Sequential(nn.Linear(64, hidden), getattr(nn, activation)(), nn.Linear(hidden, 10))
        with torch.no_grad():
            model[2].weight.mul_(last)
        return model

    return Case(
        name="mlp",
        model=make,
        loss=nn.functional.cross_entropy,
        optimizer=lambda parameters: getattr(torch.optim, optimizer)(parameters, lr=lr),
        batch=(torch.tensor(x[:32] / 16).float(), torch.tensor(y[:32])),
        options={"bounds": dict.fromkeys(BOUNDS, calibrated)},
    )


def verdict_of(case: Case, seed: int, stated: float = REAL, entries: dict[str, Any] | None = None) -> Verdict:
    """Calibrate and judge a run; with the entries of a calibration, judge a run alone."""
    found = Calibration(now=entries is None, read=lambda _: entries or {}, path=str, command=str)
    reset = set_settings(Settings(seed=seed, calibration=found))
    try:
        return run_probes(case, ["bounds"], false_alarms=stated, k=10)[0]
    finally:
        reset()


def real(repeats: int, stated: float) -> None:
    """The whole probe: calibrate on new seeds, then judge a run on others; nothing changes between the two.

    At a high stated rate there are false alarms to be seen, and their number can be held against the one by counting.
    """
    case = small_case()
    verdicts = [verdict_of(case, seed, stated) for seed in range(repeats)]
    failed = np.array([not each.passed for each in verdicts])
    seeds = verdicts[0].data["calibration"][BOUNDS[0]]["seeds"]
    counted = 1e3 * 2 * len(BOUNDS) * mean_rate(seeds, SEEDS)
    print(f"\n### Real repeats at {stated:g}: an MLP on 32 digits, {', '.join(BOUNDS)} (k=10)\n")
    print(f"{repeats} calibrations on {seeds} seeds, one run each: {failed.sum()} failed; in 1,000: {shown(failed)}.")
    print(f"Stated: {1e3 * stated:g}. By counting orders: {counted:.2f}, less where one run breaks several ends.")


def changed(repeats: int) -> None:
    """Which changes of the program does a run notice?"""
    print(f"\n### What is found: the same MLP changed after its calibration at {REAL:g}, {repeats} of them\n")
    print("| change | % failed |\n|---|---:|")
    entries = [dict(verdict_of(small_case(), seed).data["calibration"]) for seed in range(repeats)]
    for name, arguments in CHANGES.items():
        case = small_case(**arguments)
        found = [not verdict_of(case, repeats + seed, REAL, each).passed for seed, each in enumerate(entries)]
        print(f"| {name} | {100 * np.mean(found):.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=int, metavar="N", help="real repeats in place of the simulation")
    parser.add_argument("--at", type=float, default=REAL, metavar="RATE", help="the rate of the real repeats")
    parser.add_argument("--changed", type=int, metavar="N", help="real models changed after N calibrations")
    given = parser.parse_args()
    if given.real is not None or given.changed is not None:
        if given.real:
            real(given.real, given.at)
        if given.changed:
            changed(given.changed)
        return
    false_alarms()
    several()
    power()


if __name__ == "__main__":
    main()
