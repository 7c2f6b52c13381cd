"""What the torch programs of this folder share: the register of twins, the data, the smallest model and its fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from pytest_overfit import Case, Verdict, run_probes

ROWS = 24
Fields = dict[str, Any]
Make = Callable[[bool], Fields]


class Programs(dict[str, Make]):
    """A file's programs by name: called with False a program is healthy, with True faulty."""

    def add(self, make: Make) -> Make:
        self[make.__name__] = make
        return make


def adam(rate: float = 3e-3) -> Callable[..., torch.optim.Optimizer]:
    return lambda parameters: torch.optim.Adam(parameters, lr=rate)


def verdict(**fields: Any) -> Verdict:
    return run_probes(Case(name="case", **{"optimizer": adam(), **fields}), ["overfit_batch"])[0]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def digits(rows: int = ROWS) -> tuple[Tensor, Tensor]:
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x[:rows] / 16, dtype=torch.float32), torch.tensor(y[:rows])


class Forget(nn.Module):
    """A layer that is wired wrongly: what comes in is lost."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 0


def mlp(inputs: int = 64, outputs: int = 10, *last: nn.Module, broken: bool = False) -> nn.Sequential:
    first = [Forget()] if broken else []
    return nn.Sequential(*first, nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, outputs), *last)
