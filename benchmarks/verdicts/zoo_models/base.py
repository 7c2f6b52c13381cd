"""What one row of the zoo is made of, and the data that many rows share."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F

from pytest_overfit import Case


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """A healthy model, with optimizer, loss and input as its own tutorial or configuration has them."""

    name: str
    model: Callable[[], Any]
    #: returns `(x, y)`
    batch: Callable[[], tuple[Any, Any]]
    loss: Callable[..., Any] | None = None
    optimizer: Callable[..., Any] | None = None
    step: Callable[..., Any] | None = None
    options: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    keras: bool = False

    def case(self) -> Case:
        return Case(
            name=self.name,
            model=self.model,
            batch=self.batch,
            loss=self.loss,
            optimizer=self.optimizer,
            step=self.step,
            options=self.options,
        )


def adam(lr: float = 1e-3, **more: Any) -> Callable[..., Any]:
    return lambda parameters: torch.optim.Adam(parameters, lr=lr, **more)


def adamw(lr: float = 1e-3, **more: Any) -> Callable[..., Any]:
    return lambda parameters: torch.optim.AdamW(parameters, lr=lr, **more)


def sgd(lr: float, **more: Any) -> Callable[..., Any]:
    return lambda parameters: torch.optim.SGD(parameters, lr=lr, **more)


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@functools.cache
def _digits() -> tuple[torch.Tensor, torch.Tensor]:
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x.reshape(-1, 1, 8, 8) / 16, dtype=torch.float32), torch.tensor(y)


def digits(rows: int = 32, pixels: int = 8, channels: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Handwritten digits in 0..1, enlarged where a net wants more pixels."""
    x, y = _digits()
    x = x[:rows] if pixels == 8 else F.interpolate(x[:rows], size=(pixels, pixels), mode="bilinear")
    return x.repeat(1, channels, 1, 1), y[:rows].clone()


def photographs(pixels: int = 64, rows: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """The same with three channels, normalised as photographs are."""
    x, y = digits(rows, pixels, 3)
    return (x - 0.45) / 0.225, y


def tokens(rows: int = 8, length: int = 16, vocabulary: int = 200, seed: int = 0) -> torch.Tensor:
    """Random token ids; 0 is left for padding."""
    return torch.randint(1, vocabulary, (rows, length), generator=random(seed))
