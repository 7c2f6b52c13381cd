"""Keras programs whose labels or inputs are not what the model needs."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from tests.programs.diagnosis import data
from tests.programs.diagnosis.corpus import LATER, Corpus, Fields
from tests.programs.diagnosis.keras_base import ce, chain, column, dense, images

PROGRAMS = Corpus()
pair = PROGRAMS.pair


def adam(rate: float = 0.01) -> Any:
    return lambda: keras.optimizers.Adam(rate)


def sgd(rate: float, momentum: float = 0.0) -> Any:
    return lambda: keras.optimizers.SGD(rate, momentum=momentum)


@pair("label_out_of_range", "label_off_by_one")
def iris_counted_from_one(broken: bool) -> Fields:
    """Classes 1 to 3 for three units."""
    x, y = data.scaled("iris", 24)
    return {"model": chain(lambda: dense(4, 3), ce(), adam()), "batch": (x, y + 1 if broken else y)}


@pair("labels_collapsed")
def digits_divided_like_pixels(broken: bool) -> Fields:
    """Targets go through the line that scales the pixels, and are cast back."""
    x, y = data.digits(64)
    y = (y / 255).astype("int64") if broken else y
    return {
        "model": chain(lambda: dense(64, 10, "softmax"), "sparse_categorical_crossentropy", adam()),
        "train": (x, y),
    }


@pair("labels_collapsed")
def wine_one_hot_of_nothing(broken: bool) -> Fields:
    """to_categorical, with labels cut to booleans that are compared with a class that does not occur."""
    x, y = data.scaled("wine", 48)
    classes = (y == 3).astype(int) if broken else y
    return {
        "model": chain(lambda: dense(13, 3, "softmax"), "categorical_crossentropy", adam()),
        "train": (x, keras.utils.to_categorical(classes, 3)),
    }


@pair("conflicting_labels")
def two_annotators(broken: bool) -> Fields:
    """The same rows twice, and two who number the classes differently."""
    x, y = data.scaled("wine", 24)
    other = 2 - y if broken else y
    return {
        "model": chain(lambda: dense(13, 3), ce(), adam()),
        "batch": (np.concatenate([x, x]), np.concatenate([y, other])),
    }


@pair("misaligned_labels", probes=LATER, misnamed="labels in another order read as classes with other numbers")
def digits_labels_shuffled_alone(broken: bool) -> Fields:
    """The training labels are permuted, their rows are not."""
    x, y = data.digits(300)
    if broken:
        y = data.random().permutation(y)
    return {
        "model": chain(lambda: dense(64, 10, "softmax"), "sparse_categorical_crossentropy", adam()),
        "train": (x, y),
        "val": data.digits(200, 300),
    }


@pair("misaligned_labels", probes=LATER)
def wine_features_sorted_alone(broken: bool) -> Fields:
    """The rows of validation were sorted by alcohol, their labels were not."""
    x, y = data.scaled("wine", 60, 110)
    order = x[:, 0].argsort()
    return {
        "model": chain(lambda: dense(13, 3), ce(), adam(0.02)),
        "train": data.scaled("wine", 110),
        "val": (x[order], y if broken else y[order]),
    }


@pair("unnormalised_target")
def diabetes_own_units(broken: bool) -> Fields:
    """Targets of 25 to 346; SGD with a rate for unit scale."""
    x, y = data.diabetes(32)
    return {
        "model": chain(lambda: dense(10, 1, units=64), "mse", sgd(0.05)),
        "batch": column((x, y * 77 + 152 if broken else y)),
    }


@pair("unnormalised_target")
def prices_in_cents(broken: bool) -> Fields:
    """Targets of some ten millions."""
    x, y = data.surfaces()
    return {
        "model": chain(lambda: dense(6, 1), "mse", adam()),
        "batch": (x, (2e7 + 1e7 * y).astype("float32") if broken else y),
    }


@pair("unnormalised_input", "dead_relu")
def wine_own_units(broken: bool) -> Fields:
    """Proline is in the thousands, hue about 1; SGD."""
    return {
        "model": chain(lambda: dense(13, 3, "softmax"), "sparse_categorical_crossentropy", sgd(0.05, 0.9)),
        "train": data.raw("wine", 60) if broken else data.scaled("wine", 60),
    }


@pair("unnormalised_input")
def cancer_own_units(broken: bool) -> Fields:
    """Areas beside fractal dimensions, in a net of tanh."""
    pair_of = data.raw if broken else data.scaled
    return {
        "model": chain(lambda: dense(30, 1, "sigmoid", units=16, between="tanh"), "binary_crossentropy", adam()),
        "batch": column(pair_of("breast_cancer", 32)),
    }


@pair("unnormalised_input", "lr_too_high")
def mnist_in_bytes(broken: bool) -> Fields:
    """Pixels of 0 to 255, SGD with a rate for 0 to 1."""
    x, y = data.mnist(32)

    def parts() -> Any:
        return [keras.Input((784,)), layers.Dense(64, "relu"), layers.Dense(64, "relu"), layers.Dense(10)]

    return {"model": chain(parts, ce(), sgd(0.2)), "batch": (x if broken else x / 255, y)}


@pair("double_normalised")
def mnist_scaled_twice(broken: bool) -> Fields:
    """Divided by 255, and a Rescaling layer in front of the CNN."""
    x, y = images(data.mnist(24), 28)

    def parts() -> Any:
        return [
            *(keras.Input((28, 28, 1)), layers.Rescaling(1 / 255)),
            *(layers.Conv2D(8, 5, strides=3, activation="relu"), layers.Flatten(), layers.Dense(10)),
        ]

    return {"model": chain(parts, ce(), sgd(0.1, 0.9)), "batch": (x / 255 if broken else x, y)}


@pair("double_normalised")
def diabetes_scaled_twice(broken: bool) -> Fields:
    """Standardised, then divided by the raw columns' range of 300."""
    x, y = data.diabetes(16)
    return {
        "model": chain(lambda: dense(10, 1, units=64, between="tanh"), "mse", sgd(0.05, 0.9)),
        "batch": column(((x / 300).astype("float32") if broken else x, y)),
    }


