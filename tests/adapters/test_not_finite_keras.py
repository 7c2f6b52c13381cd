"""NaN inside a Keras model whose loss is finite, and infinities that are data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

keras = pytest.importorskip("keras", reason="keras is not installed")
tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed")

from pytest_overfit import Case, Verdict, run_probes  # noqa: E402

X, Y = load_digits(return_X_y=True)
BATCH = (X[:24].astype(np.float32) / 16, Y[:24])


def verdict(make: Callable[[], Any]) -> Verdict:
    return run_probes(Case(name="case", model=make, batch=BATCH), ["overfit_batch"])[0]


def compiled(model: Any) -> Any:
    model.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


class Logs(keras.layers.Layer):
    def __init__(self, safe: bool) -> None:
        super().__init__(name="logs")
        self.safe = safe

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, x: Any) -> Any:
        t = x * self.scale
        inside = tf.where(t > 0, t, tf.ones_like(t)) if self.safe else t
        found = tf.where(t > 0, tf.math.log(inside), tf.zeros_like(t))
        return tf.where(tf.math.is_finite(found), found, tf.zeros_like(found))


def beside(layer: Any) -> Any:
    """A net that memorises without this layer."""
    x = keras.Input((64,))
    body = keras.layers.Dense(10)(keras.layers.Dense(64, activation="relu")(x))
    return compiled(keras.Model(x, body + 0.1 * keras.layers.Dense(10)(layer(x))))


@pytest.mark.parametrize("safe", [False, True])
def test_a_parameter_behind_where(safe: bool) -> None:
    found = verdict(lambda: beside(Logs(safe)))
    assert found.outcome == ("passed" if safe else "failed"), found.summary
    assert found.summary.startswith("parameter 'logs/scale' of Logs logs is NaN") != safe


class Cleaned(keras.Model):
    """Its step takes NaN out of the gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.logs, self.body = (
            Logs(safe=False),
            keras.Sequential([keras.layers.Dense(64, "relu"), keras.layers.Dense(10)]),
        )
        self.mix = keras.layers.Dense(10)

    def call(self, x: Any) -> Any:
        return self.body(x) + 0.1 * self.mix(self.logs(x))

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        clean = [tf.where(tf.math.is_finite(each), each, tf.zeros_like(each)) for each in gradients]
        self.optimizer.apply_gradients(zip(clean, self.trainable_variables, strict=True))
        return {"loss": loss}


def test_gradients_that_a_step_cleans_are_no_fault() -> None:
    found = verdict(lambda: compiled(Cleaned()))
    assert found.outcome == "passed", found.summary


class Keeps(keras.layers.Layer):
    def __init__(self, start: float, update: Callable[[Any, Any], Any]) -> None:
        super().__init__(name="keeps")
        self.start, self.update = start, update

    def build(self, shape: Any) -> None:
        del shape
        start = keras.initializers.Constant(self.start)
        self.kept = self.add_weight(shape=(4,), initializer=start, trainable=False, name="kept")

    def call(self, x: Any, training: bool = False) -> Any:
        if training:
            self.kept.assign(self.update(self.kept, x))
        return x


@pytest.mark.parametrize(
    ("start", "update", "said"),
    [
        (0.0, lambda kept, _: kept / keras.ops.sum(kept), "is NaN"),
        (math.inf, lambda kept, x: keras.ops.minimum(kept, keras.ops.min(x)), ""),
    ],
)
def test_weights_that_are_not_trained(start: float, update: Callable[[Any, Any], Any], said: str) -> None:
    found = verdict(lambda: beside(Keeps(start, update)))
    assert found.outcome == ("failed" if said else "passed"), found.summary
    assert ("of Keeps keeps" in found.summary) == bool(said)
