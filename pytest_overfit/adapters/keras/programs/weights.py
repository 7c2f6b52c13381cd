"""Weights as the factory made them, and drawn anew."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from pytest_overfit.adapters.keras.facts import units_are_equal
from pytest_overfit.adapters.keras.programs.original import Alteration, everything
from pytest_overfit.adapters.keras.programs.structure import Structure
from pytest_overfit.adapters.keras.reader import numbers
from pytest_overfit.adapters.keras.regularizers.decay import Gradients
from pytest_overfit.adapters.programs import Change, UnchangeableError, WeightFacts
from pytest_overfit.core.arrays import Array

#: names of the variables that are their layer's main one, and how its argument calls their initialisation
_MAIN = {
    "kernel": "kernel_initializer",
    "recurrent_kernel": "recurrent_initializer",
    "depthwise_kernel": "depthwise_initializer",
    "pointwise_kernel": "pointwise_initializer",
}

#: what a variable of a class of the user's is drawn with, by a part of its name
_BY_NAME = {"bias": "zeros", "beta": "zeros", "gamma": "ones", "scale": "ones"}

#: layers whose bias has an initialisation of its own
_OWN_BIAS = (keras.layers.LSTMCell, keras.layers.GRUCell)


def facts(model: Any, structure: Structure, known_as: Sequence[Any], taken: Gradients | None) -> list[WeightFacts]:
    """Every weight that could be trained, in the order of the layers' calls.

    `taken`: what the training step handed to its optimizers; None where it cannot be run by itself.
    """
    slopes = {id(v): g for _, variables, given in taken or () for v, g in zip(variables, given, strict=True)}
    found = everything(model)
    places = dict.fromkeys([*structure.weighted, *range(len(found))])
    return [
        _fact(found[place], known_as[place], number, None if taken is None else slopes)
        for place in places
        for number in range(len(found[place]._trainable_variables))
    ]


def _fact(layer: Any, known_as: Any, number: int, slopes: dict[int, Array | None] | None) -> WeightFacts:
    variable = layer._trainable_variables[number]
    values, shape = numbers(variable).astype(np.float64), tuple(variable.shape)
    slope = None if slopes is None else slopes.get(id(variable))
    own = known_as._trainable_variables
    main = is_main(variable)
    return WeightFacts(
        name=str(own[number].path if number < len(own) else variable.path),
        kind=type(layer).__name__,
        shape=shape,
        main=main,
        trainable=bool(variable.trainable),
        held=None if slopes is None else id(variable) in slopes,
        size=float(np.sqrt((values**2).mean())) if values.size else 0.0,
        usual=_usual(layer, variable) if main else 0.0,
        equal_units=main and units_are_equal(values),
        units=_units(layer),
        gradient=None if slope is None else float(np.linalg.norm(slope.ravel())) / math.sqrt(max(1, slope.size)),
    )


def is_main(variable: Any) -> bool:
    """It is a matrix or a kernel, of Keras' layers by its name, of others by its shape."""
    if len(variable.shape) < 2 or "embedding" in variable.name:
        return False
    return variable.name in _MAIN or not any(each in variable.name for each in _BY_NAME)


def _units(layer: Any) -> int:
    found = (getattr(layer, name, None) for name in ("units", "filters"))
    return next((each for each in found if isinstance(each, int)), 0)


def _usual(layer: Any, variable: Any) -> float:
    inputs = _inputs(layer, variable)
    return 1.0 / math.sqrt(inputs) if inputs else 0.0


def _inputs(layer: Any, variable: Any) -> int:
    """Of one unit; 0 where it is not known."""
    shape = tuple(variable.shape)
    if isinstance(layer, keras.layers.EinsumDense):
        parts = layer.equation.replace("...", "").split("->")
        labels = parts[0].split(",")[-1]
        return math.prod(n for label, n in zip(labels, shape, strict=False) if label not in parts[-1])
    return math.prod(shape[:-2]) if variable.name == "depthwise_kernel" else math.prod(shape[:-1])


# ------------------------------------------------------------------ drawn anew


def drawn_anew(change: Change) -> Alteration:
    """All weights that are trained are drawn as Keras draws them where nothing else is asked for.

    `value` "relu": main ones are drawn for it.
    """
    if change.value not in ("", "relu"):
        raise UnchangeableError(f"nobody knows how to draw weights {change.value!r} in a Keras program")
    return Alteration(model=lambda model: drawn_for(model, change.value))


def drawn_for(model: Any, activation: str) -> Any:
    """Draw weights anew, main ones for this activation; from seeds by their number, so that it is repeatable."""
    drawn = 0
    held = [(layer, each) for layer in everything(model) for each in layer._trainable_variables]
    for number, (layer, variable) in enumerate(each for each in held if each[1].trainable):
        initializer = _initializer(layer, variable, activation)
        if initializer is not None:
            variable.assign(_seeded(initializer, number)(variable.shape, variable.dtype))
            drawn += 1
    if not drawn:
        raise UnchangeableError("it has no weights of a kind that Keras draws")
    return model


def _initializer(layer: Any, variable: Any, activation: str) -> Any:
    """As the layer's own default has it; by the variable's name and shape where the layer is not Keras' own."""
    if isinstance(layer, _OWN_BIAS) and variable.name == "bias":
        return None
    if is_main(variable) and activation and variable.name != "recurrent_kernel":
        return "he_uniform" if activation == "relu" else "glorot_uniform"
    names = (_MAIN.get(variable.name, ""), f"{variable.name}_initializer")
    defaults = inspect.signature(type(layer)).parameters
    for each in (defaults[name].default for name in names if name in defaults):
        if isinstance(each, str):
            return each
    for part, each in _BY_NAME.items():
        if part in variable.name:
            return each
    return "glorot_uniform" if is_main(variable) else None


def _seeded(name: str, seed: int) -> Any:
    initializer = keras.initializers.get(name)
    config = initializer.get_config()
    return type(initializer).from_config({**config, "seed": seed + 1} if "seed" in config else config)
