"""`overfit_batch` on real Keras programs: planted faults beside healthy twins."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from sklearn.datasets import load_diabetes, load_digits

from pytest_overfit import Case, CaseError, ProgramError, Verdict, run_probes
from pytest_overfit.adapters.dispatch import learner_for
from pytest_overfit.data.telling import batch_of

ROWS = 24


def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return x[:ROWS] / 16, y[:ROWS]


def diabetes() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_diabetes(return_X_y=True)
    x, y = x[:ROWS] * 20, (y[:ROWS] - 150) / 80
    return x, np.stack([y, np.roll(y, 3)], axis=1)


def sequential(*hidden: Any, outputs: int = 10, activation: str | None = "softmax", inputs: int = 64) -> keras.Model:
    return keras.Sequential([keras.Input((inputs,)), *hidden, layers.Dense(outputs, activation=activation)])


def compiled(model: keras.Model, loss: Any = "sparse_categorical_crossentropy", **more: Any) -> keras.Model:
    model.compile(**{"optimizer": keras.optimizers.Adam(3e-3), "loss": loss, **more})
    return model


def hidden(units: int = 64, **more: Any) -> Any:
    return layers.Dense(units, activation="relu", **more)


def verdict(model: Callable[[], keras.Model], batch: Any = None, **fields: Any) -> Verdict:
    return run_probes(
        Case(name="case", model=model, batch=digits() if batch is None else batch, **fields), ["overfit_batch"]
    )[0]


class AlwaysDrops(layers.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.random = keras.random.SeedGenerator(1)

    def call(self, x: Any) -> Any:
        return keras.random.dropout(x, 0.3, seed=self.random)


class Rolls(layers.Layer):
    def call(self, x: Any) -> Any:
        return keras.ops.roll(x, 1, axis=0)


class Blinds(layers.Layer):
    def call(self, x: Any) -> Any:
        return keras.ops.zeros_like(x)


class OwnStep(keras.Model):
    """A training step of one's own, unpacking two values as tutorials do."""

    def __init__(self) -> None:
        super().__init__()
        self.net = sequential(hidden())

    def call(self, x: Any, training: bool = False) -> Any:
        return self.net(x, training=training)

    def train_step(self, data: Any) -> dict[str, Any]:
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}


HEALTHY: dict[str, Callable[[], keras.Model]] = {
    "plain": lambda: compiled(sequential(hidden())),
    "from_logits": lambda: compiled(
        sequential(hidden(), activation=None), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ),
    "sum": lambda: compiled(sequential(hidden()), keras.losses.SparseCategoricalCrossentropy(reduction="sum")),
    "l2_in_model_losses": lambda: compiled(sequential(hidden(kernel_regularizer=keras.regularizers.L2(0.01)))),
    "schedule": lambda: compiled(
        sequential(hidden()),
        optimizer=keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(0.0, 400, alpha=0.1, warmup_target=5e-3, warmup_steps=30)
        ),
    ),
    "accumulation": lambda: compiled(
        sequential(hidden()), optimizer=keras.optimizers.Adam(2e-2, gradient_accumulation_steps=8)
    ),
    "batch_norm_0.99": lambda: compiled(sequential(layers.Dense(64), layers.BatchNormalization(), layers.ReLU())),
    "dropout": lambda: compiled(sequential(hidden(256), layers.Dropout(0.5))),
    "noise": lambda: compiled(sequential(layers.GaussianNoise(0.3), hidden(128))),
    "own_step": lambda: compiled(OwnStep()),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_passes(name: str) -> None:
    found = verdict(HEALTHY[name])
    assert found.outcome == "passed", found.summary
    assert "accuracy 1" in found.summary


