"""In which step of a training the first number came that is not finite, and what made it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from pytest_overfit.adapters.keras import stepper as stepping
from pytest_overfit.adapters.keras.learner import KerasLearner
from pytest_overfit.adapters.keras.programs.original import Original, everything
from pytest_overfit.adapters.keras.reader import numbers
from pytest_overfit.adapters.programs import Origin

#: steps between two looks at weights, and steps that are watched before the one whose loss is not finite
_CHUNK, _BEFORE = 25, 3

#: steps that are watched at most: they run uncompiled
_WATCHED = 8


def origin(original: Original, learner: KerasLearner, steps: int) -> Origin | None:
    """Train a new model until something is not finite, then train again to just before, and watch. None: nothing was.

    Where steps cannot be compiled, the first few are watched.
    """
    if keras.backend.backend() != "tensorflow" or stepping.own(learner.model, "fit"):
        return None
    from pytest_overfit.adapters.keras.graph import EagerStepper
    from pytest_overfit.adapters.keras.programs.watched_operations import Watch

    new = original.learner_of(original.built())
    compiles = not stepping.why_fit(original.case, new.model)
    before = _advance(new, steps) if compiles else 0
    if before is None:
        return None
    stepper = EagerStepper(new.model, new.feed, stepping.StepLoss(original.case))
    watch = Watch(new.model, everything(learner.model))
    for step in range(before + 1, min(before + _WATCHED, steps) + 1):
        found = watch.step(lambda: stepper.train(1)[0])
        if found is not None:
            return dataclasses.replace(found, step=step)
    return Origin(step=before + _BEFORE + 1, where="", operation="", backward=False) if compiles else None


def _advance(learner: KerasLearner, steps: int) -> int | None:
    """Bring a learner to a few steps before its first loss, or weight, that is not finite; the steps made, or None."""
    made = 0
    while made < steps:
        start = [(each, numbers(each).copy()) for each in _variables(learner.model)]
        losses = learner.train(min(_CHUNK, steps - made))
        broken = next((number for number, loss in enumerate(losses) if not math.isfinite(loss)), None)
        if broken is None and all(_finite(each) for each in learner.model.trainable_variables):
            made += len(losses)
            if not losses:
                return None
            continue
        for variable, value in start:
            variable.assign(value)
        if broken is None:
            broken = _last_finite(learner, len(losses), start)
        ahead = max(0, broken - _BEFORE)
        if ahead:
            learner.train(ahead)
        return made + ahead
    return None


def _last_finite(learner: KerasLearner, steps: int, start: list[tuple[Any, Any]]) -> int:
    """How many of these steps leave all weights finite, where losses do not show it; the learner is put back."""
    kept = 0
    while kept < steps - 1:
        learner.train(1)
        if not all(_finite(each) for each in learner.model.trainable_variables):
            break
        kept += 1
    for variable, value in start:
        variable.assign(value)
    return kept


def _variables(model: Any) -> Iterator[Any]:
    held = {id(each): each for each in (*model.variables, *getattr(model.optimizer, "variables", ()))}
    return (each for each in held.values() if str(each.dtype) != "string")


def _finite(variable: Any) -> bool:
    return bool(np.isfinite(numbers(variable)).all())
