"""Keras programs whose layers cannot carry the task, make numbers that are none, or do not fit together."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops, optimizers

from tests.programs.diagnosis import data
from tests.programs.diagnosis.corpus import Corpus, Fields
from tests.programs.diagnosis.keras_base import Apply, bce, ce, chain, column, dense, images, maybe
from tests.programs.diagnosis.keras_optimisers import tower

PROGRAMS = Corpus()
pair = PROGRAMS.pair


def adam(rate: float = 0.01) -> Any:
    return lambda: optimizers.Adam(rate)


@pair("vanishing_gradient", "wrong_hidden_activation")
def seven_layers_of_sigmoid(broken: bool) -> Fields:
    """Seven layers with sigmoid between them; SGD."""
    return {
        "model": chain(
            lambda: tower(64, 10, 6, "sigmoid" if broken else "relu", kernel_initializer="he_normal"), ce(),
            lambda: optimizers.SGD(0.05, momentum=0.9),
        ),
        "batch": data.digits(24),
    }  # fmt: skip


@pair("vanishing_gradient", misnamed="small weights make the gradient fade, and ReLU in place of tanh is tried first")
def deep_without_shortcuts(broken: bool) -> Fields:
    """Twenty layers of tanh with small weights; the healthy one adds each layer's input to its output."""

    def make() -> Any:
        x = inputs = keras.Input((6,))
        x = layers.Dense(24)(x)
        for _ in range(20):
            h = layers.Dense(24, "tanh", kernel_initializer=keras.initializers.RandomNormal(stddev=0.1))(x)
            x = h if broken else layers.Add()([x, layers.Rescaling(0.3)(h)])
        model = keras.Model(inputs, layers.Dense(1)(x))
        model.compile(optimizer=optimizers.SGD(0.02), loss="mse")
        return model

    return {"model": make, "batch": data.surfaces(16)}


@pair("wrong_hidden_activation", "vanishing_gradient")
def softmax_between_layers(broken: bool) -> Fields:
    """Softmax behind hidden layers."""
    return {
        "model": chain(
            lambda: tower(64, 10, 2, "softmax" if broken else "relu"), ce(), lambda: optimizers.SGD(0.2, momentum=0.9)
        ),
        "batch": data.digits(24),
    }


@pair("missing_nonlinearity")
def spirals_by_lines(broken: bool) -> Fields:
    """No activation in any hidden layer, for two spirals."""
    between = None if broken else "tanh"

    def parts() -> Any:
        return [keras.Input((2,)), *(layers.Dense(64, between) for _ in range(3)), layers.Dense(1, "sigmoid")]

    return {"model": chain(parts, "binary_crossentropy", adam()), "batch": column(data.spirals(40))}


@pair("missing_nonlinearity", "insufficient_capacity")
def surface_by_a_plane(broken: bool) -> Fields:
    """The same in a regression."""
    return {
        "model": chain(lambda: dense(3, 1, units=64, between=None if broken else "relu"), "mse", adam(0.02)),
        "batch": data.surfaces(24, features=3),
    }


@pair("insufficient_capacity")
def digits_through_one_unit(broken: bool) -> Fields:
    """One hidden unit for ten classes."""
    return {"model": chain(lambda: dense(64, 10, units=1 if broken else 48), ce(), adam()), "batch": data.digits(48)}


@pair("insufficient_capacity")
def lstm_of_one_unit(broken: bool) -> Fields:
    """An LSTM with one unit, which has to tell noise apart."""
    x, y = data.noise(24, features=24)

    def parts() -> Any:
        return [keras.Input((6, 4)), layers.LSTM(1 if broken else 32), layers.Dense(4)]

    return {"model": chain(parts, ce(), adam(0.02)), "batch": (x.reshape(24, 6, 4), y)}


@pair("excessive_dropout")
def digits_dropout_of_almost_all(broken: bool) -> Fields:
    """Dropout(0.99) twice, in the belief that it is the share that is kept."""
    rate = 0.99 if broken else 0.1

    def parts() -> Any:
        return [
            *(keras.Input((64,)), layers.Dense(64, "relu"), layers.Dropout(rate)),
            *(layers.Dense(64, "relu"), layers.Dropout(rate), layers.Dense(10)),
        ]

    return {"model": chain(parts, ce(), adam(5e-3)), "batch": data.digits(32)}


@pair("batchnorm_eval_mismatch")
def statistics_that_never_move(broken: bool) -> Fields:
    """momentum=1.0 in BatchNormalization, on inputs that are not centred."""
    x, y = data.scaled("wine", 30)

    def parts() -> Any:
        norm = layers.BatchNormalization(momentum=1.0 if broken else 0.9)
        return [keras.Input((13,)), layers.Dense(48), norm, layers.ReLU(), layers.Dense(3)]

    return {"model": chain(parts, ce(), adam()), "batch": ((x * 5 + 20).astype("float32"), y)}


@pair("batch_mixing")
def centred_by_the_batch(broken: bool) -> Fields:
    """Features are centred over axis 0; over the features was meant."""

    def parts() -> Any:
        centre = Apply(lambda h: h - ops.mean(h, axis=0 if broken else 1, keepdims=True))
        return [keras.Input((30,)), layers.Dense(32, "tanh"), centre, layers.Dense(1)]

    return {"model": chain(parts, bce(), adam()), "batch": column(data.scaled("breast_cancer", 24))}


