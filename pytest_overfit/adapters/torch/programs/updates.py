"""The same training with other updates: of our loop through its optimizer, of a step of the user's by hooks."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from pytest_overfit.adapters.programs import UnchangeableError
from pytest_overfit.adapters.torch.tracing.following import Unpenalised
from pytest_overfit.core.case import Case

#: changes an optimizer of a model
Alter = Callable[[Any, nn.Module], None]


def with_optimizer(case: Case, alter: Alter) -> Case:
    """The case with every optimizer changed before its first step."""
    if case.step is not None:
        seen: dict[int, Any] = {}

        def once(optimizer: Any, model: nn.Module) -> None:
            if id(optimizer) not in seen:
                seen[id(optimizer)] = optimizer
                alter(optimizer, model)

        return dataclasses.replace(case, step=_hooked(case.step, once))
    own = case.optimizer
    if own is None:
        raise UnchangeableError("there is no optimizer")

    def optimizer(model: nn.Module) -> Any:
        made = own(model) if _takes_model(own) else own(model.parameters())
        alter(made, model)
        return made

    return dataclasses.replace(case, optimizer=optimizer)


def before_each_step(case: Case, change: Alter) -> Case:
    """The case with something done by every optimizer before each of its steps."""
    if case.step is not None:
        return dataclasses.replace(case, step=_hooked(case.step, change))
    return with_optimizer(case, lambda made, model: made.register_step_pre_hook(lambda own, *_: change(own, model)))


def backwards(case: Case) -> Case:
    """Each step goes the other way: by its gradients where an optimizer makes it, else by what it has changed."""
    own = case.step
    if own is None:
        return before_each_step(case, reversed_gradients)

    def step(model: Any, *args: Any, **kwargs: Any) -> Any:
        before = [each.detach().clone() for each in model.parameters()]
        made: list[Any] = []
        with contextlib.ExitStack() as hooks:
            hooks.callback(register_optimizer_step_pre_hook(lambda optimizer, *_: made.append(optimizer)).remove)
            hooks.callback(register_optimizer_step_pre_hook(lambda each, *_: reversed_gradients(each, model)).remove)
            loss = own(model, *args, **kwargs)
        if not made:
            with torch.no_grad():
                for parameter, start in zip(model.parameters(), before, strict=True):
                    parameter.copy_(2 * start - parameter)
        return loss

    return dataclasses.replace(case, step=step)


def _takes_model(own: Any) -> bool:
    try:
        return list(inspect.signature(own).parameters) == ["model"]
    except (TypeError, ValueError):
        return False


def _hooked(step: Callable[..., Any], change: Alter) -> Callable[..., Any]:
    def hooked(model: Any, *args: Any, **kwargs: Any) -> Any:
        handle = register_optimizer_step_pre_hook(lambda optimizer, *_: change(optimizer, model))
        try:
            return step(model, *args, **kwargs)
        finally:
            handle.remove()

    return hooked


def times(factor: float) -> Alter:
    """Every rate times this."""

    def alter(optimizer: Any, _: nn.Module) -> None:
        for group in optimizer.param_groups:
            _set(group, "lr", group["lr"] * factor)

    return alter


def setting(name: str, value: float) -> Alter:
    """One setting of every group that has it."""

    def alter(optimizer: Any, _: nn.Module) -> None:
        groups = [group for group in optimizer.param_groups if name in group]
        if not groups:
            raise UnchangeableError(f"{type(optimizer).__name__} has no {name!r}")
        for group in groups:
            _set(group, name, value)

    return alter


def _set(group: dict[str, Any], name: str, value: Any) -> None:
    old = group[name]
    group[name] = torch.as_tensor(value, dtype=old.dtype) if isinstance(old, torch.Tensor) else value


def reversed_gradients(optimizer: Any, _: nn.Module) -> None:
    """Every gradient has the other sign."""
    for group in optimizer.param_groups:
        for each in group["params"]:
            if each.grad is not None:
                each.grad = -each.grad


def holding_all(optimizer: Any, model: nn.Module) -> None:
    """The optimizer also holds what it did not."""
    held = {id(each) for group in optimizer.param_groups for each in group["params"]}
    missing = [each for each in model.parameters() if each.requires_grad and id(each) not in held]
    if missing:
        optimizer.add_param_group({"params": missing})


def zeroed(case: Case) -> Case:
    """Gradients are zero before each step of the user's."""
    own = case.step
    if own is None:
        raise UnchangeableError("this loop sets gradients to zero before each step")

    def step(model: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(model, nn.Module):
            model.zero_grad(set_to_none=True)
        return own(model, *args, **kwargs)

    return dataclasses.replace(case, step=step)


def unclipped(case: Case) -> Case:
    """Optimizers get the gradients that the backward passes of the user's step have left."""
    own = case.step
    if own is None:
        raise UnchangeableError("this loop clips nothing")

    def step(model: Any, *args: Any, **kwargs: Any) -> Any:
        left: dict[int, torch.Tensor] = {}

        def keep(parameter: torch.Tensor) -> None:
            if parameter.grad is not None:
                left[id(parameter)] = parameter.grad.detach().clone()

        def restore(optimizer: Any, *_: Any) -> None:
            for each in (each for group in optimizer.param_groups for each in group["params"]):
                if each.grad is not None and id(each) in left:
                    each.grad.copy_(left[id(each)])

        with contextlib.ExitStack() as hooks:
            for each in model.parameters():
                if each.requires_grad:
                    hooks.callback(each.register_post_accumulate_grad_hook(keep).remove)
            hooks.callback(register_optimizer_step_pre_hook(restore).remove)
            return own(model, *args, **kwargs)

    return dataclasses.replace(case, step=step)


def unpenalised(case: Case) -> Case:
    """No decay in the optimizer; a sum over parameters alone is left out of what the user's step adds up."""
    without_decay = with_optimizer(case, setting("weight_decay", 0.0))
    own = without_decay.step
    if own is None:
        return without_decay

    def step(model: Any, *args: Any, **kwargs: Any) -> Any:
        with Unpenalised(model):
            return own(model, *args, **kwargs)

    return dataclasses.replace(without_decay, step=step)
