"""A model whose passes call some function of torch otherwise than its owner wrote."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from pytest_overfit.adapters.programs import UnchangeableError
from pytest_overfit.adapters.torch.programs.data import standardised_columns
from pytest_overfit.adapters.torch.records import mapped, predictions
from pytest_overfit.adapters.torch.tracing.following import Following
from pytest_overfit.adapters.torch.tracing.operations import (
    ACTIVATIONS,
    DROPPING,
    RECURRENT,
    WEIGHTED,
    Trace,
    first_tensor,
    name_of,
)

Tensor = torch.Tensor

#: how near to where a function has no value, or no slope, a guarded one may come
_LEAST = 1e-6


def install(model: nn.Module, passes: Callable[[], Trace]) -> nn.Module:
    """The same object, whose `forward` runs inside a new one of these; a subclass, so that copies have it too."""
    kind = type(model)
    if "forward" in vars(model) or isinstance(model, torch.jit.ScriptModule) or hasattr(model, "_orig_mod"):
        raise UnchangeableError(f"the forward pass of a {kind.__name__} cannot be changed from outside")
    own = kind.forward

    @functools.wraps(own)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with passes():
            return own(self, *args, **kwargs)

    model.__class__ = type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})
    return model


def on_top(model: nn.Module, change: Callable[[Tensor], Tensor]) -> nn.Module:
    """The model's one prediction is changed before anybody sees it."""
    kind = type(model)
    own = kind.forward

    @functools.wraps(own)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        outputs = own(self, *args, **kwargs)
        if len(predictions(outputs)) != 1:
            raise UnchangeableError("the model has several outputs")
        return mapped(outputs, lambda leaf: change(leaf) if isinstance(leaf, Tensor) else leaf)

    model.__class__ = type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})
    return model


#: by name, as `Change.value` has them
APPLIED: dict[str, Callable[[Tensor, int], Tensor]] = {
    "": lambda given, axis: given,
    "relu": lambda given, axis: F.relu(given),
    "sigmoid": lambda given, axis: torch.sigmoid(given),
    "tanh": lambda given, axis: torch.tanh(given),
    "softmax": lambda given, axis: torch.softmax(given, axis),
    "log_softmax": lambda given, axis: torch.log_softmax(given, axis),
}


class OneActivation(Trace):
    """That number `at` is another, or none."""

    def __init__(self, at: int, value: str, axis: int) -> None:
        super().__init__()
        self._at, self._value, self._axis = at, value, axis

    def called(self, func: Any, args: Any, kwargs: Any) -> Any:
        given = first_tensor(args, kwargs)
        if func not in ACTIVATIONS or self.count != self._at or given is None:
            return func(*args, **kwargs)
        return APPLIED[self._value](given, self._axis)


class HiddenActivations(Trace):
    """All of these are one other."""

    def __init__(self, numbers: frozenset[int], value: str) -> None:
        super().__init__()
        self._numbers, self._value = numbers, value

    def called(self, func: Any, args: Any, kwargs: Any) -> Any:
        given = first_tensor(args, kwargs)
        if func not in ACTIVATIONS or self.count not in self._numbers or given is None:
            return func(*args, **kwargs)
        return APPLIED[self._value](given, -1)


