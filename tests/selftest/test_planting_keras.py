"""Each fault that is planted in a Keras case changes its program as promised."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from pytest_overfit import Case, run_selftest
from pytest_overfit.adapters.keras.learner import KerasLearner
from pytest_overfit.run import learner_of
from pytest_overfit.selftest.faults import FAULTS
from pytest_overfit.selftest.run import plant

ROWS, FEATURES, CLASSES = 12, 6, 3
X = np.random.default_rng(0).normal(size=(ROWS, FEATURES)).astype("float32")
Y = np.arange(ROWS) % CLASSES
BY_NAME = {each.name: each for each in FAULTS}


def compiled(loss: Any, *parts: Any) -> Any:
    model = keras.Sequential([keras.Input((FEATURES,)), *parts])
    model.compile(optimizer=keras.optimizers.SGD(0.5), loss=loss)
    return model


def dense(outputs: int = CLASSES, last: Any = None) -> list[Any]:
    return [
        layers.Dense(24, "relu", kernel_initializer=keras.initializers.GlorotUniform(1)),
        layers.Dense(outputs, last, kernel_initializer=keras.initializers.GlorotUniform(2)),
    ]


def scores() -> Case:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return Case(name="scores", model=lambda: compiled(loss, *dense()), batch=(X, Y))


def probabilities() -> Case:
    loss = "sparse_categorical_crossentropy"
    return Case(name="shares", model=lambda: compiled(loss, *dense(last="softmax")), batch=(X, Y))


def values() -> Case:
    return Case(name="values", model=lambda: compiled("mse", *dense(1)), batch=(X, 3 * X[:, :1]))


def normalised() -> Case:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def model() -> Any:
        first, last = dense()
        return compiled(loss, first, layers.BatchNormalization(), layers.Dropout(0.5), last)

    return Case(name="normalised", model=model, batch=(X, Y))


def array(value: Any) -> Any:
    return np.copy(keras.ops.convert_to_numpy(value))


def planted(case: Case, fault: str) -> Case:
    found = plant(case, [BY_NAME[fault]])[fault]
    assert isinstance(found, Case), found
    return found


def answers(case: Case, training: bool = False, x: Any = X) -> Any:
    keras.utils.set_random_seed(0)
    return keras.ops.convert_to_numpy(case.model()(x, training=training))


def softmax(array: Any, axis: int = -1) -> Any:
    shares = np.exp(array - array.max(axis=axis, keepdims=True))
    return shares / shares.sum(axis=axis, keepdims=True)


def weights(case: Case) -> list[Any]:
    keras.utils.set_random_seed(0)
    return [array(each) for each in case.model().get_weights()]


def moved(case: Case, steps: int = 1) -> list[Any]:
    """How far the first steps move each variable."""
    learner = learner_of(case, 0)
    assert isinstance(learner, KerasLearner)
    before = [array(each) for each in learner.model.get_weights()]
    learner.train(steps)
    return [after - first for after, first in zip(learner.model.get_weights(), before, strict=True)]


def test_a_softmax_is_put_on_top() -> None:
    """The one test of a Keras model that is not slow."""
    healthy = answers(scores())
    assert np.allclose(answers(planted(scores(), "double_softmax")), softmax(healthy), atol=1e-5)
    assert np.allclose(answers(scores()), healthy)  # the case itself is what it was


@pytest.mark.slow
def test_what_the_model_answers() -> None:
    healthy = answers(scores())
    for fault, function in {
        "softmax_wrong_axis": lambda out: softmax(out, 0),
        "relu_on_logits": lambda out: np.maximum(out, 0),
        "batch_mixing": lambda out: out + np.roll(out, 1, 0),
        "detached_graph": lambda out: out,
        "unused_parameters": lambda out: out,
    }.items():
        assert np.allclose(answers(planted(scores(), fault)), function(healthy), atol=1e-5), fault
    assert np.allclose(answers(planted(scores(), "input_ignored")), answers(scores(), x=0 * X), atol=1e-6)
    bare = answers(planted(probabilities(), "missing_softmax"))
    assert np.allclose(softmax(bare), answers(probabilities()), atol=1e-5)


@pytest.mark.slow
def test_what_is_dropped() -> None:
    drawn = planted(scores(), "random_in_eval").model()
    assert not np.allclose(drawn(X), drawn(X))
    for fault in ("excessive_dropout", "dropout_on_output"):
        assert np.allclose(answers(planted(scores(), fault)), answers(scores()), atol=1e-5), fault
        assert (answers(planted(scores(), fault), training=True) == 0).mean() > 0.2, fault
    inert = planted(normalised(), "inert_regularizer").model()
    dropout = next(each for each in inert.layers if isinstance(each, layers.Dropout))
    assert (array(dropout(np.ones((9, 9), "float32"), training=True)) == 1).all()


@pytest.mark.slow
def test_weights_start_as_promised() -> None:
    healthy = weights(scores())
    assert not any(each.any() for each in weights(planted(scores(), "zero_init")))
    assert all(np.ptp(each) == 0 for each in weights(planted(scores(), "constant_init")))
    sure = weights(planted(scores(), "over_confident_start"))
    assert np.allclose(sure[2], 100 * healthy[2])
    assert np.allclose(sure[0], healthy[0])
    assert [int(np.isnan(each).sum()) for each in weights(planted(scores(), "nan_parameter"))] == [1, 0, 0, 0]
    dead = planted(scores(), "dead_relu").model()
    assert not array(dead.layers[0](X)).any()
    frozen = planted(scores(), "frozen_parameters").model()
    assert len(frozen.trainable_variables) == 2
    still = planted(normalised(), "batchnorm_eval_mismatch").model()
    still(X, training=True)
    assert not array(next(each for each in still.layers if hasattr(each, "moving_mean")).moving_mean).any()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_updates_are_scaled() -> None:
    before = moved(scores())
    scaled = {"lr_zero": 0.0, "lr_too_low": 1e-4, "lr_too_high": 1e4, "gradient_ascent": -1.0, "update_skipped": 0.0}
    for fault, factor in scaled.items():
        for healthy, broken in zip(before, moved(planted(scores(), fault)), strict=True):
            assert np.allclose(broken, factor * healthy, rtol=1e-3, atol=2e-7), fault
    assert max(np.abs(each).max() for each in moved(planted(scores(), "grad_clip_too_small"))) < 1e-5
    cut = moved(planted(scores(), "cut_gradient"))
    assert [bool(each.any()) for each in cut] == [False, False, True, True]
    fading = planted(scores(), "schedule_kills_rate")
    late = [a - b for a, b in zip(moved(fading, 40), moved(fading, 30), strict=True)]
    assert max(np.abs(each).max() for each in late) < 1e-4
    start = weights(scores())
    halved = moved(planted(scores(), "excessive_weight_decay"))
    assert np.allclose(halved[0], before[0] - 0.5 * start[0], atol=0.05)


@pytest.mark.slow
def test_losses_are_others() -> None:
    def loss(case: Case, y: Any, out: Any) -> float:
        return float(case.model().compute_loss(x=X, y=y, y_pred=keras.ops.convert_to_tensor(out)))

    out = answers(values())
    quantities = 3 * X[:, :1]
    squared = float(((out - quantities) ** 2).mean())
    assert loss(values(), quantities, out) == pytest.approx(squared, rel=1e-4)
    assert loss(planted(values(), "sqrt_zero_gradient"), quantities, out) == pytest.approx(squared, rel=1e-4)
    assert loss(planted(values(), "wrong_loss"), quantities, out) != pytest.approx(squared, rel=1e-2)
    shares = loss(scores(), Y, answers(scores()))
    assert loss(planted(scores(), "wrong_reduction"), Y, answers(scores())) == pytest.approx(ROWS * shares, rel=1e-4)


@pytest.mark.slow
def test_what_cannot_be_planted_says_why() -> None:
    class Custom(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.last = layers.Dense(CLASSES)

        def call(self, x: Any) -> Any:
            return self.last(x)

        def train_step(self, data: Any) -> Any:
            return super().train_step(data)

    def custom() -> Any:
        model = Custom()
        model.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    for case in (scores(), Case(name="custom", model=custom, batch=(X, Y))):
        found = plant(case)
        reasons = {fault: each for fault, each in found.items() if isinstance(each, str)}
        assert not [each for each in reasons.items() if "Error:" in each[1]]
        assert "gradients of its own" in reasons["missing_zero_grad"]
    assert sum(isinstance(each, Case) for each in plant(scores()).values()) >= 30


@pytest.mark.slow
def test_a_plain_case_is_protected() -> None:
    faults = ["double_softmax", "lr_zero", "gradient_ascent", "batch_mixing", "input_ignored", "labels_collapsed"]
    found = run_selftest(scores(), ["wiring", "overfit_batch"], faults=faults, tell=None)
    assert found.missed == []
    assert found.named >= 0.8
