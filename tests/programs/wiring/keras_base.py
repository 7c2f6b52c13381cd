"""Data and models that the Keras programs of this folder share."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tests.programs.wiring.corpus import Fields

ROWS = 16


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def normal(*shape: int, seed: int = 0) -> Any:
    return random(seed).normal(size=shape).astype("float32")


def labels(classes: int = 5) -> Any:
    return random(1).permutation(np.arange(ROWS) % classes)


def rows(inputs: int = 20, classes: int = 5) -> Any:
    return normal(ROWS, inputs), labels(classes)


def values(outputs: int = 1) -> Any:
    return normal(ROWS, 20), normal(ROWS, outputs, seed=2)


def yes_no() -> Any:
    return normal(ROWS, 20), labels(2).astype("float32")[:, None]


def series(steps: int = 10, channels: int = 8) -> Any:
    return normal(ROWS, steps, channels), labels(3)


def pictures() -> Any:
    return normal(ROWS, 12, 12, 3), labels(4)


def tokens(words: int = 30, length: int = 12, count: int = 8) -> Any:
    return random().integers(1, words, size=(count, length))


def from_logits() -> Any:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def compiled(model: Any, loss: Any = None, optimizer: Any = None, **more: Any) -> Any:
    """With cross-entropy of logits and Adam, but for what is given."""
    optimizer = keras.optimizers.Adam(1e-2) if optimizer is None else optimizer
    model.compile(optimizer=optimizer, loss=from_logits() if loss is None else loss, **more)
    return model


def chain(*parts: Any, shape: Sequence[int | None] = (20,)) -> Any:
    return keras.Sequential([keras.Input(tuple(shape)), *parts])


def mlp(*last: Any, outputs: int = 5, units: int = 32) -> Any:
    """Two layers, and what comes behind them."""
    return chain(layers.Dense(units, "relu", name="hidden"), layers.Dense(outputs, name="scores"), *last)


class Apply(layers.Layer):
    """A function as a layer."""

    def __init__(self, function: Callable[[Any], Any], shape: Any = None) -> None:
        super().__init__()
        self.function, self.shape = function, shape

    def call(self, x: Any) -> Any:
        return self.function(x)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape if self.shape is None else (shape[0], *self.shape)


def case(model: Callable[[], Any], batch: Any = rows, **fields: Any) -> Fields:
    return {"model": model, "batch": batch, **fields}


class Net(keras.Model):
    """An encoder and a head; the base of the models with a step of their own."""

    def __init__(self, outputs: int = 5, units: int = 32) -> None:
        super().__init__()
        self.encoder = keras.Sequential([layers.Dense(units, "relu"), layers.Dense(units, "relu")], name="encoder")
        self.head = layers.Dense(outputs, name="head")

    def call(self, x: Any, training: bool = False) -> Any:
        return self.head(self.encoder(x, training=training))


def stepping(
    step: Callable[[Any, Any, Any], Any],
    base: Any = Net,
    compiling: Callable[[Any], Any] = compiled,
    **fields: Any,
) -> Fields:
    """`step(model, x, y)` is the model's train_step, and gives its loss."""

    class Stepping(base):  # type: ignore[misc]
        def train_step(self, data: Any) -> Any:
            return {"loss": step(self, *data[:2])}

    return case(lambda: compiling(Stepping()), **fields)


def differentiate(model: Any, x: Any, y: Any, variables: Any = None, training: bool = True) -> Any:
    """Loss, gradients and variables of a plain step."""
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=training))
    variables = model.trainable_variables if variables is None else variables
    return loss, tape.gradient(loss, variables), variables


def apply(optimizer: Any, gradients: Any, variables: Any) -> None:
    optimizer.apply_gradients(zip(gradients, variables, strict=True))
