"""The same for Keras: layers that count, remember or keep a state for each row are not random."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from keras import layers, ops  # noqa: E402

from pytest_overfit import Case, Verdict, run_probes  # noqa: E402

ROWS = 16
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 24)).astype("float32")
Y = RNG.permutation(np.arange(ROWS) % 4)
CALLS = {"count": 0}


def net(*inner: Any, batch: int | None = None, eager: bool = False) -> Any:
    first = keras.Input(shape=(24,)) if batch is None else keras.Input(batch_shape=(batch, 24))
    model = keras.Sequential([first, layers.Dense(32, activation="relu"), *inner, layers.Dense(4)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss=loss, run_eagerly=eager)
    return model


def verdict(model: Callable[[], Any]) -> Verdict:
    return run_probes(Case(name="state", model=model, batch=(X, Y)), ["overfit_batch"])[0]


class CountsInPython(layers.Layer):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.calls = 0

    def call(self, x: Any) -> Any:
        self.calls += 1
        return x * (1 + self.calls % 3)


class CountsGlobally(layers.Layer):
    def call(self, x: Any) -> Any:
        CALLS["count"] += 1
        return x * (1 + CALLS["count"] % 3)


class CountsInTensorFlow(layers.Layer):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.calls = tf.Variable(0.0, trainable=False)

    def call(self, x: Any) -> Any:
        self.calls.assign_add(1.0)
        return x * (1 + tf.math.floormod(self.calls, 3.0))


class Remembers(layers.Layer):
    """A state for each row."""

    def build(self, shape: Any) -> None:
        self.state = self.add_weight(shape=(ROWS, shape[-1]), initializer="zeros", trainable=False)

    def call(self, x: Any) -> Any:
        answer = x + 0.5 * self.state
        self.state.assign(ops.stop_gradient(ops.tanh(answer)))
        return answer


class Drops(layers.Layer):
    def call(self, x: Any) -> Any:
        return keras.random.dropout(x, 0.3)


class DropsWithTensorFlow(layers.Layer):
    def call(self, x: Any) -> Any:
        return tf.nn.dropout(x, 0.3)


class OwnGenerator(layers.Layer):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.generator = tf.random.Generator.from_seed(1)

    def call(self, x: Any) -> Any:
        return x * tf.cast(self.generator.uniform(tf.shape(x)) > 0.3, x.dtype)


def recurrent() -> Any:
    return net(layers.Reshape((4, 8)), layers.GRU(16, stateful=True), batch=ROWS)


HEALTHY: dict[str, Callable[[], Any]] = {
    "python": lambda: net(CountsInPython(), eager=True),
    "python_compiled": lambda: net(CountsInPython()),
    "global": lambda: net(CountsGlobally(), eager=True),
    "tensorflow": lambda: net(CountsInTensorFlow()),
    "rows": lambda: net(Remembers(), batch=ROWS),
    "stateful": recurrent,
}


@pytest.mark.parametrize("name", HEALTHY)
def test_state_is_no_randomness(name: str) -> None:
    found = verdict(HEALTHY[name])
    assert found.outcome == "passed", found.summary
    assert any("the global CALLS" in each.message for each in found.findings) == (name == "global")
    assert not any("evaluation lags" in each.message for each in found.findings)  # there are no running statistics


@pytest.mark.parametrize("layer", [Drops, DropsWithTensorFlow, OwnGenerator])
def test_randomness_stays_a_fault(layer: Callable[[], Any]) -> None:
    found = verdict(lambda: net(layer()))
    assert found.outcome == "failed"
    assert "evaluation is random" in found.summary
