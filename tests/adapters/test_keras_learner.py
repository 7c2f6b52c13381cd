"""The Keras adapter: steps like `fit`, reads without leaving a trace, and says what is wrong with a case."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from pytest_overfit.adapters import keras as adapter  # noqa: E402
from pytest_overfit.core.case import Case  # noqa: E402
from pytest_overfit.core.errors import CaseError, NotApplicable, ProgramError  # noqa: E402
from pytest_overfit.data.batch import Batch  # noqa: E402
from pytest_overfit.data.telling import batch_of  # noqa: E402

ROWS = 8
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 4)).astype("float32")
LABELS = np.arange(ROWS) % 3
ONE_HOT = np.eye(3, dtype="float32")[LABELS]
VALUES = RNG.normal(size=(ROWS, 1)).astype("float32")

layers = keras.layers


def seed_all(seed: int = 3) -> None:
    random.seed(seed)
    np.random.seed(seed)
    adapter.seed(seed)


def build(make: Callable[[], Any]) -> Any:
    seed_all()
    return make()


def learner(make: Callable[[], Any], x: Any = X, y: Any = LABELS, **fields: Any) -> Any:
    case = Case(name="net", model=make, batch=(x, y), **fields)
    rows = len(next(iter(x.values())) if isinstance(x, dict) else x[0] if isinstance(x, (tuple, list)) else x)
    return adapter.make_learner(case, build(make), Batch(x, y, rows), lambda: build(make))


def by_fit(make: Callable[[], Any], x: Any, y: Any, steps: int, **more: Any) -> list[float]:
    """Losses as the steps of `fit` return them (its history shows 0.0 for custom steps that track none)."""
    model, found = build(make), []
    recorder = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: found.append(float(logs["loss"])))
    history = model.fit(
        x, y, batch_size=ROWS, epochs=steps, shuffle=False, verbose=0, callbacks=[recorder], **more
    ).history
    assert isinstance(model, (TwoValues, Parts)) or found == pytest.approx(history["loss"])
    return found


def compiled(*parts: Any, loss: Any = "sparse_categorical_crossentropy", kind: Any = None, **more: Any) -> Any:
    """A model of these layers behind an input of four numbers."""
    inputs = keras.Input((4,))
    tensor = inputs
    for part in parts:
        tensor = part(tensor)
    model = (kind or keras.Model)(inputs, tensor)
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss=loss, **more)
    return model


def mlp(**more: Any) -> Any:
    more.setdefault("metrics", None if "kind" in more else ["accuracy"])  # a custom step need not update any
    return compiled(layers.Dense(16, "relu"), layers.Dense(3, "softmax"), **more)


def regularised() -> Any:
    l2 = keras.regularizers.L2(0.1)
    return compiled(
        layers.Dense(16, kernel_regularizer=l2), layers.BatchNormalization(), layers.ReLU(), layers.Dropout(0.3),
        layers.Dense(3, "softmax"),
    )  # fmt: skip


class TwoValues(keras.Model):
    """A custom step that takes exactly two values."""

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}


class OtherLoss(TwoValues):
    """A custom step whose loss is not the compiled one."""

    def train_step(self, data: Any) -> Any:
        logs = super().train_step(data)
        return {"twice": 2.0 * logs["loss"] + 1.0}


class Untraceable(TwoValues):
    """A custom step that looks at numbers, which only works eagerly: its fit turns compiling off."""

    def train_step(self, data: Any) -> Any:
        logs = super().train_step(data)
        assert float(logs["loss"].numpy()) >= 0.0
        return logs

    def make_train_function(self, force: bool = False) -> Any:
        self.run_eagerly = True
        return super().make_train_function(force)


class RestlessNet(keras.Model):
    """Forgets to hand `training` to its dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.noise, self.last = (
            layers.Dense(8),
            layers.Dropout(0.5, name="always_on"),
            layers.Dense(3, "softmax"),
        )

    def call(self, inputs: Any) -> Any:
        return self.last(self.noise(self.first(inputs), training=True))


def restless() -> Any:
    model = RestlessNet()
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


# steps