def test_label_smoothing_and_soft_targets_pass() -> None:
    x, y = digits()
    one_hot = np.eye(10)[y]
    smooth = keras.losses.CategoricalCrossentropy(label_smoothing=0.2)
    assert verdict(lambda: compiled(sequential(hidden()), smooth), (x, one_hot)).outcome == "passed"
    soft = 0.9 * one_hot + 0.1 * np.roll(one_hot, 1, axis=1)
    assert verdict(lambda: compiled(sequential(hidden()), "categorical_crossentropy"), (x, soft)).outcome == "passed"


def test_class_weights_pass() -> None:
    weights = {number: 0.2 + number / 5 for number in range(10)}
    assert verdict(HEALTHY["plain"], fit_kwargs={"class_weight": weights}).outcome == "passed"


def test_images_with_preprocessing_and_augmentation_pass() -> None:
    x, y = digits()

    def model() -> keras.Model:
        parts = [  # moved by 20 %, they need 225 to 405 of the 500 steps, seed by seed
            keras.Input((8, 8, 1)), layers.Rescaling(2.0, -1.0), layers.RandomTranslation(0.1, 0.1),
            layers.Conv2D(16, 3, activation="relu"), layers.Flatten(), layers.Dense(10, activation="softmax"),
        ]  # fmt: skip
        return compiled(keras.Sequential(parts))

    assert verdict(model, (x.reshape(-1, 8, 8, 1), y)).outcome == "passed"


def test_a_regression_passes_and_one_dead_column_of_two_does_not() -> None:
    healthy = lambda: compiled(sequential(hidden(), outputs=2, activation=None, inputs=10), "mse")  # noqa: E731

    def dead() -> keras.Model:
        x = keras.Input((10,))
        y = layers.Dense(2)(hidden()(x)) * np.array([1.0, 0.0], "float32")
        return compiled(keras.Model(x, y), "mse")

    assert verdict(healthy, diabetes()).outcome == "passed"
    found = verdict(dead, diabetes())
    assert found.outcome == "failed"
    assert "column 1, the worst of 2" in str(found.findings)


FAULTY: dict[str, tuple[Callable[[], keras.Model], str]] = {
    "dropout_in_evaluation": (
        lambda: compiled(sequential(hidden(128), AlwaysDrops())),
        "evaluation is random: always_drops",
    ),
    "rows_mixed_up": (lambda: compiled(sequential(hidden(), Rolls())), "rows are mixed up"),
    "input_ignored": (lambda: compiled(sequential(Blinds(), hidden())), "loss ratio 1.00 after"),
    "statistics_never_move": (
        lambda: compiled(sequential(layers.Dense(64), layers.BatchNormalization(momentum=1.0), layers.ReLU())),
        "running statistics of",
    ),
    "flipped_sign": (
        lambda: compiled(sequential(hidden()), lambda y, p: -keras.losses.sparse_categorical_crossentropy(y, p)),
        "",
    ),
    "learning_rate_zero": (
        lambda: compiled(sequential(hidden()), optimizer=keras.optimizers.SGD(0.0)),
        "no parameter changed",
    ),
}


@pytest.mark.parametrize("name", FAULTY)
def test_faulty_does_not_pass(name: str) -> None:
    model, reason = FAULTY[name]
    found = verdict(model)
    assert found.outcome == "failed", found.summary
    assert reason in " ".join(each.message for each in found.findings)


class TestBadInput:
    def test_a_model_instead_of_a_factory(self) -> None:
        with pytest.raises(CaseError, match="expected a factory, got a model"):
            Case(name="case", model=HEALTHY["plain"](), batch=digits())

    def test_not_compiled(self) -> None:
        with pytest.raises(CaseError, match=r"not compiled.*write model\.compile"):
            verdict(lambda: sequential(hidden()))

    def test_loss_or_optimizer_beside_a_compiled_model(self) -> None:
        with pytest.raises(CaseError, match="brings its own"):
            verdict(HEALTHY["plain"], loss=keras.losses.MeanSquaredError())

    def test_labels_outside_the_classes(self) -> None:
        x, y = digits()
        with pytest.raises(CaseError, match="labels from 0 to 9"):
            verdict(HEALTHY["plain"], (x, y + 1))

    def test_everything_is_frozen(self) -> None:
        def frozen() -> keras.Model:
            model = sequential(hidden())
            model.trainable = False
            return compiled(model)

        with pytest.raises(ProgramError, match="nothing can be trained"):
            verdict(frozen)

    def test_a_crash_shows_the_layer_and_the_users_line(self) -> None:
        with pytest.raises(ProgramError) as caught:
            verdict(lambda: compiled(sequential(hidden(), inputs=32)))
        assert "32" in str(caught.value)
        assert "64" in str(caught.value)


