"""Healthy Keras programs, which carry no fault's name: ordinary ones, and some that look odd and are right."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops, optimizers

from tests.programs.diagnosis import data
from tests.programs.diagnosis.corpus import Corpus, Fields
from tests.programs.diagnosis.keras_base import Apply, bce, ce, chain, column, dense, images

PROGRAMS = Corpus()
healthy = PROGRAMS.healthy


def adam(rate: float = 0.01) -> Any:
    return lambda: optimizers.Adam(rate)


@healthy
def cnn_with_softmax() -> Fields:
    """Convolutions and pooling, softmax at the end and its own loss."""

    def parts() -> Any:
        return [
            *(keras.Input((8, 8, 1)), layers.Conv2D(8, 3, activation="relu"), layers.MaxPooling2D()),
            *(layers.Flatten(), layers.Dropout(0.2), layers.Dense(10, "softmax")),
        ]

    return {
        "model": chain(parts, "sparse_categorical_crossentropy", adam(), metrics=["accuracy"]),
        "batch": images(data.digits(24)),
    }


@healthy
def tutorial_on_mnist() -> Fields:
    """The first tutorial: one hidden layer of 128, dropout, scores."""

    def parts() -> Any:
        return [
            *(keras.Input((28, 28, 1)), layers.Rescaling(1 / 255), layers.Flatten()),
            *(layers.Dense(128, "relu"), layers.Dropout(0.2), layers.Dense(10)),
        ]

    return {"model": chain(parts, ce()), "batch": lambda: images(data.mnist(24), 28)}


@healthy
def residual_with_batch_norm() -> Fields:
    """A shortcut over two normalised convolutions."""

    def make() -> Any:
        inputs = keras.Input((8, 8, 1))
        x = layers.Conv2D(8, 3, padding="same")(inputs)
        h = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(layers.Conv2D(8, 3, padding="same")(x)))
        h = layers.BatchNormalization(momentum=0.9)(layers.Conv2D(8, 3, padding="same")(h))
        x = layers.ReLU()(layers.Add()([x, h]))
        model = keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)))
        model.compile(optimizer=optimizers.SGD(0.05, momentum=0.9), loss=ce())
        return model

    return {"model": make, "batch": images(data.digits(24))}


@healthy
def masked_lstm() -> Fields:
    """An embedding with a mask, both directions."""

    def parts() -> Any:
        return [
            *(keras.Input((12,), dtype="int32"), layers.Embedding(50, 16, mask_zero=True)),
            *(layers.Bidirectional(layers.LSTM(16)), layers.Dense(3)),
        ]

    return {"model": chain(parts, ce(), adam()), "batch": data.texts()}


@healthy
def attention_over_words() -> Fields:
    """A block of a transformer, with LayerNormalization."""

    def make() -> Any:
        ids = keras.Input((12,), dtype="int32")
        h = layers.Embedding(50, 16)(ids)
        h = layers.LayerNormalization()(layers.Add()([h, layers.MultiHeadAttention(2, 8)(h, h)]))
        h = layers.LayerNormalization()(layers.Add()([h, layers.Dense(16)(layers.Dense(32, "gelu")(h))]))
        model = keras.Model(ids, layers.Dense(3, "softmax")(layers.GlobalAveragePooling1D()(h)))
        model.compile(optimizer=optimizers.AdamW(0.005), loss="sparse_categorical_crossentropy")
        return model

    return {"model": make, "batch": data.texts(18)}


@healthy
def autoencoder_of_pixels() -> Fields:
    """Sigmoid under binary cross-entropy on grey values: the loss never comes to 0."""
    x, _ = data.digits(12)

    def parts() -> Any:
        return [
            *(keras.Input((64,)), layers.Dense(96, "relu"), layers.Dense(24, "relu"), layers.Dense(96, "relu")),
            layers.Dense(64, "sigmoid"),
        ]

    return {"model": chain(parts, "binary_crossentropy", adam(5e-3)), "batch": (x, x)}


@healthy
def logistic_regression() -> Fields:
    """One layer: no activation is missing where a plane suffices."""
    return {
        "model": chain(
            lambda: [keras.Input((30,)), layers.Dense(1, "sigmoid")], "binary_crossentropy",
            lambda: optimizers.SGD(0.5),
        ),
        "batch": column(data.scaled("breast_cancer", 32)),
    }  # fmt: skip


@healthy
def normalised_inside() -> Fields:
    """Raw columns, brought to unit scale by the model's first layer."""
    raw = data.raw("wine", 100)[0]

    def parts() -> Any:
        norm = layers.Normalization(mean=raw.mean(0), variance=raw.var(0))
        return [keras.Input((13,)), norm, layers.Dense(32, "relu"), layers.Dense(3)]

    return {"model": chain(parts, ce(), adam()), "batch": data.raw("wine", 30)}


