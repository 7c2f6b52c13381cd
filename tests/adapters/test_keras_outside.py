"""Keras: trainable variables that a loss depends on although its model does not have them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from pytest_overfit import Case
from pytest_overfit.adapters.dispatch import trainer_for
from pytest_overfit.data.splits import open_split

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="known by TensorFlow's gradient tape")

X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
Y = X[:, :1]


def linear() -> Any:
    return keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])


elsewhere, frozen, live = linear(), linear(), dict[str, Any]()
frozen.trainable = False


def squared(y: Any, o: Any) -> Any:
    return ops.mean((o - y) ** 2)


class Penalised(keras.losses.Loss):
    def call(self, y: Any, o: Any) -> Any:
        return squared(y, o) + ops.sum(ops.abs(elsewhere.trainable_variables[0]))


class Model(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None) -> Any:
        return Penalised()(y, y_pred)


def compiled(model: Any, loss: Any) -> Any:
    model.compile(optimizer="sgd", loss=loss)
    return model


def kept(loss: Any) -> Any:
    live["m"] = compiled(linear(), loss)
    return live["m"]


def trainer(model: Any) -> Any:
    case = Case(name="c", model=model, train=(X, Y))
    return trainer_for(case, open_split(case, "train"), 0, plain=False)


def penalty(weight: Any) -> Any:
    return lambda y, o: squared(y, o) + ops.sum(ops.abs(weight()))


@pytest.mark.parametrize(
    "model",
    [
        lambda: compiled(linear(), penalty(lambda: elsewhere.trainable_variables[0])),
        lambda: compiled(linear(), Penalised()),
        lambda: compiled(Model(), None),
    ],
    ids=["function", "object", "compute_loss"],
)
def test_variables_of_another_model_are_named(model: Any) -> None:
    made = trainer(model)
    (name,) = made.outside
    assert elsewhere.trainable_variables[0].path in name
    assert any(name in each for each in made.remarks)


@pytest.mark.parametrize(
    "model",
    [
        lambda: compiled(linear(), "mse"),
        lambda: compiled(linear(), squared),
        lambda: kept(penalty(lambda: live["m"].trainable_variables[0])),
        lambda: compiled(linear(), penalty(lambda: frozen.variables[0])),
        lambda: compiled(linear(), penalty(lambda: ops.stop_gradient(elsewhere.trainable_variables[0]))),
    ],
    ids=["known", "plain", "its_own", "frozen", "without_gradient"],
)
def test_its_own_and_what_stays_are_not(model: Any) -> None:
    assert trainer(model).outside == ()


def test_the_digest_is_that_of_the_weights() -> None:
    first, second = trainer(lambda: compiled(linear(), "mse")), trainer(lambda: compiled(linear(), "mse"))
    assert first.digest() == second.digest()
    before = first.digest()
    first.train(1)
    assert first.digest() != before
