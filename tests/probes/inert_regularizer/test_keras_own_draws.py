"""Noise and masks in layers of the user's are found by what they answer, whatever their classes are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from pytest_overfit import Case, Verdict, run_probes

X = np.random.default_rng(0).normal(size=(32, 10)).astype("float32")
Y = np.arange(32) % 3


class Part(keras.layers.Layer):
    """Something of the test's where it trains, where it evaluates, in both modes or in none."""

    def __init__(self, change: Callable[[Any, Any], Any], modes: str = "train") -> None:
        super().__init__()
        self.change, self.modes, self.seeds = change, modes, keras.random.SeedGenerator(0)

    def call(self, x: Any, training: bool | None = None) -> Any:
        return self.change(self, x) if ("train" if training else "eval") in self.modes else x


class Weighted(keras.layers.Layer):
    """Weights of which three in ten are left out."""

    def __init__(self, modes: str = "train") -> None:
        super().__init__()
        self.modes, self.seeds = modes, keras.random.SeedGenerator(0)

    def build(self, shape: Any) -> None:
        self.matrix = self.add_weight(shape=(shape[-1], 16), name="matrix")

    def call(self, x: Any, training: bool | None = None) -> Any:
        drops = ("train" if training else "eval") in self.modes
        return x @ (keras.random.dropout(self.matrix, 0.3, seed=self.seeds) if drops else self.matrix)


class DropConnect(Weighted):
    """The name says what it should do, and how much of it."""

    def __init__(self, modes: str = "train") -> None:
        super().__init__(modes)
        self.prob = 0.3


class Around(keras.layers.Layer):
    """A layer of one's own around others."""

    def __init__(self, inside: Any) -> None:
        super().__init__()
        self.inside = inside

    def call(self, x: Any, training: bool | None = None) -> Any:
        return self.inside(x, training=training)


CHANGES: dict[str, Callable[[Any, Any], Any]] = {
    "added": lambda _, x: x + 0.1 * tf.random.normal(tf.shape(x)),
    "multiplied": lambda self, x: x * (1 + 0.3 * keras.random.normal(ops.shape(x), seed=self.seeds)),
    "mask": lambda _, x: keras.random.dropout(x, 0.3),
}


def verdict(part: Callable[[], Any], model: Callable[[], Any] | None = None, **fields: Any) -> Verdict:
    def usual() -> Any:
        middle = [keras.layers.Dense(16, activation="tanh"), part(), keras.layers.Dense(3)]
        made = keras.Sequential([keras.Input((10,)), *middle])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        made.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss)
        return made

    case = Case(name="case", model=model or usual, **{"batch": (X, Y), **fields})
    return run_probes(case, ["inert_regularizer"])[0]


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_draws_in_training_is_one_and_what_forgets_the_mode_fails(change):
    found = verdict(lambda: Part(change))
    assert (found.outcome, found.diagnoses, "works: noise" in found.summary) == ("passed", (), True), found.summary
    found = verdict(lambda: Part(change, "train, eval"))
    assert found.summary.startswith("Part part"), found.summary
    assert "changes its input in evaluation too" in found.summary
    assert found.diagnoses[0].fault == "random_in_eval"


def test_one_with_its_modes_confused_fails():
    found = verdict(lambda: Part(CHANGES["mask"], "eval"))
    assert "in evaluation, and not in training: is the condition on its mode the wrong way round?" in found.summary


def test_masks_of_weights():
    assert verdict(Weighted).outcome == "passed"
    found = verdict(lambda: Weighted("train, eval"))
    assert found.outcome == "not_applicable"
    assert any("taken for a sample or a mask that is meant" in each.message for each in found.findings)
    assert verdict(lambda: Weighted("none")).outcome == "not_applicable"


def test_a_layer_with_weights_that_is_named_after_dropping():
    assert "works: dropout" in verdict(DropConnect).summary
    assert "(p = 0.3) is inert: in training it drops nothing" in verdict(lambda: DropConnect("none")).summary
    assert "(p = 0.3) changes its input in evaluation too" in verdict(lambda: DropConnect("train, eval")).summary


@pytest.mark.parametrize("inside", [lambda: Part(CHANGES["added"]), lambda: keras.layers.Dropout(0.3)])
def test_a_layer_around_one_that_draws_is_not_counted_again(inside):
    found = verdict(lambda: Around(inside()))
    assert (found.outcome, len(found.findings)) == ("passed", 1), found.findings


class Sample(keras.layers.Layer):
    def call(self, inputs: Any) -> Any:
        mean, spread = inputs
        return mean + ops.exp(0.5 * spread) * keras.random.normal(ops.shape(mean))


def autoencoder() -> Any:
    given = keras.Input((10,))
    sample = Sample()([keras.layers.Dense(4)(given), keras.layers.Dense(4)(given)])
    model = keras.Model(given, keras.layers.Dense(10)(sample))
    model.compile(optimizer="adam", loss="mse")
    return model


def test_samples_are_meant():
    found = verdict(Sample, model=autoencoder, batch=(X, X))
    assert found.outcome == "not_applicable", found.summary
