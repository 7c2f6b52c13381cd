"""Weight decay of a user's optimizer and a penalty in the loss: found here, measured as `shrinkage` describes.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils import _pytree as pytree

from pytest_overfit.adapters.base import Shrinkage
from pytest_overfit.adapters.regularizer_effects.shrinkage import (
    ENTRIES,
    Stepping,
    default_decay,
    share_of_a_step,
    smaller_of,
)
from pytest_overfit.adapters.torch.learner import TorchLearner
from pytest_overfit.data.batch import to_numpy

Tensor = torch.Tensor
#: id of a parameter -> its gradient
Gradients = Mapping[int, Tensor]

#: fewer entries than this point along their slope by chance
_FEW = 16


class Steps:
    """The optimizers that a user's step used, each with the gradients it was given last."""

    def __init__(self) -> None:
        self.seen: dict[int, tuple[Any, dict[int, Tensor]]] = {}

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        def note(optimizer: Any, _args: Any, _kwargs: Any) -> None:
            self.seen[id(optimizer)] = optimizer, gradients_of(optimizer)

        handle = register_optimizer_step_pre_hook(note)
        try:
            yield
        finally:
            handle.remove()


def gradients_of(optimizer: Any) -> dict[int, Tensor]:
    """A copy of the gradient of every parameter that has one."""
    held = (parameter for group in optimizer.param_groups for parameter in group["params"])
    return {id(each): each.grad.detach().clone() for each in held if each.grad is not None}


def found(learner: TorchLearner, steps: Steps) -> Iterator[Shrinkage]:
    """Weight decay of every optimizer, and a penalty in the loss. Gradients of the learner are overwritten."""
    if learner.case.step is None:
        with learner._modes.reading("train"), learner._explained("a training step"):
            learner._backward()
        steps.seen = {0: (learner.optimizer, gradients_of(learner.optimizer))}
        yield from _penalty(learner)
    for optimizer, gradients in steps.seen.values():
        yield from _weight_decay(optimizer, gradients)


# ------------------------------------------------------------------ weight decay


def _weight_decay(optimizer: Any, gradients: Gradients) -> Iterator[Shrinkage]:
    kind = type(optimizer).__name__
    default = default_decay(optimizer)
    groups = [group for group in optimizer.param_groups if group.get("weight_decay")]
    if not groups:
        declared = float(optimizer.defaults.get("weight_decay") or 0.0)
        if declared and declared != default:
            tensors = sum(len(group["params"]) for group in optimizer.param_groups)
            name, why = f"weight_decay {declared:g} of {kind}", "every parameter group sets weight_decay=0"
            yield Shrinkage(kind="weight decay", name=name, rate=0.0, tensors=tensors, reached=0, why=why)
        return
    held = [id(parameter) for group in groups for parameter in group["params"]]
    decays = sorted({float(group["weight_decay"]) for group in groups})
    rates = [(top, float(group["weight_decay"])) for group in groups if (top := _top_rate(group)) is not None]
    yield Shrinkage(
        kind="weight decay",
        name=f"weight_decay {' and '.join(f'{each:g}' for each in decays)} of {kind}",
        rate=_rate(optimizer, gradients, set(held), decay=True),
        tensors=len(held),
        reached=sum(key in gradients for key in held),
        nominal=max((top * decay for top, decay in rates if top), default=None),
        learning_rate=max((top for top, _ in rates), default=None),
        by_default=decays == [default],
    )


def _top_rate(group: Mapping[str, Any]) -> float | None:
    """The highest learning rate that the group and its schedule declare: a warm-up may begin at 0."""
    given = (group.get(name) for name in ("lr", "initial_lr", "max_lr"))
    return max((float(each) for each in given if isinstance(each, (int, float, Tensor))), default=None)


def _rate(
    optimizer: Any, noisy: Gradients, counted: set[int], *, steady: Gradients | None = None, decay: bool = False
) -> float | None:
    """The share of the counted weights that a step takes away because of `decay`, or of this part of the gradient."""
    chosen = _chosen(optimizer, counted & noisy.keys())

    @contextlib.contextmanager
    def run(bare: bool) -> Iterator[Stepping]:
        copied = _Copy(optimizer, chosen, noisy, {} if bare else steady or {})
        if bare and decay:
            for group in copied.optimizer.param_groups:
                group["weight_decay"] = type(group.get("weight_decay", 0.0))(0)
        yield Stepping(copied.step, copied.weights)

    return share_of_a_step([to_numpy(each) for each in chosen], run)


def _chosen(optimizer: Any, counted: set[int]) -> list[Tensor]:
    """Some of the counted tensors of each group, as many as the budget allows and at least one."""
    share = ENTRIES // len(optimizer.param_groups)
    chosen: list[Tensor] = []
    for group in optimizer.param_groups:
        held = [parameter for parameter in group["params"] if id(parameter) in counted]
        chosen += smaller_of(held, torch.numel, lambda taken: bool(taken) and bool(taken[-1].any()), share)
    return chosen


