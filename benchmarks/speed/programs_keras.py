"""The three Keras programs of "How can a Keras model be overfit on a single batch?": four rows, 500 updates."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import keras
import numpy as np

from pytest_overfit import Case, Verdict, run_probes

SEED = 2
UPDATES = 500
X = np.array([[1, 2], [3, 4], [5, 6], [7, 8]], dtype=np.float32)
Y = np.array([[0], [1], [0], [1]], dtype=np.float32)


def compiled(units: list[int], optimizer: str) -> keras.Model:
    hidden = [keras.layers.Dense(each, activation="relu") for each in units]
    model = keras.Sequential([keras.Input((2,)), *hidden, keras.layers.Dense(1, activation="sigmoid")])
    model.compile(optimizer=optimizer, loss="binary_crossentropy", metrics=["accuracy"])
    return model


PROGRAMS: dict[str, Callable[[], keras.Model]] = {
    "one_small_layer": partial(compiled, [16], "adam"),
    "three_layers": partial(compiled, [64, 32, 16], "adam"),
    "three_layers_sgd": partial(compiled, [64, 32, 16], "sgd"),
}


def fit(name: str) -> float:
    """As the tutorial does it, and silent."""
    history = PROGRAMS[name]().fit(X, Y, epochs=UPDATES, batch_size=len(X), verbose=0)
    return float(history.history["loss"][-1])


def train_on_batch(name: str) -> float:
    """The loop that Keras offers for one batch."""
    model, loss = PROGRAMS[name](), 0.0
    for _ in range(UPDATES):
        loss = float(model.train_on_batch(X, Y)[0])
    return loss


def case_of(name: str) -> Case:
    """The factory is new each time: nothing that was traced for another model can be used again."""
    return Case(name=name, model=lambda: PROGRAMS[name](), batch=(X, Y), seed=SEED)


def ours(name: str) -> Verdict:
    (verdict,) = run_probes(case_of(name), ["overfit_batch"], steps=UPDATES)
    return verdict
