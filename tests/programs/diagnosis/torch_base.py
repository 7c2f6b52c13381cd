"""What the torch programs of this folder share: tensors of the data, optimizers by name, loops of a program's own."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.programs.diagnosis.corpus import Fields
from tests.programs.diagnosis.data import Pair
from tests.programs.wiring.torch_base import stepping

__all__ = ["adam", "adamw", "column", "drawn", "images", "loop", "maybe", "mlp", "sgd", "stepping", "tensors", "tower"]


def tensors(pair: Pair) -> tuple[Tensor, Tensor]:
    return torch.as_tensor(pair[0]), torch.as_tensor(pair[1])


def column(pair: Pair) -> tuple[Tensor, Tensor]:
    """Targets as floats, [N, 1]."""
    x, y = tensors(pair)
    return x, y.float().reshape(len(y), -1)


def images(pair: Pair, side: int = 8) -> tuple[Tensor, Tensor]:
    x, y = tensors(pair)
    return x.reshape(-1, 1, side, side), y


def sgd(rate: float, **more: Any) -> Callable[..., torch.optim.Optimizer]:
    return lambda parameters: torch.optim.SGD(parameters, lr=rate, **more)


def adam(rate: float = 3e-3, **more: Any) -> Callable[..., torch.optim.Optimizer]:
    return lambda parameters: torch.optim.Adam(parameters, lr=rate, **more)


def adamw(rate: float = 3e-3, **more: Any) -> Callable[..., torch.optim.Optimizer]:
    return lambda parameters: torch.optim.AdamW(parameters, lr=rate, **more)


def mlp(inputs: int, outputs: int, *last: nn.Module, units: int = 48) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, units), nn.ReLU(), nn.Linear(units, outputs), *last)


def tower(*sizes: int, between: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size, following in itertools.pairwise(sizes):
        layers += [nn.Linear(size, following), between()]
    return nn.Sequential(*layers[:-1])


def maybe(broken: bool, *modules: nn.Module) -> tuple[nn.Module, ...]:
    return modules if broken else ()


def drawn(model: nn.Module, draw: Callable[[Tensor], Any]) -> nn.Module:
    """Weight matrices drawn anew."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            draw(parameter)
    return model


def loop(
    model: Callable[[], nn.Module],
    batch: Any,
    loss: Callable[..., Tensor],
    optimizer: Callable[..., torch.optim.Optimizer],
    *,
    zero: bool = True,
    after_backward: Callable[[nn.Module], Any] = lambda model: None,
) -> Fields:
    """A plain loop, written out."""

    def make_step(net: nn.Module) -> Callable[[Any, Any], Any]:
        opt = optimizer(net.parameters())

        def step(x: Tensor, y: Tensor) -> Tensor:
            if zero:
                opt.zero_grad()
            value = loss(net(x), y)
            value.backward()
            after_backward(net)
            opt.step()
            return value

        return step

    return stepping(make_step, model=model, batch=batch)
