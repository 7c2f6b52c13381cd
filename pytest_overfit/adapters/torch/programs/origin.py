"""Where the first number came from that is not finite."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pytest_overfit.adapters.programs import Origin
from pytest_overfit.adapters.torch.learner import TorchLearner
from pytest_overfit.adapters.torch.records import tensors
from pytest_overfit.adapters.torch.tracing.operations import Trace, name_of
from pytest_overfit.core.errors import OverfitError

Tensor = torch.Tensor

_BACKWARD = re.compile(r"Function '(\w+?)Backward\d*' returned nan")

#: functions of torch under the names that a person would use
_PLAIN = {"truediv": "div", "divide": "div", "true_divide": "div", "rtruediv": "div", "rdiv": "div", "log2": "log"}


class _FoundError(Exception):
    """Ends the pass that is watched."""


class _Watching(Trace):
    """Ends at the first function that makes something that is not finite of what is."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.found: tuple[str, str, float | None] | None = None

    def called(self, func: Any, args: Any, kwargs: Any) -> Any:
        given = [each for each in tensors((args, kwargs)) if each.is_floating_point()]
        was_finite = all(map(_is_finite, given))
        before = [each.detach().clone() for each in given[:2]]
        result = func(*args, **kwargs)
        made = [each for each in tensors(result) if each.is_floating_point()]
        if was_finite and given and self.found is None and not all(map(_is_finite, made)):
            operation = _PLAIN.get(name_of(func), name_of(func))
            self.found = (self._named(), operation, _culprit(operation, before, args))
        return result

    def _named(self) -> str:
        name, module = self.open[-1] if self.open else ("", None)
        return "" if module is None else f"{type(module).__name__}{f' {name!r}' if name else ''}"


def _is_finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value.detach()).all())


def _culprit(operation: str, before: list[Tensor], args: Any) -> float | None:
    """What the function was given: the divisor of a division, the least number of a logarithm or root."""
    if not before:
        return None
    if operation == "div" and len(before) > 1:
        return float(before[1].flatten()[before[1].abs().argmin()])
    if operation == "div":
        return next((float(each) for each in args if isinstance(each, (int, float))), None)
    return float(before[0].max() if operation in ("exp", "pow", "square", "mul") else before[0].min())


def origin_of(make: Callable[[], TorchLearner], steps: int) -> Origin | None:
    """Train until something is not finite, then once more up to there, and watch the last two steps."""
    at = _first_step(make(), steps)
    if at is None:
        return None
    learner = make()
    before = max(0, at - 2)
    if before:
        learner.train(before)
    for step in range(before + 1, at + 1):
        found = _watched(learner, step)
        if found is not None:
            return found
    return Origin(step=at, where="", operation="", backward=False)


def _first_step(learner: TorchLearner, steps: int) -> int | None:
    for step in range(1, steps + 1):
        loss = learner.train(1)[-1]
        if not math.isfinite(loss) or not all(map(_is_finite, learner.model.parameters())):
            return step
    return None


def _watched(learner: TorchLearner, step: int) -> Origin | None:
    watching = _Watching(learner.model)
    try:
        with warnings.catch_warnings(), torch.autograd.set_detect_anomaly(True):
            warnings.simplefilter("ignore")
            with watching.noting_modules(learner.model), watching:
                learner.train(1)
    except (RuntimeError, OverfitError) as error:
        backward = _BACKWARD.search(str(error))
        if watching.found is None and backward is not None:
            operation = backward.group(1).lower()
            return Origin(step=step, where="", operation=_PLAIN.get(operation, operation), backward=True)
    if watching.found is None:
        return None
    where, operation, given = watching.found
    return Origin(step=step, where=where or "the loss", operation=operation, backward=False, given=given)