@pytest.mark.parametrize(
    "make",
    [
        mlp,
        regularised,
        lambda: mlp(kind=TwoValues),
        lambda: mlp(run_eagerly=True),
        lambda: mlp(steps_per_execution=4),
        lambda: compiled(layers.Dense(3), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)),
    ],
    ids=["mlp", "l2_batchnorm_dropout", "custom_step", "eager", "steps_per_execution", "logits"],
)
def test_steps_are_those_of_fit(make: Callable[[], Any]) -> None:
    net = learner(make)
    net.read("fit"), net.read("eval"), net.read("train")
    losses = net.train(3)
    net.read("fit"), net.read("reestimated"), net.outputs_for([1, 1, 0]), net.statistics(), net.parameters()
    losses += net.train(4)
    assert losses == pytest.approx(by_fit(make, X, LABELS, 7), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("extra", [{"class_weight": {0: 3.0, 2: 0.5}}, {"sample_weight": np.linspace(0, 2, ROWS)}])
def test_weights_of_fit_count(extra: dict[str, Any]) -> None:
    net = learner(mlp, fit_kwargs=extra)
    before = net.read("train").loss
    losses = net.train(5)
    assert losses == pytest.approx(by_fit(mlp, X, LABELS, 5, **extra), rel=1e-5)
    assert before == pytest.approx(losses[0], rel=1e-5)
    assert net.read("fit").heads[0].plain == ""


def test_plain_model_needs_no_remark() -> None:
    net = learner(mlp)
    net.train(2)
    assert net.remarks == ()
    assert not net.has_schedule


def test_eager_step_with_side_effects_is_kept_eager() -> None:
    made: list[int] = []

    class Counting(TwoValues):
        def train_step(self, data: Any) -> Any:
            made.append(1)
            return super().train_step(data)

    net = learner(lambda: mlp(kind=Counting, run_eagerly=True))
    net.read("fit")
    made.clear()
    net.train(5)
    assert len(made) == 5


def test_step_that_cannot_be_compiled_goes_through_fit() -> None:
    model = lambda: mlp(kind=Untraceable)  # noqa: E731
    net = learner(model)
    assert net.train(3) == pytest.approx(by_fit(model, X, LABELS, 3), rel=1e-5)
    assert any("stepped through fit" in each for each in net.remarks)


def test_error_of_the_step_is_the_users() -> None:
    class Broken(TwoValues):
        def train_step(self, data: Any) -> Any:
            raise KeyError("no such thing")

    with pytest.raises(ProgramError, match="the training step raised KeyError"):
        learner(lambda: mlp(kind=Broken)).train(1)


def test_step_without_a_loss_name() -> None:
    net = learner(lambda: mlp(kind=OtherLoss))
    losses = net.train(2)
    assert any("'twice' was taken" in each for each in net.remarks)
    assert any("cannot be read apart from a step" in each for each in net.remarks)
    assert net.read("fit").loss == losses[-1]
    assert net.loss_and_gradient(net.read("fit").outputs) is None


def test_step_that_returns_nothing_usable() -> None:
    class Silent(keras.Model):
        def train_step(self, data: Any) -> Any:
            return {}

    with pytest.raises(CaseError, match=r"return \{'loss': loss\}"):
        learner(lambda: mlp(kind=Silent)).train(1)


def test_custom_step_with_the_compiled_loss_is_read() -> None:
    net = learner(lambda: mlp(kind=TwoValues))
    read = net.read("fit").loss
    assert net.train(1)[0] == pytest.approx(read, rel=1e-5)
    assert net.remarks == ()


class Parts(keras.Model):
    """A custom step that calls a part of the model, which has no call of its own."""

    def __init__(self, losses: int = 1) -> None:
        super().__init__()
        self.part, self.losses_made = keras.Sequential([keras.Input((4,)), layers.Dense(1)]), losses

    def train_step(self, data: Any) -> Any:
        x, y = data
        weights = self.part.trainable_variables
        for _ in range(self.losses_made):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((self.part(x, training=True) - y) ** 2)
            self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss}


def parts(losses: int = 1) -> Any:
    model = Parts(losses)
    model.compile(optimizer="sgd")
    return model


def test_loss_made_inside_a_step_is_read_apart() -> None:
    net = learner(parts, y=VALUES)
    reading = net.read("fit")
    error = reading.outputs[0] - VALUES
    assert reading.loss == pytest.approx((error**2).mean(), rel=1e-5)
    value, (slope,) = net.loss_and_gradient(reading.outputs)
    assert value == pytest.approx(reading.loss, rel=1e-5)
    assert slope == pytest.approx(2 * error / ROWS, rel=1e-4, abs=1e-6)
    assert net.outputs_for([2, 0])[0] == pytest.approx(reading.outputs[0][[2, 0]], rel=1e-5)
    assert net.train(3) == pytest.approx(by_fit(parts, X, VALUES, 3), rel=1e-5)
    assert any("the loss that custom train_step differentiates" in each for each in net.remarks)
    assert tf.GradientTape.gradient.__module__.startswith("tensorflow")


def test_step_of_several_losses_is_judged_by_what_it_reports() -> None:
    net = learner(lambda: parts(2), y=VALUES)
    assert net.read("fit").loss is None
    losses = net.train(4)
    assert losses[-1] < losses[0]
    assert net.read("fit").loss == losses[-1]
    assert net.outputs_for([0]) is None
    assert net.parameters().unchanged == ()
    assert any("cannot be read apart from a step" in each for each in net.remarks)


@pytest.mark.parametrize("rows", [list(range(ROWS)), [0, 3, 1]])
@pytest.mark.parametrize("mode", ["fit", "eval"])
def test_every_reading_draws_anew_and_steps_go_on_as_they_were(rows: list[int], mode: str) -> None:
    """A model that samples in evaluation is judged by its average: equal draws would hide how far they are apart."""

    class Sampling(layers.Layer):
        def call(self, inputs: Any) -> Any:
            noise = tf.random.normal(tf.shape(inputs)) + keras.random.normal(keras.ops.shape(inputs))
            return inputs + 0.1 * noise

    net = learner(lambda: compiled(layers.Dense(8), Sampling(), layers.Dense(3, "softmax")))
    drawn = [net.outputs_for(rows)[0] for _ in range(3)] + [net.read(mode).outputs[0][rows] for _ in range(3)]
    assert not any(np.allclose(one, other) for i, one in enumerate(drawn) for other in drawn[:i])
    assert np.ptp([net.read(mode).loss for _ in range(3)]) > 0


