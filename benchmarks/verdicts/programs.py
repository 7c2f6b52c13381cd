"""What the benchmarks train: the digits programs, their twins, and the Keras programs of a tutorial.

A twin is the same program with one thing changed. `healthy` says what the true verdict is: a broken one cannot do what
its author meant, a healthy one can, however odd its loss looks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F


def adam(parameters: Iterable[torch.Tensor]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3)


def quick_adam(parameters: Iterable[torch.Tensor]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-2)


def digits(rows: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Grey images of 8 x 8 pixels, scaled to 0..1, channels first, and their classes."""
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x[:rows].reshape(-1, 1, 8, 8) / 16, dtype=torch.float32), torch.tensor(y[:rows])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """A model factory with its loss, optimizer and batch; in words what is special about it."""

    name: str
    model: Callable[[], nn.Module]
    loss: Callable[..., torch.Tensor] = F.cross_entropy
    optimizer: Callable[..., torch.optim.Optimizer] = adam
    batch: tuple[Any, Any] = dataclasses.field(default_factory=digits)
    healthy: bool = True


def make_mlp(*, outputs: int = 10) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, outputs))


def make_cnn() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 2 * 2, 10)),
    )


def make_normalised_cnn(*, momentum: float = 0.1) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16, momentum=momentum), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(16 * 4 * 4, 10)),
    )


#: the programs that are timed
TORCH = (Program(name="digits MLP", model=make_mlp), Program(name="digits CNN", model=make_cnn))

#: the same with the learning rate that pytest-torch brings along: some 16 steps, so that most of it
#: is what a verdict costs besides its steps
QUICK = (
    Program(name="digits MLP, Adam 1e-2", model=make_mlp, optimizer=quick_adam),
    Program(name="digits CNN, Adam 1e-2", model=make_cnn, optimizer=quick_adam),
)


# ------------------------------------------------------------------------------------------------- twins


class IgnoresInput(nn.Module):
    """The body's input is lost on the way, as with a wrong index or a mask of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.body = make_mlp(outputs=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(torch.zeros_like(x))


class AlwaysDrops(nn.Module):
    """`functional.dropout` drops in evaluation too, unless training=False is passed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 256), nn.Linear(256, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(F.dropout(torch.relu(self.first(x.flatten(1))), 0.5))


def _adam_of_another_model(_: Iterable[torch.Tensor]) -> torch.optim.Optimizer:
    return adam(make_mlp().parameters())


def _with_dropout() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Dropout(0.6), nn.Linear(256, 10))


def _measurements() -> tuple[torch.Tensor, torch.Tensor]:
    """Temperatures around 20 degrees: a target that was not centred."""
    x, _ = digits()
    return x, 20 + torch.randn(len(x), 1, generator=torch.Generator().manual_seed(0))


def _contradictory() -> tuple[torch.Tensor, torch.Tensor]:
    """Every second row is a copy of the one before, under another label: even odds are the best possible there."""
    x, y = digits()
    x[1::2] = x[::2]
    return x, y


def _flat(x_y: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    return x_y[0], x_y[1].flatten()


def twins() -> list[Program]:
    """The timed programs and their twins, healthy and broken."""
    smooth = nn.CrossEntropyLoss(label_smoothing=0.2)
    quick = lambda parameters: torch.optim.Adam(parameters, lr=1e-2)  # noqa: E731
    return [
        *TORCH,
        Program(name="MLP with softmax before `cross_entropy`", healthy=False,
                model=lambda: nn.Sequential(make_mlp(), nn.Softmax(dim=1))),
        Program(name="CNN with softmax before `cross_entropy`", healthy=False,
                model=lambda: nn.Sequential(make_cnn(), nn.Softmax(dim=1))),
        Program(name="MLP, optimizer of another model", model=make_mlp, optimizer=_adam_of_another_model,
                healthy=False),
        Program(name="MLP, learning rate 1e-7", model=make_mlp, healthy=False,
                optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-7)),
        Program(name="regression that ignores its input, targets around 20", model=IgnoresInput, loss=F.mse_loss,
                optimizer=quick, batch=_measurements(), healthy=False),
        Program(name="regression, (32, 1) against (32,) broadcast, targets around 20",
                model=lambda: make_mlp(outputs=1), optimizer=quick, batch=_flat(_measurements()), healthy=False,
                loss=lambda out, y: ((out - y) ** 2).mean()),
        Program(name="BatchNorm with momentum 0: evaluation never settles", healthy=False,
                model=lambda: make_normalised_cnn(momentum=0.0)),
        Program(name="dropout that stays on in evaluation", model=AlwaysDrops, healthy=False),
        Program(name="BatchNorm CNN", model=make_normalised_cnn),
        Program(name="MLP with dropout 0.6", model=_with_dropout),
        Program(name="MLP, label smoothing 0.2", model=make_mlp, loss=smooth),
        Program(name="MLP, contradictory labels", model=make_mlp, batch=_contradictory()),
        Program(name="regression, targets around 20", model=lambda: make_mlp(outputs=1), loss=F.mse_loss,
                optimizer=quick, batch=_measurements()),
    ]  # fmt: skip
