"""What a forward pass of a Keras model leaves behind in its layers and around them, besides what Keras lists itself."""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from pytest_overfit.adapters.kept_state import KeptState
from pytest_overfit.adapters.kept_state.memory import ArrayKind, generator, small
from pytest_overfit.adapters.kept_state.places import Attributes, outside_of
from pytest_overfit.adapters.keras.layers import layers_of

_states: weakref.WeakKeyDictionary[Any, KeptState] = weakref.WeakKeyDictionary()


def state_of(model: Any) -> KeptState:
    """The state of this model: asked for before its first pass, it learns from the first ones what they change."""
    if model not in _states:
        _states[model] = KeptState(_owners(model), _KINDS)
    return _states[model]


def altered(model: Any) -> None:
    """The model is another from here on: nothing that its passes left behind so far is put back any more."""
    _states.pop(model, None)


class _OfLayer(Attributes):
    """Attributes of a layer; what its first pass builds is not state, and stays."""

    def remove(self, name: str) -> None:
        if not any(isinstance(each, (keras.Variable, keras.layers.Layer)) for each in _leaves(self.values()[name])):
            super().remove(name)


def _leaves(value: Any) -> list[Any]:
    """What is in lists, tuples and dicts."""
    if isinstance(value, dict):
        return [leaf for each in value.values() for leaf in _leaves(each)]
    if isinstance(value, (list, tuple)):
        return [leaf for each in value for leaf in _leaves(each)]
    return [value]


def _owners(model: Any) -> Iterator[Any]:
    layers = [model, *layers_of(model)]
    for layer in layers:
        if not type(layer).__module__.startswith("keras."):
            yield _OfLayer(vars(layer), layer.name, _of_keras())
    yield from outside_of(code for layer in layers for code in _code_of(layer))


@functools.cache
def _of_keras() -> frozenset[str]:
    """Attributes that every layer or model has, which Keras looks after."""
    return frozenset({*vars(keras.layers.Layer()), *vars(keras.Model())})


def _code_of(layer: Any) -> Iterator[Any]:
    yield from type(layer).__mro__
    yield from (each for each in vars(layer).values() if callable(each) and not isinstance(each, keras.layers.Layer))


def _is_variable(value: Any) -> bool:
    """Weights that are trained are not state; TensorFlow's own variables Keras does not train."""
    if isinstance(value, keras.Variable):
        return not value.trainable and str(value.dtype) != "string" and small(value.shape.num_elements() or 0)
    tensorflow = sys.modules.get("tensorflow")
    return tensorflow is not None and isinstance(value, tensorflow.Variable)


def _numbers(variable: Any) -> Any:
    return np.array(keras.ops.convert_to_numpy(variable.value if isinstance(variable, keras.Variable) else variable))


def _is_generator(value: Any) -> bool:
    tensorflow = sys.modules.get("tensorflow")
    return tensorflow is not None and isinstance(value, tensorflow.random.Generator)


_KINDS = (
    ArrayKind(
        fits=_is_variable,
        copied=_numbers,
        same=lambda value, copy: np.array_equal(_numbers(value), copy, equal_nan=copy.dtype.kind == "f"),
        put_back=lambda value, copy: value.assign(copy),
    ),
    generator(_is_generator, lambda value: value.state.numpy().tobytes()),
)
