"""Faults of what a torch model computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from pytest_overfit.adapters.base import Head
from pytest_overfit.adapters.planting import Ground, Plant
from pytest_overfit.adapters.programs import UnchangeableError
from pytest_overfit.adapters.torch.planting.layers import (
    around,
    called,
    changed_before_last,
    changed_outputs,
    hidden,
    learner_of,
    planted,
)
from pytest_overfit.adapters.torch.programs import forwards
from pytest_overfit.adapters.torch.records import mapped
from pytest_overfit.core.case import Case
from pytest_overfit.data.parts import names_targets

Tensor = torch.Tensor

_CLASSES = "its loss is none of several classes by raw scores"


def _scores(ground: Ground) -> Head:
    head = ground.head("classes", otherwise=_CLASSES)
    if head.domain != "unbounded":
        raise UnchangeableError(_CLASSES)
    return head


def double_softmax(ground: Ground) -> Case:
    axis = ground.class_axis(_scores(ground))
    return changed_outputs(ground, lambda _, outputs: torch.softmax(outputs, axis))


def softmax_wrong_axis(ground: Ground) -> Case:
    _scores(ground)
    return changed_outputs(ground, lambda _, outputs: torch.softmax(outputs, 0))


def relu_on_logits(ground: Ground) -> Case:
    _scores(ground)
    return changed_outputs(ground, lambda _, outputs: F.relu(outputs))


def double_sigmoid(ground: Ground) -> Case:
    otherwise = "its loss is none of yes and no by raw scores"
    if ground.head("binary", otherwise=otherwise).domain != "unbounded":
        raise UnchangeableError(otherwise)
    return changed_outputs(ground, lambda _, outputs: torch.sigmoid(outputs))


def _without_last(kind: str, *functions: str) -> Plant:
    def plant(ground: Ground) -> Case:
        otherwise = f"its outputs are no probabilities made by a last {functions[0]}"
        if ground.head(kind, otherwise=otherwise).domain == "unbounded":
            raise UnchangeableError(otherwise)
        found = [at for at, each in enumerate(ground.known.activations) if each.last and each.function in functions]
        if not found:
            raise UnchangeableError(otherwise)
        at = found[-1]
        return planted(ground, lambda model: forwards.install(model, lambda: forwards.OneActivation(at, "", -1)))

    return plant


def output_range(ground: Ground) -> Case:
    head = ground.head("values", otherwise="its targets are no quantities")
    if head.targets.min() >= 0 and head.targets.max() <= 1:
        raise UnchangeableError("all its targets lie between 0 and 1")
    return changed_outputs(ground, lambda _, outputs: torch.sigmoid(outputs))


def detached_graph(ground: Ground) -> Case:
    return changed_outputs(ground, lambda _, outputs: outputs.detach())


def cut_gradient(ground: Ground) -> Case:
    return changed_before_last(ground, lambda _, given: given.detach())


def input_ignored(ground: Ground) -> Case:
    def through(_: nn.Module, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kept = {key: each for key, each in kwargs.items() if names_targets(key)}
        args, others = mapped((args, {key: each for key, each in kwargs.items() if key not in kept}), _zeros)
        return own(*args, **others, **kept)

    return planted(ground, lambda model: around(model, through))


def _zeros(leaf: Any) -> Any:
    return leaf * 0 if isinstance(leaf, Tensor) else leaf


def batch_mixing(ground: Ground) -> Case:
    if len(ground.outputs) != ground.batch.rows or ground.case.row_axis is not None:
        raise UnchangeableError("its outputs do not have its rows along their first axis")
    if ground.batch.rows < 2:
        raise UnchangeableError("its batch has one row only")
    return changed_outputs(ground, lambda _, outputs: outputs + outputs.roll(1, 0))


def random_in_eval(ground: Ground) -> Case:
    return changed_before_last(ground, lambda _, given: F.dropout(given, 0.5, training=True))


def excessive_dropout(ground: Ground) -> Case:
    return changed_before_last(ground, lambda module, given: F.dropout(given, 0.99, training=module.training))


def dropout_on_output(ground: Ground) -> Case:
    return changed_outputs(ground, lambda model, outputs: F.dropout(outputs, 0.5, training=model.training))


def unused_parameters(ground: Ground) -> Case:
    last = called(ground)[-1]
    if not np.issubdtype(ground.outputs.dtype, np.floating):
        raise UnchangeableError("its outputs are no floating point numbers")

    def hook(module: nn.Module, _: Any, outputs: Any) -> Any:
        if not isinstance(outputs, Tensor):
            return outputs
        branch: Any = module.get_submodule("thrown_away")
        return outputs + 0.0 * branch(outputs[..., :1])

    def surgery(model: nn.Module) -> nn.Module:
        layer = model.get_submodule(last)
        place = next(layer.parameters())
        layer.add_module("thrown_away", nn.Linear(1, 1).to(place.device, place.dtype))
        layer.register_forward_hook(hook)
        return model

    return planted(ground, surgery)


class _Holder(nn.Module):
    """A layer that torch does not know of."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        vars(self)["layer"] = layer

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return vars(self)["layer"](*args, **kwargs)


def unregistered_parameters(ground: Ground) -> Case:
    first = hidden(ground)[0]
    parent, _, name = first.rpartition(".")
    if not name:
        raise UnchangeableError("its first layer is the model itself")

    def surgery(model: nn.Module) -> nn.Module:
        setattr(model.get_submodule(parent), name, _Holder(model.get_submodule(first)))
        return model

    learner = learner_of(ground)
    trial = surgery(learner.rebuild())
    with torch.no_grad():
        try:
            trial(learner.forward.batch.x)
        except Exception:  # whatever the model does with its layer beside calling it
            raise UnchangeableError("its first layer is used otherwise than by a call of one input") from None
    return planted(ground, surgery)


PLANTS: Mapping[str, Plant] = {
    "double_softmax": double_softmax,
    "double_sigmoid": double_sigmoid,
    "missing_softmax": _without_last("classes", "softmax", "log_softmax"),
    "missing_sigmoid": _without_last("binary", "sigmoid", "log_sigmoid"),
    "softmax_wrong_axis": softmax_wrong_axis,
    "relu_on_logits": relu_on_logits,
    "output_range": output_range,
    "detached_graph": detached_graph,
    "cut_gradient": cut_gradient,
    "input_ignored": input_ignored,
    "batch_mixing": batch_mixing,
    "random_in_eval": random_in_eval,
    "excessive_dropout": excessive_dropout,
    "dropout_on_output": dropout_on_output,
    "unused_parameters": unused_parameters,
    "unregistered_parameters": unregistered_parameters,
}
