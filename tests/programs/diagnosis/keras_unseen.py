"""Keras programs of kinds that no diagnosis was looked at on while it was written."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops, optimizers

from tests.programs.diagnosis import data
from tests.programs.diagnosis.corpus import Corpus, Fields
from tests.programs.diagnosis.keras_base import Apply, bce, ce, chain, column, dense, images

PROGRAMS = Corpus()
pair = PROGRAMS.pair


def adam(rate: float = 0.01) -> Any:
    return lambda: optimizers.Adam(rate)


@pair("wrong_reduction", "lr_too_high")
def cnn_loss_summed(broken: bool) -> Fields:
    """reduction="sum" with a rate for a mean; SGD."""

    def parts() -> Any:
        return [
            *(keras.Input((8, 8, 1)), layers.Conv2D(12, 3, activation="relu"), layers.Flatten()),
            *(layers.Dense(32, "relu"), layers.Dense(10)),
        ]

    def make() -> Any:
        reduction = "sum" if broken else "sum_over_batch_size"
        model = keras.Sequential(parts())
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)
        model.compile(optimizer=optimizers.SGD(0.1, momentum=0.9), loss=loss)
        return model

    return {"model": make, "batch": images(data.digits(48))}


@pair("label_off_by_one")
def wine_counted_from_one(broken: bool) -> Fields:
    """Classes 1 to 3, and a fourth unit so that nothing crashes."""
    x, y = data.scaled("wine", 40)
    units = 4 if broken else 3
    return {"model": chain(lambda: dense(13, units), ce(), adam()), "batch": (x, y + 1 if broken else y)}


@pair("vanishing_gradient", missed="it memorises the batch all the same")
def waves_read_step_by_step(broken: bool) -> Fields:
    """The class is in the first of 60 steps, read by a SimpleRNN with small recurrent weights."""
    rng = data.random(7)
    y = np.arange(24) % 3
    x = 0.3 * rng.normal(size=(24, 60, 4)).astype("float32")
    x[np.arange(24), 0, y] += 3

    def parts() -> Any:
        reading = (
            layers.SimpleRNN(24, recurrent_initializer=keras.initializers.Orthogonal(0.3))
            if broken
            else layers.SimpleRNN(24, go_backwards=True)
        )
        return [keras.Input((60, 4)), reading, layers.Dense(3)]

    return {"model": chain(parts, ce(), adam(3e-3)), "batch": (x, y)}


@pair("softmax_wrong_axis")
def tags_by_softmax_over_words(broken: bool) -> Fields:
    """A tagger with a class for each word, whose softmax goes over the words."""
    x, _ = data.texts(16)

    def parts() -> Any:
        return [
            *(keras.Input((12,), dtype="int32"), layers.Embedding(50, 16), layers.Dense(4)),
            layers.Softmax(axis=1 if broken else -1),
        ]

    return {"model": chain(parts, "sparse_categorical_crossentropy", adam(0.02)), "batch": (x, x % 4)}


@pair("excessive_weight_decay", misnamed="a penalty that compute_loss adds by hand is not told from the loss")
def penalty_in_compute_loss(broken: bool) -> Fields:
    """Ten times the squares of all weights is added by hand."""
    factor = 10.0 if broken else 1e-6

    class Penalised(keras.Sequential):
        def compute_loss(
            self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
        ) -> Any:
            squares = [ops.sum(ops.square(each)) for each in self.trainable_variables]
            loss = super().compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)
            return loss + factor * sum(squares)

    def make() -> Any:
        model = Penalised(dense(13, 3))
        model.compile(optimizer=optimizers.Adam(0.01), loss=ce())
        return model

    return {"model": make, "batch": data.scaled("wine", 24)}


@pair("grad_clip_too_small", "lr_too_low")
def clipped_in_train_step(broken: bool) -> Fields:
    """clip_by_global_norm with 1e-5 in a step of one's own; SGD."""
    norm = 1e-5 if broken else 5.0

    class Clipped(keras.Sequential):
        def train_step(self, batch: Any) -> Any:
            x, y = batch
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
            gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, self.trainable_variables), norm)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
            return {"loss": loss}

    def make() -> Any:
        model = Clipped(dense(64, 10))
        model.compile(optimizer=optimizers.SGD(0.2, momentum=0.9), loss=ce())
        return model

    return {"model": make, "batch": data.digits(24)}


