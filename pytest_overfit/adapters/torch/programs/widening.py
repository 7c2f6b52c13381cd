"""The same model with more units in its hidden layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pytest_overfit.adapters.programs import UnchangeableError
from pytest_overfit.adapters.torch.records import tensors
from pytest_overfit.adapters.torch.tracing.following import Following

Tensor = torch.Tensor

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_LAYERS = (nn.Linear, *_CONVOLUTIONS, nn.RNNBase, nn.Embedding)
_CHANGED = (*_LAYERS, *_NORMS, nn.LayerNorm)

#: a model of more weights than this is not tried
_MOST = 3_000_000


class _Places(Following):
    """Which layers take what no layer has made, and which make what the model answers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        #: tensor -> layers that it was last made by
        self.makers: dict[int, frozenset[str]] = {}
        self.raw: set[str] = set()
        self.order: dict[str, nn.Module] = {}
        self.of_final: dict[str, frozenset[str]] = {}

    def called(self, func: Any, args: Any, kwargs: Any) -> Any:
        result = super().called(func, args, kwargs)
        makers = self.makers_of((args, kwargs))
        for each in tensors(result):
            self.makers[id(each)] = makers
        return result

    def makers_of(self, tree: Any) -> frozenset[str]:
        return frozenset().union(*(self.makers.get(id(each), frozenset()) for each in tensors(tree)))

    def before(self, name: str) -> Callable[..., None]:
        def note(module: nn.Module, args: Any) -> None:
            self.order[name] = module
            self.of_final[name] = self.makers_of(args)
            if not any(self.past_of(each).parameters for each in tensors(args)):
                self.raw.add(name)

        return note

    def after(self, name: str) -> Callable[..., None]:
        def note(module: nn.Module, args: Any, result: Any) -> None:
            del args
            if isinstance(module, _LAYERS):
                for each in tensors(result):
                    self.makers[id(each)] = frozenset((name,))

        return note


def wider(model: nn.Module, factor: int, pass_through: Callable[[], Any]) -> nn.Module:
    """Hidden layers with so many times the units. `pass_through`: a forward pass.

    It is tried, and counts where the answer keeps its shape.
    """
    places, final, shapes = _looked_at(model, pass_through)
    hidden = [name for name, each in places.order.items() if isinstance(each, _LAYERS) and name not in final]
    if not hidden:
        raise UnchangeableError("it has no hidden layer")
    if sum(each.numel() for each in model.parameters()) * factor**2 > _MOST:
        raise UnchangeableError("it would be too large")
    parents = dict(model.named_modules())
    for name, module in places.order.items():
        of_final = bool(places.of_final[name]) and places.of_final[name] <= final
        inputs = 1 if name in places.raw or of_final else factor
        _put(parents, name, _of_width(module, inputs, 1 if name in final else factor))
    try:
        after = [each.shape for each in tensors(pass_through())]
    except Exception as error:
        raise UnchangeableError(f"its layers cannot be made wider one by one ({type(error).__name__})") from None
    if after != shapes:
        raise UnchangeableError("its answer would get wider too")
    return model


def _looked_at(model: nn.Module, pass_through: Callable[[], Any]) -> tuple[_Places, frozenset[str], list[Any]]:
    places, hooks = _Places(model), []
    for name, module in model.named_modules():
        if isinstance(module, _CHANGED):
            hooks += [module.register_forward_pre_hook(places.before(name))]
            hooks += [module.register_forward_hook(places.after(name))]
    try:
        with places:
            outputs = pass_through()
    finally:
        for hook in hooks:
            hook.remove()
    return places, places.makers_of(outputs), [each.shape for each in tensors(outputs)]


def _of_width(module: Any, inputs: int, outputs: int) -> nn.Module:
    if isinstance(module, nn.Linear):
        return nn.Linear(module.in_features * inputs, module.out_features * outputs, module.bias is not None)
    if isinstance(module, nn.Embedding):
        return nn.Embedding(module.num_embeddings, module.embedding_dim * outputs, module.padding_idx)
    if isinstance(module, nn.RNNBase):
        return _recurrent(module, inputs, outputs)
    if isinstance(module, _NORMS):
        return type(module)(module.num_features * inputs)
    if isinstance(module, nn.LayerNorm):
        return nn.LayerNorm([*module.normalized_shape[:-1], module.normalized_shape[-1] * inputs])
    return _convolution(module, inputs, outputs)


def _recurrent(module: Any, inputs: int, outputs: int) -> nn.Module:
    if module.proj_size:
        raise UnchangeableError("a projection of a recurrent layer cannot be made wider alone")
    more = {"nonlinearity": module.nonlinearity} if isinstance(module, nn.RNN) else {}
    new: nn.Module = type(module)(
        module.input_size * inputs,
        module.hidden_size * outputs,
        module.num_layers,
        bias=module.bias,
        batch_first=module.batch_first,
        dropout=module.dropout,
        bidirectional=module.bidirectional,
        **more,
    )
    return new


def _convolution(module: Any, inputs: int, outputs: int) -> nn.Module:
    if module.groups != 1:
        raise UnchangeableError("a convolution in groups cannot be made wider alone")
    new: nn.Module = type(module)(
        module.in_channels * inputs,
        module.out_channels * outputs,
        module.kernel_size,
        stride=module.stride,
        padding=module.padding,
        dilation=module.dilation,
        bias=module.bias is not None,
        padding_mode=module.padding_mode,
    )
    return new


def _put(parents: dict[str, nn.Module], name: str, new: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    old = parents[name]
    new.train(old.training).to(next(parents[""].parameters()).device)
    setattr(parents[parent], own, new)
