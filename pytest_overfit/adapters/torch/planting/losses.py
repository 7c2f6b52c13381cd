"""Faults of a torch case's loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from pytest_overfit.adapters.planting import Ground, Plant
from pytest_overfit.adapters.programs import UnchangeableError
from pytest_overfit.adapters.torch.records import predictions
from pytest_overfit.core.case import Case

Tensor = torch.Tensor


def _own(ground: Ground) -> Callable[..., Any]:
    if ground.case.loss is None or ground.case.step is not None:
        raise UnchangeableError("its loss is computed where it cannot be replaced")
    if has_weights(ground.case.loss):
        raise UnchangeableError("its loss has weights of its own")
    return ground.case.loss


def has_weights(loss: Any) -> bool:
    """A loss that learns (a learnt temperature, say), which the optimizer is asked to hold."""
    return isinstance(loss, nn.Module) and next(loss.parameters(), None) is not None


def wrong_loss(ground: Ground) -> Case:
    _own(ground)
    head = ground.head("classes", "values", otherwise="there is no usual other loss for what it answers")
    if head.kind == "values":
        if head.targets.min() >= 0 and head.targets.max() <= 1:
            raise UnchangeableError("its quantities lie between 0 and 1, as the other loss takes them")
        return dataclasses.replace(ground.case, loss=_binary)
    if not len(head.targets) or head.targets.shape == head.outputs.shape:
        raise UnchangeableError("its targets are probabilities, not numbers of classes")
    axis = ground.class_axis(head)

    def squared(outputs: Any, targets: Tensor) -> Tensor:
        scores = predictions(outputs)[0]
        return F.mse_loss(scores, targets.unsqueeze(axis).to(scores.dtype))

    return dataclasses.replace(ground.case, loss=squared)


def _binary(outputs: Any, targets: Tensor) -> Tensor:
    found = predictions(outputs)[0]
    return F.binary_cross_entropy_with_logits(found, targets.reshape(found.shape).to(found.dtype))


def target_broadcast(ground: Ground) -> Case:
    own = _own(ground)
    ground.head("values", otherwise="its targets are no quantities")
    shape = ground.outputs.shape
    if len(shape) != 2 or shape[1] != 1 or shape[0] < 2:
        raise UnchangeableError("its outputs are no column of several rows")
    return dataclasses.replace(ground.case, loss=lambda outputs, targets: own(outputs, targets.reshape(-1)))


def wrong_reduction(ground: Ground) -> Case:
    own, head = _own(ground), ground.head("classes", "binary", "values", otherwise="it has no single recognised loss")
    if not head.plain or abs(head.scale - 1.0) > 1e-6 or head.mask is not None:
        raise UnchangeableError("its loss is no plain mean")
    count = head.targets.size
    return dataclasses.replace(ground.case, loss=lambda *args: own(*args) * count)


def sqrt_zero_gradient(ground: Ground) -> Case:
    own = _own(ground)

    def loss(outputs: Any, *targets: Any) -> Any:
        found = predictions(outputs)[0]
        return own(outputs, *targets) + torch.sqrt(((found - found) ** 2).sum())

    return dataclasses.replace(ground.case, loss=loss)


PLANTS: Mapping[str, Plant] = {
    "wrong_loss": wrong_loss,
    "target_broadcast": target_broadcast,
    "wrong_reduction": wrong_reduction,
    "sqrt_zero_gradient": sqrt_zero_gradient,
}
