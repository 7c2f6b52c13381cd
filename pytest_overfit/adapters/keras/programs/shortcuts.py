"""A shortcut around each hidden layer that gives as many numbers as it is given."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras

from pytest_overfit.adapters.keras.layers import substitute
from pytest_overfit.adapters.keras.programs.original import Alteration, everything
from pytest_overfit.adapters.keras.programs.structure import Structure
from pytest_overfit.adapters.programs import UnchangeableError


def around_layers(structure: Structure) -> Alteration:
    """What the layer was given is added to what its activation gives, which counts the less the more of them."""
    hidden = [place for place in structure.weighted[:-1] if place]
    if len(hidden) < 2:
        raise UnchangeableError("it has no chain of hidden layers")
    share = 1.0 / math.sqrt(len(hidden))

    def altered(model: Any) -> Any:
        for place in hidden:
            layer = everything(model)[place]
            if callable(getattr(layer, "activation", None)):
                substitute(layer, "call", _added(layer.call, share))
        return model

    return Alteration(model=altered)


def _added(own: Callable[..., Any], share: float) -> Callable[..., Any]:
    def call(given: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = own(given, *args, **kwargs)
        alike = keras.ops.is_tensor(outputs) and tuple(outputs.shape) == tuple(getattr(given, "shape", ()))
        return given + share * outputs if alike and given.dtype == outputs.dtype else outputs

    return call
