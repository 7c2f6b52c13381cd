"""A model whose own `compute_loss` never asks the loss that it was compiled with: nothing is demanded for that one."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from pytest_overfit import Case, CaseError, run_probes

X = np.random.default_rng(0).normal(size=(16, 20)).astype("float32")
Y = np.arange(16) % 5


class Own(keras.Model):  # type: ignore[misc]
    def __init__(self, cut: bool, asks: bool) -> None:
        super().__init__()
        self.hidden, self.head = keras.layers.Dense(32, activation="relu"), keras.layers.Dense(5)
        self.cut, self.asks = cut, asks

    def call(self, x: Any) -> Any:
        return self.head(self.hidden(x) * (0.0 if self.cut else 1.0))

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        own = keras.ops.mean(keras.losses.sparse_categorical_crossentropy(y, y_pred, from_logits=True))
        return own + super().compute_loss(x, y, y_pred, sample_weight, training) if self.asks else own


def case(loss: str, cut: bool = False, asks: bool = False) -> Case:
    def model() -> keras.Model:
        made = Own(cut, asks)
        made.compile(keras.optimizers.Adam(1e-2), loss=loss)
        return made

    return Case(name="own", model=model, batch=(X, Y))


@pytest.mark.parametrize("loss", ["categorical_crossentropy", "binary_crossentropy"])
def test_a_loss_that_is_never_asked_demands_nothing(loss: str) -> None:
    (verdict,) = run_probes(case(loss), ["overfit_batch"])
    assert verdict.outcome == "passed", verdict.summary
    assert "accuracy 1" in verdict.summary


def test_a_model_that_ignores_its_input_fails_all_the_same() -> None:
    (verdict,) = run_probes(case("categorical_crossentropy", cut=True), ["overfit_batch"])
    assert verdict.outcome == "failed"


def test_a_loss_that_is_asked_is_checked() -> None:
    with pytest.raises(CaseError, match="categorical_crossentropy expects one-hot targets"):
        run_probes(case("categorical_crossentropy", asks=True), ["overfit_batch"])
