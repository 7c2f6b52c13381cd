"""The same model with other weights: drawn anew, or all trainable."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pytest_overfit.adapters.programs import UnchangeableError
from pytest_overfit.adapters.torch.wires.parts import unregistered

_RECTIFIED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def drawn_anew(model: nn.Module, for_relu: bool = False) -> nn.Module:
    """Every weight as its module's class draws it; matrices of no module that can are drawn evenly by their inputs."""
    changed = False
    with torch.no_grad():
        for module in model.modules():
            own = list(module.parameters(recurse=False))
            if not own:
                continue
            changed = True
            reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
            if callable(reset):
                reset()
            else:
                _draw(own)
            if for_relu and isinstance(module, _RECTIFIED):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    module.bias.zero_()
    if not changed:
        raise UnchangeableError("the model has no weights")
    return model


def _draw(own: list[nn.Parameter]) -> None:
    for each in own:
        if each.ndim > 1 and each.is_floating_point():
            nn.init.kaiming_uniform_(each, a=5**0.5)


def all_trainable(model: nn.Module) -> nn.Module:
    """Nothing is frozen, and the model knows all that it holds."""
    for number, (name, each) in enumerate(unregistered(model).items()):
        if isinstance(each, nn.Parameter):
            model.register_parameter(f"unregistered_{number}", each)
        elif "." not in name:
            delattr(model, name)
            model.register_parameter(name, nn.Parameter(each.detach()))
    for each in model.parameters():
        if each.is_floating_point():
            each.requires_grad_(True)
    return model


def pooled(model: nn.Module) -> nn.Module:
    """Recurrent layers give the greatest of all steps so far, so that no step is far from what reads the last one."""
    layers = [each for each in model.modules() if isinstance(each, nn.RNNBase) and not each.bidirectional]
    if not layers:
        raise UnchangeableError("no layer is recurrent")
    for layer in layers:
        layer.register_forward_hook(_greatest)
    return model


def _greatest(layer: Any, _: Any, result: Any) -> Any:
    outputs, state = result
    axis = 1 if layer.batch_first and outputs.ndim == 3 else 0
    if not isinstance(outputs, torch.Tensor):
        raise UnchangeableError("sequences of several lengths are packed")
    outputs = outputs.cummax(dim=axis).values
    last = outputs.select(axis, -1)
    hidden = state[0] if isinstance(state, tuple) else state
    hidden = torch.cat([hidden[:-1], last[None]])
    return outputs, (hidden, *state[1:]) if isinstance(state, tuple) else hidden