def test_callbacks_go_through_fit_and_go_on() -> None:
    rates: list[float] = []
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rates.append(epoch) or 0.01)
    net = learner(mlp, fit_kwargs={"callbacks": [schedule]})
    net.train(2)
    net.train(2)
    assert net.has_schedule
    assert rates == [0, 1, 2, 3]


def test_callback_that_stops_early_does_not_shorten_training() -> None:
    stop = keras.callbacks.EarlyStopping(monitor="loss", patience=0, min_delta=1e9)
    assert len(learner(mlp, fit_kwargs={"callbacks": stop}).train(4)) == 4


def test_schedule_is_seen() -> None:
    def make() -> Any:
        model = mlp()
        rate = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
        model.compile(optimizer=keras.optimizers.SGD(rate), loss="sparse_categorical_crossentropy")
        return model

    assert learner(make).has_schedule


# readings


def test_penalties_are_no_part_of_the_loss_read() -> None:
    net = learner(
        lambda: compiled(layers.Dense(3, kernel_regularizer=keras.regularizers.L2(10.0)), loss="mse"), y=ONE_HOT
    )
    reading = net.read("fit")
    assert reading.loss == pytest.approx(float(((reading.outputs[0] - ONE_HOT) ** 2).mean()), rel=1e-5)
    assert net.train(1)[0] > reading.loss + 1.0


def test_penalties_of_an_own_compute_loss_are_taken_off_too() -> None:
    class Own(keras.Model):
        def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None) -> Any:
            return 3.0 * keras.ops.mean((y - y_pred) ** 2) + sum(self.losses)

    net = learner(
        lambda: compiled(layers.Dense(3, kernel_regularizer="l2", activity_regularizer="l1"), loss="mse", kind=Own),
        y=ONE_HOT,
    )
    reading = net.read("fit")
    assert reading.loss == pytest.approx(3.0 * float(((reading.outputs[0] - ONE_HOT) ** 2).mean()), rel=1e-5)
    assert reading.heads[0].plain == ""
    value, gradient = net.loss_and_gradient(reading.outputs)
    assert value == pytest.approx(reading.loss, rel=1e-5)
    assert gradient[0] == pytest.approx(6.0 * (reading.outputs[0] - ONE_HOT) / ONE_HOT.size, rel=1e-4, abs=1e-6)


def test_fit_mode_is_on_batch_statistics_and_moves_nothing() -> None:
    net = learner(lambda: compiled(layers.BatchNormalization(scale=False), loss="mse"), y=X)
    norm = net.model.layers[1]
    norm.moving_mean.assign([5.0] * 4)
    before = [norm.moving_mean.numpy().tobytes(), norm.moving_variance.numpy().tobytes()]
    outputs = net.read("fit").outputs[0]
    expected = (X - X.mean(0)) / np.sqrt(X.var(0) + norm.epsilon)
    assert outputs == pytest.approx(expected, abs=1e-5)
    assert net.read("eval").outputs[0] == pytest.approx((X - 5.0) / np.sqrt(1.0 + norm.epsilon), abs=1e-4)
    assert net.read("reestimated").outputs[0] == pytest.approx(expected, abs=1e-4)
    assert net.read("train").outputs[0] == pytest.approx(expected, abs=1e-5)
    assert [norm.moving_mean.numpy().tobytes(), norm.moving_variance.numpy().tobytes()] == before
    assert norm.momentum == 0.99
    assert "call" not in norm.__dict__


