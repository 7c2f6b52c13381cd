"""A tutorial claims that a Keras model can be overfit on a single batch of four rows. Its three programs.

It claims of all three that accuracy shoots up to 100 % in 500 epochs. With the random seed below, none of them has
memorised its four rows after 500 updates: only the second predicts them all, and not one comes near the loss of a model
that knows them. Over 20 random seeds, every row was right in 0, 10 and 0 runs, and the batch memorised in 0, 1 and 0.
"""

import keras
import numpy as np
import pytest

from pytest_overfit import Case, run_probes

X = np.array([[1, 2], [3, 4], [5, 6], [7, 8]], dtype=np.float32)
Y = np.array([[0], [1], [0], [1]], dtype=np.float32)


def compiled(units: list[int], optimizer: str) -> keras.Model:
    hidden = [keras.layers.Dense(each, activation="relu") for each in units]
    model = keras.Sequential([keras.Input((2,)), *hidden, keras.layers.Dense(1, activation="sigmoid")])
    model.compile(optimizer=optimizer, loss="binary_crossentropy", metrics=["accuracy"])
    return model


PROGRAMS = {
    "one_small_layer": (lambda: compiled([16], "adam"), False),
    "three_layers": (lambda: compiled([64, 32, 16], "adam"), True),
    "three_layers_sgd": (lambda: compiled([64, 32, 16], "sgd"), False),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_has_not_memorised_after_500_updates(name: str) -> None:
    model, every_row_right = PROGRAMS[name]
    case = Case(name=name, model=model, batch=(X, Y), seed=2)
    (verdict,) = run_probes(case, ["overfit_batch"], steps=500)
    found = {finding.name: finding for finding in verdict.findings}
    assert verdict.steps == 500
    assert verdict.outcome in ("failed", "inconclusive")
    assert found["loss_ratio"].value > found["loss_ratio"].limit
    assert (found["accuracy"].value == 1.0) == every_row_right
