"""Does a loss draw what it asks for? Noise to be predicted, masks, views: random by design, where dropout is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from pytest_overfit.adapters.base import Drawn
from pytest_overfit.adapters.torch import records
from pytest_overfit.adapters.torch.forward import Forward
from pytest_overfit.adapters.torch.losses import LossCalls
from pytest_overfit.adapters.torch.modes import Modes
from pytest_overfit.adapters.torch.records import tensors
from pytest_overfit.adapters.torch.state import generators, preserved_generators, reseed
from pytest_overfit.core.case import Case
from pytest_overfit.core.state import preserved, seed_standard_library
from pytest_overfit.data.arrays import copied
from pytest_overfit.data.batch import Batch

_DROPOUTS = {
    getattr(F, name)
    for name in (
        "dropout",
        "dropout1d",
        "dropout2d",
        "dropout3d",
        "alpha_dropout",
        "feature_alpha_dropout",
        "rrelu",
    )
}


class WithoutDropout(TorchFunctionMode):
    """Inside, dropout does nothing, whatever the mode of the model."""

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function in _DROPOUTS:
            return args[0] if args else (kwargs or {})["input"]
        if function is F.scaled_dot_product_attention:
            kwargs = {**(kwargs or {}), "dropout_p": 0.0}
            args = args[:4]
        return function(*args, **(kwargs or {}))


class _Pass(NamedTuple):
    """One evaluation of model and loss."""

    outputs: Any
    #: what the loss functions compared with
    asked: list[torch.Tensor]
    model_draws: bool
    loss_draws: bool


def drawn_by_step(case: Case, batch: Batch, rebuild: Callable[[], Any], needs_targets: Callable[[], bool]) -> Drawn:
    """Whether a step of the user's draws random numbers besides dropout; a new model makes one."""
    step = case.step
    if step is None:
        return ""
    with preserved(), preserved_generators():
        model, given = rebuild(), batch.map(copied).plain()
        before = generators()
        with WithoutDropout():
            step(model, given.x, given.y)
        if generators() == before:
            return ""
    return "loss" if needs_targets() else "inputs"


def drawn_by_loss(forward: Forward, modes: Modes, carries: Sequence[bool], has_targets: bool) -> Drawn:
    """What the model or its loss draws besides dropout; `carries`: which outputs are computed by parameters."""
    first = _evaluated(forward, modes, 1)
    if not (first.model_draws or first.loss_draws):
        return ""
    second = _evaluated(forward, modes, 2)
    others = len(first.asked) == len(second.asked) and not _equal(first.asked, second.asked)
    if not first.model_draws:
        return "targets" if others else "loss"
    if others or (not forward.loss_is_inside and _reads_drawn_outputs(forward, first, second, carries)):
        return "task"
    alone = not has_targets if forward.loss_is_inside else not _looks_at_targets(forward, first)
    return "inputs" if alone else ""


def _evaluated(forward: Forward, modes: Modes, seed: int) -> _Pass:
    with modes.reading("fit", seed=seed), forward.loss_state.kept(), forward.as_written(), WithoutDropout():
        start = generators()
        with LossCalls() as seen:
            outputs = forward.quiet()
            drawn = generators()
            _loss(forward, outputs, forward.batch.y)
        asked = [each.target.detach() for each in seen.calls]
        return _Pass(outputs, asked, drawn != start, generators() != drawn)


def _loss(forward: Forward, outputs: Any, y: Any) -> float:
    with torch.no_grad():
        return float(forward.loss(outputs, y))


def _held_loss(forward: Forward, outputs: Any, y: Any) -> float:
    """The loss with the same random numbers each time."""
    with preserved(), preserved_generators(), forward.loss_state.kept(), WithoutDropout():
        seed_standard_library(0)
        reseed(0)
        return _loss(forward, outputs, y)


def _equal(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> bool:
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(first, second, strict=True))


def _reads_drawn_outputs(forward: Forward, first: _Pass, second: _Pass, carries: Sequence[bool]) -> bool:
    """The loss changes with outputs that no parameter makes and that are others at each pass: drawn noise, a mask."""
    others = iter(zip(tensors(second.outputs), carries, strict=True))

    def swapped(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        other, is_computed = next(others)
        return leaf if is_computed else other

    mixed, y = records.mapped(first.outputs, swapped), forward.batch.y
    return _held_loss(forward, first.outputs, y) != _held_loss(forward, mixed, y)


def _looks_at_targets(forward: Forward, first: _Pass) -> bool:
    equal = forward.batch.with_equal_targets()
    if equal is None:
        return False
    return _held_loss(forward, first.outputs, forward.batch.y) != _held_loss(forward, first.outputs, equal.plain().y)