def test_frozen_normalisation_stays_in_inference() -> None:
    def frozen() -> Any:
        return compiled(layers.BatchNormalization(trainable=False), layers.Dense(1), loss="mse")

    class Transfer(layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.base = layers.BatchNormalization()

        def call(self, inputs: Any) -> Any:
            return self.base(inputs, training=False)

    for make in (frozen, lambda: compiled(Transfer(), layers.Dense(1), loss="mse")):
        net = learner(make, y=VALUES)
        assert net.read("fit").outputs[0] == pytest.approx(net.read("eval").outputs[0])
        assert net.statistics() == []


def test_normalisation_inside_a_custom_layer_is_found() -> None:
    class Block(layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.norms = [layers.BatchNormalization()]

        def call(self, inputs: Any, training: bool = False) -> Any:
            return self.norms[0](inputs, training=training)

    net = learner(lambda: compiled(Block(), loss="mse"), y=X)
    assert net.read("fit").outputs[0].mean(axis=0) == pytest.approx(np.zeros(4), abs=1e-5)
    assert len(net.statistics()) == 1


@pytest.mark.parametrize("noise", [layers.Dropout, layers.GaussianNoise])
def test_noise_is_off_in_fit_mode_and_on_in_train_mode(noise: Any) -> None:
    net = learner(lambda: compiled(noise(0.5), layers.Dense(3, "softmax")))
    fit, plain, noisy = (net.read(mode).outputs[0] for mode in ("fit", "eval", "train"))
    assert np.array_equal(fit, plain)
    assert not np.allclose(fit, noisy)
    assert np.array_equal(noisy, net.read("train").outputs[0])


def test_augmentation_is_off_in_fit_mode() -> None:
    images = RNG.normal(size=(ROWS, 6, 6, 1)).astype("float32")

    def make() -> Any:
        model = keras.Sequential(
            [keras.Input((6, 6, 1)), layers.RandomFlip(), layers.Flatten(), layers.Dense(3, "softmax")]
        )
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    net = learner(make, x=images)
    assert np.array_equal(net.read("fit").outputs[0], net.read("eval").outputs[0])
    assert net.differing_module("eval", "eval") is None
    assert len(net.train(2)) == 2


def test_reading_often_is_compiled_and_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    net = learner(regularised)
    uncompiled = {mode: net.read(mode) for mode in ("fit", "eval")}
    monkeypatch.setattr("pytest_overfit.adapters.keras.reader._PATIENCE", 0.0)
    moving = [each.numpy().copy() for each in net.model.non_trainable_variables]
    for mode, before in uncompiled.items():
        now = net.read(mode)
        assert net.reader._compiled[mode] is not None
        assert now.loss == pytest.approx(before.loss, rel=1e-5)
        assert now.outputs[0] == pytest.approx(before.outputs[0], abs=1e-5)
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(moving, net.model.non_trainable_variables, strict=True))
    net.train(20)
    assert net.read("fit").loss < uncompiled["fit"].loss


def test_rows_may_repeat_and_exceed_the_batch() -> None:
    net = learner(mlp)
    outputs = net.read("eval").outputs[0]
    picked = [3, 3, *range(ROWS)]
    assert net.outputs_for(picked)[0] == pytest.approx(outputs[picked], abs=1e-6)


def test_fixed_batch_size_cannot_be_asked() -> None:
    def make() -> Any:
        inputs = keras.Input(batch_shape=(ROWS, 4))
        model = keras.Model(inputs, Fixed()(layers.Dense(1)(inputs)))
        model.compile("sgd", "mse")
        return model

    class Fixed(layers.Layer):
        def call(self, inputs: Any) -> Any:
            return keras.ops.reshape(inputs, (ROWS, 1))

    assert learner(make, y=VALUES).outputs_for(range(ROWS - 1)) is None


def test_inputs_by_name_outputs_by_name() -> None:
    def make() -> Any:
        a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
        joined = layers.Concatenate()([a, b])
        outputs = {
            "kind": layers.Dense(3, "softmax", name="kind")(joined),
            "amount": layers.Dense(1, name="amount")(joined),
        }
        model = keras.Model({"a": a, "b": b}, outputs)
        model.compile(
            "adam",
            {"kind": "sparse_categorical_crossentropy", "amount": "mse"},
            loss_weights={"kind": 2.0, "amount": 1.0},
        )
        return model

    x, y = {"a": X, "b": X[::-1].copy()}, {"kind": LABELS, "amount": VALUES}
    net = learner(make, x=x, y=y)
    reading = net.read("fit")
    assert {(head.name, head.kind) for head in reading.heads} == {("kind", "classes"), ("amount", "values")}
    assert {head.plain for head in reading.heads} == {""}
    assert net.loss_and_gradient(reading.outputs)[0] == pytest.approx(reading.loss, rel=1e-5)
    assert net.train(3) == pytest.approx(by_fit(make, x, y, 3), rel=1e-5)
    blind = net.blinded()
    assert all((leaf == leaf[:1]).all() for leaf in blind.inputs)
    assert [leaf.shape for leaf in blind.targets] == [leaf.shape for leaf in net.targets]


def test_inputs_and_outputs_in_lists() -> None:
    def make() -> Any:
        a, b = keras.Input((4,)), keras.Input((4,))
        joined = layers.Concatenate()([a, b])
        model = keras.Model(
            [a, b], [layers.Dense(3, "softmax", name="kind")(joined), layers.Dense(1, name="amount")(joined)]
        )
        model.compile("adam", ["sparse_categorical_crossentropy", "mse"])
        return model

    x, y = [X, X + 1], [LABELS, VALUES]
    net = learner(make, x=x, y=y)
    assert [(head.name, head.kind) for head in net.read("fit").heads] == [("kind", "classes"), ("amount", "values")]
    assert net.train(3) == pytest.approx(by_fit(make, x, y, 3), rel=1e-5)


def test_text_is_an_input() -> None:
    words = np.array(["good film", "bad film"] * 4)

    def make() -> Any:
        text = layers.TextVectorization(output_sequence_length=4, vocabulary=["good", "bad", "film"])
        inputs = keras.Input((), dtype="string")
        tensor = layers.GlobalAveragePooling1D()(layers.Embedding(6, 4, mask_zero=True)(text(inputs)))
        model = keras.Model(inputs, layers.Dense(1, "sigmoid")(tensor))
        model.compile("adam", "binary_crossentropy")
        return model

    net = learner(make, x=words, y=np.arange(ROWS) % 2)
    losses = net.train(30)
    assert losses[-1] < losses[0]
    assert net.outputs_for([0, 1])[0].shape == (2, 1)


def test_data_are_cast_as_fit_does_and_stay_the_users() -> None:
    x, before = X.astype("float64"), X.astype("float64")
    net = learner(mlp, x=x)
    net.train(2)
    assert net.inputs[0].dtype == np.float32
    assert np.array_equal(x, before)


# heads and substituted outputs

LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.mark.parametrize(
    ("loss", "units", "y", "kind", "plain", "domain", "minimum"),
    [
        ("sparse_categorical_crossentropy", 3, LABELS, "classes", "cross_entropy", "probabilities", 0.0),
        (LOGITS, 3, LABELS[:, None], "classes", "cross_entropy", "unbounded", 0.0),
        ("categorical_crossentropy", 3, ONE_HOT, "classes", "cross_entropy", "probabilities", 0.0),
        ("categorical_crossentropy", 3, ONE_HOT * 0.7 + 0.1, "classes", "cross_entropy", "probabilities", None),
        (keras.losses.CategoricalCrossentropy(label_smoothing=0.1), 3, ONE_HOT, "classes", "", "probabilities", None),
        ("binary_crossentropy", 1, LABELS % 2, "binary", "binary_cross_entropy", "probabilities", 0.0),
        (
            keras.losses.BinaryCrossentropy(from_logits=True),
            3,
            ONE_HOT,
            "binary",
            "binary_cross_entropy",
            "unbounded",
            0.0,
        ),
        ("mse", 1, VALUES[:, 0], "values", "squared_error", "unbounded", 0.0),
        ("MAE", 1, VALUES, "values", "absolute_error", "unbounded", 0.0),
        (keras.losses.Huber(), 1, VALUES, "values", "", "unbounded", 0.0),
        (keras.losses.mean_squared_error, 1, VALUES, "values", "squared_error", "unbounded", 0.0),
        ("hinge", 1, LABELS % 2 * 2 - 1, "binary", "", "unbounded", 0.0),
    ],
)
def test_heads(loss: Any, units: int, y: Any, kind: str, plain: str, domain: str, minimum: float | None) -> None:
    activation = (
        "sigmoid" if domain == "probabilities" and units == 1 else "softmax" if domain == "probabilities" else None
    )
    net = learner(lambda: compiled(layers.Dense(units, activation), loss=loss), y=y)
    reading = net.read("fit")
    (head,) = reading.heads
    assert (head.name, head.kind, head.plain, head.minimum, head.scale) == ("", kind, plain, minimum, 1.0)
    assert head.domain == domain or kind == "values"
    if plain:
        assert closed(head) == pytest.approx(reading.loss, rel=1e-4)


def test_a_loss_of_ones_own_shows_no_head() -> None:
    own = lambda y, p: keras.ops.mean((y - p) ** 2)  # noqa: E731
    assert learner(lambda: compiled(layers.Dense(1), loss=own), y=VALUES).read("fit").heads == ()


def closed(head: Any) -> float:
    """The plain loss of a head, from its documentation."""
    outputs, targets = head.outputs.astype(float), head.targets.astype(float)
    if head.plain == "squared_error":
        return float(((outputs - targets) ** 2).mean())
    if head.plain == "absolute_error":
        return float(np.abs(outputs - targets).mean())
    if head.plain == "binary_cross_entropy":
        p = outputs if head.domain == "probabilities" else 1 / (1 + np.exp(-outputs))
        return float(-(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean())
    p = outputs if head.domain == "probabilities" else np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True)
    share = targets if targets.ndim == outputs.ndim else np.eye(outputs.shape[-1])[head.targets]
    return float(-(share * np.log(p)).sum(-1).mean())


@pytest.mark.parametrize(
    ("loss", "y"),
    [
        (keras.losses.MeanSquaredError(reduction="sum"), ONE_HOT),
        (keras.losses.SparseCategoricalCrossentropy(reduction="sum"), LABELS),
        (keras.losses.BinaryCrossentropy(reduction="sum"), ONE_HOT),
    ],
)
def test_scale_of_a_sum(loss: Any, y: Any) -> None:
    activation = "sigmoid" if "binary" in loss.name else "softmax"
    reading = learner(lambda: compiled(layers.Dense(3, activation), loss=loss), y=y).read("fit")
    (head,) = reading.heads
    assert head.scale == ROWS
    assert closed(head) * head.scale == pytest.approx(reading.loss, rel=1e-4)


def test_ignored_class_is_masked() -> None:
    labels = LABELS.copy()
    labels[:2] = -1
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=-1)
    (head,) = learner(lambda: compiled(layers.Dense(3, "softmax"), loss=loss), y=labels).read("fit").heads
    assert head.mask.tolist() == [False, False] + [True] * 6
    assert head.plain == ""


