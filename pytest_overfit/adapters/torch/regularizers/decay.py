"""Weight decay of a user's optimizer and a penalty in the loss: found here, measured as `shrinkage` describes."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from pytest_overfit.adapters.base import Shrinkage
from pytest_overfit.adapters.regularizer_effects.shrinkage import (
    ENTRIES,
    Stepping,
    default_decay,
    share_of_a_step,
    smaller_of,
)
from pytest_overfit.adapters.torch import records
from pytest_overfit.adapters.torch.learner import TorchLearner
from pytest_overfit.core.usercode import users_own
from pytest_overfit.data.batch import to_numpy

Tensor = torch.Tensor
#: id of a parameter -> its gradient
Gradients = Mapping[int, Tensor]
#: id of an optimizer -> itself, and the gradients that it was given last
Optimizers = dict[int, tuple[Any, Gradients]]

#: fewer entries than this point along their slope by chance
_FEW = 16


@contextlib.contextmanager
def watched_steps() -> Iterator[Optimizers]:
    """The optimizers that step inside."""
    seen: Optimizers = {}

    def note(optimizer: Any, _args: Any, _kwargs: Any) -> None:
        seen[id(optimizer)] = optimizer, gradients_of(optimizer)

    handle = register_optimizer_step_pre_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


def gradients_of(optimizer: Any) -> dict[int, Tensor]:
    """A copy of the gradient of every parameter that has one."""
    held = (parameter for group in optimizer.param_groups for parameter in group["params"])
    return {id(each): each.grad.detach().clone() for each in held if each.grad is not None}


def found(learner: TorchLearner, optimizers: Optimizers) -> Iterator[Shrinkage]:
    """Weight decay of every optimizer, and a penalty in the loss. Gradients of the learner are overwritten."""
    if learner.case.step is None:
        with learner.modes.reading("train"), learner.explained("a training step"):
            learner.backward()
        optimizers = {0: (learner.optimizer, gradients_of(learner.optimizer))}
        yield from _penalty(learner)
    for optimizer, gradients in optimizers.values():
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
        rounding=max((torch.finfo(each.dtype).eps for group in groups for each in group["params"]), default=0.0),
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
    counted = counted & noisy.keys()
    share, chosen = ENTRIES // len(optimizer.param_groups), []
    for group in optimizer.param_groups:
        held = [parameter for parameter in group["params"] if id(parameter) in counted]
        chosen += smaller_of(held, torch.numel, lambda taken: bool(taken) and bool(taken[-1].any()), share)

    @contextlib.contextmanager
    def run(bare: bool) -> Iterator[Stepping]:
        copied, copies = _copied(optimizer, chosen)
        if bare and decay:
            for group in copied.param_groups:
                group["weight_decay"] = type(group.get("weight_decay", 0.0))(0)
        generator, pulls = torch.Generator().manual_seed(0), {} if bare else steady or {}

        def step() -> None:
            for parameter, own in zip(chosen, copies, strict=True):
                signs = torch.randint(0, 2, own.shape, generator=generator, dtype=torch.int8) * 2 - 1
                gradient = noisy[id(parameter)] * signs.to(own.device, own.dtype)
                own.grad = gradient + pulls[id(parameter)] if id(parameter) in pulls else gradient
            copied.step()

        yield Stepping(step, lambda: list(map(to_numpy, copies)))

    return share_of_a_step(list(map(to_numpy, chosen)), run)


def _copied(optimizer: Any, chosen: list[Tensor]) -> tuple[Any, list[Tensor]]:
    """A copy of an optimizer that holds copies of some of its parameters, and none of the others; and these copies."""
    wanted = {id(parameter) for parameter in chosen}
    others = [each for group in optimizer.param_groups for each in group["params"] if id(each) not in wanted]
    # what is in the memo is not copied
    memo = {id(one): one for each in others for one in (each, *optimizer.state.get(each, {}).values())}
    copied = copy.deepcopy(optimizer, memo)
    copies: dict[int, Tensor] = {}
    for group, own in zip(optimizer.param_groups, copied.param_groups, strict=True):
        rate = _top_rate(group)
        if rate is not None and not isinstance(own.get("lr"), Tensor):
            own["lr"] = rate
        kept = {id(old): new for old, new in zip(group["params"], own["params"], strict=True) if id(old) in wanted}
        own["params"] = list(kept.values())
        copies |= kept
    return copied, [copies[id(parameter)] for parameter in chosen]


# ------------------------------------------------------------------ a penalty in the loss


def _penalty(learner: TorchLearner) -> Iterator[Shrinkage]:
    """A term of the loss that depends on the weights themselves: it changes with them while the outputs are held."""
    if learner.case.loss is None:
        return
    weights = [each for each in learner.model.parameters() if each.is_floating_point()]
    with learner.modes.reading("fit"):
        outputs = records.mapped(learner.forward.quiet(), _detached)
    try:
        once, twice, four_times = (_loss_at(learner, outputs, weights, factor) for factor in (1.0, 2.0, 4.0))
        slopes = _slopes(learner, outputs, weights)
    except Exception as error:  # a loss that refuses held outputs
        if users_own(error):
            raise
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
    known = {2.0: "L1 penalty", 4.0: "L2 penalty"}
    return next((name for value, name in known.items() if abs(growth - value) < 0.05 * value), "")


def _loss_at(learner: TorchLearner, outputs: Any, weights: list[nn.Parameter], factor: float) -> float:
    """The loss of these outputs with all weights multiplied; they are put back."""
    before = [each.detach().clone() for each in weights]
    with torch.no_grad():
        try:
            for each in weights:
                each.mul_(factor)
            return float(learner.forward.loss(outputs, learner.batch.y))
        finally:
            for each, old in zip(weights, before, strict=True):
                each.copy_(old)


def _slopes(learner: TorchLearner, outputs: Any, weights: list[nn.Parameter]) -> dict[int, Tensor]:
    """The gradient of the loss by the weights at held outputs: the penalty's alone."""
    wanted = [each for each in weights if each.requires_grad]
    with torch.enable_grad():
        loss = learner.forward.loss(outputs, learner.batch.y)
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