@pair("constant_input", "labels_collapsed")
def digits_cast_to_bytes(broken: bool) -> Fields:
    """Pixels of 0 to 1 are cast to bytes."""
    x, y = data.digits(48)
    x = x * 0.99
    return {
        "model": chain(lambda: dense(64, 10), ce(), adam()),
        "train": (x.astype("uint8").astype("float32") if broken else x, y),
    }


@pair("constant_input", "conflicting_labels")
def texts_all_unknown(broken: bool) -> Fields:
    """Every word is number 1."""
    x, y = data.texts()

    def parts() -> Any:
        return [
            *(keras.Input((12,), dtype="int32"), layers.Embedding(50, 16), layers.GRU(24)),
            layers.Dense(3, "softmax"),
        ]

    return {
        "model": chain(parts, "sparse_categorical_crossentropy", adam()),
        "batch": (np.ones_like(x) if broken else x, y),
    }


@pair("nan_in_input", "nan_parameter")
def diabetes_with_gaps(broken: bool) -> Fields:
    """Missing values were not filled."""
    x, y = data.diabetes(32)
    x[data.random().random(x.shape) < 0.05] = np.nan if broken else 0
    return {"model": chain(lambda: dense(10, 1), "mse", adam()), "batch": column((x, y))}


@pair("nan_in_input", "division_by_zero", "nan_parameter")
def digits_standardised_with_blank_columns(broken: bool) -> Fields:
    """Columns that are always blank have a deviation of 0: 0 / 0."""
    x, y = data.digits(48)
    with np.errstate(invalid="ignore", divide="ignore"):
        x = (x - x.mean(0)) / (x.std(0) if broken else x.std(0).clip(1e-2))
    return {"model": chain(lambda: dense(64, 10), ce(), adam(3e-3)), "train": (x, y)}
