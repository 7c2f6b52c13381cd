"""The same module without its regularisers: dropout of any kind and weight decay are set to zero.

Batch normalisation stays: it is part of what the model computes, and a net without it trains otherwise.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

#: functions that drop, with the place of their probability among the arguments
DROPPING: dict[Callable[..., Any], tuple[str, int]] = {
    **{
        getattr(functional, name): ("p", 1)
        for name in ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
    },
    torch.dropout: ("p", 1),
    functional.scaled_dot_product_attention: ("dropout_p", 4),
}

#: places of a module that are listed by name; more are counted
_LISTED = 3


class Twin(Protocol):
    """How a model is trained: as it is, or without its regularisers."""

    removed: tuple[str, ...]

    def active(self) -> AbstractContextManager[None]:
        """Training happens inside."""


class AsItIs:
    """Nothing is taken out."""

    removed: tuple[str, ...] = ()

    def active(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()


class WithoutRegularizers:
    """Changes the module and the optimizer, which are the probe's own, for good; calls to functions while active."""

    def __init__(self, model: nn.Module, optimizer: Any, forward: Callable[[], Any]) -> None:
        found: dict[str, list[str]] = {}
        for name, module in model.named_modules():
            for attribute, rate in rates(module):
                setattr(module, attribute, type(rate)(0))
                found.setdefault(f"dropout {rate:g}", []).append(name or type(module).__name__)
        for rate, places in _called(forward).items():
            found.setdefault(f"dropout {rate:g}", []).extend([f"{places} calls of a function"])
        self._functions = any("calls of a function" in each for places in found.values() for each in places)
        self.removed = (*(f"{what} ({_shown(places)})" for what, places in found.items()), *_decay(optimizer))

    def active(self) -> AbstractContextManager[None]:
        return _NoDropping() if self._functions else contextlib.nullcontext()


def rates(module: nn.Module) -> Iterator[tuple[str, float]]:
    """Attributes that are the rate of some dropout: `Dropout.p`, `LSTM.dropout`, `DropPath.drop_prob`, and the like."""
    drops = re.search("drop|stochasticdepth", type(module).__name__.lower()) is not None
    for name, value in vars(module).items():
        named = "drop" in name.lower() or (drops and name == "p")
        if named and isinstance(value, float) and 0 < value <= 1 and not re.search("keep|scale", name.lower()):
            yield name, value


def _called(forward: Callable[[], Any]) -> dict[float, int]:
    """Rates of the dropping functions that a training pass still calls, and how often."""
    watching = _NoDropping()
    with watching:
        forward()
    return watching.rates


class _NoDropping(TorchFunctionMode):
    """Functions that drop keep everything."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: dict[float, int] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        if func not in DROPPING:
            return func(*args, **kwargs)
        name, place = DROPPING[func]
        default = 0.0 if name == "dropout_p" else 0.5
        rate = kwargs.get(name, args[place] if len(args) > place else default)
        if rate and kwargs.get("training", args[2] if name == "p" and len(args) > 2 else True):
            self.rates[float(rate)] = self.rates.get(float(rate), 0) + 1
        if len(args) > place:
            args = (*args[:place], 0.0, *args[place + 1 :])
        else:
            kwargs = {**kwargs, name: 0.0}
        return func(*args, **kwargs)


def _shown(places: list[str]) -> str:
    more = f" and {len(places) - _LISTED} more" if len(places) > _LISTED else ""
    return ", ".join(places[:_LISTED]) + more


def _decay(optimizer: Any) -> list[str]:
    """Set the weight decay of every group to zero; which values were there."""
    values = []
    for group in getattr(optimizer, "param_groups", ()):
        if group.get("weight_decay"):
            values.append(f"{float(group['weight_decay']):g}")
            group["weight_decay"] = type(group["weight_decay"])(0)
    return [f"weight decay {each}" for each in dict.fromkeys(values)]
