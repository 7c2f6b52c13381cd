"""Variables that a loss depends on and that no optimizer of Keras' will ever hold."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import keras

from pytest_overfit.adapters.keras import layers


def unknown_to_all(found: Iterable[Any], called: Collection[int] = ()) -> list[str]:
    """Names of those that are trained by nobody, by mistake.

    Left out is what may be meant so: single numbers (a weight of a loss that a callback sets), and variables of Keras
    layers that live on beside the model (a network that a loss looks through), unless the model itself `called` them.
    A layer made in a call is gone with it.
    """
    distinct = list({id(each): each for each in found if each.shape.num_elements() > 1}.values())
    if distinct:
        gc.collect()
    kept = {id(each._value) for each in gc.get_objects() if isinstance(each, keras.Variable)} if distinct else set()
    return [each.name.partition(":")[0] for each in distinct if id(each) in called or id(each) not in kept]


@contextlib.contextmanager
def called_by_the_model(model: Any) -> Iterator[set[int]]:
    """Notes the variables of layers that run inside the model's own call, are to be trained, and that it does not know.

    Keras finds layers in attributes, lists and dicts; those that a function or another object keeps are not its own.
    """
    known = {id(each) for each in (model, *layers.layers_of(model))}
    noted: set[int] = set()
    kind, inside = keras.layers.Layer, [0]
    own = kind.__call__

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        mine = id(layer) in known
        inside[0] += mine
        try:
            outputs = own(layer, *args, **kwargs)
        finally:
            inside[0] -= mine
        if inside[0] and not mine and layer.trainable:
            noted.update(id(each._value) for each in layer.trainable_variables)
        return outputs

    kind.__call__ = call
    try:
        yield noted
    finally:
        kind.__call__ = own
