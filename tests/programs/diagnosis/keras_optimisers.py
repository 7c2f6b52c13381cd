"""Keras programs whose steps are of the wrong size, or that start where nothing can be learnt."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, optimizers

from tests.programs.diagnosis import data
from tests.programs.diagnosis.corpus import Corpus, Fields
from tests.programs.diagnosis.keras_base import bce, ce, chain, column, dense, images

PROGRAMS = Corpus()
pair = PROGRAMS.pair


def cnn() -> Any:
    return [
        *(keras.Input((8, 8, 1)), layers.Conv2D(8, 3, padding="same", activation="relu"), layers.MaxPooling2D()),
        *(layers.Flatten(), layers.Dense(32, "relu"), layers.Dense(10, "softmax")),
    ]


def tower(inputs: int, outputs: int, depth: int, between: Any = "relu", **more: Any) -> Any:
    hidden = [layers.Dense(32, between, **more) for _ in range(depth)]
    return [keras.Input((inputs,)), *hidden, layers.Dense(outputs, **more)]


@pair("lr_too_low")
def digits_sgd_of_a_millionth(broken: bool) -> Fields:
    """SGD with 1e-6."""
    rate = 1e-6 if broken else 0.3
    return {"model": chain(lambda: dense(64, 10), ce(), lambda: optimizers.SGD(rate)), "train": data.digits(32)}


@pair("lr_too_low")
def cnn_adam_of_a_ten_millionth(broken: bool) -> Fields:
    """Adam with 1e-7, in a CNN."""
    rate = 1e-7 if broken else 5e-3
    return {
        "model": chain(cnn, "sparse_categorical_crossentropy", lambda: optimizers.Adam(rate)),
        "batch": images(data.digits(24)),
    }


@pair("lr_too_high", "dead_relu")
def cnn_adam_of_one(broken: bool) -> Fields:
    """Adam with a rate of 1."""
    rate = 1.0 if broken else 5e-3
    return {
        "model": chain(cnn, "sparse_categorical_crossentropy", lambda: optimizers.Adam(rate)),
        "batch": images(data.digits(24)),
    }


@pair("lr_too_high")
def diabetes_momentum_diverges(broken: bool) -> Fields:
    """SGD with momentum and a rate of 2 in a regression."""
    rate = 2.0 if broken else 0.03
    return {
        "model": chain(lambda: dense(10, 1, between="tanh"), "mse", lambda: optimizers.SGD(rate, momentum=0.9)),
        "batch": column(data.diabetes(24)),
    }


@pair("lr_zero", "update_skipped")
def rate_by_whole_division(broken: bool) -> Fields:
    """The rate is divided with //."""
    rate = 3 // 32 if broken else 3 / 32
    return {
        "model": chain(lambda: dense(13, 3), ce(), lambda: optimizers.SGD(float(rate), momentum=0.9)),
        "batch": data.scaled("wine", 30),
    }


@pair("lr_negative", "gradient_ascent")
def rate_with_a_minus(broken: bool) -> Fields:
    """A rate below 0."""
    rate = -0.1 if broken else 0.1
    return {
        "model": chain(lambda: dense(64, 10), ce(), lambda: optimizers.SGD(rate, momentum=0.9)),
        "batch": data.digits(24),
    }


@pair("bad_adam_epsilon", "lr_too_low")
def epsilon_of_ten_thousand(broken: bool) -> Fields:
    """epsilon=1e4 for 1e-4."""
    epsilon = 1e4 if broken else 1e-4
    return {
        "model": chain(lambda: dense(12, 5), bce(), lambda: optimizers.Adam(0.01, epsilon=epsilon)),
        "batch": data.tags(),
    }


@pair("bad_adam_epsilon", "lr_too_low")
def epsilon_of_fifty(broken: bool) -> Fields:
    """AdamW with epsilon=50 for a regression."""
    epsilon = 50.0 if broken else 1e-7
    return {
        "model": chain(lambda: dense(6, 1), "mse", lambda: optimizers.AdamW(0.01, epsilon=epsilon)),
        "batch": data.surfaces(24),
    }


@pair("schedule_kills_rate", "lr_too_low")
def decayed_by_the_step(broken: bool) -> Fields:
    """ExponentialDecay with decay_steps=1 in place of an epoch's."""

    def optimizer() -> Any:
        rate = optimizers.schedules.ExponentialDecay(0.3, 1 if broken else 1000, 0.5)
        return optimizers.SGD(rate)

    return {"model": chain(lambda: dense(64, 10), ce(), optimizer), "batch": data.digits(32)}


@pair("schedule_kills_rate", "lr_too_low")
def cosine_over_ten_steps(broken: bool) -> Fields:
    """CosineDecay over ten epochs, counted in batches."""

    def optimizer() -> Any:
        return optimizers.Adam(optimizers.schedules.CosineDecay(0.01, 10 if broken else 10_000))

    return {"model": chain(lambda: dense(6, 1), "mse", optimizer), "batch": data.surfaces(24)}


