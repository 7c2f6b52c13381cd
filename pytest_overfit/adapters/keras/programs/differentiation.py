"""What cuts the gradient of the first step off variables."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import keras

from pytest_overfit.adapters.keras.learner import KerasLearner
from pytest_overfit.adapters.keras.programs.original import everything
from pytest_overfit.adapters.keras.regularizers.decay import gradients
from pytest_overfit.adapters.programs import Cut


def cuts_of(learner: KerasLearner, known_as: Sequence[Any]) -> tuple[tuple[Cut, ...], bool | None]:
    """The cuts of a step, and whether it differentiates what depends on some variable; None: that was not seen."""
    if keras.backend.backend() != "tensorflow":
        return (), None
    from pytest_overfit.adapters.keras.following import StepFollower

    found = everything(learner.model)
    pairs = [(mine, known) for mine, known in zip(found, known_as, strict=False)]
    names = {
        id(variable): str(known._trainable_variables[number].path)
        for mine, known in pairs
        for number, variable in enumerate(mine._trainable_variables)
        if number < len(known._trainable_variables)
    }
    owners = {id(mine): f"{type(known).__name__} {known.name!r}" for mine, known in pairs}
    following = StepFollower(learner.model, names, owners)
    with contextlib.suppress(Exception), following.active():  # a step that nothing can be differentiated in raises
        gradients(learner)
    return following.cuts, following.depends
