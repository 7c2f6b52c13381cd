"""The user's own training step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from pytest_overfit.adapters.torch.finite import Updates
from pytest_overfit.adapters.torch.forward import Forward
from pytest_overfit.adapters.torch.handed_out import HandedOut
from pytest_overfit.adapters.torch.modes import Modes
from pytest_overfit.adapters.torch.outside import OutsideWeights
from pytest_overfit.adapters.torch.scrutiny import Scrutiny
from pytest_overfit.adapters.torch.step_as_loss import StepAsLoss
from pytest_overfit.adapters.user_step import step_loss
from pytest_overfit.core.case import Case

if TYPE_CHECKING:
    from torch import nn


def own_steps(
    case: Case, model: nn.Module, batch: HandedOut, outside: OutsideWeights, updates: Updates, count: int
) -> list[float]:
    """Make so many steps, the last one watched; their losses as numbers."""
    losses = []
    for number in range(count):
        given = batch.stepped()
        with updates.watched() if number == count - 1 else contextlib.nullcontext():
            loss = case.step(model, given.x, given.y) if case.step is not None else None
        outside.look(loss)
        losses.append(step_loss(loss, case))
        if not number:
            batch.compare()
    return losses


def captured(own: StepAsLoss, forward: Forward, modes: Modes, say: Callable[[str], None]) -> Scrutiny:
    """Read a step that is not a loss of outputs alone by the loss function that it returns, where there is one."""
    with modes.reading("eval"):
        forward.captured = own.call_on(forward.quiet())
    if forward.captured is None:
        return Scrutiny()
    say(f"step: its loss is {forward.captured.name}, read apart from the steps")
    return Scrutiny(count=1, weights={0: 1.0})