def test_mask_of_padding_reaches_head_and_substituted_loss() -> None:
    tokens = np.array([[1, 2, 0, 0], [3, 1, 2, 0]] * 4)

    def make() -> Any:
        inputs = keras.Input((4,))
        model = keras.Model(inputs, layers.Dense(5, "softmax")(layers.Embedding(5, 6, mask_zero=True)(inputs)))
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    net = learner(make, x=tokens, y=tokens)
    reading = net.read("fit")
    assert np.array_equal(reading.heads[0].mask, tokens != 0)
    value, gradient = net.loss_and_gradient(reading.outputs)
    assert value == pytest.approx(reading.loss, rel=1e-4)
    assert not gradient[0][tokens == 0].any()
    assert gradient[0][tokens != 0].any()


@pytest.mark.parametrize(
    ("loss", "y"), [("sparse_categorical_crossentropy", LABELS), ("mse", ONE_HOT), (keras.losses.Huber(), ONE_HOT)]
)
def test_gradient_of_substituted_outputs(loss: Any, y: Any) -> None:
    net = learner(lambda: compiled(layers.Dense(3, "softmax"), loss=loss), y=y)
    outputs = net.read("fit").outputs[0].astype(float)
    value, (gradient,) = net.loss_and_gradient([outputs])
    assert gradient.dtype == np.float64
    direction = RNG.normal(size=outputs.shape)
    step = 1e-2
    ahead, behind = (net.loss_and_gradient([outputs + sign * step * direction])[0] for sign in (1, -1))
    assert (gradient * direction).sum() == pytest.approx((ahead - behind) / (2 * step), rel=2e-2, abs=1e-4)
    assert value == pytest.approx(net.read("fit").loss, rel=1e-4)


