"""The way of the gradient: what is trained, and what cuts the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from pytest_overfit.adapters.keras import stepper as stepping
from pytest_overfit.adapters.keras.programs.hooked_step import with_hook
from pytest_overfit.adapters.keras.programs.original import Alteration, Original, everything
from pytest_overfit.adapters.programs import UnchangeableError

#: functions that cut the graph, or have no slope anywhere
_CUTTING = ("stop_gradient", "round", "floor", "ceil", "sign", "rint")


def attached(original: Original) -> Alteration:
    """What stops a gradient hands it on, and what rounds does not."""
    otherwise = "no function that stops gradients or rounds is called by its model or its loss"
    return Alteration(model=with_hook(original, _CUTTING, _handed_on, otherwise))


def _handed_on(name: str, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    del name, own
    return keras.ops.copy(keras.ops.convert_to_tensor(args[0] if args else next(iter(kwargs.values()))))


def all_trained() -> Alteration:
    """Every weight that was made to be trained is, and an optimizer has it."""

    def altered(model: Any) -> Any:
        found = everything(model)
        frozen = [each for layer in found for each in layer._trainable_variables if not each.trainable]
        if stepping.own(model, "train_step"):
            raise UnchangeableError("its train_step chooses what it updates")
        if not frozen:
            raise UnchangeableError("every weight that can be trained is")
        for layer in found:
            layer.trainable = True
        for variable in frozen:
            variable.trainable = True
        return model

    return Alteration(model=altered)