class TwoDomains(keras.Model):
    """Its step shows the batch in other colours to the same layers, also to their moving statistics where `shared`."""

    def __init__(self, momentum: float, shared: bool) -> None:
        super().__init__()
        norm = layers.BatchNormalization(momentum=momentum, name="norm")
        self.net, self.shared = sequential(layers.Dense(64), norm, layers.ReLU(), activation=None), shared

    def call(self, x: Any, training: bool = False) -> Any:
        return self.net(x, training=training)

    def train_step(self, data: Any) -> dict[str, Any]:
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
            far = tf.nn.softmax(self(3 - 2 * x, training=self.shared))
            total = loss - 1e-4 * tf.reduce_mean(tf.reduce_sum(far * tf.math.log(far + 1e-6), 1))
        gradients = tape.gradient(total, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}


@pytest.mark.parametrize("momentum", [0.9, 0.99])
@pytest.mark.parametrize("shared", [False, True])
def test_two_domains_in_one_normalisation(momentum: float, shared: bool) -> None:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    found = verdict(lambda: compiled(TwoDomains(momentum, shared), loss))
    assert found.outcome == ("failed" if shared else "passed"), found.summary
    assert ("norm do not follow the batch's" in found.summary) == shared


@pytest.mark.parametrize("shared", [False, True])
def test_where_moving_statistics_come_to_rest(shared: bool) -> None:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    case = Case(name="case", model=lambda: compiled(TwoDomains(0.99, shared), loss), batch=digits())
    learner = learner_for(case, batch_of(case), 0)
    learner.train(10)
    model = learner.model  # type: ignore[attr-defined]
    before = [each.numpy().copy() for each in model.variables]
    found = learner.at_rest()
    assert found is not None
    assert all(np.array_equal(each, then) for each, then in zip(model.variables, before, strict=True))
    assert (found.off["norm"] < 0.02) == (not shared)


def test_branches_that_share_a_normalisation_are_warned_about_at_most() -> None:
    def siamese() -> keras.Model:
        norm = layers.BatchNormalization(momentum=0.9)
        side = sequential(layers.Dense(32), norm, layers.ReLU(), outputs=16, activation=None)
        one, other = keras.Input((64,)), keras.Input((64,))
        return compiled(keras.Model([one, other], layers.Dense(1, "sigmoid")(abs(side(one) - side(other)))), "bce")

    x, y = load_digits(return_X_y=True)
    pairs = (x[:ROWS] / 16, x[ROWS : 2 * ROWS] / 32 + 0.1)
    same = (y[:ROWS] % 3 == y[ROWS : 2 * ROWS] % 3).astype(float)[:, None]
    found = verdict(siamese, (pairs, same))
    assert found.outcome == "passed", found.summary


def test_a_momentum_that_needs_longer_than_the_training_is_named() -> None:
    def slow() -> keras.Model:
        return compiled(sequential(layers.Dense(64), layers.BatchNormalization(momentum=0.9997), layers.ReLU()))

    case = Case(name="case", model=slow, train=digits(), fit_kwargs={"epochs": 10})
    (found,) = run_probes(case, ["overfit_batch"])
    assert found.outcome == "passed", found.summary
    (warned,) = [each for each in found.findings if each.name == "batchnorm_eval_mismatch"]
    assert "need 9,985 updates; the declared training has 10" in warned.message
