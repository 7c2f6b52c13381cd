"""What do several seeds of one small model cost at once, compared with a plain loop over the seeds?

    OMP_NUM_THREADS=1 python -m benchmarks.speed.seeds_at_once pairs 3
    OMP_NUM_THREADS=1 python -m benchmarks.speed.seeds_at_once sizes 2 --units 128 --seeds 10
    OMP_NUM_THREADS=1 python -m benchmarks.speed.seeds_at_once verdict 3

`pairs` trains 16 paired seeds of two digits networks at batch 32, 20 epochs: an arm
with dropout and an arm without, validation accuracy after each epoch. The plain loop is written by hand in this file
and shares no code with ours. `sizes` trains ten and three seeds of both arms at
several batch sizes, without readings. `verdict` times the whole probe, at once and one after the other.

The number is that of the rounds. All contenders
are interleaved; each ratio is of neighbours in time, and the loop stands against itself too (A/A). Lowest
and highest ratio are in brackets.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from unittest import mock

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from pytest_overfit import Case, run_probes
from pytest_overfit.adapters.dispatch import JointTrainingByFramework, trainer_for
from pytest_overfit.adapters.torch.ensemble import eligible as joining
from pytest_overfit.data.splits import open_split
from pytest_overfit.measures.training_runs import Start, joint_training_runs, training_run

X, Y = load_digits(return_X_y=True)
X = (X / 16).astype("float32")
CUT = 1257
TRAIN, VAL = (X[:CUT], Y[:CUT]), (X[CUT:], Y[CUT:])
RATE = 1e-3


def network(units: int, dropout: float) -> nn.Module:
    return nn.Sequential(nn.Linear(64, units), nn.ReLU(), nn.Dropout(dropout), nn.Linear(units, 10))


def by_hand(units: int, dropout: float, batch: int, epochs: int, seeds: int, reads: bool) -> None:
    x, y, val_x, val_y = (torch.as_tensor(each) for each in (*TRAIN, *VAL))
    for seed in range(seeds):
        torch.manual_seed(seed)
        model = network(units, dropout)
        optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
        for _ in range(epochs):
            model.train()
            for rows in torch.randperm(len(x)).split(batch):
                optimizer.zero_grad()
                functional.cross_entropy(model(x[rows]), y[rows]).backward()
                optimizer.step()
            if reads:
                model.eval()
                with torch.no_grad():
                    float((model(val_x).argmax(1) == val_y).float().mean())


def case(units: int, dropout: float, batch: int) -> Case:
    return Case(
        name="digits",
        model=lambda: network(units, dropout),
        loss=functional.cross_entropy,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=RATE),
        train=TRAIN,
        val=VAL,
        fit_kwargs={"batch_size": batch},
    )


def starts(units: int, dropout: float, batch: int, seeds: range) -> list[Start]:
    of = case(units, dropout, batch)
    train, val = open_split(of, "train"), open_split(of, "val")
    return [Start(trainer_for(of, train, seed, plain=False), seed, train, val) for seed in seeds]


def at_once(
    units: int, dropout: float, batch: int, epochs: int, groups: tuple[int, ...], reads: bool, always: bool = False
) -> None:
    """Ours, in groups of so many seeds; as the rule says, or `always` at once."""
    begun = 0
    for size in groups:
        made = starts(units, dropout, batch, range(begun, begun + size))
        begun += size
        joins = always or JointTrainingByFramework().may_join(made[0].trainer, size, epochs)
        most = sys.maxsize if always else joining.MOST_PRODUCTS
        with mock.patch.object(joining, "MOST_PRODUCTS", most):
            if not joins:
                one_by_one(made, epochs, reads)
            elif reads:
                assert joint_training_runs(JointTrainingByFramework(), made, epochs, None) is not None
            else:
                assert (
                    JointTrainingByFramework().train([each.trainer for each in made], epochs, lambda member: None)
                    is not None
                )


def one_by_one(made: list[Start], epochs: int, reads: bool) -> None:
    for each in made:
        if reads:
            training_run(each.trainer, each.seed, epochs, each.train, each.val, None)
        else:
            each.trainer.train(epochs)


Contender = Callable[[], object]


def ratios(contenders: dict[str, Contender], rounds: int, warm: bool = True) -> None:
    """Medians of seconds, and of each contender's time over that of the first just before it."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    over: dict[str, list[float]] = {name: [] for name in contenders}
    base = next(iter(contenders))
    for number in range(not warm, rounds + 1):
        first = 0.0
        for name, run in contenders.items():
            began = time.perf_counter()
            run()
            took = time.perf_counter() - began
            first = took if name == base else first
            if number:  # the first round warms up
                seconds[name].append(took)
                over[name].append(took / first)
    for name in contenders:
        low, middle, high = min(over[name]), statistics.median(over[name]), max(over[name])
        print(f"| {name} | {statistics.median(seconds[name]):.2f} | {middle:.2f} ({low:.2f}-{high:.2f}) |", flush=True)


