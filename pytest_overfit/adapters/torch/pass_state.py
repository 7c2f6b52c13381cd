"""What a forward pass of a module, or a loss, leaves behind in it and around it."""

from __future__ import annotations

import types
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from pytest_overfit.adapters.kept_state import KeptState
from pytest_overfit.adapters.kept_state.memory import ArrayKind, generator, small
from pytest_overfit.adapters.kept_state.places import Attributes, Owner, outside_of

#: attributes that every module has, which its library looks after
_OF_THE_LIBRARY = frozenset({*vars(nn.Module()), "training"})

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


class OfModule(Owner):
    """A module's own attributes, its buffers, and parameters that no optimizer moves: a momentum encoder's."""

    def __init__(self, module: nn.Module, name: str) -> None:
        self.module, self._name = module, name

    def values(self) -> Mapping[str, Any]:
        module = self.module
        frozen = {
            name: each for name, each in module._parameters.items() if each is not None and not each.requires_grad
        }
        hooks = {name: getattr(module, name) for name in _HOOKS}
        if type(module).__module__.startswith("torch."):  # its attributes are settings
            return {**hooks, **module._buffers, **frozen}
        own = {name: each for name, each in vars(module).items() if name not in _OF_THE_LIBRARY}
        return {**own, **hooks, **module._buffers, **frozen}

    def _held(self, name: str) -> dict[str, Any]:
        places: tuple[dict[str, Any], ...] = (self.module._buffers, self.module._parameters)
        return next((each for each in places if name in each), vars(self.module))

    def assign(self, name: str, value: Any) -> None:
        self._held(name)[name] = value

    def remove(self, name: str) -> None:
        del self._held(name)[name]

    def label(self, name: str) -> str:
        return f"{self._name}.{name}"


def _put_tensor_back(value: torch.Tensor, copy: torch.Tensor) -> None:
    with torch.no_grad():
        if value.shape == copy.shape:
            value.copy_(copy)
        else:  # an observer makes room for its channels in the first pass
            value.data = copy.clone()


def _same_tensor(value: torch.Tensor, copy: torch.Tensor) -> bool:
    with torch.no_grad():
        equal = value.shape == copy.shape and torch.equal(value, copy)
        return equal or (value.shape == copy.shape and torch.equal(value.nan_to_num(), copy.nan_to_num()))


def _is_watched(value: Any) -> bool:
    """A tensor with numbers of its own, not too many."""
    return (
        isinstance(value, torch.Tensor)
        and not (isinstance(value, nn.Parameter) and value.requires_grad)
        and value.layout is torch.strided
        and value.device.type != "meta"
        and not value.is_quantized
        and small(value.numel())
    )


def _hooks_of_others(hooks: OrderedDict[Any, Any]) -> dict[Any, Any]:
    """Those that torch's own modules (lazy ones) and we take away ourselves are left out."""
    return {
        key: each
        for key, each in hooks.items()
        if str(getattr(each, "__module__", "")).partition(".")[0] not in ("torch", "pytest_overfit")
    }


def _put_hooks_back(hooks: OrderedDict[Any, Any], copy: Mapping[Any, Any]) -> None:
    for key in _hooks_of_others(hooks).keys() - copy.keys():
        del hooks[key]
    hooks.update({key: each for key, each in copy.items() if key not in hooks})


#: hooks that a pass registers, beside a flag that it has done so, go and come with that flag
_HOOKS_KIND = ArrayKind(
    lambda value: type(value) is OrderedDict and all(isinstance(key, int) for key in value),
    _hooks_of_others,
    lambda value, copy: _hooks_of_others(value).keys() == copy.keys(),
    _put_hooks_back,
)

_KINDS = (
    _HOOKS_KIND,
    ArrayKind(_is_watched, lambda value: value.detach().clone(), _same_tensor, _put_tensor_back),
    generator(lambda value: isinstance(value, torch.Generator), lambda value: value.get_state().numpy().tobytes()),
)


def state_of_model(model: nn.Module) -> KeptState:
    """What passes of this model leave in its modules, and in what their code names."""
    modules = {module: name or type(module).__name__ for name, module in model.named_modules()}
    owners = [OfModule(module, name) for module, name in modules.items()]
    return KeptState([*owners, *outside_of(each for module in modules for each in _code_of(module))], _KINDS)


def _code_of(module: nn.Module) -> Iterator[Any]:
    yield from type(module).__mro__
    yield from (each for each in vars(module).values() if callable(each) and not isinstance(each, nn.Module))
    for name in _HOOKS:
        yield from getattr(module, name).values()


def state_of_loss(loss: Any) -> KeptState:
    """What a loss keeps, as an average of earlier losses."""
    if isinstance(loss, nn.Module):
        return state_of_model(loss)
    owner = getattr(loss, "__self__", loss)
    own = [] if isinstance(owner, types.FunctionType) else [Attributes(getattr(owner, "__dict__", {}), "the loss")]
    return KeptState([*own, *outside_of([loss, *type(owner).__mro__])], _KINDS)