# facts


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_parameters() -> None:
    class Detached(layers.Layer):
        def build(self, shape: Any) -> None:
            self.idle = self.add_weight(shape=(2,), name="idle")

        def call(self, inputs: Any) -> Any:
            return inputs

    net = learner(lambda: compiled(layers.Dense(8, trainable=False), Detached(), layers.Dense(3, "softmax")))
    assert len(net.parameters().unchanged) == 3
    net.train(3)
    facts = net.parameters()
    assert (facts.trainable, facts.frozen, facts.tensors) == (8 * 3 + 3 + 2, 4 * 8 + 8, 3)
    assert [name.rsplit("/", 1)[1] for name in facts.without_gradient] == ["idle"]
    assert facts.unchanged == facts.without_gradient


@pytest.mark.parametrize(("momentum", "expected"), [(1.0, 1.0), (0.9, 0.9**10), (0.5, 0.5**10)])
def test_how_far_statistics_moved(momentum: float, expected: float) -> None:
    net = learner(
        lambda: compiled(layers.BatchNormalization(momentum=momentum, name="norm"), layers.Dense(1), loss="mse"),
        y=VALUES,
    )
    net.train(10)
    (found,) = net.statistics()
    assert found.name == "norm"
    assert found.momentum == pytest.approx(1 - momentum)
    assert found.remaining == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_restless_module_of_a_functional_model() -> None:
    """Keras replays `Dropout(...)(x, training=True)` with the model's own `training`: it takes a layer."""

    class Always(layers.Layer):
        def call(self, inputs: Any) -> Any:
            return keras.random.dropout(inputs, 0.5)

    net = learner(lambda: compiled(layers.Dense(8), Always(name="always_on"), layers.Dense(3, "softmax")))
    assert net.differing_module("eval", "eval") == "always_on"
    assert not np.array_equal(net.outputs_for(range(ROWS))[0], net.outputs_for(range(ROWS))[0])


def test_dropout_called_in_training_mode_is_quiet_where_keras_says_so() -> None:
    def make() -> Any:
        inputs = keras.Input((4,))
        tensor = layers.Dropout(0.5)(layers.Dense(8)(inputs), training=True)
        model = keras.Model(inputs, layers.Dense(3, "softmax")(tensor))
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    net = learner(make)
    first, second = (net.model.predict(X, verbose=0) for _ in range(2))
    assert (net.differing_module("eval", "eval") is None) == np.array_equal(first, second)


def test_restless_module_of_a_subclassed_model() -> None:
    net = learner(restless)
    assert net.differing_module("eval", "eval") == "always_on"
    assert not np.array_equal(net.read("eval").outputs[0], net.read("eval").outputs[0])
    assert "call" not in vars(net.model)


def test_layer_that_differs_between_modes() -> None:
    net = learner(regularised)
    norm, dropout = net.model.layers[2].name, net.model.layers[4].name
    assert net.differing_module("fit", "eval") == norm
    assert net.differing_module("train", "fit") == dropout
    assert net.differing_module("reestimated", "eval") == norm
    assert net.differing_module("fit", "reestimated") is None
    assert all("call" not in vars(each) for each in net.model.layers)


def test_quiet_model_has_no_restless_module() -> None:
    assert learner(regularised).differing_module("eval", "eval") is None


def test_score_gets_the_users_own_batch() -> None:
    y = LABELS.tolist()
    net = learner(
        mlp, y=np.array(y), score=lambda model, x, y: float((model.predict(x, verbose=0).argmax(-1) == y).mean())
    )
    assert 0.0 <= net.score() <= 1.0
    assert learner(mlp).score() is None
    with pytest.raises(ProgramError, match="the score function raised ZeroDivisionError"):
        learner(mlp, score=lambda model, x, y: 1 / 0).score()


# misuse


def uncompiled() -> Any:
    return keras.Sequential([layers.Dense(3)])


def without_loss() -> Any:
    model = keras.Sequential([layers.Dense(3)])
    model.compile("adam")
    return model


SHARED: dict[str, Any] = {}


