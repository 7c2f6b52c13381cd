"""Faults of a torch model's weights, and of layers' own settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from pytest_overfit.adapters.planting import Ground, Plant
from pytest_overfit.adapters.programs import UnchangeableError
from pytest_overfit.adapters.torch.learner import TorchLearner
from pytest_overfit.adapters.torch.planting.layers import called, hidden, learner_of, planted
from pytest_overfit.adapters.torch.programs.anatomy import anatomy_of
from pytest_overfit.core.case import Case
from pytest_overfit.core.usercode import is_users_class

#: far below what a layer's sum can come to
_FAR_BELOW = -1e4

#: start of a last layer that is sure of its answers
_SURE = 100.0

_NORMALISING = (nn.modules.batchnorm._BatchNorm,)


def _on_weights(ground: Ground, change: Callable[[nn.Module], None]) -> Case:
    def surgery(model: nn.Module) -> nn.Module:
        if any(is_lazy(each) for each in model.parameters()):
            raise UnchangeableError("lazy layers have no weights before their first pass")
        with torch.no_grad():
            change(model)
        return model

    return planted(ground, surgery)


def _matrices(ground: Ground) -> list[str]:
    found = [each.name for each in ground.known.weights if each.main and each.trainable]
    if not found:
        raise UnchangeableError("it has no matrix of weights that is trained")
    return found


def zero_init(ground: Ground) -> Case:
    names = _matrices(ground)
    if len(names) < 2:
        raise UnchangeableError("a single layer may start at zero")
    return _on_weights(ground, lambda model: _fill(model, names, 0.0))


def constant_init(ground: Ground) -> Case:
    names = _matrices(ground)
    if len(names) < 2:
        raise UnchangeableError("the units of a single layer may start alike")
    return _on_weights(ground, lambda model: _fill(model, names, None))


def _fill(model: nn.Module, names: list[str], value: float | None) -> None:
    """None: of the usual size of a layer's weights. Biases start at zero."""
    for name in names:
        for each in model.get_submodule(name.rpartition(".")[0]).parameters(recurse=False):
            if each.ndim == 1:
                each.zero_()
        parameter = model.get_parameter(name)
        inputs = max(1, parameter[0].numel())
        parameter.fill_(1.0 / inputs**0.5 if value is None else value)


def over_confident_start(ground: Ground) -> Case:
    ground.head("classes", "binary", otherwise="it answers no classes")
    last = called(ground)[-1]

    def change(model: nn.Module) -> None:
        for each in model.get_submodule(last).parameters():
            each.mul_(_SURE)

    return _on_weights(ground, change)


def nan_parameter(ground: Ground) -> Case:
    name = _matrices(ground)[0]

    def change(model: nn.Module) -> None:
        model.get_parameter(name).view(-1)[0] = float("nan")

    return _on_weights(ground, change)


def dead_relu(ground: Ground) -> Case:
    if not any(each.function == "relu" and not each.last for each in ground.known.activations):
        raise UnchangeableError("it has no ReLU between its layers")
    last = called(ground)[-1]

    def change(model: nn.Module) -> None:
        for name, module in model.named_modules():
            bias = getattr(module, "bias", None)
            if name != last and isinstance(bias, nn.Parameter) and bias.ndim == 1:
                bias.fill_(_FAR_BELOW)

    case = _on_weights(ground, change)
    seen = _seen(ground, case)
    if not all(each > 0.99 for each in seen):
        raise UnchangeableError("biases alone do not switch its ReLUs off")
    return case


def _seen(ground: Ground, case: Case) -> list[float]:
    """Share of dead units of each hidden ReLU."""
    learner = learner_of(ground)
    found = anatomy_of(TorchLearner(case, case.model(), learner.given, case.model, learner.labels))
    return [each.dead for each in found.activations if each.function == "relu" and not each.last]


def frozen_parameters(ground: Ground) -> Case:
    names = hidden(ground)

    def change(model: nn.Module) -> None:
        for name in names:
            for each in model.get_submodule(name).parameters(recurse=False):
                each.requires_grad_(False)

    return _on_weights(ground, change)


def batchnorm_eval_mismatch(ground: Ground) -> Case:
    def is_one(module: nn.Module) -> bool:
        return isinstance(module, _NORMALISING) and bool(module.track_running_stats)

    if not any(map(is_one, learner_of(ground).model.modules())):
        raise UnchangeableError("it has no batch normalisation with running statistics")

    def surgery(model: nn.Module) -> nn.Module:
        for module in filter(is_one, model.modules()):
            vars(module)["momentum"] = 0.0
        return model

    return planted(ground, surgery)


def never_drops(ground: Ground) -> Case:
    dropping: Any = nn.modules.dropout._DropoutNd
    model = learner_of(ground).model
    found = [name for name, each in model.named_modules() if isinstance(each, dropping) and each.p]
    if found:
        return planted(ground, lambda made: _held_off(made, found))
    if type(model) is nn.Sequential:
        return planted(ground, _put_first)
    if not is_users_class(type(model)):
        raise UnchangeableError("it has no dropout, and its class is not the user's")
    return planted(ground, _never_called)


def _held_off(model: nn.Module, names: list[str]) -> nn.Module:
    """Dropout that stays in evaluation mode while the model trains."""
    for name in names:
        module: Any = model.get_submodule(name)
        kind = type(module)
        own = {"train": lambda self, mode=True: nn.Module.train(self, False), "__module__": kind.__module__}
        module.__class__ = type(kind.__name__, (kind,), own)
        module.train()
    return model


def _put_first(model: Any) -> nn.Module:
    """The same before the first layer, which is called as before."""
    model[0] = nn.Sequential(nn.Dropout(0.5), model[0])
    return _held_off(model, ["0.0"])


def _never_called(model: nn.Module) -> nn.Module:
    model.add_module("never_called", nn.Dropout(0.5))
    return model


PLANTS: Mapping[str, Plant] = {
    "zero_init": zero_init,
    "constant_init": constant_init,
    "over_confident_start": over_confident_start,
    "nan_parameter": nan_parameter,
    "dead_relu": dead_relu,
    "frozen_parameters": frozen_parameters,
    "batchnorm_eval_mismatch": batchnorm_eval_mismatch,
    "never_drops": never_drops,
}
