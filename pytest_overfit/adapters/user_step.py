"""A user's own step: the loss that it returns, and whether it looks at its targets."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from pytest_overfit.adapters.arrays import alike
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.foreign import describe
from pytest_overfit.core.state import preserved
from pytest_overfit.core.usercode import user_code
from pytest_overfit.data.arrays import copied
from pytest_overfit.data.batch import Batch
from pytest_overfit.data.tree import by_place, leaves, length, map_leaves, rebuilt, take

#: at its very start a model that answers nothing yet may have the same loss for any targets
_STEPS = 3


#: kinds of numbers that are no loss, by their names in any library
_NO_LOSS = ("bool", "complex", "str", "<U", "|S", "object", "bytes")


def step_loss(value: Any, case: Case) -> float:
    """The one real number that a user's step returned."""
    try:
        value = value.detach() if hasattr(value, "detach") else value
        several = math.prod(getattr(value, "shape", ())) != 1
        kind = str(getattr(value, "dtype", type(value).__name__))
        if not several and not any(each in kind for each in _NO_LOSS):
            return float(value.item() if hasattr(value, "item") else value)
    except Exception:  # whatever it is asked for it may refuse in its own way
        several = False
    end = "`return loss.mean()`" if several else "`return loss`"
    raise CaseError(
        f"Case {case.name!r}: step returned {describe(value)}, expected the loss of the step, a number or a tensor "
        f"with one; end it with {end}"
    )


def step_needs_targets(case: Case, batch: Batch, rebuild: Callable[[], Any]) -> bool:
    """True if the first losses change with one target for all rows; two new models make a few steps each."""
    equal = batch.with_equal_targets()
    if equal is None or case.step is None:
        return False
    return _first_steps(case, batch, rebuild)[1] != _first_steps(case, equal, rebuild)[1]


def targets_asked_for(
    case: Case, batch: Batch, live: Any, rebuild: Callable[[], Any], answer: Callable[[Any, Any], Array | None]
) -> frozenset[Any]:
    """Parts of a whole batch that the loss asks for and the model does not.

    With one row in all of theirs, the first losses change and the answers do not. Empty where targets are known, and
    where the model cannot be asked.
    """
    parts = by_place(batch.x)
    if case.step is None or batch.y is not None or batch.labels or len(parts) < 2 or rebuild() is live:
        return frozenset()
    try:
        model, losses = _first_steps(case, batch, rebuild)
        before = answer(model, batch.plain().x)
        if before is None:
            return frozenset()
        alone = {key: _with_one_row(batch, key) for key, part in parts.items() if any(True for _ in leaves(part))}
        unseen = [key for key, each in alone.items() if alike([before], [answer(model, each.plain().x)])]
        return frozenset(key for key in unseen if _first_steps(case, alone[key], rebuild)[1] != losses)
    except Exception:  # a step or model that refuses what it is given
        return frozenset()


def _first_steps(case: Case, batch: Batch, rebuild: Callable[[], Any]) -> tuple[Any, list[Any]]:
    """A new model after a few steps, and their losses."""
    step: Any = case.step
    with preserved(), user_code(f"Case {case.name!r}: step"):
        model = rebuild()
        copies = (batch.map(copied).plain() for _ in range(_STEPS))
        found = [step(model, each.x, each.y) for each in copies]
    return model, [step_loss(each, case) for each in found]


def _with_one_row(batch: Batch, key: Any) -> Batch:
    """The first row of this part in every row."""
    parts = by_place(batch.x)
    alone = map_leaves(parts[key], lambda leaf: take(leaf, [0] * length(leaf)))
    return dataclasses.replace(batch, x=rebuilt(batch.x, {**parts, key: alone}))
