"""The user's own training step, watched once to see which loss it computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pytest_overfit.adapters.torch.forward import Forward
from pytest_overfit.adapters.torch.losses import LossCall, LossCalls
from pytest_overfit.adapters.torch.modes import Modes
from pytest_overfit.adapters.torch.outside import OutsideWeights
from pytest_overfit.adapters.user_step import step_loss
from pytest_overfit.core.arrays import Array
from pytest_overfit.data.batch import to_numpy


def own_step(forward: Forward, outside: OutsideWeights) -> float:
    """Make one step; its loss as a number."""
    loss = _called(forward, outside)
    return step_loss(loss.detach().mean() if isinstance(loss, torch.Tensor) else loss, forward.case)


def _called(forward: Forward, outside: OutsideWeights) -> Any:
    case, batch = forward.case, forward.batch
    loss = case.step(forward.model, batch.x, batch.y) if case.step is not None else None
    outside.look(loss)
    return loss


def watched_step(
    forward: Forward, modes: Modes, targets: Sequence[Array], outside: OutsideWeights
) -> tuple[float, LossCall | None]:
    """Make one step; its loss, and the call of a loss function it is, where that can then be made apart from a step."""
    with LossCalls() as seen:
        loss = _called(forward, outside)
    with modes.reading("eval"):
        outputs = forward.quiet()
    value = step_loss(loss.detach().mean() if isinstance(loss, torch.Tensor) else loss, forward.case)
    call = next((each for each in seen.calls if _is_loss(each, value, targets)), None)
    if call is not None and isinstance(outputs, torch.Tensor) and outputs.numel() == call.input.numel():
        return value, call
    return value, None


def _is_loss(call: LossCall, value: float, targets: Sequence[Array]) -> bool:
    """The whole target went into the call, flattened perhaps, and its result is what the step returned."""
    y = targets[0] if len(targets) == 1 else None
    if y is None or call.target.numel() != y.size or call.result.numel() != 1:
        return False
    return bool((to_numpy(call.target).ravel() == y.ravel()).all()) and value == float(call.result.detach())
