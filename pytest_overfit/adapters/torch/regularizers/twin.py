"""The same module without its regularisers: dropout of any kind and weight decay are set to zero.

Batch normalisation stays: it is part of what the model computes, and a net without it trains otherwise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from pytest_overfit.adapters.regularizer_effects.names import dropout_rates, noise_sizes, with_places

#: functions that drop, with the place of their probability among the arguments
DROPPING: dict[Callable[..., Any], tuple[str, int]] = {
    **{
        getattr(functional, name): ("p", 1)
        for name in ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
    },
    **{getattr(torch, name): ("p", 1) for name in ("dropout", "feature_dropout", "alpha_dropout", "native_dropout")},
    torch.feature_alpha_dropout: ("p", 1),
    functional.scaled_dot_product_attention: ("dropout_p", 4),
}

#: attributes that are the rate in a class named after dropping
RATE = ("p", "prob", "probability", "rate")


def rate_of_call(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The probability that a call of a dropping function was given, or the function's default."""
    name, position = DROPPING[func]
    return kwargs.get(name, args[position] if len(args) > position else 0.0 if name == "dropout_p" else 0.5)


def trains(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """False where a call of a dropping function says that the model is not training."""
    if func is functional.scaled_dot_product_attention:
        return True
    return bool(kwargs.get("training", kwargs.get("train", args[2] if len(args) > 2 else True)))


class Twin:
    """How a model is trained: as it is."""

    removed: tuple[str, ...] = ()
    restless = False

    def active(self) -> AbstractContextManager[None]:
        """Training happens inside."""
        return contextlib.nullcontext()


class WithoutRegularizers(Twin):
    """Changes the module and the optimizer, which are the probe's own, for good; calls to functions while active."""

    def __init__(self, model: nn.Module, optimizer: Any, forward: Callable[[], bool]) -> None:
        found: dict[str, list[str]] = {}
        for name, module in model.named_modules():
            for attribute, rate in dropout_rates(module, RATE):
                setattr(module, attribute, type(rate)(0))
                found.setdefault(f"dropout {rate:g}", []).append(name or type(module).__name__)
            for attribute, size in noise_sizes(module):
                setattr(module, attribute, 0.0)
                found.setdefault(f"noise {size:g}", []).append(name or type(module).__name__)
        watching = _NoDropping()
        with watching:  # of dropping functions the training pass keeps everything
            #: something is still drawn in training
            self.restless = forward()
        for rate, count in watching.rates.items():
            found.setdefault(f"dropout {rate:g}", []).append(f"{count} calls of a function")
        self._functions = bool(watching.rates)
        self.removed = (*with_places(found), *_decay(optimizer))

    def active(self) -> AbstractContextManager[None]:
        return _NoDropping() if self._functions else contextlib.nullcontext()


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
        rate = rate_of_call(func, args, kwargs)
        if rate and trains(func, args, kwargs):
            self.rates[float(rate)] = self.rates.get(float(rate), 0) + 1
        name, position = DROPPING[func]
        if len(args) > position:
            args = (*args[:position], 0.0, *args[position + 1 :])
        else:
            kwargs = {**kwargs, name: 0.0}
        return func(*args, **kwargs)


def _decay(optimizer: Any) -> list[str]:
    """Set the weight decay of every group to zero; which values were there."""
    values = []
    for group in getattr(optimizer, "param_groups", ()):
        if group.get("weight_decay"):
            values.append(f"{float(group['weight_decay']):g}")
            group["weight_decay"] = type(group["weight_decay"])(0)
    return [f"weight decay {each}" for each in dict.fromkeys(values)]
