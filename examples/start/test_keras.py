"""A Keras CNN on scikit-learn's digits, in the three styles. A compiled model brings its loss and optimizer."""

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from pytest_overfit import Case, Overfit, parametrize_with_probes


def load(rows) -> tuple[np.ndarray, np.ndarray]:
    """Some of 1,797 grey images of 8 x 8 pixels, channels last."""
    x, y = load_digits(return_X_y=True)
    return x[rows].reshape(-1, 8, 8, 1), y[rows]


def load_train() -> tuple[np.ndarray, np.ndarray]:
    return load(slice(1400))


def load_test() -> tuple[np.ndarray, np.ndarray]:
    return load(slice(1400, None))


def load_leaky_test() -> tuple[np.ndarray, np.ndarray]:
    """Five training images were put into the test set."""
    return load([*range(1400, 1797), *range(5)])


def make_cnn() -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Rescaling(1 / 16),
            keras.layers.RandomTranslation(0.1, 0.1),
            keras.layers.Conv2D(16, 3, activation="relu", kernel_regularizer="l2"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(3e-3), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def make_frozen_cnn() -> keras.Model:
    """The classic mistake of transfer learning: the head was frozen together with the backbone."""
    model = make_cnn()
    model.trainable = False
    model.compile(keras.optimizers.Adam(3e-3), loss="sparse_categorical_crossentropy")
    return model


def case(name: str = "keras_cnn", model=make_cnn, test=load_test) -> Case:
    return Case(name=name, model=model, train=load_train, test=test)


# 1. the fixture
def test_it_can_learn(overfit: Overfit) -> None:
    overfit.batch(case())


def test_its_test_set_is_unseen(overfit: Overfit) -> None:
    overfit.split_duplicates(case())


# 2. the marker
@pytest.mark.overfit("overfit_batch")
def test_cnn() -> Case:
    return case()


# 3. the matrix
@parametrize_with_probes(
    [case(), case("frozen_keras_cnn", make_frozen_cnn), case("keras_cnn_on_a_leak", test=load_leaky_test)],
    ["overfit_batch", "split_duplicates"],
    expected_failures={
        "frozen_keras_cnn-overfit_batch": "everything is frozen",
        "keras_cnn_on_a_leak-split_duplicates": "five training images were put into the test set",
    },
)
def test_models(case: Case, probe) -> None:
    probe(case)
