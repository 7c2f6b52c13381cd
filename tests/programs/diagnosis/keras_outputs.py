"""Keras programs whose last layer does not suit their loss."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

from tests.programs.diagnosis import data
from tests.programs.diagnosis.corpus import Corpus, Fields
from tests.programs.diagnosis.keras_base import Apply, bce, ce, chain, column, dense, images, maybe

PROGRAMS = Corpus()
pair = PROGRAMS.pair


def adam(rate: float = 0.01) -> Any:
    return lambda: keras.optimizers.Adam(rate)


@pair("double_softmax", "bounded_logits")
def subclassed_softmax_twice(broken: bool) -> Fields:
    """tf.nn.softmax in call, and from_logits=True in the loss."""

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.scores = layers.Dense(48, "relu"), layers.Dense(10)

        def call(self, x: Any) -> Any:
            scores = self.scores(self.hidden(x))
            return tf.nn.softmax(scores) if broken else scores

    def make() -> Any:
        model = Net()
        model.compile(optimizer=keras.optimizers.Adam(2e-3), loss=ce())
        return model

    return {"model": make, "batch": data.digits(32)}


@pair("double_softmax", "bounded_logits")
def softmax_of_softmax(broken: bool) -> Fields:
    """A Softmax layer behind a layer with activation="softmax"."""
    return {
        "model": chain(
            lambda: [*dense(13, 3, "softmax"), *maybe(broken, layers.Softmax())],
            "sparse_categorical_crossentropy", adam(),
        ),
        "batch": data.scaled("wine", 30),
    }  # fmt: skip


@pair("missing_softmax", "wrong_loss")
def iris_without_activation(broken: bool) -> Fields:
    """Dense(3) under "sparse_categorical_crossentropy", which takes probabilities."""
    return {
        "model": chain(lambda: dense(4, 3, None if broken else "softmax"), "sparse_categorical_crossentropy", adam()),
        "batch": data.scaled("iris", 24),
    }


@pair("missing_softmax", "wrong_loss")
def cnn_without_activation(broken: bool) -> Fields:
    """The same with one-hot targets and a CNN."""
    x, y = images(data.digits(24))

    def parts() -> Any:
        return [
            *(keras.Input((8, 8, 1)), layers.Conv2D(8, 3, activation="relu"), layers.Flatten()),
            layers.Dense(10, None if broken else "softmax"),
        ]

    return {
        "model": chain(parts, "categorical_crossentropy", adam()),
        "batch": (x, keras.utils.to_categorical(y, 10)),
    }


@pair("missing_sigmoid", "wrong_loss")
def cancer_without_sigmoid(broken: bool) -> Fields:
    """Dense(1) under "binary_crossentropy"."""
    return {
        "model": chain(
            lambda: dense(30, 1, None if broken else "sigmoid"), "binary_crossentropy", adam(), metrics=["accuracy"]
        ),
        "train": column(data.scaled("breast_cancer", 64)),
    }


@pair("double_sigmoid", "bounded_logits")
def tags_sigmoid_twice(broken: bool) -> Fields:
    """tf.sigmoid in a layer of its own, and from_logits=True."""
    return {
        "model": chain(lambda: [*dense(12, 5), *maybe(broken, Apply(tf.sigmoid))], bce(), adam()),
        "batch": data.tags(),
    }


@pair("softmax_single_unit", "output_range")
def cancer_softmax_of_one(broken: bool) -> Fields:
    """Dense(1, activation="softmax") under binary cross-entropy."""
    return {
        "model": chain(lambda: dense(30, 1, "softmax" if broken else "sigmoid"), "binary_crossentropy", adam()),
        "batch": column(data.scaled("breast_cancer", 32)),
    }


@pair("softmax_single_unit", "output_range", "input_ignored")
def spirals_softmax_of_one(broken: bool) -> Fields:
    """The same under a squared error."""

    def parts() -> Any:
        return [
            *(keras.Input((2,)), layers.Dense(64, "tanh"), layers.Dense(64, "tanh")),
            layers.Dense(1, "softmax" if broken else "sigmoid"),
        ]

    return {"model": chain(parts, "mse", adam()), "batch": column(data.spirals(32))}


@pair("softmax_wrong_axis", "batch_mixing")
def digits_softmax_over_rows(broken: bool) -> Fields:
    """Softmax over axis 0, by hand."""

    def parts() -> Any:
        return [*dense(64, 10), Apply(lambda scores: tf.nn.softmax(scores, axis=0 if broken else -1))]

    return {"model": chain(parts, ce(from_logits=False), adam()), "batch": data.digits(32)}


@pair("output_range")
def diabetes_tanh_at_the_end(broken: bool) -> Fields:
    """Standardised targets, and tanh behind the last layer."""
    return {
        "model": chain(lambda: dense(10, 1, "tanh" if broken else None), "mse", adam()),
        "train": column(data.diabetes(32)),
    }


@pair("output_range")
def autoencoder_sigmoid_on_standardised(broken: bool) -> Fields:
    """A decoder that ends in a sigmoid, for standardised columns."""
    x, _ = data.scaled("wine", 16)

    def parts() -> Any:
        return [
            *(keras.Input((13,)), layers.Dense(64, "elu"), layers.Dense(16, "elu"), layers.Dense(64, "elu")),
            layers.Dense(13, "sigmoid" if broken else None),
        ]

    return {"model": chain(parts, "mean_squared_error", adam()), "batch": (x, x)}


@pair("bounded_logits")
def digits_tanh_scores(broken: bool) -> Fields:
    """Scores behind tanh, from_logits=True."""
    return {
        "model": chain(lambda: dense(64, 10, "tanh" if broken else None), ce(), adam(3e-3)),
        "batch": data.digits(32),
    }


@pair("relu_on_logits", "dead_relu")
def digits_relu_scores(broken: bool) -> Fields:
    """activation="relu" in the last layer as well; SGD."""

    def parts() -> Any:
        return [
            *(keras.Input((64,)), layers.Dense(48, "relu"), layers.Dense(48, "relu")),
            layers.Dense(10, "relu" if broken else None),
        ]

    return {
        "model": chain(parts, ce(), lambda: keras.optimizers.SGD(0.3)),
        "batch": data.digits(32),
    }


@pair("output_range", "relu_on_logits", "dead_relu")
def surface_relu_at_the_end(broken: bool) -> Fields:
    """ReLU behind the last layer of a regression."""
    return {
        "model": chain(lambda: dense(6, 2, "relu" if broken else "linear"), "mae", adam(5e-3)),
        "batch": data.surfaces(24, targets=2),
    }


@pair("dropout_on_output")
def wine_dropout_on_scores(broken: bool) -> Fields:
    """Dropout behind the last layer."""
    return {
        "model": chain(lambda: [*dense(13, 3), *maybe(broken, layers.Dropout(0.8))], ce(), adam()),
        "batch": data.scaled("wine", 30),
    }


@pair("dropout_on_output")
def diabetes_dropout_on_answer(broken: bool) -> Fields:
    """The same in a regression, in the functional way."""

    def make() -> Any:
        inputs = keras.Input((10,))
        outputs = layers.Dense(1)(layers.Dense(48, "relu")(inputs))
        if broken:
            outputs = layers.Dropout(0.5)(outputs)
        model = keras.Model(inputs, outputs)
        model.compile(optimizer=keras.optimizers.RMSprop(3e-3), loss="mse")
        return model

    return {"model": make, "batch": column(data.diabetes(24))}


@pair("wrong_loss")
def tags_categorical_cross_entropy(broken: bool) -> Fields:
    """Several labels a row, under a loss for one."""
    return {
        "model": chain(
            lambda: dense(12, 5, "sigmoid"),
            "categorical_crossentropy" if broken else "binary_crossentropy", adam(),
        ),
        "batch": data.tags(),
    }  # fmt: skip


@pair("wrong_loss")
def surface_binary_cross_entropy(broken: bool) -> Fields:
    """A regression under binary cross-entropy."""
    return {
        "model": chain(lambda: dense(6, 1), "binary_crossentropy" if broken else "mse", adam()),
        "batch": data.surfaces(24),
    }


@pair("wrong_loss", "wrong_output_units")
def cancer_categorical_of_one(broken: bool) -> Fields:
    """One sigmoid unit under "categorical_crossentropy": the loss is 0 for one class."""
    loss = "categorical_crossentropy" if broken else "binary_crossentropy"
    return {
        "model": chain(lambda: dense(30, 1, "sigmoid"), loss, adam()),
        "batch": column(data.scaled("breast_cancer", 32)),
    }


@pair("wrong_output_units", "label_out_of_range")
def digits_nine_units(broken: bool) -> Fields:
    """Nine units for ten classes."""
    return {
        "model": chain(lambda: dense(64, 9 if broken else 10, "softmax"), "sparse_categorical_crossentropy"),
        "batch": data.digits(48),
    }


@pair("wrong_output_units")
def three_targets_from_one_unit(broken: bool) -> Fields:
    """One unit for three targets."""
    return {
        "model": chain(lambda: dense(6, 1 if broken else 3), "mse", adam()),
        "batch": data.surfaces(24, targets=3),
    }


@pair("target_broadcast")
def broadcast_in_own_step(broken: bool) -> Fields:
    """A squared error by hand in train_step, outputs [N, 1] against targets [N]."""

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.out = layers.Dense(48, "relu"), layers.Dense(1)

        def call(self, x: Any) -> Any:
            answer = self.out(self.hidden(x))
            return answer if broken else answer[:, 0]

        def train_step(self, batch: Any) -> Any:
            x, y = batch
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(ops.square(self(x, training=True) - y))
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
            return {"loss": loss}

    def make() -> Any:
        model = Net()
        model.compile(optimizer=keras.optimizers.Adam(0.01), loss="mse")
        return model

    x, y = data.surfaces(24)
    return {"model": make, "batch": (x, y[:, 0])}