def both(run: Callable[[float], object]) -> Contender:
    return lambda: [run(dropout) for dropout in (0.5, 0.0)]


def pairs(rounds: int) -> None:
    for units in (32, 128):
        print(f"\n64-{units}-10, batch 32, 16 pairs, 20 epochs\n\n| | s | of the loop |\n|---|---:|---:|")
        hand = both(lambda dropout, units=units: by_hand(units, dropout, 32, 20, 16, reads=True))
        ratios(
            {
                "plain loop": hand,
                "ours, 16 at once": both(lambda d, units=units: at_once(units, d, 32, 20, (16,), reads=True)),
                "ours, 10 + 3 + 3 at once": both(lambda d, u=units: at_once(u, d, 32, 20, (10, 3, 3), reads=True)),
                "plain loop again (A/A)": hand,
                "ours, one after the other": both(
                    lambda d, u=units: one_by_one(starts(u, d, 32, range(16)), 20, reads=True)
                ),
            },
            rounds,
            warm=False,
        )


def sizes(rounds: int, units: int, count: int, epochs: int = 5) -> None:
    print(f"\n64-{units}-10, {count} seeds, {epochs} epochs, without readings")
    for batch in (8, 32, 128, 256, 512, CUT):
        print(f"\nbatch {batch}\n\n| | s | of the loop |\n|---|---:|---:|")
        more = max(1, batch // 32) * epochs
        hand = both(lambda d, b=batch, e=more: by_hand(units, d, b, e, count, reads=False))
        ratios(
            {
                "plain loop": hand,
                "ours, as the rule says": both(
                    lambda d, b=batch, e=more: at_once(units, d, b, e, (count,), reads=False)
                ),
                "ours, at once": both(lambda d, b=batch, e=more: at_once(units, d, b, e, (count,), False, always=True)),
                "ours, one after the other": both(
                    lambda d, b=batch, e=more: one_by_one(starts(units, d, b, range(count)), e, reads=False)
                ),
                "plain loop again (A/A)": hand,
            },
            rounds,
        )


def verdict(rounds: int) -> None:
    """The probe on the digits with a dropout of 0.2, at its defaults."""
    asked = case(64, 0.2, 32)

    def alone() -> None:
        with mock.patch.object(joining, "MOST_PRODUCTS", 0):
            run_probes(asked, ["regularization"])

    print("\nthe whole verdict\n\n| | s | of one after the other |\n|---|---:|---:|")
    ratios(
        {
            "one after the other": alone,
            "at once": lambda: run_probes(asked, ["regularization"]),
            "one after the other again (A/A)": alone,
        },
        rounds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["pairs", "sizes", "verdict"])
    parser.add_argument("rounds", type=int)
    parser.add_argument("--units", type=int, default=128, help="sizes: hidden units (default %(default)s)")
    parser.add_argument("--seeds", type=int, default=10, help="sizes: seeds at once (default %(default)s)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "sizes":
        sizes(given.rounds, given.units, given.seeds)
    else:
        {"pairs": pairs, "verdict": verdict}[given.what](given.rounds)


if __name__ == "__main__":
    main()
