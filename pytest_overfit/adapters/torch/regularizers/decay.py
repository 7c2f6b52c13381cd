"""How fast decay shrinks weights under the user's own optimizer: two copies of it, one without, step side by side.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils import _pytree as pytree

from pytest_overfit.adapters.base import Shrinkage
from pytest_overfit.adapters.torch.learner import TorchLearner

Tensor = torch.Tensor
Gradients = Mapping[int, Tensor]

#: steps of both copies; the second half counts, when momentum and running squares have settled
_STEPS = 16

#: entries of the tensors that are copied, about; the smaller tensors of each parameter group stand for the others
_ENTRIES = 300_000

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
    held = [each for group in optimizer.param_groups for each in group["params"]]
    return {id(each): each.grad.detach().clone() for each in held if each.grad is not None}


def found(learner: TorchLearner, steps: Steps) -> Iterator[Shrinkage]:
    """Weight decay of every optimizer, and a penalty in the loss. Gradients of the learner are overwritten."""
    if learner.case.step is None:
        with learner.modes.reading("train"), learner.explained("a training step"):
            learner.backward()
        steps.seen = {0: (learner.optimizer, gradients_of(learner.optimizer))}
        yield from _penalty(learner)
    for optimizer, gradients in steps.seen.values():
        yield from _weight_decay(optimizer, gradients)


# ------------------------------------------------------------------ weight decay


def _weight_decay(optimizer: Any, gradients: Gradients) -> Iterator[Shrinkage]:
    kind = type(optimizer).__name__
    default = _default_decay(optimizer)
    groups = [each for each in optimizer.param_groups if each.get("weight_decay")]
    if not groups:
        declared = float(optimizer.defaults.get("weight_decay") or 0.0)
        if declared and declared != default:
            tensors = sum(len(each["params"]) for each in optimizer.param_groups)
            name, why = f"weight_decay {declared:g} of {kind}", "every parameter group sets weight_decay=0"
            yield Shrinkage(kind="weight decay", name=name, rate=0.0, tensors=tensors, reached=0, why=why)
        return
    held = [each for group in groups for each in group["params"]]
    decays = sorted({float(each["weight_decay"]) for each in groups})
    rates = [_top_rate(each) for each in groups]
    moving = [each for each in held if id(each) in gradients]
    nominal = max(
        (rate * float(each["weight_decay"]) for rate, each in zip(rates, groups, strict=True) if rate), default=None
    )
    yield Shrinkage(
        kind="weight decay",
        name=f"weight_decay {' and '.join(f'{each:g}' for each in decays)} of {kind}",
        rate=_rate(optimizer, gradients, {id(each) for each in held}, decay=True),
        tensors=len(held),
        reached=len(moving),
        nominal=nominal,
        learning_rate=max((each for each in rates if each is not None), default=None),
        by_default=decays == [default],
    )


def _default_decay(optimizer: Any) -> float | None:
    """What this class decays by where nobody says anything."""
    try:
        given = inspect.signature(type(optimizer)).parameters["weight_decay"].default
    except (KeyError, TypeError, ValueError):
        return None
    return float(given) if isinstance(given, (int, float)) else None


def _top_rate(group: Mapping[str, Any]) -> float | None:
    """The highest learning rate that the group and its schedule declare: a warm-up may begin at 0."""
    given = [group.get(name) for name in ("lr", "initial_lr", "max_lr")]
    known = [float(each) for each in given if isinstance(each, (int, float, Tensor))]
    return max(known) if known else None


def _rate(
    optimizer: Any, noisy: Gradients, counted: set[int], *, steady: Gradients | None = None, decay: bool = False
) -> float | None:
    """Share of the counted weights' length that a step takes away, beyond what it does in the bare copy.

    The bare copy goes without `decay`, or without the `steady` part of the gradient. Both copies get the batch's
    gradients, every entry with a sign drawn anew at each step and the same for both: the gradient itself moves weights
    nowhere on average, and adaptive optimizers meet sizes as in training.
    """
    chosen = _chosen(optimizer, {each for each in counted if each in noisy})
    size = sum(_dot(each, each) for each in chosen)
    if not chosen or not size:
        return None if chosen else 0.0
    try:
        first, second = _Copy(optimizer, chosen, noisy, steady or {}), _Copy(optimizer, chosen, noisy, {})
        if decay:
            for group in second.optimizer.param_groups:
                group["weight_decay"] = type(group.get("weight_decay", 0.0))(0)
        generator = torch.Generator().manual_seed(0)
        ways = []
        for number in range(_STEPS):
            signs = {id(each): _signs(each, generator) for each in chosen}
            first.step(signs)
            second.step(signs)
            if number + 1 in (_STEPS // 2, _STEPS):
                ways.append(sum(_dot(second.of(each) - first.of(each), each) for each in chosen) / size)
    except Exception:  # a step that wants a closure, a state that cannot be copied: not measured
        return None
    return (ways[1] - ways[0]) / (_STEPS - _STEPS // 2)


def _chosen(optimizer: Any, counted: set[int]) -> list[Tensor]:
    """Some of the counted tensors of each group, as many as the budget allows and at least one."""
    found: list[Tensor] = []
    share = _ENTRIES // len(optimizer.param_groups)
    for group in optimizer.param_groups:
        left = share
        for each in sorted((p for p in group["params"] if id(p) in counted), key=torch.numel):
            if left < each.numel() and left < share and bool(found[-1].any()):
                break
            found.append(each)
            left -= each.numel()
    return found


class _Copy:
    """A copy of an optimizer that holds copies of some of its parameters, and none of the others."""

    def __init__(self, optimizer: Any, chosen: list[Tensor], noisy: Gradients, steady: Gradients) -> None:
        self._noisy, self._steady = noisy, steady
        wanted = {id(each) for each in chosen}
        memo: dict[int, Any] = {}  # what is in here is not copied
        for group in optimizer.param_groups:
            for each in group["params"]:
                if id(each) not in wanted:
                    memo |= {id(one): one for one in (each, *optimizer.state.get(each, {}).values())}
        self.optimizer = copy.deepcopy(optimizer, memo)
        self._parameters: dict[int, Tensor] = {}
        for group, twin in zip(optimizer.param_groups, self.optimizer.param_groups, strict=True):
            rate = _top_rate(group)
            if rate is not None and not isinstance(twin.get("lr"), Tensor):
                twin["lr"] = rate
            pairs = zip(group["params"], twin["params"], strict=True)
            kept = {id(old): new for old, new in pairs if id(old) in wanted}
            twin["params"] = list(kept.values())
            self._parameters |= kept

    def of(self, parameter: Tensor) -> Tensor:
        return self._parameters[id(parameter)].detach()

    def step(self, signs: Mapping[int, Tensor]) -> None:
        for key, parameter in self._parameters.items():
            gradient = self._noisy[key] * signs[key]
            parameter.grad = gradient + self._steady[key] if key in self._steady else gradient
        self.optimizer.step()


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randint(0, 2, like.shape, generator=generator, dtype=torch.int8)
    return (drawn * 2 - 1).to(like.device, like.dtype)


def _dot(first: Tensor, second: Tensor) -> float:
    return float((first.detach().double() * second.detach().double()).sum())


# ------------------------------------------------------------------ a penalty in the loss


def _penalty(learner: TorchLearner) -> Iterator[Shrinkage]:
    """A term of the loss that depends on the weights themselves: it changes with them while the outputs are held."""
    if learner.case.loss is None:
        return
    weights = [each for each in learner.model.parameters() if each.is_floating_point()]
    with learner.modes.reading("fit"):
        outputs = pytree.tree_map(_detached, learner.forward.quiet())
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


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value
