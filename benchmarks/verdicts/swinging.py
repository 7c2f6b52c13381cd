"""Small networks at learning rates from sound to diverging: does a change of the readings change their verdicts?

    OMP_NUM_THREADS=1 python -m benchmarks.verdicts.swinging one.jsonl                    # about 6 minutes
    OMP_NUM_THREADS=1 python -m benchmarks.verdicts.swinging other.jsonl                  # at another commit
    python -m benchmarks.verdicts.swinging one.jsonl --against other.jsonl                # what differs; nothing is run

Where a rate is too high, a loss swings, dips and dies: a fit that is looked for more often is found more often, also in
a dip. Digits, diabetes and breast cancer, 4 and 32 rows; a deep network, one with batch normalisation, a linear model;
SGD with momentum 0, 0.9 and 0.95, Adam and RMSprop at 30 rates; 4 seeds: 2,160 verdicts of `overfit_batch`.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from torch import nn
from torch.nn import functional as F

from pytest_overfit import Case, run_probes

OPTIMIZERS: dict[str, tuple[Any, dict[str, float], tuple[float, ...]]] = {
    "sgd": (torch.optim.SGD, {}, (0.1, 0.3, 0.5, 1, 1.5, 2, 3, 5)),
    "momentum 0.9": (torch.optim.SGD, {"momentum": 0.9}, (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1)),
    "momentum 0.95": (torch.optim.SGD, {"momentum": 0.95}, (0.01, 0.03, 0.1, 0.2, 0.3)),
    "adam": (torch.optim.Adam, {}, (0.01, 0.03, 0.1, 0.2, 0.5, 1)),
    "rmsprop": (torch.optim.RMSprop, {}, (0.01, 0.03, 0.1, 0.3)),
}


def deep(inputs: int, outputs: int) -> nn.Module:
    hidden = (nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
    return nn.Sequential(*hidden, nn.Linear(64, outputs))


def normalised(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, outputs))


def data() -> dict[str, tuple[Any, Any, Any, int]]:
    """Inputs, targets, loss and number of outputs."""

    def scaled(array: Any) -> Any:
        return torch.tensor((array - array.mean(0)) / array.std(0), dtype=torch.float32)

    pictures, digits = load_digits(return_X_y=True)
    people, progress = load_diabetes(return_X_y=True)
    cells, kinds = load_breast_cancer(return_X_y=True)
    kinds = torch.tensor(kinds, dtype=torch.float32)[:, None]
    return {
        "digits": (torch.tensor(pictures / 16, dtype=torch.float32), torch.tensor(digits), F.cross_entropy, 10),
        "diabetes": (scaled(people), scaled(progress)[:, None], F.mse_loss, 1),
        "cancer": (scaled(cells), kinds, F.binary_cross_entropy_with_logits, 1),
    }


def cases() -> Iterator[tuple[str, Case]]:
    for name, (x, y, loss, outputs) in data().items():
        for rows, make, optimizer in itertools.product((4, 32), (deep, normalised, nn.Linear), OPTIMIZERS):
            kind, settings, rates = OPTIMIZERS[optimizer]
            for rate, seed in itertools.product(rates, range(4)):
                picked = np.random.default_rng(seed).permutation(len(x))[:rows]
                yield (
                    f"{name}, {rows} rows, {make.__name__}, {optimizer}, {rate:g}, seed {seed}",
                    Case(
                        name=f"c{seed}",
                        model=partial(make, x.shape[1], outputs),
                        loss=loss,
                        optimizer=partial(kind, lr=rate, **settings),
                        batch=(x[picked], y[picked]),
                        seed=seed,
                    ),
                )


def read(path: Path) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in map(json.loads, path.read_text().splitlines())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--against", type=Path)
    arguments = parser.parse_args()
    if arguments.against is None:
        with arguments.file.open("w") as file:
            for name, case in cases():
                (verdict,) = run_probes(case, ["overfit_batch"])
                file.write(json.dumps({"name": name, "outcome": verdict.outcome, "steps": verdict.steps}) + "\n")
        return
    one, other = read(arguments.file), read(arguments.against)
    differing = [name for name in one.keys() & other.keys() if one[name]["outcome"] != other[name]["outcome"]]
    print(f"{len(differing)} of {len(one.keys() & other.keys())} have another outcome")
    for name in sorted(differing):
        now, then = one[name], other[name]
        print(f"- {name}: {now['outcome']} at {now['steps']}, in the other {then['outcome']} at {then['steps']}")


if __name__ == "__main__":
    main()
