"""The weights of several models in one tensor, and one optimizer for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from pytest_overfit.adapters.torch.ensemble.eligible import options_of

Tensor = torch.Tensor


class Stack:
    """Every parameter as one tensor [models, ...]; each model's own parameters become its rows of them.

    The trained ones of a parameter group lie side by side in one flat tensor, so that a step of the optimizer is one
    operation or a few, whatever the number of tensors: an optimizer that treats entries one by one does the same to
    them there.
    """

    def __init__(self, models: Sequence[nn.Module], optimizers: Sequence[Any]) -> None:
        self.members = len(models)
        self._leader = optimizers[0]
        named = [dict(each.named_parameters()) for each in models]
        names = {id(each): name for name, each in named[0].items()}
        groups = [[names[id(each)] for each in group["params"]] for group in self._leader.param_groups]
        #: name -> [models, ...]; the trained ones first, group by group
        self.tensors: dict[str, Tensor] = {}
        self._flat: list[nn.Parameter] = []
        for group in groups:
            self._flat.append(self._side_by_side(group, named))
        self.trained = tuple(self.tensors)
        for name in named[0]:
            if name not in self.tensors:
                self.tensors[name] = torch.stack([each[name].detach() for each in named])
        for name, stacked in self.tensors.items():
            for member, each in enumerate(named):
                each[name].data = stacked[member]
        self._counts = [sum(self.tensors[name].numel() for name in group) for group in groups]
        self.optimizer = self._one_optimizer()

    def _side_by_side(self, names: list[str], named: Sequence[dict[str, nn.Parameter]]) -> nn.Parameter:
        whole = [torch.stack([each[name].detach() for each in named]) for name in names]
        flat = torch.cat([each.reshape(-1) for each in whole])
        place = 0
        for name, each in zip(names, whole, strict=True):
            self.tensors[name] = flat[place : place + each.numel()].view(each.shape)
            place += each.numel()
        parameter = nn.Parameter(flat)
        parameter.grad = torch.zeros_like(flat)
        return parameter

    def _one_optimizer(self) -> Any:
        groups = []
        for flat, group in zip(self._flat, self._leader.param_groups, strict=True):
            options = options_of(group)
            if "fused" in options and options["fused"] is not False and not options.get("foreach"):
                options["fused"] = True
            groups.append({"params": [flat], **options})
        return type(self._leader)(groups)

    def step(self, gradients: Sequence[Tensor]) -> None:
        """Update every model by its gradients, which come in the order of `trained`."""
        flat = [each.reshape(-1) for each in gradients]
        for parameter, count in zip(self._flat, self._counts, strict=True):
            group = []
            while count:
                group.append(flat.pop(0))
                count -= group[-1].numel()
            torch.cat(group, out=parameter.grad)
        self.optimizer.step()

    def take_settings(self) -> None:
        """Take over what a schedule did to the settings of the first model's own optimizer."""
        for mine, theirs in zip(self.optimizer.param_groups, self._leader.param_groups, strict=True):
            mine.update({name: value for name, value in options_of(theirs).items() if name != "fused"})

    def apart(self, member: int) -> tuple[list[nn.Parameter], Any]:
        """A copy of one model's trained weights with an optimizer as its own would be, to compare with."""
        copies = {name: nn.Parameter(self.tensors[name][member].clone()) for name in self.trained}
        waiting = list(copies.values())
        groups = []
        for group in self._leader.param_groups:
            held = [waiting.pop(0) for _ in group["params"]]
            groups.append({"params": held, **options_of(group)})
        return list(copies.values()), type(self._leader)(groups)