def shared_optimizer() -> Any:
    optimizer = SHARED.setdefault("optimizer", keras.optimizers.Adam())
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "softmax")])
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize(
    ("make", "y", "said"),
    [
        (uncompiled, LABELS, "not compiled.*model.compile"),
        (without_loss, LABELS, "without a loss.*loss=..."),
        (mlp, LABELS + 1, "labels up to 3.*0 to 2.*y - 1"),
        (mlp, LABELS - 1, "ignore_class"),
        (lambda: compiled(layers.Dense(1, "sigmoid")), LABELS % 2, "have 1 class,.*binary_crossentropy"),
        (mlp, LABELS + 0.5, "with fractions.*'mse'"),
        (mlp, ONE_HOT, "write loss='categorical_crossentropy'"),
        (mlp, np.array(["a", "b"] * 4), "text.*numpy.unique"),
        (
            lambda: mlp(loss="categorical_crossentropy"),
            LABELS,
            "write loss='sparse_categorical_crossentropy' or one-hot",
        ),
        (lambda: mlp(loss="categorical_crossentropy"), np.eye(4)[LABELS], "shape \\(8, 3\\)"),
    ],
)
def test_misuse_is_told(make: Callable[[], Any], y: Any, said: str) -> None:
    with pytest.raises(CaseError, match=said) as caught:
        learner(make, y=y)
    assert not isinstance(caught.value, ProgramError)
    assert "\n" not in str(caught.value)


def test_optimizer_of_another_model() -> None:
    SHARED.clear()
    learner(shared_optimizer)
    with pytest.raises(CaseError, match="already built for other variables"):
        learner(shared_optimizer)


def test_ignored_label_may_be_outside() -> None:
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=255)
    assert learner(lambda: mlp(loss=loss, metrics=None), y=np.where(LABELS == 0, 255, LABELS)).train(1)


def test_shape_error_names_layer_and_shapes_first() -> None:
    with pytest.raises(ProgramError) as caught:
        learner(mlp, x=X[:, :3])
    first = str(caught.value).splitlines()[0]
    assert "the model's call raised ValueError" in first
    assert "expected shape=(None, 4), found shape=(8, 3)" in first

    class Own(layers.Layer):
        def call(self, inputs: Any) -> Any:
            raise RuntimeError("cannot")

    with pytest.raises(ProgramError, match=r"\ACase 'net': the model's call raised RuntimeError: in Own.call\(\): "):
        learner(lambda: keras_with(Own()))


def keras_with(layer: Any) -> Any:
    model = keras.Sequential([layer])
    model.compile("adam", "mse")
    return model


def test_shared_parameters() -> None:
    first, second = mlp(), mlp()
    inputs = keras.Input((4,))
    around = keras.Model(inputs, first(inputs))
    held, others, again = ({id(each) for each in adapter.parameters_of(model)} for model in (first, second, around))
    assert not held & others
    assert held & again


# global state


def disturb() -> None:
    adapter.seed(99)
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("mixed_float16")
    keras.config.set_image_data_format("channels_first")
    tf.config.run_functions_eagerly(True)
    keras.random.normal((3,))
    tf.random.normal((3,))
    tf.random.get_global_generator().normal((3,))
    layers.Dense(1)


def disturbed() -> None:
    with adapter.guard():
        disturb()
        raise KeyboardInterrupt


@pytest.mark.parametrize("seeded", [True, False])
def test_guard_restores(seeded: bool) -> None:
    if seeded:
        keras.utils.set_random_seed(5)
    tf.random.get_global_generator().reset_from_seed(5)

    def draws() -> list[Any]:
        return [
            np.asarray(each((4,)))
            for each in (keras.random.normal, tf.random.normal, tf.random.get_global_generator().normal)
        ]

    draws()
    state = types.SimpleNamespace(random=random.getstate(), numpy=np.random.get_state())
    with adapter.guard():
        expected = draws()
    random.setstate(state.random)
    np.random.set_state(state.numpy)
    names = layers.Dense(1).name
    with pytest.raises(KeyboardInterrupt):
        disturbed()
    settings = keras.config.floatx(), keras.config.dtype_policy().name, keras.config.image_data_format()
    assert settings == ("float32", "float32", "channels_last")
    assert not tf.config.functions_run_eagerly()
    assert int(layers.Dense(1).name.rsplit("_", 1)[1]) == int(names.rsplit("_", 1)[1]) + 1 if "_" in names else True
    found = draws()
    assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))


def test_seed_decides_everything_and_leaves_other_generators() -> None:
    random.seed(7)
    np.random.seed(7)
    before = random.getstate(), np.random.get_state()[1].tolist()
    adapter.seed(7 << 40)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    first = learner(regularised).train(3)
    assert learner(regularised).train(3) == first


# cases met in the wild


