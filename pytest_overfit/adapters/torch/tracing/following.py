"""What each tensor of a pass was computed from: which parameters, whether the batch, and what cut its gradient."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import nn

from pytest_overfit.adapters.programs import Cut
from pytest_overfit.adapters.torch.forward import Forward
from pytest_overfit.adapters.torch.records import tensors
from pytest_overfit.adapters.torch.tracing.operations import Trace, name_of

Tensor = torch.Tensor

#: steps that have no slope although autograd passes their gradient of 0 on
FLAT = frozenset({"round", "floor", "ceil", "trunc", "sign", "sgn", "heaviside", "fix"})

#: what says of itself that the graph ends here
_DETACHING = {"detach": "detach", "get": ".data", "no_grad": "no_grad"}

#: what takes numbers out of torch, so that nobody can follow them
_TAKING_OUT = frozenset({"item", "numpy", "tolist", "float", "int", "array"})

#: what adds two numbers
_ADDING = frozenset({"add", "radd", "iadd"})

#: what starts a backward pass
_BACKWARD = frozenset({"backward", "grad"})


@dataclasses.dataclass(frozen=True)
class Past:
    """Of one tensor."""

    #: parameters that it was computed from, whether or not a gradient finds its way back
    parameters: frozenset[str] = frozenset()
    #: some input or target is among what it was computed from
    of_batch: bool = False
    cuts: tuple[Cut, ...] = ()


class Following(Trace):
    """Follows what each tensor of a step was computed from, up to what is differentiated."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._past = {id(each): Past(frozenset((name,))) for name, each in model.named_parameters()}
        self._own = frozenset(self._past)
        #: what is remembered by its id must not be followed by another of the same
        self._kept: list[Any] = []
        self.roots: list[tuple[Tensor, Past]] = []
        self.taken_out: dict[str, None] = {}
        self.penalty: tuple[float, float] | None = None

    def called(self, func: Any, args: Any, kwargs: Any) -> Any:
        name = name_of(func)
        given = tensors((args, kwargs))
        if name in _BACKWARD and given:
            self.roots.append((given[0], self.past_of(given[0])))
        result = func(*args, **kwargs)
        made = tensors(result)
        if name in _TAKING_OUT and given and not made and not self.roots and self.past_of(given[0]).parameters:
            self.taken_out[name] = None
        self._kept.append((given, made))
        before = self._joined(given)
        self._look_for_a_penalty(name, given)
        for each in made:
            if id(each) not in self._own:
                self._past[id(each)] = dataclasses.replace(before, cuts=self._cuts(name, given, each, before))
        return result

    def past_of(self, tensor: Tensor) -> Past:
        """What nothing is known of comes from outside: the batch, or what was taken out of torch."""
        known = self._past.get(id(tensor))
        if known is None:
            return Past(frozenset(("",))) if isinstance(tensor, nn.Parameter) else Past(of_batch=True)
        return known

    def _joined(self, given: list[Tensor]) -> Past:
        pasts = [self.past_of(each) for each in given]
        if len(pasts) == 1:
            return pasts[0]
        return Past(
            parameters=frozenset().union(*(each.parameters for each in pasts)),
            of_batch=any(each.of_batch for each in pasts),
            cuts=tuple(dict.fromkeys(cut for each in pasts for cut in each.cuts)),
        )

    def _cuts(self, name: str, given: list[Tensor], made: Tensor, before: Past) -> tuple[Cut, ...]:
        live = any(each.requires_grad and each is not made for each in given)
        if not live or not before.parameters:
            return before.cuts
        if made.requires_grad:
            return (*before.cuts, self._cut(name, False, before)) if name in FLAT else before.cuts
        if not torch.is_grad_enabled():
            return (*before.cuts, self._cut("no_grad", True, before))
        return (*before.cuts, self._cut(_DETACHING.get(name, name), name in _DETACHING, before))

    def _cut(self, operation: str, smooth: bool, before: Past) -> Cut:
        name, module = self.open[-1] if self.open else ("", None)
        where = "" if module is None else f"{type(module).__name__}{f' {name!r}' if name else ''}"
        return Cut(operation=operation, where=where, smooth=smooth, behind=tuple(sorted(before.parameters)))

    def _look_for_a_penalty(self, name: str, given: list[Tensor]) -> None:
        """Two numbers are added, one of parameters alone: the larger it is, the less the loss counts."""
        found = self.penalty_among(name, given)
        if found is not None:
            penalty, loss = (abs(float(each.detach())) for each in found)
            if penalty > loss and math.isfinite(penalty):
                self.penalty = (penalty, loss)

    def penalty_among(self, name: str, given: list[Tensor]) -> tuple[Tensor, Tensor] | None:
        """Of two numbers that are added: that which knows nothing of the batch, and the other."""
        if name not in _ADDING or len(given) != 2 or any(each.numel() != 1 for each in given):
            return None
        pasts = [self.past_of(each) for each in given]
        alone = [bool(each.parameters) and not each.of_batch for each in pasts]
        if sum(alone) != 1:
            return None
        return (given[0], given[1]) if alone[0] else (given[1], given[0])


class Unpenalised(Following):
    """What is added of parameters alone is left out."""

    def called(self, func: Any, args: Any, kwargs: Any) -> Any:
        found = self.penalty_among(name_of(func), tensors((args, kwargs)))
        return super().called(func, args, kwargs) if found is None else found[1]


def without_a_slope(forward: Forward) -> str:
    """An operation on the way to the loss that has no slope; "": there is none."""
    following, batch = Following(forward.model), forward.batch
    with following.noting_modules(forward.model), following:
        loss = forward.loss(forward.call(batch.x), batch.y)
    return next((each.operation for each in following.past_of(loss).cuts if not each.smooth), "")
