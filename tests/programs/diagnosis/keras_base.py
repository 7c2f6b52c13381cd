"""What the Keras programs of this folder share: a compiled chain of layers, functions as layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from tests.programs.diagnosis.data import Pair
from tests.programs.wiring.keras_base import Apply

__all__ = ["Apply", "bce", "ce", "chain", "column", "dense", "images", "maybe"]


def ce(from_logits: bool = True) -> Any:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)


def bce(from_logits: bool = True) -> Any:
    return keras.losses.BinaryCrossentropy(from_logits=from_logits)


def maybe(broken: bool, *parts: Any) -> tuple[Any, ...]:
    return parts if broken else ()


def column(pair: Pair) -> Pair:
    x, y = pair
    return x, y.astype("float32").reshape(len(y), -1)


def images(pair: Pair, side: int = 8) -> Pair:
    x, y = pair
    return x.reshape(-1, side, side, 1), y


def dense(
    inputs: int, outputs: int, last: Any = None, units: int = 48, between: Any = "relu", **more: Any
) -> list[Any]:
    """The layers of a net with one hidden layer."""
    return [keras.Input((inputs,)), layers.Dense(units, between, **more), layers.Dense(outputs, last, **more)]


def chain(
    parts: Callable[[], Any], loss: Any, optimizer: Callable[[], Any] | str = "adam", **more: Any
) -> Callable[[], Any]:
    """A factory of a compiled Sequential. Layers, losses and optimizers are made anew each time."""

    def make() -> Any:
        model = keras.Sequential(parts())
        made = optimizer if isinstance(optimizer, str) else optimizer()
        model.compile(optimizer=made, loss=loss, **more)
        return model

    return make
