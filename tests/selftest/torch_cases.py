"""Small healthy torch cases in which faults are planted."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import Case

ROWS, FEATURES, CLASSES = 12, 6, 3


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def inputs(seed: int = 0, rows: int = ROWS) -> Tensor:
    return torch.randn(rows, FEATURES, generator=generator(seed))


def labels(rows: int = ROWS) -> Tensor:
    return torch.arange(rows) % CLASSES


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.5)


def net(outputs: int = CLASSES, *last: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 24), nn.ReLU(), nn.Linear(24, outputs), *last)


def classes(**more: Any) -> Case:
    fields = {"model": net, "loss": F.cross_entropy, "optimizer": sgd, "batch": (inputs(), labels())}
    return Case(name="classes", **{**fields, **more})


def split(**more: Any) -> Case:
    """The same with splits, and no batch of its own."""
    parts = {"train": (inputs(0, 60), labels(60)), "val": (inputs(1, 30), labels(30))}
    return classes(batch=None, **parts, **more)


def quick(**more: Any) -> Case:
    """The same, memorised within a few steps."""
    fields = {"optimizer": lambda parameters: torch.optim.Adam(parameters, lr=0.05), "limits": {"steps": 120}}
    return split(**{**fields, **more})


def binary(**more: Any) -> Case:
    y = (labels() > 0).float()[:, None]
    fields = {"model": lambda: net(1), "loss": F.binary_cross_entropy_with_logits, "batch": (inputs(), y)}
    return classes(**{**fields, **more})


def values(**more: Any) -> Case:
    y = 2 * inputs()[:, :1] + 1
    return classes(**{"model": lambda: net(1), "loss": F.mse_loss, "batch": (inputs(), y), **more})


def probabilities() -> Case:
    return classes(model=lambda: net(CLASSES, nn.LogSoftmax(1)), loss=F.nll_loss)


def normalised() -> Case:
    """With batch normalisation and dropout."""

    def model() -> nn.Module:
        first = (nn.Linear(FEATURES, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.5))
        return nn.Sequential(*first, nn.Linear(24, CLASSES))

    return classes(model=model)


def looped(**more: Any) -> Case:
    """A step of its own around the same net."""
    optimizers: dict[int, Any] = {}

    def step(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        optimizer = optimizers.setdefault(id(model), None) or sgd(model.parameters())
        optimizers[id(model)] = optimizer
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return Case(name="looped", model=net, step=step, batch=(inputs(), labels()), **more)