@pair("excessive_weight_decay")
def sgd_decay_of_five(broken: bool) -> Fields:
    """weight_decay=5 for 5e-4."""
    decay = 5.0 if broken else 5e-4
    return {
        "model": chain(lambda: dense(64, 10), ce(), lambda: optimizers.SGD(0.1, weight_decay=decay)),
        "batch": data.digits(24),
    }


@pair("excessive_weight_decay")
def penalty_of_ten(broken: bool) -> Fields:
    """kernel_regularizer=l2(10)."""
    penalty = 10.0 if broken else 1e-5
    return {
        "model": chain(
            lambda: dense(13, 3, kernel_regularizer=keras.regularizers.l2(penalty)), ce(),
            lambda: optimizers.Adam(0.01),
        ),
        "batch": data.scaled("wine", 24),
    }  # fmt: skip


@pair("zero_init", "constant_init")
def kernels_of_zero(broken: bool) -> Fields:
    """kernel_initializer="zeros" everywhere."""
    draw = "zeros" if broken else "glorot_uniform"
    return {
        "model": chain(lambda: dense(64, 10, kernel_initializer=draw), ce(), lambda: optimizers.Adam(0.01)),
        "batch": data.digits(24),
    }


@pair("zero_init", "constant_init")
def tanh_kernels_of_zero(broken: bool) -> Fields:
    """The same behind tanh, for a regression with SGD."""
    draw = "zeros" if broken else "glorot_normal"
    return {
        "model": chain(
            lambda: tower(6, 1, 2, "tanh", kernel_initializer=draw), "mse",
            lambda: optimizers.SGD(0.1, momentum=0.9),
        ),
        "batch": data.surfaces(20),
    }  # fmt: skip


@pair("constant_init")
def kernels_all_equal(broken: bool) -> Fields:
    """All weights 0.05: the units never differ."""
    draw: Any = keras.initializers.Constant(0.05) if broken else "he_normal"
    return {
        "model": chain(lambda: dense(64, 10, kernel_initializer=draw), ce(), lambda: optimizers.Adam(0.01)),
        "batch": data.digits(32),
    }


@pair("too_large_init", "over_confident_start")
def tanh_kernels_of_twenty(broken: bool) -> Fields:
    """RandomNormal(stddev=20) behind tanh: all units are saturated."""

    def parts() -> Any:
        draw = keras.initializers.RandomNormal(stddev=20.0, seed=1) if broken else "glorot_uniform"
        return tower(6, 1, 2, "tanh", kernel_initializer=draw)

    return {"model": chain(parts, "mse", lambda: optimizers.Adam(0.01)), "batch": data.surfaces(24)}


@pair("too_large_init", "over_confident_start", "dead_relu")
def deep_kernels_of_deviation_one(broken: bool) -> Fields:
    """RandomNormal(stddev=1) in eight layers; SGD."""

    def parts() -> Any:
        draw = keras.initializers.RandomNormal(stddev=1.0) if broken else "he_normal"
        return tower(64, 10, 7, kernel_initializer=draw)

    return {"model": chain(parts, ce(), lambda: optimizers.SGD(0.05, momentum=0.9)), "batch": data.digits(24)}


@pair("too_small_init", "vanishing_gradient")
def deep_kernels_of_a_thousandth(broken: bool) -> Fields:
    """RandomNormal(stddev=0.001) in six layers; SGD."""

    def parts() -> Any:
        draw = keras.initializers.RandomNormal(stddev=1e-3) if broken else "he_normal"
        return tower(64, 10, 5, kernel_initializer=draw)

    return {"model": chain(parts, ce(), lambda: optimizers.SGD(0.05, momentum=0.9)), "batch": data.digits(24)}


@pair("dead_relu")
def biases_far_below_zero(broken: bool) -> Fields:
    """bias_initializer of -10 in the hidden layer."""

    def parts() -> Any:
        bias: Any = keras.initializers.Constant(-10.0) if broken else "zeros"
        return [keras.Input((13,)), layers.Dense(48, "relu", bias_initializer=bias), layers.Dense(3)]

    return {"model": chain(parts, ce(), lambda: optimizers.Adam(5e-3)), "batch": data.scaled("wine", 24)}


@pair("dead_relu")
def kernels_of_one_sign(broken: bool) -> Fields:
    """Weights drawn from -0.2 to 0 on pixels, which are never below 0."""

    def parts() -> Any:
        draw = keras.initializers.RandomUniform(-0.2, 0.0 if broken else 0.2)
        return tower(64, 10, 2, kernel_initializer=draw)

    return {"model": chain(parts, ce(), lambda: optimizers.SGD(0.1, momentum=0.9)), "batch": data.digits(32)}
