"""What moving some of a model's parameters does; they are put back."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from pytest_overfit.adapters.base import Mode, Reading
from pytest_overfit.adapters.torch.learner import TorchLearner
from pytest_overfit.adapters.torch.records import tensors
from pytest_overfit.adapters.torch.state import reseed
from pytest_overfit.adapters.torch.wires.tensors import dense, norm
from pytest_overfit.adapters.wires import Descent, Moved, short_ways
from pytest_overfit.core import state

Tensor = torch.Tensor

#: size of the noise on a tensor that is all zeros, which has no size of its own
_OF_ZERO = 0.1

_HALVES = (torch.float16, torch.bfloat16)


@contextlib.contextmanager
def put_back(parameters: Sequence[Tensor]) -> Iterator[None]:
    """They are at the end what they are now."""
    kept = [each.detach().clone() for each in parameters]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, old in zip(parameters, kept, strict=True):
                parameter.copy_(old)


def disturb(parameters: Sequence[Tensor], share: float, first: int = 0) -> None:
    """Add noise of this share of its root mean square to each, from generators of its own."""
    with torch.no_grad():
        for number, parameter in enumerate(parameters, first):
            size = norm(parameter) / max(1, parameter.numel()) ** 0.5
            generator = torch.Generator().manual_seed(number)
            drawn = torch.randn(parameter.shape, generator=generator).to(parameter.device, parameter.dtype)
            parameter.add_(drawn * (share * size if size > 0 and math.isfinite(size) else share * _OF_ZERO))


def hold_noise() -> None:
    """The same random numbers each time."""
    state.seed_standard_library(0)
    reseed(0)


def moved_by(learner: TorchLearner, parameters: Sequence[Tensor], share: float) -> Moved:
    """In evaluation of the fit and in training, the larger of both."""
    found = [_moved_in(learner, mode, parameters, share) for mode in ("fit", "train")]
    return Moved(outputs=_largest(each.outputs for each in found), loss=_largest(each.loss for each in found))


def _moved_in(learner: TorchLearner, mode: Mode, parameters: Sequence[Tensor], share: float) -> Moved:
    with learner.modes.reading(mode, learner.forward.quiet):
        before = _answer(learner)
        with put_back(parameters):
            disturb(parameters, share)
            after = _answer(learner)
    return Moved(outputs=_distance(before[0], after[0]), loss=_distance(before[1], after[1]))


def _answer(learner: TorchLearner) -> tuple[list[Tensor], list[Tensor]]:
    hold_noise()
    outputs, loss, _ = learner.forward.watched(quiet=True)
    return [each.detach().clone() for each in tensors(outputs)], [] if loss is None else [loss.detach().clone()]


def shaken(learner: TorchLearner, parameters: Sequence[Tensor], share: float, index: int) -> Reading | None:
    """A reading of the fit with noise on all of these."""
    with put_back(parameters):
        disturb(parameters, share, 1000 * index)
        try:
            return learner.read("fit")
        except Exception:  # a model or loss that refuses such numbers has nothing to say about them
            return None


def loss_and_gradients(
    learner: TorchLearner, parameters: Sequence[nn.Parameter]
) -> tuple[float, list[Tensor | None], bool] | None:
    """As in training, and whether nothing on the graph has a backward pass of its own; None: not readable."""
    with learner.modes.reading("train"), learner.explained("a training step"):
        hold_noise()
        _, loss, _ = learner.forward.watched(quiet=False)
        if loss is None or not loss.requires_grad or not parameters:
            return None
        smooth = _is_smooth(loss)
        found = torch.autograd.grad(loss, list(parameters), allow_unused=True)
    return float(loss.detach()), list(found), smooth


def _is_smooth(loss: Tensor) -> bool:
    """No node of the graph is a hand-written Function: its backward pass may mean something else than the slope."""
    waiting, seen = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            return False
        waiting += [each for each, _ in node.next_functions]
    return True


def descent(learner: TorchLearner, parameters: Sequence[nn.Parameter], shares: Sequence[float]) -> Descent | None:
    """See `pytest_overfit.adapters.wires.Wires`."""
    if any(each.dtype in _HALVES for each in parameters):
        return None  # its small steps are lost in rounding
    start = [each.detach().clone() for each in parameters]
    learner.train(1)
    update = [each.detach() - old for each, old in zip(parameters, start, strict=True)]
    with put_back(parameters):  # all is read after the step, so that a state which it carries on is the same
        _set(parameters, start)
        found = loss_and_gradients(learner, parameters)
        if found is None:
            return None
        loss, gradients, smooth = found
        pairs = zip(gradients, update, strict=True)
        promised = sum(float((dense(g).double() * u.double()).sum()) for g, u in pairs if g is not None)

        def change(way: float) -> float:
            _set(parameters, [old + way * along for old, along in zip(start, update, strict=True)])
            return _held_loss(learner) - loss

        changes = [(way * promised, change(way)) for way in short_ways(shares, loss, promised)]
        whole = change(1.0)
    return Descent(
        loss=loss,
        promised=promised,
        changes=tuple(changes),
        whole=whole,
        smooth=smooth,
        scheduled=learner.scheduler is not None,
        checked=True,
    )


def _set(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)


def _held_loss(learner: TorchLearner) -> float:
    with learner.modes.reading("train"):
        loss = _answer(learner)[1]
    return float(loss[0]) if loss else math.nan


def silent(learner: TorchLearner, modules: Sequence[nn.Module]) -> bool:
    """Gradients by these modules' outputs are exactly 0, and on each way to the loss stands one factor of 0.

    One number, not one for each row or place: those may be others for other data (a task, an expert, a mask).
    """
    made: list[Tensor] = []

    def note(_module: nn.Module, _args: object, output: object) -> None:
        made.extend(each for each in tensors(output) if each.requires_grad)

    with contextlib.ExitStack() as hooks, learner.modes.reading("train"):
        for module in modules:
            hooks.enter_context(module.register_forward_hook(note))
        hold_noise()
        _, loss, _ = learner.forward.watched(quiet=False)
        if loss is None or not loss.requires_grad or not made:
            return False
        outside = [each for each in made if _scaled_by_zero(loss, each)]
        found = torch.autograd.grad(loss, made, allow_unused=True)
    reached = [each for each in found if each is not None]
    return bool(outside) and bool(reached) and not any(bool(each.any()) for each in reached)


def _scaled_by_zero(loss: Tensor, output: Tensor) -> bool:
    """What is made of this output is multiplied by one number, which is 0, before it comes to anything else."""
    ahead: dict[Any, list[Any]] = {}
    waiting, seen = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for behind, _ in node.next_functions:
            ahead.setdefault(behind, []).append(node)
            waiting.append(behind)
    node = output.grad_fn
    while len(ahead.get(node, ())) == 1:
        (node,) = ahead[node]
        factors = [getattr(node, name, None) for name in ("_saved_other", "_saved_self", "_saved_alpha")]
        if any(_is_zero(each) for each in factors):
            return True
    return False


def _is_zero(factor: Any) -> bool:
    if isinstance(factor, Tensor):
        return factor.numel() == 1 and not bool(factor.detach().any())
    return isinstance(factor, (int, float)) and factor == 0


def _distance(before: Sequence[Tensor], after: Sequence[Tensor]) -> float | None:
    """The largest relative difference of two answers; None: there is nothing to compare."""
    if not before or len(before) != len(after):
        return None
    return max(_relative(old, new) for old, new in zip(before, after, strict=True))


def _relative(old: Tensor, new: Tensor) -> float:
    if old.shape != new.shape:
        return math.inf
    if not old.is_floating_point():
        return 0.0 if torch.equal(old, new) else 1.0
    a, b = old.double().nan_to_num(), new.double().nan_to_num()
    difference = float((a - b).abs().max()) if a.numel() else 0.0
    size = float(a.abs().max()) if a.numel() else 0.0
    return difference / size if size > 0 else (math.inf if difference > 0 else 0.0)


def _largest(values: Iterable[float | None]) -> float | None:
    return max((each for each in values if each is not None), default=None)
