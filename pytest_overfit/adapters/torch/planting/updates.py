"""Faults of a torch program's updates: rates, what the optimizer holds, what happens around its steps."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from pytest_overfit.adapters.planting import Ground, Plant
from pytest_overfit.adapters.programs import UnchangeableError
from pytest_overfit.adapters.torch import checks
from pytest_overfit.adapters.torch.planting.layers import called, hidden, learner_of
from pytest_overfit.adapters.torch.planting.losses import has_weights
from pytest_overfit.adapters.torch.programs import updates
from pytest_overfit.core.case import Case

#: an epsilon that outweighs every gradient, a decay that takes half of a weight in each step
_EPSILON, _DECAYED = 1e4, 0.5


def _rate(factor: float) -> Plant:
    def plant(ground: Ground) -> Case:
        case = updates.with_optimizer(ground.case, updates.times(factor))
        if case.step is None and case.scheduler is not None:
            _check_schedule(ground, case, factor)
        return case

    return plant


def _check_schedule(ground: Ground, case: Case, factor: float) -> None:
    """A schedule may set rates of its own, whatever the optimizer was made with."""
    rates = []
    for each in (ground.case, case):
        optimizer = checks.make_optimizer(each, learner_of(ground).rebuild())
        checks.make_scheduler(each, optimizer)
        rates.append(float(optimizer.param_groups[0]["lr"]))
    if abs(rates[1] - factor * rates[0]) > 1e-6 * abs(rates[0]):
        raise UnchangeableError("its schedule sets the rate, whatever the optimizer was made with")


def bad_adam_epsilon(ground: Ground) -> Case:
    _check_setting(ground, "eps", "its optimizer has no epsilon")
    return updates.with_optimizer(ground.case, updates.setting("eps", _EPSILON))


def excessive_weight_decay(ground: Ground) -> Case:
    _check_setting(ground, "weight_decay", "its optimizer has no weight decay")

    def alter(optimizer: Any, _: nn.Module) -> None:
        for group in optimizer.param_groups:
            group["weight_decay"] = _DECAYED / float(group["lr"])

    return updates.with_optimizer(ground.case, alter)


def _check_setting(ground: Ground, name: str, otherwise: str) -> None:
    """Of an optimizer that a step hides nothing is known."""
    if ground.case.optimizer is None:
        raise UnchangeableError("its optimizer is made inside its step")
    optimizer = checks.make_optimizer(ground.case, learner_of(ground).rebuild())
    if not all(name in group for group in optimizer.param_groups):
        raise UnchangeableError(otherwise)


def optimizer_wrong_params(ground: Ground) -> Case:
    hidden(ground)
    last = called(ground)[-1]

    def alter(optimizer: Any, model: nn.Module) -> None:
        kept = {id(each) for each in model.get_submodule(last).parameters()}
        for group in optimizer.param_groups:
            group["params"] = [each for each in group["params"] if id(each) in kept]
        optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]

    return updates.with_optimizer(ground.case, alter)


def gradient_ascent(ground: Ground) -> Case:
    own = ground.case.loss
    if own is None or ground.case.step is not None or has_weights(own):
        return updates.before_each_step(ground.case, updates.reversed_gradients)
    return dataclasses.replace(ground.case, loss=lambda *args: -own(*args))


def update_skipped(ground: Ground) -> Case:
    def without_gradients(optimizer: Any, _: nn.Module) -> None:
        for group in optimizer.param_groups:
            for each in group["params"]:
                each.grad = None

    return updates.before_each_step(ground.case, without_gradients)


def grad_clip_too_small(ground: Ground) -> Case:
    optimizer = ground.known.optimizer
    if optimizer is None or optimizer.kind != "SGD":
        raise UnchangeableError("its optimizer divides gradients by their size, or is not known")

    def clip(made: Any, _: nn.Module) -> None:
        nn.utils.clip_grad_norm_([each for group in made.param_groups for each in group["params"]], 1e-6)

    return updates.before_each_step(ground.case, clip)


def schedule_kills_rate(ground: Ground) -> Case:
    if ground.case.scheduler is not None or ground.case.step is not None or ground.case.optimizer is None:
        raise UnchangeableError("it has a schedule, or a step of its own")
    return dataclasses.replace(
        ground.case, scheduler=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.7)
    )


def missing_zero_grad(ground: Ground) -> Case:
    step = ground.case.step
    if step is not None:
        return _step_without_zero_grad(ground, step)

    def alter(optimizer: Any, _: nn.Module) -> None:
        kind = type(optimizer)
        own = {"zero_grad": lambda self, set_to_none=True: None, "__module__": kind.__module__}
        optimizer.__class__ = type(kind.__name__, (kind,), own)

    return updates.with_optimizer(ground.case, alter)


def _step_without_zero_grad(ground: Ground, step: Callable[..., Any]) -> Case:
    calls: list[str] = []

    def without(model: Any, *args: Any, **kwargs: Any) -> Any:
        with _not_zeroed(calls):
            return step(model, *args, **kwargs)

    learner = learner_of(ground)
    model = learner.rebuild()
    without(model, learner.batch.x, learner.batch.y)
    if not calls:
        raise UnchangeableError("its step does not call zero_grad()")
    return dataclasses.replace(ground.case, step=without)


@contextlib.contextmanager
def _not_zeroed(calls: list[str]) -> Iterator[None]:
    """Inside, `zero_grad` of optimizers and modules does nothing."""
    kinds: tuple[Any, ...] = (torch.optim.Optimizer, nn.Module)
    before = [kind.zero_grad for kind in kinds]
    for kind in kinds:
        kind.zero_grad = lambda self, *_, **__: calls.append(type(self).__name__)
    try:
        yield
    finally:
        for kind, own in zip(kinds, before, strict=True):
            kind.zero_grad = own


PLANTS: Mapping[str, Plant] = {
    "lr_zero": _rate(0.0),
    "lr_too_low": _rate(1e-4),
    "lr_too_high": _rate(1e4),
    "bad_adam_epsilon": bad_adam_epsilon,
    "excessive_weight_decay": excessive_weight_decay,
    "optimizer_wrong_params": optimizer_wrong_params,
    "gradient_ascent": gradient_ascent,
    "update_skipped": update_skipped,
    "grad_clip_too_small": grad_clip_too_small,
    "schedule_kills_rate": schedule_kills_rate,
    "missing_zero_grad": missing_zero_grad,
}
