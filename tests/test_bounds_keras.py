"""Quantities of Keras models: a planted fault each, and its healthy twin."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from pytest_overfit import Case, Verdict, run_probes, theory
from pytest_overfit.core.bounds import with_bounds

keras = pytest.importorskip("keras")

X, Y = load_digits(return_X_y=True)
X = (X / 16).astype("float32")


def mlp(activation: str = "relu", bias: float = 0.0, scale: float = 1.0, first: Any = None, rate: float = 1e-2) -> Any:
    parts = [
        keras.Input((64,)),
        *([first] if first is not None else []),
        keras.layers.Dense(32, name="hidden", bias_initializer=keras.initializers.Constant(bias)),
        keras.layers.Rescaling(scale),
        keras.layers.Activation(activation),
        keras.layers.Dense(10),
    ]
    model = keras.Sequential(parts)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss=loss)
    return model


class Unsaved(keras.layers.Layer):
    """Random numbers that no saved state holds."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = keras.random.normal((64,))

    def call(self, x: Any) -> Any:
        return x * self.numbers


class BatchMean(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        return x - keras.ops.mean(x, axis=0, keepdims=True)


def found(model: Any, **bounds: Any) -> Verdict:
    case = Case(name="mlp", model=model, train=(X[:300], Y[:300]))
    return run_probes(with_bounds(case, bounds, "call"), ["bounds"], k=5)[0]


def test_a_healthy_model_is_within_its_bounds() -> None:
    verdict = found(
        mlp,
        initial_loss=(theory - 0.6, theory + 0.6),
        gradient_norm=(1e-3, 10),
        update_to_weight=(1e-4, 0.5),
        dead_units=(None, 0.6),
        output_range=(None, 20),
        parameters_trainable=2410,
        parameters_frozen=0,
        determinism=True,
        eval_twice=True,
        save_load=True,
        batch_size_invariance=True,
    )
    assert verdict.outcome == "passed", verdict.summary


@pytest.mark.parametrize(
    ("model", "bounds"),
    [
        (lambda: mlp(bias=-100.0), {"dead_units": (None, 0.6)}),
        (lambda: mlp("sigmoid", scale=1e5), {"saturated_units": (None, 0.2)}),
        (lambda: mlp(rate=1e-9), {"update_to_weight": (1e-4, 0.5)}),
        (lambda: mlp(first=BatchMean()), {"batch_size_invariance": True}),
        (lambda: mlp(first=Unsaved()), {"save_load": True}),
        (lambda: mlp(scale=1e6), {"gradient_norm": (1e-3, 10)}),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) else "",
)
def test_a_planted_violation_is_failed(model: Any, bounds: dict[str, Any]) -> None:
    verdict = found(model, **bounds)
    assert verdict.outcome == "failed", verdict.summary


def test_saturated_outputs_are_meant_to_be_certain() -> None:
    def certain() -> Any:
        hidden, end = keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(1, activation="sigmoid")
        model = keras.Sequential([keras.Input((64,)), hidden, keras.layers.Rescaling(1e5), end])
        model.compile("adam", loss="binary_crossentropy")
        return model

    case = Case(name="certain", model=certain, train=(X[:300], (Y[:300] % 2)[:, None].astype("float32")))
    verdict = run_probes(with_bounds(case, {"saturated_units": (None, 0.3)}, "call"), ["bounds"], k=0)[0]
    assert verdict.outcome == "passed", verdict.summary


def test_what_keras_is_not_asked_is_inconclusive() -> None:
    verdict = found(mlp, float64_agrees=True)
    assert verdict.outcome == "inconclusive"
    assert verdict.summary.startswith("float64_agrees: not measured for this framework")


def test_the_model_is_left_as_it_was() -> None:
    made: list[tuple[Any, list[Any]]] = []

    def model() -> Any:
        new = mlp()
        made.append((new, [np.array(each) for each in new.get_weights()]))
        return new

    found(model, gradient_norm=(0, 100), parameters_frozen=0, output_std=(0, 100))
    for new, weights in made:
        assert all(np.array_equal(a, b) for a, b in zip(new.get_weights(), weights, strict=True))