@healthy
def zero_start_of_the_last_layer() -> Fields:
    """The last layer starts at 0, so that every class is as likely."""

    def parts() -> Any:
        return [keras.Input((64,)), layers.Dense(64, "relu"), layers.Dense(10, kernel_initializer="zeros")]

    return {"model": chain(parts, ce(), adam(5e-3)), "batch": data.digits(32)}


@healthy
def two_heads() -> Fields:
    """The class of a wine, and its alcohol once more, from one body."""
    x, y = data.scaled("wine", 24)

    def make() -> Any:
        inputs = keras.Input((13,))
        body = layers.Dense(48, "relu")(inputs)
        heads = {"kind": layers.Dense(3, name="kind")(body), "alcohol": layers.Dense(1, name="alcohol")(body)}
        model = keras.Model(inputs, heads)
        model.compile(optimizer=optimizers.Adam(0.01), loss={"kind": ce(), "alcohol": "mse"})
        return model

    return {"model": make, "batch": (x, {"kind": y, "alcohol": x[:, :1].copy()})}


@healthy
def frozen_embedding_on_purpose() -> Fields:
    """Random words stay as they are, all else trains."""

    def parts() -> Any:
        return [
            *(keras.Input((12,), dtype="int32"), layers.Embedding(50, 32, trainable=False)),
            *(layers.GRU(24), layers.Dense(3)),
        ]

    return {"model": chain(parts, ce(), adam()), "batch": data.texts()}


@healthy
def tags_with_decay() -> Fields:
    """Several labels a row, weights with a slight penalty."""
    return {
        "model": chain(
            lambda: dense(12, 5, units=64, kernel_regularizer=keras.regularizers.l2(1e-4)), bce(),
            lambda: optimizers.RMSprop(5e-3),
        ),
        "batch": data.tags(),
    }  # fmt: skip


@healthy
def scaled_cosines() -> Fields:
    """Scores that are cosines times a scale: bounded, but far enough."""

    def parts() -> Any:
        cosines = layers.Dense(10, use_bias=False, kernel_constraint=keras.constraints.UnitNorm())
        unit = Apply(lambda h: h / ops.sqrt(ops.sum(ops.square(h), -1, keepdims=True) + 1e-8))
        return [keras.Input((64,)), layers.Dense(48, "tanh"), unit, cosines, layers.Rescaling(16.0)]

    return {"model": chain(parts, ce(), adam()), "batch": data.digits(24)}


@healthy
def clipped_own_step() -> Fields:
    """train_step by hand, with gradients clipped to a norm of 1."""

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.out = layers.Dense(48, "swish"), layers.Dense(2)

        def call(self, x: Any) -> Any:
            return self.out(self.hidden(x))

        def train_step(self, batch: Any) -> Any:
            x, y = batch
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
            gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, self.trainable_variables), 1.0)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
            return {"loss": loss}

    def make() -> Any:
        model = Net()
        model.compile(optimizer=optimizers.Adam(0.01), loss=keras.losses.Huber())
        return model

    return {"model": make, "batch": data.surfaces(24, targets=2)}


@healthy
def separable_over_time() -> Fields:
    """Convolutions over time, and the greatest of each channel."""

    def parts() -> Any:
        return [
            *(keras.Input((20, 1)), layers.Conv1D(16, 5, activation="relu"), layers.SeparableConv1D(16, 3)),
            *(layers.ReLU(), layers.GlobalMaxPooling1D(), layers.Dense(3)),
        ]

    return {"model": chain(parts, ce(), adam()), "batch": data.waves()}