class _Copy:
    """A copy of an optimizer that holds copies of some of its parameters, and none of the others."""

    def __init__(self, optimizer: Any, chosen: list[Tensor], noisy: Gradients, steady: Gradients) -> None:
        self._noisy, self._steady = noisy, steady
        self._signs = torch.Generator().manual_seed(0)
        wanted = {id(parameter) for parameter in chosen}
        memo: dict[int, Any] = {}  # what is in here is not copied
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if id(parameter) not in wanted:
                    memo |= {id(one): one for one in (parameter, *optimizer.state.get(parameter, {}).values())}
        self.optimizer = copy.deepcopy(optimizer, memo)
        #: id of a chosen parameter -> its copy
        self._parameters: dict[int, Tensor] = {}
        for group, copied in zip(optimizer.param_groups, self.optimizer.param_groups, strict=True):
            rate = _top_rate(group)
            if rate is not None and not isinstance(copied.get("lr"), Tensor):
                copied["lr"] = rate
            pairs = zip(group["params"], copied["params"], strict=True)
            kept = {id(old): new for old, new in pairs if id(old) in wanted}
            copied["params"] = list(kept.values())
            self._parameters |= kept
        self._parameters = {id(parameter): self._parameters[id(parameter)] for parameter in chosen}

    def weights(self) -> list[Any]:
        return [to_numpy(parameter) for parameter in self._parameters.values()]

    def step(self) -> None:
        for key, parameter in self._parameters.items():
            signs = torch.randint(0, 2, parameter.shape, generator=self._signs, dtype=torch.int8) * 2 - 1
            gradient = self._noisy[key] * signs.to(parameter.device, parameter.dtype)
            parameter.grad = gradient + self._steady[key] if key in self._steady else gradient
        self.optimizer.step()


# ------------------------------------------------------------------ a penalty in the loss


def _penalty(learner: TorchLearner) -> Iterator[Shrinkage]:
    """A term of the loss that depends on the weights themselves: it changes with them while the outputs are held."""
    if learner.case.loss is None:
        return
    weights = [each for each in learner.model.parameters() if each.is_floating_point()]
    with learner._modes.reading("fit"):
        outputs = pytree.tree_map(_detached, learner._forward.quiet())
    try:
        once, twice, four_times = (_loss_at(learner, outputs, weights, factor) for factor in (1.0, 2.0, 4.0))
        slopes = _slopes(learner, outputs, weights)
    except Exception:  # a loss that refuses held outputs
        return
    growth = (four_times - twice) / (twice - once) if once < twice < four_times else 0.0
    name = _penalty_name(growth)
    # weights in a loss may also be there to be learnt (a temperature): a penalty pulls along the weights themselves
    if not (_along(slopes, weights) if slopes else name):
        return
    penalty = (twice - once) / (growth - 1) if growth > 1 else 0.0
    whole = gradients_of(learner.optimizer)
    noisy = {key: each - slopes[key] if key in slopes else each for key, each in whole.items()}
    yield Shrinkage(
        kind="penalty",
        name=f"{name or 'penalty on weights'} in the loss",
        rate=_rate(learner.optimizer, noisy, set(slopes), steady=slopes),
        tensors=len(weights),
        reached=len(slopes),
        share=penalty / once if once > 0 else None,
        why="" if slopes else "no gradient of it reaches the weights: detach(), .data, .item() or no_grad cuts it off",
    )


def _penalty_name(growth: float) -> str:
    """Doubling the weights doubles an L1 penalty and makes four of an L2 penalty; empty for anything else."""
    for value, name in ((2.0, "L1 penalty"), (4.0, "L2 penalty")):
        if abs(growth - value) < 0.05 * value:
            return name
    return ""


def _loss_at(learner: TorchLearner, outputs: Any, weights: list[nn.Parameter], factor: float) -> float:
    """The loss of these outputs with all weights multiplied; they are put back."""
    before = [each.detach().clone() for each in weights]
    with torch.no_grad():
        try:
            for each in weights:
                each.mul_(factor)
            return float(learner._forward.loss(outputs, learner.batch.y))
        finally:
            for each, old in zip(weights, before, strict=True):
                each.copy_(old)


def _slopes(learner: TorchLearner, outputs: Any, weights: list[nn.Parameter]) -> dict[int, Tensor]:
    """The gradient of the loss by the weights at held outputs: the penalty's alone."""
    wanted = [each for each in weights if each.requires_grad]
    with torch.enable_grad():
        loss = learner._forward.loss(outputs, learner.batch.y)
    if not loss.requires_grad or not wanted:
        return {}
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    return {id(each): slope for each, slope in zip(wanted, found, strict=True) if slope is not None and slope.any()}


def _along(slopes: Gradients, weights: list[nn.Parameter]) -> bool:
    """The slope points along the weights it is by: cosine 1 for L2, about 0.8 for L1 of normal weights."""
    touched = [each for each in weights if id(each) in slopes]
    way = sum(_dot(slopes[id(each)], each) for each in touched)
    sizes = sum(_dot(each, each) for each in touched) * sum(_dot(slope, slope) for slope in slopes.values())
    return sum(each.numel() for each in touched) >= _FEW and way > 0.5 * math.sqrt(sizes)


def _dot(first: Tensor, second: Tensor) -> float:
    return float((first.detach().double() * second.detach().double()).sum())


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value