def test_model_whose_only_loss_is_added_inside() -> None:
    class Endpoint(layers.Layer):
        def call(self, inputs: Any) -> Any:
            self.add_loss(keras.ops.mean(inputs**2))
            return inputs

    def make() -> Any:
        inputs = keras.Input((4,))
        model = keras.Model(inputs, Endpoint()(layers.Dense(2)(inputs)))
        model.compile("sgd")
        return model

    net = learner(make, y=None)
    reading = net.read("fit")
    assert reading.loss == pytest.approx((reading.outputs[0] ** 2).mean(), rel=1e-5)
    value, (slope,) = net.loss_and_gradient(reading.outputs)
    assert value == pytest.approx(reading.loss, rel=1e-5)
    assert slope == pytest.approx(2 * reading.outputs[0] / reading.outputs[0].size, rel=1e-4)
    assert net.train(3) == pytest.approx(by_fit(make, X, None, 3), rel=1e-5)
    assert any("judged by the loss of add_loss, by the outputs of dense" in each for each in net.remarks)


def test_recurrent_state_is_kept() -> None:
    sequences = RNG.normal(size=(ROWS, 5, 4)).astype("float32")

    def make() -> Any:
        inputs = keras.Input(batch_shape=(ROWS, 5, 4))
        model = keras.Model(inputs, layers.Dense(3, "softmax")(layers.GRU(4, stateful=True)(inputs)))
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    net = learner(make, x=sequences)
    losses = net.train(2)
    net.read("fit"), net.read("train")
    assert losses + net.train(2) == pytest.approx(by_fit(make, sequences, LABELS, 4), rel=1e-4)


def test_models_that_train_against_each_other_are_not_applicable() -> None:
    class Gan(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.judge = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
            self.maker = keras.Sequential([keras.Input((2,)), layers.Dense(4)])

        def compile(self, judge: Any, maker: Any) -> None:
            super().compile()
            self.judge_optimizer, self.maker_optimizer = judge, maker

        def train_step(self, data: Any) -> Any:
            noise = keras.random.normal((ROWS, 2), seed=1)
            with tf.GradientTape() as tape:
                judged = tf.reduce_mean(self.judge(self.maker(noise)) ** 2 + (self.judge(data) - 1.0) ** 2)
            weights = self.judge.trainable_variables
            self.judge_optimizer.apply_gradients(zip(tape.gradient(judged, weights), weights, strict=True))
            with tf.GradientTape() as tape:
                made = -tf.reduce_mean(self.judge(self.maker(noise)))
            weights = self.maker.trainable_variables
            self.maker_optimizer.apply_gradients(zip(tape.gradient(made, weights), weights, strict=True))
            return {"judge": judged, "maker": made}

    def make() -> Any:
        model = Gan()
        model.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1))
        return model

    net = learner(make, y=None)
    assert net.read("fit").loss is None
    assert net.loss_and_gradient([]) is None
    with pytest.raises(NotApplicable, match="judge, maker"):
        net.train(1)


def test_mixed_precision() -> None:
    def make() -> Any:
        inputs = keras.Input((4,))
        hidden = layers.Dense(8, "relu", dtype="mixed_float16")(inputs)
        model = keras.Model(inputs, layers.Dense(3, "softmax", dtype="mixed_float16")(hidden))
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    net = learner(make)
    reading = net.read("fit")
    assert reading.outputs[0].dtype == np.float32
    value, (gradient,) = net.loss_and_gradient(reading.outputs)
    assert value == pytest.approx(reading.loss, rel=1e-2)
    assert gradient.any()
    assert net.train(3) == pytest.approx(by_fit(make, X, LABELS, 3), rel=1e-3)


def test_torch_as_keras_backend() -> None:
    """A backend is chosen for a whole process, so this needs another one."""
    pytest.importorskip("torch")
    environment = {**os.environ, "KERAS_BACKEND": "torch"}
    done = subprocess.run(
        [sys.executable, "-c", TORCH_PROGRAM], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True", "True", "True", "True"]


TORCH_PROGRAM = """
import sys, numpy as np, keras
from pytest_overfit.adapters import keras as adapter
from pytest_overfit.core.case import Case
from pytest_overfit.data.batch import Batch
x, y = np.random.default_rng(0).normal(size=(8, 4)), np.arange(8) % 3
def make():
    adapter.seed(1)
    model = keras.Sequential([keras.layers.BatchNormalization(), keras.layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model
with adapter.guard():
    net = adapter.make_learner(Case(name="net", model=make, batch=(x, y)), make(), Batch(x, y, 8), make)
    before = net.read("fit").loss
    losses = net.train(4)
    print(abs(losses[0] - before) < 1e-5, losses[-1] < losses[0], "tensorflow" not in sys.modules)
    reading = net.read("fit")
    value, (slope,) = net.loss_and_gradient(reading.outputs)
    step = 1e-3 / abs(slope).max()  # no probability moves by more: near 0 the slope is steep
    ahead, _ = net.loss_and_gradient([reading.outputs[0] - step * slope])
    expected = value - step * (slope**2).sum()
    print(abs(value - reading.loss) < 1e-5, abs(ahead - expected) < 0.2 * (value - expected))
"""


def test_rows_that_are_declared_elsewhere_are_refused() -> None:
    """Keras hands rows out along the first axis; the message says what to write instead."""
    x, y = np.zeros((7, 12, 5), "float32"), np.arange(12) % 3
    case = Case(name="case", model=mlp, batch=(x, y), row_axis=1)
    with pytest.raises(CaseError, match="turn them round inside the model or its train_step"):
        adapter.make_learner(case, build(mlp), batch_of(case), lambda: build(mlp))
