"""Data and models that the torch programs of this folder share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.programs.helpers import generator
from tests.programs.wiring.corpus import Fields

CE = F.cross_entropy
ROWS = 16


def rows(inputs: int = 20, classes: int = 5, count: int = ROWS) -> tuple[Tensor, Tensor]:
    y = (torch.arange(count) % classes)[torch.randperm(count, generator=generator(1))]
    return torch.randn(count, inputs, generator=generator(0)), y


def values(inputs: int = 20, outputs: int = 1) -> tuple[Tensor, Tensor]:
    return rows(inputs)[0], torch.randn(ROWS, outputs, generator=generator(2))


def series(steps: int = 10, channels: int = 8, classes: int = 3) -> tuple[Tensor, Tensor]:
    return torch.randn(ROWS, steps, channels, generator=generator(0)), rows(classes=classes)[1]


def pictures(channels: int = 3, size: int = 12, classes: int = 4) -> tuple[Tensor, Tensor]:
    return torch.randn(ROWS, channels, size, size, generator=generator(0)), rows(classes=classes)[1]


def tokens(words: int = 30, length: int = 12, count: int = 8) -> Tensor:
    return torch.randint(1, words, (count, length), generator=generator(0))


class Mlp(nn.Module):
    def __init__(self, inputs: int = 20, outputs: int = 5, units: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, units), nn.ReLU(), nn.Linear(units, units), nn.ReLU())
        self.head = nn.Linear(units, outputs)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(x))


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-2)


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1)


def case(model: Callable[[], nn.Module] = Mlp, **fields: Any) -> Fields:
    """A classifier of random rows, but for what is given."""
    return {"model": model, "batch": rows, "loss": CE, "optimizer": adam, **fields}


def stepping(make_step: Callable[[nn.Module], Callable[[Any, Any], Any]], **fields: Any) -> Fields:
    """A case with a loop of its own: `make_step` gets the model, once, and returns what one call does."""
    made: dict[int, Callable[[Any, Any], Any]] = {}
    kept: list[nn.Module] = []

    def step(model: nn.Module, x: Any, y: Any) -> Any:
        if id(model) not in made:
            kept.append(model)  # so that no other model gets its id
            made[id(model)] = make_step(model)
        return made[id(model)](x, y)

    return {"model": Mlp, "batch": rows, "step": step, **fields}
