"""Planted faults: the program does not memorise its batch, and does with the right thing changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from pytest_overfit.adapters.programs import Change
from tests.adapters.keras.programs.keras_programs import (
    CLASSES,
    RNG,
    VALUES,
    X,
    Y,
    adam,
    as_before,  # noqa: F401
    cured,
    dense,
    keras,
    layers,
    ops,
    sequential,
    tf,
)


class Planted(NamedTuple):
    make: Callable[[], Any]
    change: Change
    x: Any = X
    y: Any = Y
    steps: int = 200


class Twice(keras.Model):
    """Softmax, and again softmax, both by name."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = layers.Dense(16, "relu"), layers.Dense(4)

    def call(self, inputs: Any) -> Any:
        return tf.nn.softmax(tf.nn.softmax(self.out(self.hidden(inputs))))


class Cut(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = layers.Dense(16, "relu"), layers.Dense(4, "softmax")

    def call(self, inputs: Any) -> Any:
        return self.out(tf.stop_gradient(ops.round(self.hidden(inputs) / 9)))


def compiled(model: Any, rate: float = 0.03) -> Any:
    model.compile(adam(rate), CLASSES)
    return model


def frozen() -> Any:
    model = keras.Sequential([keras.Input((6,)), layers.Dense(32, "relu"), layers.Dense(4, "softmax")])
    model.layers[1].kernel.assign(ops.ones((32, 4)))
    model.layers[1].trainable = False
    return compiled(model)


def channels_first() -> Any:
    """Scores of classes along the second axis, where the loss takes probabilities."""
    stack = [layers.Dense(32, "relu"), layers.Dense(8), layers.Reshape((4, 2))]
    model = keras.Sequential([keras.Input((6,)), *stack])
    model.compile(adam(0.03), keras.losses.CategoricalCrossentropy(axis=1))
    return model


HIDDEN, OUT = dense(32, "relu"), dense(4, "softmax")
LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

#: rows in the corners of a square: no line divides them as the product of their coordinates does
CORNERS = np.tile([[1, 1, 0, 0, 0, 0], [-1, -1, 0, 0, 0, 0], [1, -1, 0, 0, 0, 0], [-1, 1, 0, 0, 0, 0]], (4, 1))

FAULTS = {
    "double_softmax, by layers": Planted(
        sequential(HIDDEN, OUT, layers.Softmax, optimizer=lambda: adam(0.03)), Change(kind="activation", at=2)
    ),
    "double_softmax, by name": Planted(lambda: compiled(Twice()), Change(kind="activation", at=2)),
    "double_softmax, in a graph": Planted(lambda: compiled(in_a_graph()), Change(kind="activation", at=1)),
    "relu_on_logits": Planted(
        sequential(HIDDEN, dense(4, lambda x: ops.relu(x - 9)), loss=LOGITS), Change(kind="activation", at=1)
    ),
    "missing_softmax": Planted(
        sequential(HIDDEN, dense(4), loss=CLASSES, optimizer=lambda: adam(0.03)),
        Change(kind="on_top", value="softmax"),
    ),
    "softmax_wrong_axis": Planted(
        sequential(HIDDEN, dense(4), lambda: layers.Softmax(axis=0), loss="mse", optimizer=lambda: adam(0.03)),
        Change(kind="activation", at=1, value="softmax", factor=1),
        y=np.eye(4, dtype="float32")[Y],
    ),
    "wrong_loss": Planted(
        sequential(HIDDEN, dense(4), loss=lambda y, p: ops.mean(ops.abs(p), axis=-1), optimizer=lambda: adam(0.03)),
        Change(kind="loss", value="cross_entropy"),
    ),
    "lr_too_low": Planted(sequential(HIDDEN, OUT, optimizer=lambda: adam(1e-6)), Change(kind="rate", factor=10_000.0)),
    "lr_too_high": Planted(
        sequential(HIDDEN, OUT, optimizer=lambda: keras.optimizers.SGD(300.0, momentum=0.9)),
        Change(kind="rate", factor=1e-3),
    ),
    "gradient_ascent": Planted(
        sequential(HIDDEN, OUT, optimizer=lambda: keras.optimizers.SGD(-0.5, momentum=0.9)), Change(kind="reversed")
    ),
    "gradient_ascent, of the loss": Planted(
        sequential(
            HIDDEN,
            OUT,
            loss=lambda y, p: -keras.losses.sparse_categorical_crossentropy(y, p),
            optimizer=lambda: adam(0.03),
        ),
        Change(kind="negated"),
    ),
    "missing_softmax, channels first": Planted(
        channels_first,
        Change(kind="on_top", value="softmax", at=1),
        y=np.eye(4, dtype="float32")[np.stack([Y, Y[::-1]], 1)].transpose(0, 2, 1),
    ),
    "bad_adam_epsilon": Planted(
        sequential(HIDDEN, OUT, optimizer=lambda: adam(0.01, epsilon=1.0)), Change(kind="epsilon", factor=1e-7)
    ),
    "grad_clip_too_small": Planted(
        sequential(HIDDEN, OUT, optimizer=lambda: keras.optimizers.SGD(1.0, momentum=0.9, clipnorm=1e-6)),
        Change(kind="without", value="clipping"),
    ),
    "schedule_kills_rate": Planted(
        sequential(HIDDEN, OUT, optimizer=lambda: adam(keras.optimizers.schedules.ExponentialDecay(0.03, 1, 0.5))),
        Change(kind="without", value="schedule"),
    ),
    "excessive_dropout": Planted(
        sequential(HIDDEN, lambda: layers.Dropout(0.99), OUT, optimizer=lambda: adam(0.01)),
        Change(kind="without", value="dropout"),
    ),
    "excessive_weight_decay": Planted(
        sequential(HIDDEN, OUT, optimizer=lambda: adam(0.03, weight_decay=20.0)), Change(kind="without", value="decay")
    ),
    "excessive penalty": Planted(
        sequential(dense(32, "relu", kernel_regularizer=keras.regularizers.L2(10.0)), OUT),
        Change(kind="without", value="decay"),
    ),
    "zero_init": Planted(
        sequential(
            dense(32, "relu", kernel_initializer="zeros"),
            dense(4, "softmax", kernel_initializer="zeros"),
            optimizer=lambda: adam(0.03),
        ),
        Change(kind="drawn_anew"),
    ),
    "dead_relu": Planted(
        sequential(
            dense(32, "relu", bias_initializer=keras.initializers.Constant(-100)), OUT, optimizer=lambda: adam(0.03)
        ),
        Change(kind="drawn_anew"),
    ),
    "wrong_hidden_activation": Planted(
        sequential(*[dense(16, "sigmoid")] * 8, OUT, optimizer=lambda: adam(0.01)),
        Change(kind="activations", value="relu"),
    ),
    "missing_nonlinearity": Planted(
        sequential(dense(32), dense(32), dense(2, "softmax"), optimizer=lambda: adam(0.03)),
        Change(kind="between", value="relu"),
        x=CORNERS + RNG.normal(size=(16, 6)).astype("float32") * 0.05,
        y=(CORNERS[:, 0] * CORNERS[:, 1] > 0).astype(int),
    ),
    "unnormalised_input": Planted(
        sequential(dense(32, "tanh"), OUT, optimizer=lambda: adam(0.03)),
        Change(kind="standardised", value="inputs"),
        x=(X * 1e-3 + 1e3).astype("float32"),
    ),
    "scaled down inside": Planted(
        sequential(lambda: layers.Rescaling(1e-3), dense(32, "tanh"), OUT, optimizer=lambda: keras.optimizers.SGD(0.3)),
        Change(kind="standardised", value="given"),
    ),
    "weights too small for ReLUs": Planted(
        sequential(
            *[dense(16, "relu", kernel_initializer=keras.initializers.RandomNormal(stddev=1e-3))] * 4,
            OUT,
            optimizer=lambda: keras.optimizers.SGD(0.1, momentum=0.9),
        ),
        Change(kind="drawn_anew", value="relu"),
    ),
    "a deep chain": Planted(
        sequential(
            *[dense(16, "tanh", kernel_initializer=keras.initializers.RandomNormal(stddev=0.1))] * 12,
            OUT,
            optimizer=lambda: keras.optimizers.SGD(0.3),
        ),
        Change(kind="shortcuts"),
    ),
    "unnormalised_target": Planted(
        sequential(dense(32, "tanh"), dense(1), loss="mse", optimizer=lambda: adam(0.03)),
        Change(kind="standardised", value="targets"),
        y=VALUES * 1e3,
        steps=400,
    ),
    "frozen_parameters": Planted(frozen, Change(kind="all_trained")),
    "detached_graph": Planted(lambda: compiled(Cut()), Change(kind="attached")),
    "insufficient_capacity": Planted(
        sequential(dense(1, "tanh"), OUT, optimizer=lambda: adam(0.03)), Change(kind="wider", factor=32.0), steps=300
    ),
}


def in_a_graph() -> Any:
    given = keras.Input((6,))
    x = ops.softmax(layers.Dense(4)(layers.Dense(32, "relu")(given)))
    return keras.Model(given, ops.softmax(x * 1.0))


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("fault", FAULTS)
def test_the_right_change_makes_it_fit(fault: str) -> None:
    planted = FAULTS[fault]
    as_it_is, changed = cured(planted.make, planted.change, planted.x, planted.y, planted.steps)
    assert (as_it_is == "fits", changed) == (False, "fits")


def test_a_change_that_is_not_the_cure_does_not_make_it_fit() -> None:
    make = sequential(HIDDEN, OUT, optimizer=lambda: adam(1e-6))
    for change in (Change(kind="drawn_anew"), Change(kind="activations", value="tanh"), Change(kind="rate")):
        assert cured(make, change, steps=100)[1] != "fits"
