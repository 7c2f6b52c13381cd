"""A user's own step: the loss that it returns, and whether it looks at its targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.foreign import describe
from pytest_overfit.core.state import preserved
from pytest_overfit.core.usercode import user_code
from pytest_overfit.data.arrays import copied
from pytest_overfit.data.batch import Batch

#: at its very start a model that answers nothing yet may have the same loss for any targets
_STEPS = 3


def step_loss(value: Any, case: Case) -> float:
    """The number that a user's step returned."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise CaseError(
            f"Case {case.name!r}: step returned {describe(value)}, expected the loss of the step, a number or a tensor "
            "with one; end it with `return loss`"
        ) from None


def step_needs_targets(case: Case, batch: Batch, rebuild: Callable[[], Any]) -> bool:
    """True if the first losses change with one target for all rows; two new models make a few steps each."""
    step = case.step
    equal = batch.with_equal_targets()
    if equal is None or step is None:
        return False
    losses = []
    for given in (batch, equal):
        with preserved(), user_code(f"Case {case.name!r}: step"):
            model = rebuild()
            copies = (given.map(copied).plain() for _ in range(_STEPS))
            found = [step(model, each.x, each.y) for each in copies]
        losses.append([each.item() if hasattr(each, "item") else each for each in found])
    return losses[0] != losses[1]