class Between(Trace):
    """A function is put between layers with weights that follow each other directly."""

    def __init__(self, value: str) -> None:
        super().__init__()
        self._value = value

    def called(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func in WEIGHTED and args and isinstance(args[0], Tensor):
            before = self.origin(id(args[0]))
            if before is not None and before.what == "weighted":
                args = (APPLIED[self._value](args[0], -1), *args[1:])
        return func(*args, **kwargs)


_ROUNDING = {"round", "floor", "ceil", "sign", "trunc", "heaviside", "bernoulli"}


#: comparisons of two numbers, by the sign of their difference; and what makes numbers of their answers
_ABOVE = {"gt": 1.0, "ge": 1.0, "greater": 1.0, "lt": -1.0, "le": -1.0, "less": -1.0}
_CASTS = {"float", "double", "to", "type", "type_as"}


class Attached(Trace):
    """Nothing is detached, gradients are never switched off, and steps have a slope: rounding, and comparisons."""

    def __init__(self) -> None:
        super().__init__()
        self._steps: dict[int, Tensor] = {}
        self._kept: list[Tensor] = []

    def called(self, func: Any, args: Any, kwargs: Any) -> Any:
        name = name_of(func)
        given = first_tensor(args, kwargs)
        if name == "set_grad_enabled":
            return None
        if given is None or not isinstance(given, Tensor):
            return func(*args, **kwargs)
        if name in ("detach", "detach_", "data", "get") and func in _DETACHING:
            return given
        if name in _CASTS and id(given) in self._steps:
            slope = torch.sigmoid(self._steps[id(given)])
            return slope + (func(*args, **kwargs) - slope).detach()
        result = func(*args, **kwargs)
        if name in _ROUNDING and isinstance(result, Tensor) and given.is_floating_point():
            return given + (result - given).detach()
        if name in _ABOVE and given.requires_grad and isinstance(result, Tensor):
            self._kept.append(result)
            self._steps[id(result)] = _ABOVE[name] * (args[0] - args[1])
        return result


#: `tensor.data` is a call of its getter
_DETACHING = {Tensor.detach, Tensor.detach_, vars(torch._C.TensorBase)["data"].__get__}


class Guarded(Trace):
    """Logarithms, roots, powers and divisions keep a distance from zero."""

    def called(self, func: Any, args: Any, kwargs: Any) -> Any:
        name = name_of(func)
        if name in ("log", "log2", "log10", "sqrt", "rsqrt") and args:
            return func(args[0].clamp(min=_LEAST), *args[1:], **kwargs)
        if name in ("div", "truediv", "divide") and len(args) > 1 and isinstance(args[1], Tensor):
            divisor = args[1]
            if divisor.is_floating_point():
                small = divisor.abs() < _LEAST
                args = (args[0], torch.where(small, torch.full_like(divisor, _LEAST), divisor), *args[2:])
        if name in ("pow", "rpow") and len(args) > 1 and isinstance(args[1], float) and args[1] < 1:
            args = (args[0].clamp(min=_LEAST), *args[1:])
        if name in ("acos", "asin") and args:
            args = (args[0].clamp(-1 + _LEAST, 1 - _LEAST), *args[1:])
        if name in ("norm", "vector_norm", "cdist", "dist") and args and isinstance(args[0], Tensor):
            args = (args[0] + math.sqrt(_LEAST) * _LEAST, *args[1:])
        return func(*args, **kwargs)


class Undropped(Trace):
    """Functions that drop keep everything; modules have a rate of their own."""

    def called(self, func: Any, args: Any, kwargs: Any) -> Any:
        given = first_tensor(args, kwargs)
        return given if func in DROPPING and given is not None else func(*args, **kwargs)


class StandardisedGiven(Following):
    """What the first layers with weights are given has columns of mean 0 and spread 1."""

    def called(self, func: Any, args: Any, kwargs: Any) -> Any:
        first = func in WEIGHTED or name_of(func) in RECURRENT
        given = args[0] if first and args else None
        if isinstance(given, Tensor) and given.is_floating_point() and not self.past_of(given).parameters:
            args = (standardised_columns(given), *args[1:])
        return super().called(func, args, kwargs)


class Shortcuts(Trace):
    """What an activation gives is added to what its layer was given, where both have one shape."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._share = 1.0 / math.sqrt(max(1, count))
        self._given: dict[int, Tensor] = {}

    def called(self, func: Any, args: Any, kwargs: Any) -> Any:
        result, given = func(*args, **kwargs), first_tensor(args, kwargs)
        if func in WEIGHTED and given is not None:
            self._given[id(result)] = given
        before = self._given.get(id(given)) if func in ACTIVATIONS else None
        return result if before is None or before.shape != result.shape else before + self._share * result
