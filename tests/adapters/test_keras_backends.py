"""Keras on the torch and jax backends gives the verdicts it gives on tensorflow, and leaves their state alone."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("keras")

PROGRAMS = """
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

from pytest_overfit import Case, CaseError, run_probes

X = np.random.default_rng(0).normal(size=(12, 6)).astype("float32")
Y = np.arange(12) % 3
VALUES = np.random.default_rng(1).normal(size=(12, 1)).astype("float32")


class Blind(layers.Layer):
    def call(self, x):
        return 0.0 * x


class Rolls(layers.Layer):
    def call(self, x):
        return ops.roll(x, 1, axis=0)


class Restless(layers.Layer):
    def __init__(self):
        super().__init__()
        self.random = keras.random.SeedGenerator(1)

    def call(self, x):
        return keras.random.dropout(x, 0.3, seed=self.random)


def net(*between, outputs=3, activation="softmax", loss="sparse_categorical_crossentropy", rate=1e-2, **more):
    parts = [layers.Dense(64, "relu"), *between, layers.Dense(outputs, activation)]
    model = keras.Sequential([keras.Input((6,)), *parts])
    model.compile(keras.optimizers.Adam(rate), loss, **more)
    return model


def heads():
    x = keras.Input((6,))
    hidden = layers.Dense(64, "relu")(x)
    kind, amount = layers.Dense(3, "softmax", name="kind")(hidden), layers.Dense(1, name="amount")(hidden)
    model = keras.Model(x, {"kind": kind, "amount": amount})
    model.compile(keras.optimizers.Adam(1e-2), {"kind": "sparse_categorical_crossentropy", "amount": "mse"})
    return model


def frozen():
    model = net()
    model.trainable = False
    return model


def likelihood(y, shown):
    deviation = ops.softplus(shown[:, 1:]) + 0.05
    return ops.mean(ops.log(deviation) + 0.5 * ((y - shown[:, :1]) / deviation) ** 2)


LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
CASES = {
    "healthy": (net, Y, {}),
    "healthy_batch_norm_dropout": (lambda: net(layers.BatchNormalization(), layers.Dropout(0.3)), Y, {}),
    "healthy_heads": (heads, {"kind": Y, "amount": VALUES}, {}),
    "healthy_weights": (net, Y, {"fit_kwargs": {"class_weight": {0: 3.0, 1: 0.5}}}),
    "healthy_own_loss": (lambda: net(outputs=2, activation=None, loss=likelihood), VALUES, {}),
    "input_ignored": (lambda: net(Blind()), Y, {}),
    "input_ignored_own_loss": (lambda: net(Blind(), outputs=2, activation=None, loss=likelihood), VALUES, {}),
    "softmax_twice": (lambda: net(loss=LOGITS, rate=1e-3), Y, {"limits": {"steps": 100}}),
    "rows_mixed_up": (lambda: net(Rolls()), Y, {}),
    "random_in_evaluation": (lambda: net(Restless()), Y, {}),
    "statistics_never_move": (lambda: net(layers.BatchNormalization(momentum=1.0)), Y, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_program(name):
    make, y, more = CASES[name]
    run_probes(Case(name=name, model=make, batch=(X * 3, y), **{"limits": {"steps": 200}, **more}), ["overfit_batch"])


def test_frozen_is_the_programs_fault():
    with pytest.raises(CaseError, match="nothing can be trained"):
        run_probes(Case(name="frozen", model=frozen, batch=(X, Y)), ["overfit_batch"])


def test_generators_and_settings_are_left_as_found():
    keras.utils.set_random_seed(5)
    keras.random.normal((1,))
    torch = sys.modules.get("torch")

    def state():
        found = [np.random.get_state()[1].tolist(), keras.config.dtype_policy().name, keras.config.floatx()]
        return found + ([] if torch is None else [torch.get_rng_state().tolist()])

    before = state()
    run_probes(Case(name="one", model=net, batch=(X, Y)), ["overfit_batch"])
    assert state() == before
    drawn = ops.convert_to_numpy(keras.random.normal((3,)))
    keras.utils.set_random_seed(5)
    keras.random.normal((1,))
    assert np.array_equal(drawn, ops.convert_to_numpy(keras.random.normal((3,))))


def test_noise_is_drawn_anew_at_each_reading():
    from pytest_overfit.adapters.dispatch import learner_for
    from pytest_overfit.data.telling import batch_of

    case = Case(name="restless", model=lambda: net(Restless()), batch=(X, Y))
    learner = learner_for(case, batch_of(case), 0)
    first, second = (learner.outputs_for(range(12))[0] for _ in range(2))
    assert not np.allclose(first, second)
    assert not np.allclose(learner.read("eval").outputs[0], learner.read("eval").outputs[0])
"""

BACKENDS = ("tensorflow", "torch", "jax")


@functools.cache
def verdicts(backend: str) -> dict[str, str]:
    """Outcome by case of one run of all programs in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "test_programs.py").write_text(PROGRAMS, encoding="utf-8")
        saved = Path(folder) / "verdicts.json"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--overfit-json={saved}"]
        environment = {**os.environ, "KERAS_BACKEND": backend, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-4000:]
        found: dict[str, Any] = json.loads(saved.read_text(encoding="utf-8"))
        return {each["case"]: each["outcome"] for each in found["verdicts"]}


def needs(backend: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")


@pytest.mark.parametrize("backend", BACKENDS)
def test_healthy_pass_and_faulty_do_not(backend: str) -> None:
    needs(backend)
    for name, outcome in verdicts(backend).items():
        assert (outcome == "passed") == (name.startswith("healthy") or name == "one"), (name, outcome)


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_verdicts_are_those_of_tensorflow(backend: str) -> None:
    needs(backend)
    needs("tensorflow")
    assert verdicts(backend) == verdicts("tensorflow")
