"""Trainable variables that a model's loss depends on although the model does not have them."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from typing import Any

import keras

from pytest_overfit.adapters.keras import stepper as stepping
from pytest_overfit.adapters.keras.reader import Reader
from pytest_overfit.adapters.names_in_code import objects_called, objects_of


def outside_variables(reader: Reader, outputs: Any) -> tuple[str, ...]:
    """Their names, by the gradient of the loss at these outputs; empty where nobody can tell.

    Nobody can for a loss that only a step knows, and on other backends than tensorflow. Cost: the loss once, where it
    is the user's own code.
    """
    model = reader.model
    if keras.backend.backend() != "tensorflow" or not _is_users(model):
        return ()
    from pytest_overfit.adapters.keras import graph

    own = [each._value for each in model.variables]
    try:
        found = graph.reached(lambda: reader.data_term(outputs, training=False), own)
    except Exception:  # a loss that wants what only a step gives it: whoever trains will say so
        return ()
    named = [_named(model, each) for each in found]
    return tuple(name for name, variable in named if variable is None or variable.trainable)


def _named(model: Any, wanted: Any) -> tuple[str, Any]:
    """A variable of TensorFlow's by the name it has in the user's code, and Keras' own variable that it is."""
    losses = keras.tree.flatten(model.loss) if model.loss is not None else []
    for root in (*losses, model):
        for path, each in objects_of(root, "model" if root is model else "", _inside):
            if isinstance(each, keras.Variable) and each._value is wanted:
                return path, each
    return wanted.name.partition(":")[0], None


def _inside(value: Any, path: str) -> Iterator[tuple[str, Any]] | None:
    if isinstance(value, keras.Variable):
        return iter(())
    if not isinstance(value, keras.layers.Layer):
        return None
    held = ((f"{each.path} of {path}", each) for each in value.variables)
    return itertools.chain(held, objects_called(value))


def _is_users(model: Any) -> bool:
    """Code of the user's own is in the loss."""
    if stepping.own(model, "compute_loss"):
        return True
    losses = [each for each in keras.tree.flatten(model.loss) if each is not None and not isinstance(each, str)]
    return any(_module(each) != "keras" for each in losses)


def _module(loss: Any) -> str:
    known = loss if inspect.isfunction(loss) else type(loss)
    return str(known.__module__).split(".")[0]