@pair("updated_twice")
def applied_twice(broken: bool) -> Fields:
    """apply_gradients stands in the step, and again in a helper."""

    class Twice(keras.Sequential):
        def train_step(self, batch: Any) -> Any:
            x, y = batch
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
            pairs = list(zip(tape.gradient(loss, self.trainable_variables), self.trainable_variables, strict=True))
            for _ in range(2 if broken else 1):
                self.optimizer.apply_gradients(pairs)
            return {"loss": loss}

    def make() -> Any:
        model = Twice(dense(10, 1))
        model.compile(optimizer=optimizers.Adam(0.01), loss="mse")
        return model

    return {"model": make, "batch": column(data.diabetes(24))}


@pair("random_in_eval", "excessive_dropout", missed="evaluation is asked with the same noise each time")
def dropout_that_stays_on(broken: bool) -> Fields:
    """training=True is written into the call of a dropout."""

    def make() -> Any:
        inputs = keras.Input((64,))
        hidden = layers.Dense(64, "relu")(inputs)
        hidden = layers.Dropout(0.4)(hidden, training=True) if broken else layers.Dropout(0.4)(hidden)
        model = keras.Model(inputs, layers.Dense(10)(hidden))
        model.compile(optimizer=optimizers.Adam(5e-3), loss=ce())
        return model

    return {"model": make, "batch": data.digits(32)}


@pair("input_unused", "input_ignored")
def second_branch_reads_the_first_input(broken: bool) -> Fields:
    """Two inputs, and both branches are given the first one."""
    x, y = data.scaled("wine", 24)

    def make() -> Any:
        first, second = keras.Input((6,), name="first"), keras.Input((6,), name="second")
        left = layers.Dense(24, "relu")(first)
        right = layers.Dense(24, "relu")(first if broken else second)
        model = keras.Model([first, second], layers.Dense(3)(layers.Concatenate()([left, right])))
        model.compile(optimizer=optimizers.Adam(0.01), loss=ce())
        return model

    return {"model": make, "batch": ([x[:, :6], x[:, 6:12]], y)}


@pair("division_by_zero", "nan_parameter", "sqrt_zero_gradient")
def rows_standardised_in_a_layer(broken: bool) -> Fields:
    """Each picture is divided by its own deviation, and one is blank."""
    x, y = data.digits(24)
    x[7] = 0

    def standardise(h: Any) -> Any:
        spread = ops.std(h, axis=-1, keepdims=True)
        return (h - ops.mean(h, axis=-1, keepdims=True)) / (spread if broken else spread + 1e-3)

    def parts() -> Any:
        first, *rest = dense(64, 10)
        return [first, Apply(standardise), *rest]

    return {"model": chain(parts, ce(), adam(3e-3)), "batch": (x, y)}


@pair("schedule_kills_rate", "lr_too_low")
def rate_halved_by_a_callback(broken: bool) -> Fields:
    """A LearningRateScheduler halves the rate at every epoch, and an epoch is one batch."""

    def schedule(epoch: int, rate: float) -> float:
        return rate * (0.5 if broken else 0.999)

    return {
        "model": chain(lambda: dense(12, 5), bce(), lambda: optimizers.SGD(0.5, momentum=0.9)),
        "batch": data.tags(),
        "fit_kwargs": {"callbacks": [keras.callbacks.LearningRateScheduler(schedule)]},
    }


@pair("frozen_parameters", "optimizer_wrong_params")
def recurrent_body_frozen(broken: bool) -> Fields:
    """Embedding and GRU, of four units, are frozen before they were ever trained."""

    def parts() -> Any:
        body = [layers.Embedding(50, 4, trainable=not broken), layers.GRU(3, trainable=not broken)]
        return [keras.Input((12,), dtype="int32"), *body, layers.Dense(3)]

    return {"model": chain(parts, ce(), adam(0.03)), "batch": data.texts(24)}
