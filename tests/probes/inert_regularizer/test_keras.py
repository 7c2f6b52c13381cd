"""`inert_regularizer` on Keras models: every planted fault beside its healthy twin."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

from pytest_overfit import Case, Verdict, run_probes

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(32, 10)).astype("float32"), np.arange(32) % 3
IMAGES = RANDOM.uniform(size=(8, 16, 16, 3)).astype("float32"), np.arange(8) % 3


def verdict(model: Callable[[], Any], **fields: Any) -> Verdict:
    return run_probes(Case(**{"name": "case", "model": model, "batch": (X, Y), **fields}), ["inert_regularizer"])[0]


def compiled(model: Any, optimizer: Any = None) -> Any:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer or keras.optimizers.SGD(0.1), loss=loss)
    return model


def net(*middle: Any, optimizer: Any = None, penalty: Any = None, shape: tuple[int, ...] = (10,)) -> Any:
    last = L.Dense(3, kernel_regularizer=penalty)
    return compiled(keras.Sequential([keras.Input(shape), *middle, L.Flatten(), last]), optimizer)


class Net(keras.Model):
    """Two layers with something of the test's between them; `train_step` as Keras' guide writes it."""

    def __init__(self, between: Callable[[Any, Any, Any], Any], penalty: Any = None, **parts: Any) -> None:
        super().__init__()
        self.first, self.last = L.Dense(64, activation="relu"), L.Dense(3, kernel_regularizer=penalty)
        self.between = between
        for name, part in parts.items():
            setattr(self, name, part)

    def call(self, x: Any, training: Any = None) -> Any:
        return self.last(self.between(self, self.first(x), training))


class OwnStep(Net):
    training_argument: dict[str, bool] = {"training": True}  # noqa: RUF012
    penalised = True

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            outputs = self(x, **self.training_argument)
            loss = keras.ops.mean(keras.losses.sparse_categorical_crossentropy(y, outputs, from_logits=True))
            if self.penalised and self.losses:
                loss += sum(self.losses)
        slopes = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(slopes, self.trainable_variables, strict=True))
        return {"loss": loss}


class StepWithoutTraining(OwnStep):
    training_argument: dict[str, bool] = {}  # noqa: RUF012


class StepWithoutPenalty(OwnStep):
    penalised = False


def drops(self: Any, h: Any, training: Any) -> Any:
    return self.drop(h)


def failed(found: Verdict, *words: str) -> None:
    assert found.outcome == "failed", found.summary
    assert found.diagnoses or "weaker than min_decay" in found.summary, found.summary
    for each in words:
        assert each in found.summary, found.summary


def passed(found: Verdict, *words: str) -> None:
    assert found.outcome == "passed", found.summary
    assert found.diagnoses == (), found.summary
    for each in words:
        assert each in found.summary, found.summary


# ------------------------------------------------------------------ layers


def test_layers_that_drop_or_add_noise() -> None:
    passed(verdict(lambda: net(L.Dense(64), L.Dropout(0.5))), "dropout")
    passed(verdict(lambda: net(L.GaussianNoise(0.1), L.GaussianDropout(0.2), L.AlphaDropout(0.2))), "noise")
    passed(verdict(lambda: net(L.Reshape((5, 2)), L.SpatialDropout1D(0.3))))
    passed(verdict(lambda: net(L.Reshape((5, 2)), L.LSTM(8, dropout=0.2, recurrent_dropout=0.1))))
    found = verdict(lambda: net(L.Dense(64), L.Dropout(0.0)))
    assert found.outcome == "not_applicable"
    assert "with probability or size 0: Dropout" in found.summary


def test_attention() -> None:
    def attends() -> Any:
        x = keras.Input((10,))
        h = L.Reshape((5, 2))(x)
        return compiled(keras.Model(x, L.Dense(3)(L.Flatten()(L.MultiHeadAttention(2, 4, dropout=0.2)(h, h)))))

    passed(verdict(attends), "dropout")


def test_the_training_argument() -> None:
    """Keras hands it on by itself where a `call` does not; what it is told wins."""

    def told(training: bool) -> Callable[[], Any]:
        return lambda: compiled(Net(lambda self, h, _: self.drop(h, training=training), drop=L.Dropout(0.5)))

    passed(verdict(lambda: compiled(Net(drops, drop=L.Dropout(0.5)))))
    passed(verdict(lambda: compiled(Net(lambda self, h, t: self.drop(h, training=t), drop=L.Dropout(0.5)))))
    failed(verdict(told(False)), "Dropout", "(p = 0.5) is inert", "training=False")
    failed(verdict(told(True)), "in evaluation too", "training=True")
    passed(verdict(told(True), options={"inert_regularizer": {"always_on": True}}))


def test_a_train_step_that_calls_the_model_without_training() -> None:
    passed(verdict(lambda: compiled(OwnStep(drops, drop=L.Dropout(0.5)))))
    failed(verdict(lambda: compiled(StepWithoutTraining(drops, drop=L.Dropout(0.5)))), "in evaluation mode while")


def test_layers_that_are_made_and_not_used() -> None:
    def forgets(self: Any, h: Any, training: Any) -> Any:
        self.drop(h)
        return h

    failed(verdict(lambda: compiled(Net(lambda self, h, t: h, drop=L.Dropout(0.5)))), "never called in a training pass")
    failed(verdict(lambda: compiled(Net(forgets, drop=L.Dropout(0.5)))), "no output of the model depends on its result")


def transfer(passes_on: bool, trains: bool = False) -> Any:
    def between(self: Any, h: Any, training: Any) -> Any:
        h = self.body(h, training=False)
        return self.drop(h, training=training) if passes_on else self.drop(h)

    body = keras.Sequential([keras.Input((64,)), L.Dense(16), L.Dropout(0.2)])
    body.trainable = trains
    return compiled(Net(between, body=body, drop=L.Dropout(0.3)))


def test_a_model_inside_that_evaluates() -> None:
    passed(verdict(lambda: transfer(passes_on=True)), "dropout")
    passed(verdict(lambda: transfer(passes_on=True, trains=True)), "dropout")
    # Keras hands the training=False of one call on to the next: `drop` never drops in `fit`
    failed(verdict(lambda: transfer(passes_on=False)), "(p = 0.3) is inert", "Keras hands that on")


class DeadForStates(L.SimpleRNNCell):
    def get_recurrent_dropout_mask(self, step_input: Any) -> Any:
        return None


class Recurrent(L.LSTM):
    """A subclass; `dead`: the mask of the rate with this name keeps everything."""

    def __init__(self, *args: Any, dead: str = "", **rates: Any) -> None:
        super().__init__(*args, **rates)
        if dead:
            kept = lambda step_input: [keras.ops.ones_like(step_input)] * 4  # noqa: E731
            setattr(self.cell, f"get_{dead}_mask", kept)


SEQUENCES = RANDOM.normal(size=(16, 4, 6)).astype("float32"), np.arange(16) % 3


def recurrent(layer: Callable[[], Any]) -> Verdict:
    return verdict(lambda: net(layer(), shape=(4, 6)), batch=SEQUENCES)


def test_cells_and_subclasses_of_recurrent_layers() -> None:
    passed(recurrent(lambda: L.RNN(L.SimpleRNNCell(8, recurrent_dropout=0.5))), "dropout")
    failed(recurrent(lambda: L.RNN(DeadForStates(8, recurrent_dropout=0.5))), "RNN", "(p = 0.5) is inert")
    passed(recurrent(lambda: Recurrent(8, dropout=0.5)), "dropout")
    cells = lambda last: L.StackedRNNCells([L.SimpleRNNCell(8, recurrent_dropout=0.4), last(8, recurrent_dropout=0.5)])  # noqa: E731
    passed(recurrent(lambda: L.RNN(cells(L.SimpleRNNCell))), "dropout (2 places)")
    failed(recurrent(lambda: L.RNN(cells(DeadForStates))), "(recurrent_dropout of", "(p = 0.5) is inert")


def test_each_of_two_rates_is_asked_alone() -> None:
    rates = {"dropout": 0.5, "recurrent_dropout": 0.4}
    passed(recurrent(lambda: Recurrent(8, **rates)), "dropout (2 places)")
    for name, rate in rates.items():
        failed(recurrent(lambda name=name: Recurrent(8, dead=name, **rates)), f"({name}) (p = {rate}) is inert")


def test_subclasses_of_other_layers() -> None:
    class Drop(L.Dropout):
        def call(self, inputs: Any, training: Any = False) -> Any:
            return inputs

    class Noise(L.GaussianNoise):
        def call(self, inputs: Any, training: Any = False) -> Any:
            return super().call(inputs, training=False)

    class Flip(L.RandomFlip):
        pass

    failed(verdict(lambda: net(L.Dense(16), Drop(0.5))), "(p = 0.5) is inert")
    failed(verdict(lambda: net(L.Dense(16), Noise(0.5))), "(size = 0.5) is inert: in training it adds nothing")
    passed(verdict(lambda: net(Flip(), shape=(16, 16, 3)), batch=IMAGES), "augmentation")


class OwnNoise(L.Layer):
    def __init__(self, sigma: float, on: bool) -> None:
        super().__init__()
        self.sigma, self.on = sigma, on

    def call(self, x: Any, training: Any = False) -> Any:
        return x + self.sigma * keras.random.normal(keras.ops.shape(x)) if training and self.on else x


class DropLast(L.Layer):
    """Cuts the last half of a sequence off: no regulariser in spite of its name and its rate."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = 0.5

    def call(self, x: Any) -> Any:
        return x[:, :2]


