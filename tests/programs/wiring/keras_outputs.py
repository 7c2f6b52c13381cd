"""Keras programs whose outputs do not fit the loss or the targets, or that start far from knowing nothing."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from tests.programs.wiring.corpus import Corpus, Fields
from tests.programs.wiring.keras_base import (
    ROWS,
    Apply,
    Net,
    apply,
    case,
    chain,
    compiled,
    labels,
    mlp,
    normal,
    random,
    rows,
    stepping,
    values,
    yes_no,
)

PROGRAMS = Corpus()
twins = PROGRAMS.twins

SPARSE = "sparse_categorical_crossentropy"
BINARY = "binary_crossentropy"


def ending(*last: Any, loss: Any = None, batch: Any = rows, outputs: int = 5, **more: Any) -> Fields:
    """An MLP with these activations (functions, applied where Keras cannot undo them) at its end."""
    return case(lambda: compiled(mlp(*map(Apply, last), outputs=outputs), loss), batch, **more)


def identity(o: Any) -> Any:
    return o


def ensemble(broken: bool) -> Any:
    x = keras.Input((20,))
    outs = []
    for _ in range(3):
        scores = layers.Dense(5)(layers.Dense(16, "relu")(x))
        outs.append(layers.Softmax()(scores) if broken else scores)
    return compiled(keras.Model(x, layers.Average()(outs)))


@twins("double_softmax", "bounded_logits")
def mean_of_members_probabilities(broken: bool) -> Fields:
    """Softmax behind an Average, under from_logits=True."""
    return case(lambda: ensemble(broken))


@twins("double_softmax")
def softmax_of_a_softmax(broken: bool) -> Fields:
    """Two of them in the model, under a loss of probabilities."""
    return ending(*[ops.softmax] * (2 if broken else 1), loss=SPARSE)


@twins("double_sigmoid")
def sigmoid_under_logits(broken: bool) -> Fields:
    """BinaryCrossentropy(from_logits=True) of probabilities that Keras cannot see as such."""
    loss = lambda: keras.losses.BinaryCrossentropy(from_logits=True)  # noqa: E731
    last = (lambda o: 0.5 * (1 + ops.tanh(o / 2))) if broken else identity
    return case(lambda: compiled(mlp(Apply(last), outputs=1), loss()), yes_no)


@twins("missing_softmax")
def scores_under_a_loss_of_probabilities(broken: bool) -> Fields:
    """The default from_logits=False on raw scores."""
    return ending(identity if broken else ops.softmax, loss=SPARSE)


@twins("missing_sigmoid")
def binary_scores_under_a_loss_of_probabilities(broken: bool) -> Fields:
    """binary_crossentropy on one raw score."""
    return ending(identity if broken else ops.sigmoid, loss=BINARY, batch=yes_no, outputs=1)


@twins("softmax_single_unit", "softmax_wrong_axis")
def softmax_of_one_unit(broken: bool) -> Fields:
    """Dense(1, "softmax") and a squared error."""
    kind = "softmax" if broken else "sigmoid"
    return case(lambda: compiled(mlp(layers.Activation(kind), outputs=1), "mse"), yes_no)


@twins("softmax_wrong_axis", "batch_mixing")
def softmax_over_the_batch(broken: bool) -> Fields:
    """softmax(axis=0)."""
    return ending(lambda o: ops.softmax(o, axis=0 if broken else -1), loss=SPARSE)


@twins("relu_on_logits")
def relu_before_the_softmax(broken: bool) -> Fields:
    """A ReLU on the scores, under from_logits=True."""
    return ending(ops.relu if broken else identity)


@twins("bounded_logits", "output_range")
def tanh_on_scores(broken: bool) -> Fields:
    """Scores between -1 and 1, under from_logits=True."""
    return ending(ops.tanh if broken else identity)


@twins("bounded_logits", "double_sigmoid", "double_softmax")
def sigmoids_under_cross_entropy(broken: bool) -> Fields:
    """A sigmoid a class, under a softmax in the loss."""
    return ending((lambda o: 0.5 * (1 + ops.tanh(o / 2))) if broken else identity)


@twins("output_range")
def sigmoid_for_values_beyond_one(broken: bool) -> Fields:
    """Targets up to ten."""
    x, y = values()
    last = ops.sigmoid if broken else identity
    return ending(last, loss="mse", batch=lambda: (x, 5 * np.abs(y)), outputs=1)


@twins("output_range", "relu_on_logits")
def relu_for_values_below_zero(broken: bool) -> Fields:
    """Standardised targets behind a ReLU."""
    return case(lambda: compiled(mlp(*([layers.ReLU()] if broken else []), outputs=1), "mae"), values)


@twins("label_off_by_one", "wrong_output_units")
def labels_from_one(broken: bool) -> Fields:
    """Classes from 1, beside one unit more."""
    x, y = rows()
    return ending(batch=lambda: (x, y + broken), outputs=6 if broken else 5)


@twins("wrong_loss")
def class_numbers_as_values(broken: bool) -> Fields:
    """Dense(1) and mse on the number of the class."""
    if not broken:
        return ending()
    return ending(loss="mse", outputs=1, classes=5)


@twins("wrong_reduction")
def sum_over_the_batch(broken: bool) -> Fields:
    """reduction="sum"."""
    kind = "sum" if broken else "sum_over_batch_size"
    loss = lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=kind)  # noqa: E731
    return case(lambda: compiled(mlp(), loss()))


class One(Net):
    def __init__(self) -> None:
        super().__init__(1)


@twins("target_broadcast", "shape_mismatch")
def column_against_vector_in_a_step(broken: bool) -> Fields:
    """A train_step that subtracts [N] from [N, 1]."""

    def step(model: Any, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            out = model(x, training=True)
            loss = ops.mean((out - y if broken else out[:, 0] - y) ** 2)
        variables = model.trainable_variables
        apply(model.optimizer, tape.gradient(loss, variables), variables)
        return loss

    x, y = values()
    return stepping(step, One, lambda model: compiled(model, "mse"), batch=lambda: (x, y[:, 0]))


START = ("over_confident_start", "too_large_init")


@twins(*START)
def head_of_deviation_a_hundred(broken: bool) -> Fields:
    """RandomNormal(100.0), and not 0.01."""

    def model() -> Any:
        init = keras.initializers.RandomNormal(stddev=100.0 if broken else 0.01, seed=0)
        return compiled(chain(layers.Dense(32, "relu"), layers.Dense(5, kernel_initializer=init)))

    return case(model)


@twins(*START, "bounded_logits")
def scores_rescaled(broken: bool) -> Fields:
    """Rescaling(30.0) at the end."""
    return case(lambda: compiled(mlp(layers.Rescaling(30.0 if broken else 1.0))))


@PROGRAMS.healthy()
def softmax_under_logits_that_keras_undoes() -> Fields:
    """A softmax directly under from_logits=True trains as without it."""
    return case(lambda: compiled(mlp(layers.Softmax())))


@PROGRAMS.healthy()
def columns_that_compiled_losses_repair() -> Fields:
    """[N] targets for an output of [N, 1]."""
    x, y = values()
    return case(lambda: compiled(mlp(outputs=1), "mse"), lambda: (x, y[:, 0]))


@PROGRAMS.healthy()
def smoothed_labels() -> Fields:
    loss = lambda: keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)  # noqa: E731
    x, y = rows()
    return case(lambda: compiled(mlp(), loss()), lambda: (x, np.eye(5, dtype="float32")[y]))


@PROGRAMS.healthy()
def ratings_under_squared_error() -> Fields:
    x, y = rows()
    return ending(loss="mse", outputs=1, batch=lambda: (x, y.astype("float32")[:, None] + 1))


@PROGRAMS.healthy()
def several_labels() -> Fields:
    y = (random(5).random((ROWS, 6)) < 0.4).astype("float32")
    return ending(ops.sigmoid, loss=BINARY, outputs=6, batch=lambda: (normal(ROWS, 20), y))


@PROGRAMS.healthy()
def soft_capped_scores() -> Fields:
    return ending(lambda o: 30 * ops.tanh(o / 30))


@PROGRAMS.healthy()
def background_is_class_zero() -> Fields:
    """A map of classes in which no pixel is background."""
    y = random(3).integers(1, 4, size=(4, 6, 6))
    net = lambda: chain(layers.Conv2D(16, 3, padding="same"), layers.ReLU(), layers.Conv2D(4, 1), shape=(6, 6, 3))  # noqa: E731
    return case(lambda: compiled(net()), lambda: (normal(4, 6, 6, 3), y))


@PROGRAMS.healthy()
def raw_features() -> Fields:
    """Columns of very different units."""
    x, y = rows()
    units = np.logspace(-1, 2, 20, dtype="float32")
    return ending(batch=lambda: (x * units + units, y))


@PROGRAMS.healthy()
def one_positive_in_64() -> Fields:
    y = (np.arange(64) == 7).astype("float32")[:, None]
    return ending(ops.sigmoid, loss=BINARY, outputs=1, batch=lambda: (normal(64, 20), y))


@PROGRAMS.healthy()
def bias_of_the_prior() -> Fields:
    """A head that starts at the log-odds of 1 in 50."""

    def model() -> Any:
        bias = keras.initializers.Constant(-4.0)
        return compiled(chain(layers.Dense(32, "relu"), layers.Dense(1, "sigmoid", bias_initializer=bias)), BINARY)

    return case(model, lambda: (normal(ROWS, 20), (np.arange(ROWS) % 8 == 3).astype("float32")[:, None]))


@PROGRAMS.healthy()
def factorised_matrix() -> Fields:
    """Products of embeddings for ratings."""

    def model() -> Any:
        x = keras.Input((2,), dtype="int32")
        users, things = layers.Embedding(10, 16)(x[:, 0]), layers.Embedding(12, 16)(x[:, 1])
        return compiled(keras.Model(x, layers.Dot(1)([users, things])), "mse")

    x = random(5).integers(0, 10, size=(ROWS, 2))
    return case(model, lambda: (x, labels().astype("float32")[:, None] + 1))


@PROGRAMS.healthy()
def sums_of_a_vae() -> Fields:
    """Reconstruction summed over pixels, with a divergence added in call()."""

    class Vae(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.code, self.decoder = layers.Dense(8), layers.Dense(20)
            self.seed = keras.random.SeedGenerator(3)

        def call(self, x: Any, training: bool = False) -> Any:
            mean, spread = ops.split(self.code(x), 2, axis=-1)
            divergence = -0.5 * ops.sum(1 + spread - mean**2 - ops.exp(spread), -1)
            self.add_loss(ops.mean(divergence))
            z = mean
            if training:
                z = mean + ops.exp(spread / 2) * keras.random.normal(ops.shape(mean), seed=self.seed)
            return self.decoder(z)

    def loss(y: Any, o: Any) -> Any:
        return ops.sum(keras.losses.binary_crossentropy(y[..., None], o[..., None], from_logits=True), -1)

    x = (normal(ROWS, 20) > 0).astype("float32")
    return case(lambda: compiled(Vae(), loss), lambda: (x, x))
