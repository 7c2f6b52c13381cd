"""What a Keras model learns beyond its batch, on scikit-learn's digits: four probes, and a model that fails each."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from sklearn.datasets import load_digits

from pytest_overfit import Case, Overfit, ProbeFailed

PIXELS, LABELS = load_digits(return_X_y=True)
PIXELS = (PIXELS / 16).astype("float32")


def mlp(rate: float = 0.1) -> keras.Model:
    inputs = keras.Input((64,))
    hidden = layers.Dropout(rate)(layers.Dense(64, activation="relu")(inputs))
    model = keras.Model(inputs, layers.Dense(10)(hidden))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=loss)
    return model


def digits(name: str = "keras_mlp", **more: Any) -> Case:
    train, val = (PIXELS[:1000], LABELS[:1000]), (PIXELS[1000:], LABELS[1000:])
    return Case(name=name, **{"model": mlp, "train": train, "val": val, **more})


def test_it_carries_over(overfit: Overfit) -> None:
    overfit.generalization_gap(digits(), epochs=8, min_score=0.85, max_gap=0.15)


def test_the_first_epochs_are_believable(overfit: Overfit) -> None:
    overfit.early_accuracy(digits())


def test_dropout_does_something(overfit: Overfit) -> None:
    overfit.inert_regularizer(digits())


def test_labels_of_other_rows_carry_nothing_over(overfit: Overfit) -> None:
    labels = np.random.default_rng(0).permutation(LABELS[:1000])
    with pytest.raises(ProbeFailed, match="val accuracy"):
        overfit.generalization_gap(digits("keras_shuffled", train=(PIXELS[:1000], labels)), epochs=3, controls=True)


def test_dropout_that_is_never_told_to_train_is_inert(overfit: Overfit) -> None:
    class Forgets(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.drop, self.last = (
                layers.Dense(64, activation="relu"),
                layers.Dropout(0.5),
                layers.Dense(10),
            )

        def call(self, x: Any, training: bool = False) -> Any:
            del training
            return self.last(self.drop(self.first(x), training=False))

    def forgets() -> keras.Model:
        model = Forgets()
        model.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    with pytest.raises(ProbeFailed, match="inert"):
        overfit.inert_regularizer(digits("keras_forgets", model=forgets))


def test_too_much_dropout_harms(overfit: Overfit) -> None:
    with pytest.raises(ProbeFailed, match="harms: val accuracy"):
        overfit.regularization(digits("keras_drops", model=lambda: mlp(0.97)), epochs=2)