@pair("batch_mixing", "shape_mismatch")
def attention_over_the_batch(broken: bool) -> Fields:
    """Rows and words are transposed before attention, and back."""

    def turned(h: Any) -> Any:
        return ops.transpose(h, (1, 0, 2)) if broken else h

    def make() -> Any:
        ids = keras.Input((12,), dtype="int32")
        h = layers.Embedding(50, 16)(ids)
        seen = Apply(turned)(h)
        attended = Apply(turned)(layers.MultiHeadAttention(2, 8)(seen, seen))
        pooled = layers.GlobalAveragePooling1D()(layers.Add()([h, attended]))
        model = keras.Model(ids, layers.Dense(3, "softmax")(pooled))
        model.compile(optimizer=optimizers.Adam(0.01), loss="sparse_categorical_crossentropy")
        return model

    return {"model": make, "batch": data.texts(18)}


@pair("input_ignored", "input_unused")
def zeros_like_left_in(broken: bool) -> Fields:
    """A layer of debugging feeds zeros."""

    def parts() -> Any:
        first, *rest = dense(64, 10)
        return [first, *maybe(broken, Apply(ops.zeros_like)), *rest]

    return {"model": chain(parts, ce(), adam()), "batch": data.digits(24)}


@pair("input_ignored", "dead_relu")
def one_pixel_is_cropped(broken: bool) -> Fields:
    """Cropping takes all but one pixel, which is blank on every picture."""

    def parts() -> Any:
        crop = ((0, 7), (0, 7)) if broken else ((0, 0), (0, 0))
        return [
            *(keras.Input((8, 8, 1)), layers.Cropping2D(crop), layers.Conv2D(8, 1, activation="relu")),
            *(layers.Flatten(), layers.Dense(32, "relu"), layers.Dense(10, "softmax")),
        ]

    return {
        "model": chain(parts, "sparse_categorical_crossentropy", adam()),
        "batch": images(data.digits(24)),
    }


@pair("log_of_zero", "nan_parameter")
def own_divergence(broken: bool) -> Fields:
    """Kullback-Leibler by hand: t * log(t) of one-hot targets is 0 * -inf."""
    x, y = data.digits(24)

    def loss(t: Any, outputs: Any) -> Any:
        own = t * ops.log(t if broken else t + 1e-9)
        return ops.sum(own - t * ops.log_softmax(outputs), axis=-1)

    return {"model": chain(lambda: dense(64, 10), loss, adam()), "batch": (x, keras.utils.to_categorical(y, 10))}


@pair("log_of_zero", "nan_parameter", "nan_in_input")
def counts_by_their_log(broken: bool) -> Fields:
    """log of pixel values, most of which are 0."""

    def parts() -> Any:
        first, *rest = dense(64, 10)
        return [first, Apply(ops.log if broken else ops.log1p), *rest]

    return {"model": chain(parts, ce(), adam()), "batch": data.digits(24)}


@pair("sqrt_zero_gradient", "nan_parameter")
def answer_is_a_length(broken: bool) -> Fields:
    """The answer is a vector's length, and a blank row starts with one of 0."""
    x, y = data.surfaces(24)
    x[3] = 0

    def length(h: Any) -> Any:
        return ops.sqrt(ops.sum(ops.square(h), -1, keepdims=True) + (0 if broken else 1e-8))

    def parts() -> Any:
        return [*dense(6, 8, units=64, between="tanh"), Apply(length)]

    return {"model": chain(parts, "mse", adam()), "batch": (x, abs(y) + 0.3)}


@pair("division_by_zero", "nan_parameter")
def rows_divided_by_their_sum(broken: bool) -> Fields:
    """Rows are brought to a sum of 1, and one is blank."""
    x, y = data.digits(24)
    x[5] = 0

    def share(x: Any) -> Any:
        total = ops.sum(x, -1, keepdims=True)
        return 20 * x / (total if broken else ops.maximum(total, 1.0))

    def parts() -> Any:
        first, *rest = dense(64, 10)
        return [first, Apply(share), *rest]

    return {"model": chain(parts, ce(), adam()), "batch": (x, y)}


@pair("shape_mismatch")
def input_of_another_size(broken: bool) -> Fields:
    """The model was written for one column less."""
    return {
        "model": chain(lambda: dense(12 if broken else 13, 3), ce(), adam()),
        "batch": data.scaled("wine", 24),
    }


@pair("shape_mismatch")
def branches_that_do_not_add(broken: bool) -> Fields:
    """A shortcut of 16 units is added to 32."""

    def make() -> Any:
        inputs = keras.Input((10,))
        h = layers.Dense(32, "relu")(inputs)
        shortcut = layers.Dense(16 if broken else 32)(inputs)
        model = keras.Model(inputs, layers.Dense(1)(layers.Add()([h, shortcut])))
        model.compile(optimizer="adam", loss="mse")
        return model

    return {"model": make, "batch": column(data.diabetes(16))}


@pair("dtype_mismatch")
def whole_numbers_times_weights(broken: bool) -> Fields:
    """Word numbers are multiplied by a float matrix without a cast."""

    def parts() -> Any:
        scale = Apply(lambda ids: ids * 0.1 if broken else ops.cast(ids, "float32") * 0.1)
        return [keras.Input((12,), dtype="int64"), scale, layers.Dense(64, "relu"), layers.Dense(3)]

    return {"model": chain(parts, ce(), adam()), "batch": data.texts()}
