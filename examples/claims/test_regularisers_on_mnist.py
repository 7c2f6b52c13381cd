"""A tutorial claims that regularisers cure a Keras model that is accurate on fit and not on evaluation. Three programs.

It blames overfitting, and claims that L2 of 0.01, dropout of 0.5 and early stopping improve generalization. On
scikit-learn's digits instead of MNIST, L2 and dropout give a lower validation accuracy than the same network without
them, by about one point; L2 narrows the gap, by less than it costs. Whether dropout is shown to harm depends on the
random seed; it never helps. Early stopping, on 300 rows, has nothing to stop: the validation loss still falls after
twenty epochs in every run, so both arms do the same, and the probe gives the reason why that is not a fault.

The first two programs are written in torch here, with the initial weights of Keras, because Keras takes about a second
to build and trace each of twenty networks; the third is Keras. The input is 64 wide, not 784.
"""

from typing import Any

import keras
import numpy as np
import torch
from keras.layers import Dense
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from pytest_overfit import Case, Verdict, run_probes


def digits(rows: slice) -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return (x[rows] / 16).astype("float32"), y[rows]


def verdict(name: str, rows: int, epochs: int, **given: Any) -> Verdict:
    """Half a point of accuracy is the least that matters here: what L2 does is about one, the default margin."""
    case = Case(name=name, train=digits(slice(rows)), val=digits(slice(1400, None)), **given)
    return run_probes(case, ["regularization"], epochs=epochs, margin=0.005)[0]


class MLP(nn.Module):
    """Gives its answers and the sum of its squared weights, for a loss that penalises them."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(64, 128), nn.Dropout(dropout), nn.Linear(128, 10)
        for each in (self.first, self.last):
            nn.init.xavier_uniform_(each.weight)
            nn.init.zeros_(each.bias)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        penalty = self.first.weight.square().sum() + self.last.weight.square().sum()
        return self.last(self.drop(torch.relu(self.first(x)))), penalty


def without_penalty(outputs: tuple[torch.Tensor, torch.Tensor], y: torch.Tensor) -> torch.Tensor:
    return cross_entropy(outputs[0], y)


def with_l2(outputs: tuple[torch.Tensor, torch.Tensor], y: torch.Tensor) -> torch.Tensor:
    return without_penalty(outputs, y) + 0.01 * outputs[1]


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.001)


def l2(seed: int = 0) -> Verdict:
    plain = {"loss": without_penalty}
    return verdict("l2", 1400, 10, model=MLP, loss=with_l2, unregularized=plain, optimizer=adam, seed=seed)


def dropout(seed: int = 0) -> Verdict:
    model = lambda: MLP(0.5)  # noqa: E731
    return verdict("dropout", 1400, 10, model=model, loss=without_penalty, optimizer=adam, seed=seed)


def compiled() -> keras.Model:
    model = keras.Sequential([keras.Input((64,)), Dense(128, activation="relu"), Dense(10, activation="softmax")])
    model.compile("adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def early_stopping(seed: int = 0) -> Verdict:
    stop = keras.callbacks.EarlyStopping(monitor="val_loss", patience=3, restore_best_weights=True)
    return verdict("early_stopping", 300, 20, model=compiled, fit_kwargs={"callbacks": [stop]}, seed=seed)


def test_l2_lowers_the_validation_accuracy() -> None:
    found = l2()
    assert found.outcome == "failed"
    assert found.summary.startswith("harms")


def test_dropout_does_not_raise_it() -> None:
    found = dropout()
    assert found.data["removed"] == ["dropout 0.5 (drop)"]
    assert found.outcome in ("failed", "inconclusive")
    assert found.findings[0].name == "score_difference"
    assert found.findings[0].value < 0


def test_early_stopping_had_nothing_to_stop() -> None:
    found = early_stopping()
    assert found.outcome == "passed"
    assert found.summary == "no measurable effect: early stopping (patience 3) stopped none of the 20-epoch runs"