def test_a_name_is_only_a_reason_to_look() -> None:
    passed(verdict(lambda: net(L.Dense(16), OwnNoise(0.2, on=True))), "noise")
    failed(verdict(lambda: net(L.Dense(16), OwnNoise(0.2, on=False))), "(size = 0.2) is inert")
    found = recurrent(DropLast)
    assert found.outcome == "not_applicable", found.summary
    assert any("is not a regulariser, whatever its name says" in each.message for each in found.findings)


class Hidden(keras.Model):
    """All that is trained lies in a model inside, or not all."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.body = keras.Sequential([L.Dense(16), L.Dropout(0.3), *([L.Dense(3)] if whole else [])])
        self.head = L.Activation("linear") if whole else L.Dense(3)

    def call(self, x: Any) -> Any:
        return self.head(self.body(x))


def stepping(kind: type[Any], training: bool) -> type[Any]:
    """The same kind of model with a `train_step` that calls it so."""
    own = {"train_step": OwnStep.train_step, "training_argument": {"training": training}, "penalised": False}
    return type(f"{kind.__name__}{training}", (kind,), own)


WHOLE: dict[str, Callable[[bool], Any]] = {
    "sequential": lambda t: stepping(keras.Sequential, t)([keras.Input((10,)), L.Dense(8), L.Dropout(0.5), L.Dense(3)]),
    "subclass": lambda t: stepping(Net, t)(drops, drop=L.Dropout(0.5)),
    "inside": lambda t: stepping(Hidden, t)(True),
    "beside": lambda t: stepping(Hidden, t)(False),
}


@pytest.mark.parametrize("model", WHOLE.values(), ids=WHOLE)
def test_a_train_step_that_trains_all_of_it_in_evaluation_mode(model: Callable[[bool], Any]) -> None:
    passed(verdict(lambda: compiled(model(True))), "dropout")
    failed(verdict(lambda: compiled(model(False))), "in evaluation mode while", "calls the model with training=False")


def test_augmentation_layers() -> None:
    passed(verdict(lambda: net(L.RandomFlip(), L.RandomRotation(0.1), shape=(16, 16, 3)), batch=IMAGES), "augmentation")

    class Augments(keras.Model):
        def __init__(self, training: bool) -> None:
            super().__init__()
            self.flip, self.flat, self.last, self.told = L.RandomFlip(), L.Flatten(), L.Dense(3), training

        def call(self, x: Any) -> Any:
            return self.last(self.flat(self.flip(x, training=self.told)))

    failed(verdict(lambda: compiled(Augments(False)), batch=IMAGES), "RandomFlip", "is inert")
    failed(verdict(lambda: compiled(Augments(True)), batch=IMAGES), "RandomFlip", "in evaluation too")


class Flip(L.RandomFlip):
    """Hands on another mode than it is called in."""

    told: Any = None

    def call(self, x: Any, training: bool = True) -> Any:
        return super().call(x, training=training if self.told is None else self.told)


class NeverFlips(Flip):
    told = False


def test_augmentation_that_its_own_call_holds_back() -> None:
    passed(verdict(lambda: net(Flip("horizontal"), shape=(16, 16, 3)), batch=IMAGES), "augmentation")
    found = verdict(lambda: net(NeverFlips("horizontal"), shape=(16, 16, 3)), batch=IMAGES)
    failed(found, "NeverFlips", "is inert", "RandomFlip, which it is made from, changes the same input")
    still = verdict(lambda: net(L.RandomRotation(0.0), shape=(16, 16, 3)), batch=IMAGES)
    assert still.outcome == "not_applicable", still.summary


def test_zeros_cannot_tell() -> None:
    found = verdict(lambda: net(L.Dropout(0.5)), batch=(0 * X, Y))
    assert found.outcome == "inconclusive", found.summary


# ------------------------------------------------------------------ penalties and decay


def shrink(found: Verdict) -> float:
    (finding,) = [each for each in found.findings if each.name in ("weight decay", "penalty")]
    assert isinstance(finding.value, float)
    return finding.value


def test_a_penalty_of_a_layer() -> None:
    """SGD with factor c of the sum of squares: w (1 - 2 c lr) a step."""
    found = verdict(lambda: net(L.Dense(32), penalty=keras.regularizers.L2(1e-4)))
    passed(found, "penalty")
    assert shrink(found) == pytest.approx(-math.expm1(-10_000 * 2e-5), rel=0.02)
    passed(verdict(lambda: net(penalty=keras.regularizers.L1(1e-4))), "penalty")
    passed(verdict(lambda: net(penalty="l2", optimizer=keras.optimizers.Adam())), "penalty")
    failed(verdict(lambda: net(penalty=keras.regularizers.L2(1e-10))), "penalty L2", "is inert")


def test_a_train_step_that_forgets_the_penalties() -> None:
    def plain(self: Any, h: Any, training: Any) -> Any:
        return h

    passed(verdict(lambda: compiled(OwnStep(plain, penalty="l2"))), "penalty")
    failed(verdict(lambda: compiled(StepWithoutPenalty(plain, penalty="l2"))), "is inert", "add sum(self.losses)")


def test_weight_decay() -> None:
    found = verdict(lambda: net(optimizer=keras.optimizers.AdamW(1e-3, weight_decay=0.01)))
    passed(found, "weight decay")
    assert shrink(found) == pytest.approx(-math.expm1(-10_000 * 1e-5), rel=0.02)
    failed(verdict(lambda: net(optimizer=keras.optimizers.SGD(1e-3, weight_decay=1e-6))), "weight_decay 1e-06 of SGD")

    def excluded() -> Any:
        optimizer = keras.optimizers.AdamW(1e-3, weight_decay=0.01)
        optimizer.exclude_from_weight_decay(var_names=[""])
        return net(optimizer=optimizer)

    failed(verdict(excluded), "leaves out every variable")


def test_a_warm_up_that_begins_at_0() -> None:
    rate = keras.optimizers.schedules.CosineDecay(0.0, 1000, warmup_target=1e-3, warmup_steps=100)
    passed(verdict(lambda: net(optimizer=keras.optimizers.AdamW(rate, weight_decay=0.01))), "weight decay")


def test_the_model_is_as_it_was() -> None:
    live: dict[str, Any] = {}

    def model() -> Any:
        optimizer = keras.optimizers.AdamW(1e-2, weight_decay=0.1)
        live["model"] = net(L.Dense(8), L.BatchNormalization(), L.Dropout(0.5), penalty="l2", optimizer=optimizer)
        live["before"] = [each.numpy().copy() for each in live["model"].variables]
        return live["model"]

    passed(verdict(model), "dropout", "weight decay", "penalty")
    for now, before in zip(live["model"].variables, live["before"], strict=True):
        assert np.array_equal(now.numpy(), before), now.path
    assert int(live["model"].optimizer.iterations.numpy()) == 0
    assert "apply" not in vars(live["model"].optimizer)
    assert all("call" not in vars(each) for each in live["model"].layers)
