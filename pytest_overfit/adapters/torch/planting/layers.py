"""The layers of a torch model in the order of their calls, and models with something put around a layer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from pytest_overfit.adapters.planting import Ground, with_model
from pytest_overfit.adapters.programs import UnchangeableError
from pytest_overfit.adapters.torch.learner import TorchLearner
from pytest_overfit.adapters.torch.records import mapped
from pytest_overfit.core.case import Case

Tensor = torch.Tensor


def learner_of(ground: Ground) -> TorchLearner:
    return cast("TorchLearner", ground.learner)


def called(ground: Ground) -> list[str]:
    """Names of the modules that hold a matrix of weights of their own, in the order of their first calls."""
    learner, main = learner_of(ground), {each.name.rpartition(".")[0] for each in ground.known.weights if each.main}
    order: dict[str, None] = {}
    hooks = [
        module.register_forward_hook(lambda *_, name=name: order.update({name: None}))
        for name, module in learner.model.named_modules()
        if name in main
    ]
    try:
        if not learner.forward.can_be_called:
            raise UnchangeableError("its step does not call the model with the batch's inputs alone")
        with learner.modes.reading("eval"):
            learner.forward.quiet()
    finally:
        for hook in hooks:
            hook.remove()
    if not order:
        raise UnchangeableError("no layer of its own holds weights")
    return list(order)


def hidden(ground: Ground) -> list[str]:
    """All but the last of them."""
    found = called(ground)[:-1]
    if not found:
        raise UnchangeableError("it has one layer only")
    return found


def planted(ground: Ground, surgery: Callable[[nn.Module], nn.Module]) -> Case:
    """The case whose models go through the surgery, which is tried once on a new model."""
    if ground.learner is None:
        raise UnchangeableError("its program cannot be looked into")
    trial = with_model(ground.case, surgery)
    trial.model()
    return trial


def around(
    model: nn.Module, change: Callable[[nn.Module, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
) -> nn.Module:
    """The same object whose `forward` is `change(model, own, args, kwargs)`; by its class, so that copies have it."""
    kind = type(model)
    if "forward" in vars(model) or isinstance(model, torch.jit.ScriptModule) or hasattr(model, "_orig_mod"):
        raise UnchangeableError("the forward pass of a compiled or scripted model cannot be changed from outside")
    own = kind.forward

    @functools.wraps(own)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return change(self, functools.partial(own, self), args, kwargs)

    model.__class__ = type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})
    return model


def changed_outputs(ground: Ground, change: Callable[[nn.Module, Tensor], Tensor]) -> Case:
    """The one output is another before anybody sees it."""
    _ = ground.outputs

    def through(model: nn.Module, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return mapped(own(*args, **kwargs), lambda leaf: change(model, leaf) if isinstance(leaf, Tensor) else leaf)

    return planted(ground, lambda model: around(model, through))


def changed_before_last(ground: Ground, change: Callable[[nn.Module, Tensor], Tensor]) -> Case:
    """What the last layer is given is another."""
    hidden(ground)
    last = called(ground)[-1]

    def hook(module: nn.Module, args: tuple[Any, ...]) -> Any:
        return mapped(args, lambda leaf: change(module, leaf) if _is_number(leaf) else leaf)

    def surgery(model: nn.Module) -> nn.Module:
        if hasattr(model, "_orig_mod"):
            raise UnchangeableError("what a compiled model calls cannot be changed from outside")
        model.get_submodule(last).register_forward_pre_hook(hook)
        return model

    return planted(ground, surgery)


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()
