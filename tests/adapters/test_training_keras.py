"""Training Keras models on whole splits: through `fit`, reproducibly, in pairs, with and without regularisers."""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from pytest_overfit.adapters.dispatch import guards, seed_everything, trainer_for  # noqa: E402
from pytest_overfit.core.case import Case  # noqa: E402
from pytest_overfit.core.errors import CaseError, ProgramError  # noqa: E402
from pytest_overfit.core.state import preserved  # noqa: E402
from pytest_overfit.data.splits import open_split  # noqa: E402
from pytest_overfit.measures.predictions.scores import scores_of  # noqa: E402

layers, callbacks, ops = keras.layers, keras.callbacks, keras.ops

RNG = np.random.default_rng(0)
ROWS, CLASSES = 70, 3
X = RNG.normal(size=(ROWS, 6)).astype("float32")
Y = (X @ RNG.normal(size=(6, CLASSES))).argmax(axis=1)
VAL = RNG.normal(size=(24, 6)).astype("float32"), RNG.integers(0, CLASSES, 24)
IMAGES = RNG.uniform(size=(24, 8, 8, 3)).astype("float32")
WORDS = RNG.integers(0, 9, size=(24, 5))
LABELS = np.arange(24) % CLASSES


@pytest.fixture(autouse=True)
def _as_before() -> Any:
    with preserved(guards()):
        yield


def net(*between: Any, inputs: Any = (6,), optimizer: Any = "sgd", **more: Any) -> Any:
    model = keras.Sequential([keras.Input(inputs), *between, layers.Flatten(), layers.Dense(CLASSES, "softmax")])
    model.compile(optimizer, "sparse_categorical_crossentropy", **more)
    return model


def mlp(**more: Any) -> Any:
    return net(layers.Dense(16, "relu"), **more)


def regularised(**more: Any) -> Any:
    return net(layers.Dense(16, "relu", kernel_regularizer="l2"), layers.Dropout(0.5), **more)


def case_of(make: Callable[[], Any], train: Any = (X, Y), **fields: Any) -> Case:
    return Case(name="net", model=make, train=train, **fields)


def trainer(make: Callable[[], Any], train: Any = (X, Y), *, plain: bool = False, seed: int = 3, **fields: Any) -> Any:
    case = case_of(make, train, **fields)
    seed_everything(seed)
    return trainer_for(case, open_split(case, "train"), seed, plain)


def read(of: Any, name: str = "train") -> Any:
    return scores_of(of.read(open_split(of.case, name)), None)


def same(first: Any, second: Any) -> bool:
    return all(np.array_equal(one, other) for (_, one), (_, other) in zip(first, second, strict=True))


# training


def test_the_same_seed_gives_the_same_losses_to_the_bit() -> None:
    runs = [trainer(regularised, seed=seed) for seed in (3, 3, 4)]
    losses = [each.train(3) for each in runs]
    assert losses[0] == losses[1] != losses[2]
    assert same(runs[0].state(), runs[1].state())
    assert len(losses[0]) == 3


def test_without_shuffling_it_is_what_fit_does() -> None:
    """Loss of every epoch, last short batch and penalties included."""
    of = trainer(lambda: net(layers.Dense(16, "relu", kernel_regularizer="l2")), fit_kwargs={"shuffle": False})
    twin = of.case.model()
    twin.set_weights([value for _, value in of.state()])
    expected = twin.fit(X, Y, epochs=3, shuffle=False, verbose=0).history["loss"]
    assert of.train(3) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ["class_weight", "sample_weight", "in the data"])
def test_weights_count_as_in_fit(kind: str) -> None:
    weights = np.where(Y == 0, 5.0, 0.5)
    given = {"class_weight": {0: 5.0, 1: 0.5, 2: 0.5}} if kind == "class_weight" else {"sample_weight": weights}
    fit_kwargs = {"shuffle": False, **({} if kind == "in the data" else given)}
    of = trainer(mlp, (X, Y, weights) if kind == "in the data" else (X, Y), fit_kwargs=fit_kwargs)
    twin = of.case.model()
    twin.set_weights([value for _, value in of.state()])
    assert of.train(2) == pytest.approx(twin.fit(X, Y, epochs=2, shuffle=False, verbose=0, **given).history["loss"])


@pytest.mark.parametrize("again", [(1, 1, 1, 1), (2, 2)])
def test_training_goes_on_where_it_was(again: tuple[int, ...]) -> None:
    whole, parts = (trainer(regularised, optimizer_state) for optimizer_state in ((X, Y), (X, Y)))
    losses = whole.train(4)
    assert [loss for each in again for loss in parts.train(each)] == losses
    assert same(whole.state(), parts.state())


def test_averaged_weights_are_for_reading_only() -> None:
    """`use_ema` writes averages into the model where `fit` ends; the next call goes on from the others."""

    def make() -> Any:
        return mlp(optimizer=keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9))

    whole, parts = trainer(make), trainer(make)
    assert [loss for _ in range(3) for loss in parts.train(1)] == whole.train(3)
    assert same(whole.state(), parts.state())


class Traced(layers.Layer):
    """Counts how often it is traced in training."""

    count = 0

    def call(self, x: Any, training: Any = None) -> Any:
        Traced.count += bool(training) and not hasattr(x, "numpy")
        return x


def test_a_step_is_traced_once() -> None:
    of = trainer(lambda: net(Traced()))
    Traced.count = 0
    for _ in range(3):
        of.train(1)
        read(of)
    assert Traced.count == 1


class Seen(layers.Layer):
    """A number that depends on all batches so far, and on their order."""

    def build(self, shape: Any) -> None:
        self.sum = self.add_weight(shape=(), trainable=False, initializer="zeros", name="sum")
        self.factors = np.arange(1.0, shape[-1] + 1, dtype="float32")

    def call(self, x: Any, training: Any = None) -> Any:
        if training:
            self.sum.assign(0.9 * self.sum + ops.sum(x * self.factors))
        return x


class Sequence(keras.utils.PyDataset):
    """Batches whose order is drawn anew after each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.order = np.arange(7)

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> Any:
        at = self.order[index] * 10
        return X[at : at + 10], Y[at : at + 10]

    def on_epoch_end(self) -> None:
        self.order = np.random.permutation(7)


class Noisy:
    """A dataset of samples that augments at random."""

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> Any:
        return X[index] + np.float32(random.random()), Y[index]


def batches() -> Any:
    return [(X[at : at + 10], Y[at : at + 10]) for at in range(0, 70, 10)]


def tensors() -> Any:
    return tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(70, seed=1).batch(16)


def loader() -> Any:
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    return torch.utils.data.DataLoader(data, batch_size=16, shuffle=True)


SOURCES = {
    "arrays": (X, Y),
    "PyDataset": lambda: Sequence(),
    "samples": lambda: Noisy(),
    "batches": batches,
    "tf.data": tensors,
    "DataLoader": loader,
}


@pytest.mark.parametrize("name", SOURCES)
def test_both_arms_see_the_same_batches(name: str) -> None:
    """In the same order, though one of them draws masks."""

    def make() -> Any:
        return net(Seen(), layers.Dropout(0.5))

    own, plain, other = (
        trainer(make, SOURCES[name], plain=plain, seed=seed) for plain, seed in ((False, 3), (True, 3), (False, 4))
    )
    for each in (own, plain, other):
        assert len(each.train(3)) == 3
    seen, pair, different = (dict(each.state())["sum"] for each in (own, plain, other))
    assert seen == pair
    assert (seen == different) == (name == "batches")  # these stand in an order of their own
    assert not same(own.state(), plain.state())


def test_the_plain_arm_of_a_model_without_regularisers_is_the_own_arm() -> None:
    own, plain = trainer(mlp), trainer(mlp, plain=True)
    assert plain.removed == ()
    assert own.train(3) == plain.train(3)
    assert same(own.state(), plain.state())


def test_both_arms_start_from_the_same_weights() -> None:
    assert same(trainer(regularised).state(), trainer(regularised, plain=True).state())


def test_weights_are_taken_over_where_shapes_agree() -> None:
    first, second = trainer(mlp, seed=1), trainer(mlp, seed=2)
    state = first.state()
    first.train(1)
    assert second.start_from(state)
    assert same(second.state(), state)
    assert not same(first.state(), state), "a copy does not change with the model"
    larger = trainer(lambda: net(layers.Dense(17, "relu")))
    before = larger.state()
    assert not larger.start_from(state)
    assert same(larger.state(), before)


# callbacks


def stopping(**more: Any) -> Any:
    return callbacks.EarlyStopping(patience=2, restore_best_weights=True, **more)


def test_early_stopping_ends_the_training_and_restores_the_best_weights() -> None:
    mine = stopping()
    of = trainer(lambda: mlp(optimizer=keras.optimizers.SGD(1.0)), val=VAL, fit_kwargs={"callbacks": [mine]})
    before = dict(vars(mine))
    losses = of.train(60)
    assert 2 < len(losses) < 60
    assert of.train(5) == of.train(1) == []
    assert vars(mine) == before, "the user's own callback is as it was"
    final = read(of, "val").loss
    other = trainer(lambda: mlp(optimizer=keras.optimizers.SGD(1.0)), val=VAL)
    found = []
    for _ in losses:
        other.train(1)
        found.append(read(other, "val").loss)
    assert final == pytest.approx(min(found), rel=1e-5)
    assert len(found) == int(np.argmin(found)) + 3


def test_early_stopping_counts_across_calls() -> None:
    def make() -> Any:
        return mlp(optimizer=keras.optimizers.SGD(1.0))

    whole, parts = (trainer(make, val=VAL, fit_kwargs={"callbacks": stopping()}) for _ in range(2))
    losses = whole.train(60)
    assert [loss for _ in range(60) for loss in parts.train(1)] == losses
    assert same(whole.state(), parts.state())


def test_the_plain_arm_does_not_stop_early() -> None:
    of = trainer(
        lambda: mlp(optimizer=keras.optimizers.SGD(1.0)), plain=True, val=VAL, fit_kwargs={"callbacks": stopping()}
    )
    assert of.removed == ("early stopping (patience 2)",)
    assert len(of.train(30)) == 30


@pytest.mark.parametrize("val", [VAL, lambda: list(zip(*VAL, strict=True)), lambda: Sequence(), batches])
def test_validation_data_of_any_kind(val: Any) -> None:
    seen: list[Any] = []
    watch = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(logs["val_loss"]))
    of = trainer(mlp, val=val, fit_kwargs={"callbacks": [watch]})
    of.train(2)
    assert len(seen) == 2
    assert seen[-1] == pytest.approx(read(of, "val").loss, rel=1e-5)


def test_a_share_of_the_training_data_validates() -> None:
    seen: list[Any] = []
    watch = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(logs["val_loss"]))
    of = trainer(lambda: net(Seen()), fit_kwargs={"callbacks": [watch], "validation_split": 0.2, "shuffle": False})
    of.train(1)
    rows = X[:56]
    expected = 0.0
    for at in range(0, 56, 32):
        expected = 0.9 * expected + float((rows[at : at + 32] * np.arange(1, 7)).sum())
    assert dict(of.state())["sum"] == pytest.approx(expected, rel=1e-4)
    case = case_of(of.case.model, val=(X[56:], Y[56:]))
    assert seen == pytest.approx([scores_of(of.read(open_split(case, "val")), None).loss], rel=1e-5)


def test_schedules_work_and_go_on() -> None:
    rates: list[float] = []

    def rate(epoch: int) -> float:
        rates.append(0.1 / (epoch + 1))
        return rates[-1]

    def make() -> list[Any]:
        return [callbacks.LearningRateScheduler(rate)]

    of = trainer(mlp, fit_kwargs={"callbacks": make})
    of.train(2)
    of.train(1)
    assert rates == pytest.approx([0.1, 0.05, 0.1 / 3])
    assert float(of.model.optimizer.learning_rate) == pytest.approx(0.1 / 3)


def test_callbacks_that_look_at_batches_see_every_one() -> None:
    seen: list[int] = []
    watch = callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
    with_watch, without = trainer(mlp, fit_kwargs={"callbacks": [watch]}), trainer(mlp)
    assert with_watch.train(2) == without.train(2)
    assert seen == [0, 1, 2, 0, 1, 2]


def test_callbacks_that_write_files_are_left_out(tmp_path: Any) -> None:
    given = [callbacks.ModelCheckpoint(tmp_path / "best.keras"), callbacks.CSVLogger(str(tmp_path / "log.csv"))]
    of = trainer(mlp, fit_kwargs={"callbacks": given})
    of.train(1)
    assert list(tmp_path.iterdir()) == []
    assert of.remarks == ("callbacks that only write files were left out: ModelCheckpoint, CSVLogger",)


class Locked(callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"fit_kwargs": {"callbacks": stopping()}}, "EarlyStopping monitors 'val_loss'"),
        ({"fit_kwargs": {"callbacks": [Locked()]}}, r"Locked cannot be copied .* give a function"),
        ({"fit_kwargs": {"validation_split": 0.2}, "train": batches}, "train= is not an array"),
        ({"fit_kwargs": {"sample_weight": np.ones(70)}, "train": batches}, "train= is not an array"),
        ({"fit_kwargs": {"sample_weight": np.ones(7)}}, "sample_weight has 7 rows"),
        ({"train": (X[:, :3], Y)}, "expected"),
    ],
)
def test_what_cannot_be_trained_is_told(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(CaseError, match=said):
        trainer(mlp, **fields)


def test_an_error_of_the_users_step_is_told() -> None:
    class Broken(keras.Sequential):  # type: ignore[misc]
        def train_step(self, data: Any) -> Any:
            raise KeyError("weights")

    def make() -> Any:
        model = Broken([keras.Input((6,)), layers.Dense(3)])
        model.compile("sgd", "mse")
        return model

    with pytest.raises(ProgramError, match="KeyError"):
        trainer(make).train(1)


# reading


def test_the_loss_read_is_that_of_evaluate_without_penalties() -> None:
    of = trainer(regularised, val=VAL)
    of.train(1)
    found = read(of, "val")
    penalties = float(sum(of.model.losses))
    assert found.loss == pytest.approx(of.model.evaluate(*VAL, verbose=0) - penalties, rel=1e-5)
    assert found.score == (of.model.predict(VAL[0], verbose=0).argmax(axis=1) == VAL[1]).mean()
    assert (found.metric, found.rows) == ("accuracy", 24)


def test_long_splits_are_read_in_chunks() -> None:
    x, y = np.tile(X, (70, 1)), np.tile(Y, 70)
    of = trainer(mlp, val=(x, y))
    assert [each.rows for each in of.read(open_split(of.case, "val"))] == [2048, 2048, 804]
    assert read(of, "val").loss == pytest.approx(of.model.evaluate(x, y, verbose=0), rel=1e-5)


@pytest.mark.parametrize("kind", ["recurrent", "masked", "normalised", "two inputs"])
def test_a_long_reading_is_compiled_and_reads_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def two() -> Any:
        first, second = keras.Input((5,), name="first"), keras.Input((5,), name="second")
        model = keras.Model({"first": first, "second": second}, layers.Dense(1)(layers.Add()([first, second])))
        model.compile("adam", "mse")
        return model

    words, labels = np.tile(WORDS, (45, 1)), np.tile(LABELS, 45)
    make, x = {
        "recurrent": (lambda: recurrent(layers.LSTM(4, dropout=0.5)), words),
        "masked": (lambda: net(layers.Embedding(9, 4, mask_zero=True), layers.LSTM(4), inputs=(5,)), words),
        "normalised": (lambda: net(layers.BatchNormalization(), layers.Dropout(0.5), inputs=(5,)), words),
        "two inputs": (two, {"first": words, "second": words}),
    }[kind]
    of = trainer(make, (x, labels))
    of.train(1)
    slow = read(of)
    monkeypatch.setattr("pytest_overfit.adapters.keras.reader._PATIENCE", -1.0)
    of.train(1)
    fast, expected = read(of), of.model.evaluate(x, labels, verbose=0)
    assert fast.loss == pytest.approx(expected, rel=1e-5)
    assert fast.rows == slow.rows == 1080
    before = fast.loss
    of.train(1)
    assert read(of).loss != before, "the weights are read anew"


def test_reading_leaves_no_trace() -> None:
    def make() -> Any:
        return net(layers.Dense(8), layers.BatchNormalization(), layers.GaussianNoise(0.3))

    silent, asked = trainer(make, val=VAL), trainer(make, val=VAL)
    losses = []
    for _ in range(2):
        losses += asked.train(1)
        read(asked, "val")
        state = random.getstate()
        read(asked)
        assert random.getstate() == state
    assert losses == silent.train(2)
    assert same(asked.state(), silent.state())


def test_sample_weights_of_the_data_count_in_the_loss_read() -> None:
    weights = np.where(Y == 0, 9.0, 0.1)
    of = trainer(mlp, (X, Y, weights))
    assert read(of).loss == pytest.approx(of.model.evaluate(X, Y, sample_weight=weights, verbose=0), rel=1e-5)
    assert read(of).loss != pytest.approx(of.model.evaluate(X, Y, verbose=0), rel=1e-2)


def test_several_heads() -> None:
    def make() -> Any:
        x = keras.Input((6,))
        kind, amount = layers.Dense(3, "softmax", name="kind")(x), layers.Dense(1, name="amount")(x)
        model = keras.Model(x, {"kind": kind, "amount": amount})
        model.compile("sgd", {"kind": "sparse_categorical_crossentropy", "amount": "mse"})
        return model

    y = {"kind": Y, "amount": X[:, :1]}
    of = trainer(make, (X, y))
    losses = of.train(20)
    assert losses[-1] < losses[0]
    chunk = next(iter(of.read(open_split(of.case, "train"))))
    assert {each.name: each.kind for each in chunk.reading.heads} == {"kind": "classes", "amount": "values"}
    assert read(of).loss == pytest.approx(of.model.evaluate(X, y, verbose=0, return_dict=True)["loss"], rel=1e-5)


def test_a_model_of_a_fixed_batch_size() -> None:
    def make() -> Any:
        x = keras.Input((5, 1), batch_size=4)
        model = keras.Model(x, layers.Dense(1)(layers.LSTM(3, stateful=True)(x)))
        model.compile("sgd", "mse")
        return model

    of = trainer(make, (WORDS[..., None], LABELS), fit_kwargs={"batch_size": 4}, val=(WORDS[:22, :, None], LABELS[:22]))
    assert len(of.train(2)) == 2
    assert read(of).rows == 24
    assert read(of, "val").rows == 20
    assert of.remarks == ("rows at the end of a split were not read: the model takes 4 rows and no others",)


def test_the_cases_own_score() -> None:
    of = trainer(mlp, score=lambda model, x, y: 0.25 if len(x) == 70 else 0.0)
    assert (read(of).score, read(of).metric) == (0.25, "score")


class OwnStep(keras.Sequential):  # type: ignore[misc]
    """The compiled loss in a step that leaves the metrics alone."""

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"loss": loss}


class OtherLoss(OwnStep):
    """A loss of its own, which the compiled one is not."""

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, **_: Any) -> Any:
        return ops.mean(keras.losses.sparse_categorical_crossentropy(y, y_pred)) * 3.0


class Reconstructs(keras.Model):  # type: ignore[misc]
    """An autoencoder whose loss is made inside the step."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = keras.Sequential([layers.Dense(4), layers.Dense(6)])

    def call(self, x: Any) -> Any:
        return self.inside(x)

    def train_step(self, x: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = ops.mean(ops.square(x - self.inside(x)))
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"reconstruction": loss}


def own(kind: Any) -> Any:
    model = kind([keras.Input((6,)), layers.Dense(8, "relu"), layers.Dropout(0.3), layers.Dense(CLASSES, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize(("kind", "factor"), [(OwnStep, 1.0), (OtherLoss, 3.0)])
def test_custom_steps(kind: Any, factor: float) -> None:
    of = trainer(lambda: own(kind))
    losses = of.train(20)
    assert 0 < losses[-1] < losses[0]
    shown = of.model.predict(X, verbose=0)
    expected = -np.log(shown[np.arange(ROWS), Y]).mean() * factor
    assert read(of).loss == pytest.approx(expected, rel=1e-4)
    assert read(of).score == (shown.argmax(axis=1) == Y).mean()
    assert trainer(lambda: own(kind), plain=True).removed[0].startswith("dropout 0.3 (dropout")


def test_a_loss_made_inside_the_step() -> None:
    def make() -> Any:
        model = Reconstructs()
        model.compile("sgd")
        return model

    of = trainer(make, X, val=VAL[0])
    losses = of.train(10)
    assert 0 < losses[-1] < losses[0]
    expected = np.square(of.model.predict(VAL[0], verbose=0) - VAL[0]).mean()
    assert read(of, "val").loss == pytest.approx(expected, rel=1e-4)


# the twin


class DropPath(layers.Layer):
    """Stochastic depth, as many repositories write it."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__(name="drop_path")
        self.drop_prob, self.random = drop_prob, keras.random.SeedGenerator(1)

    def call(self, x: Any, training: Any = None) -> Any:
        return keras.random.dropout(x, self.drop_prob, seed=self.random) if training and self.drop_prob else x


class RandomShift(layers.Layer):
    """An augmentation of a user's own."""

    def __init__(self) -> None:
        super().__init__(name="shift")
        self.random = keras.random.SeedGenerator(1)

    def call(self, x: Any, training: Any = None) -> Any:
        return x + keras.random.normal((1, 1, 1, 3), seed=self.random) if training else x


class Block(keras.Model):  # type: ignore[misc]
    """A subclassed model with a nested one inside, which is built when it is called."""

    def __init__(self, rate: float, penalty: float) -> None:
        super().__init__(name="block")
        regularizer = keras.regularizers.L1L2(penalty, 2 * penalty) if penalty else None
        self.first = keras.Sequential([layers.Dense(8, bias_regularizer=regularizer, name="d"), layers.Dropout(rate)])
        self.last = layers.Dense(CLASSES, "softmax")

    def call(self, x: Any, training: Any = None) -> Any:
        return self.last(self.first(x, training=training))


def block(rate: float, penalty: float) -> Any:
    model = Block(rate, penalty)
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def attention(rate: float) -> Any:
    x = keras.Input((5,))
    tokens = layers.Embedding(9, 4)(x)
    attended = layers.MultiHeadAttention(2, 2, dropout=rate, name="attention")(tokens, tokens)
    model = keras.Model(x, layers.Dense(CLASSES, "softmax")(layers.GlobalAveragePooling1D()(attended)))
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def recurrent(layer: Any) -> Any:
    return net(layers.Embedding(9, 4), layer, inputs=(5,))


def decayed(decay: Any, kind: Any = keras.optimizers.AdamW) -> Any:
    return mlp(optimizer=kind(0.01, weight_decay=decay) if decay else keras.optimizers.Adam(0.01))


def pictures(*augmenting: Any) -> Any:
    return net(*augmenting, layers.Conv2D(4, 3), inputs=(8, 8, 3))


L2 = keras.regularizers.L2(0.1)
VECTORS, SENTENCES, PICTURES = (X, Y), (WORDS, LABELS), (IMAGES, LABELS)

#: kind -> data, with the regulariser, the same written without, what is to be listed
TWINS: dict[str, tuple[Any, Callable[[], Any], Callable[[], Any], tuple[str, ...]]] = {
    "dropout": (
        VECTORS, lambda: net(layers.Dropout(0.5, name="d")), net, ("dropout 0.5 (d)",)),
    "two dropouts": (
        VECTORS,
        lambda: net(layers.Dropout(0.5, name="d"), layers.Dropout(0.25, name="e"), layers.AlphaDropout(0.5, name="f")),
        net, ("dropout 0.5 (d, f)", "dropout 0.25 (e)")),
    "spatial dropout": (
        PICTURES, lambda: pictures(layers.SpatialDropout2D(0.5, name="d")), pictures, ("dropout 0.5 (d)",)),
    "gaussian dropout": (
        VECTORS, lambda: net(layers.GaussianDropout(0.5, name="d")), net, ("dropout 0.5 (d)",)),
    "gaussian noise": (
        VECTORS, lambda: net(layers.GaussianNoise(0.9, name="n")), net, ("noise 0.9 (n)",)),
    "recurrent": (
        SENTENCES, lambda: recurrent(layers.LSTM(4, dropout=0.5, recurrent_dropout=0.25, name="r")),
        # recurrent dropout chooses this order of sums, which rounds otherwise
        lambda: recurrent(layers.LSTM(4, implementation=1)), ("dropout 0.5 (r)", "recurrent dropout 0.25 (r)")),
    "bidirectional": (
        SENTENCES, lambda: recurrent(layers.Bidirectional(layers.GRU(4, dropout=0.5), name="b")),
        lambda: recurrent(layers.Bidirectional(layers.GRU(4))), ("dropout 0.5 (b)",)),
    "attention": (
        SENTENCES, lambda: attention(0.5), lambda: attention(0.0), ("dropout 0.5 (attention)",)),
    "custom": (
        VECTORS, lambda: net(DropPath(0.4)), net, ("dropout 0.4 (drop_path)",)),
    "nested": (
        VECTORS, lambda: block(0.5, 0.1), lambda: block(0.0, 0.0),
        ("dropout 0.5 (dropout*)", "L1 0.1 and L2 0.2 (bias of d)")),
    "l2": (
        VECTORS, lambda: net(layers.Dense(8, kernel_regularizer=L2, name="k")), lambda: net(layers.Dense(8)),
        ("L2 0.1 (kernel of k)",)),
    "l1 of outputs": (
        VECTORS, lambda: net(layers.Dense(8, activity_regularizer="l1", name="k")), lambda: net(layers.Dense(8)),
        ("L1 0.01 (output of k)",)),
    "activity layer": (
        VECTORS, lambda: net(layers.ActivityRegularization(l2=0.5, name="a")), net, ("L2 0.5 (output of a)",)),
    "orthogonal": (
        VECTORS, lambda: net(layers.Dense(8, kernel_regularizer="orthogonal_regularizer", name="k")),
        lambda: net(layers.Dense(8)), ("OrthogonalRegularizer (kernel of k)",)),
    "recurrent l2": (
        SENTENCES, lambda: recurrent(layers.LSTM(4, recurrent_regularizer=L2, name="r")),
        lambda: recurrent(layers.LSTM(4)), ("L2 0.1 (recurrent_kernel of r)",)),
    "batch normalisation": (
        VECTORS, lambda: net(layers.BatchNormalization(gamma_regularizer=L2, name="n"), layers.Dropout(0.5, name="d")),
        lambda: net(layers.BatchNormalization()), ("L2 0.1 (gamma of n)", "dropout 0.5 (d)")),
    "constraint": (
        VECTORS, lambda: net(layers.Dense(8, kernel_constraint="unit_norm"), layers.Dropout(0.5, name="d")),
        lambda: net(layers.Dense(8, kernel_constraint="unit_norm")), ("dropout 0.5 (d)",)),
    "AdamW": (
        VECTORS, lambda: decayed(0.5), lambda: decayed(None), ("weight decay 0.5",)),
    "Adam with decay": (
        VECTORS, lambda: decayed(0.25, keras.optimizers.Adam), lambda: decayed(None), ("weight decay 0.25",)),
    "loss scaling": (
        VECTORS, lambda: mlp(optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.AdamW(0.01, 0.5))),
        lambda: mlp(optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01))), ("weight decay 0.5",)),
    "augmentation": (
        PICTURES, lambda: pictures(layers.RandomFlip(name="f"), layers.RandomRotation(0.5, name="r")), pictures,
        ("augmentation RandomFlip (f)", "augmentation RandomRotation (r)")),
    "pipeline": (
        PICTURES, lambda: pictures(layers.Pipeline([layers.RandomFlip(), layers.RandomZoom(0.5)], name="p")), pictures,
        ("augmentation RandomZoom (p)", "augmentation RandomFlip (p)")),
    "RandAugment": (
        PICTURES, lambda: pictures(layers.RandAugment((0, 1), name="a")), pictures, ("augmentation RandAugment (a)",)),
    "augmentation of one's own": (
        PICTURES, lambda: pictures(RandomShift()), pictures, ("augmentation RandomShift (shift)",)),
}  # fmt: skip


def listed(removed: tuple[str, ...], expected: tuple[str, ...]) -> bool:
    """The same entries in any order; a star stands for Keras' number of a layer."""
    import fnmatch

    left = list(removed)
    for each in expected:
        found = [one for one in left if fnmatch.fnmatchcase(one, each)]
        if not found:
            return False
        left.remove(found[0])
    return not left


@pytest.mark.parametrize("kind", TWINS)
def test_the_twin_trains_as_the_same_model_written_without(kind: str) -> None:
    """Its compiled steps to the bit, from the same weights; the model as it is trains otherwise."""
    data, make, without, expected = TWINS[kind]
    own, twin, written = trainer(make, data), trainer(make, data, plain=True), trainer(without, data)
    assert listed(twin.removed, expected), twin.removed
    assert twin.remarks == own.remarks == ()
    assert own.removed == ()
    assert written.start_from(twin.state())
    assert own.start_from(twin.state())
    losses = twin.train(2)
    assert losses == written.train(2)
    assert same(twin.state(), written.state())
    assert own.train(2) != losses
    assert twin.model.losses == []


HEALTHY: dict[str, tuple[Any, Callable[[], Any]]] = {
    "nothing": (VECTORS, mlp),
    "batch normalisation": (VECTORS, lambda: net(layers.Dense(8), layers.BatchNormalization())),
    "rates of zero": (VECTORS, lambda: net(layers.Dropout(0.0), layers.GaussianNoise(0.0))),
    "resizing": (PICTURES, lambda: pictures(layers.Resizing(6, 6), layers.Rescaling(1 / 255))),
    "constraint": (VECTORS, lambda: net(layers.Dense(8, kernel_constraint="max_norm"))),
}


@pytest.mark.parametrize("kind", HEALTHY)
def test_what_is_no_regulariser_stays(kind: str) -> None:
    data, make = HEALTHY[kind]
    twin = trainer(make, data, plain=True)
    assert twin.removed == () == twin.remarks
    assert twin.train(1) == trainer(make, data).train(1)


class Restless(layers.Layer):
    """Drops at a rate that no name tells."""

    def __init__(self) -> None:
        super().__init__(name="restless")
        self.random = keras.random.SeedGenerator(1)

    def call(self, x: Any, training: Any = None) -> Any:
        return keras.random.dropout(x, 0.5, seed=self.random) if training else x


def test_what_stays_random_is_told() -> None:
    of = trainer(lambda: net(Restless()), plain=True)
    assert of.remarks == ("layer 'restless' is random in training, in a way that could not be taken out",)


def test_a_factory_that_trains_leaves_no_rates_behind() -> None:
    def make() -> Any:
        model = net(layers.Dropout(0.9))
        model.fit(X, Y, verbose=0)
        model.predict(X, verbose=0)
        return model

    twin, written = trainer(make, plain=True), trainer(lambda: net(layers.Dropout(0.0)))
    assert written.start_from(twin.state())
    assert twin.train(2) == written.train(2)


def test_the_factory_of_the_case_is_left_alone() -> None:
    made: list[Any] = []

    def make() -> Any:
        made.append(regularised())
        return made[-1]

    trainer(make, plain=True)
    own = trainer(make)
    assert [each.rate for each in made[-1].layers if isinstance(each, layers.Dropout)] == [0.5]
    assert own.model.losses


# what is global


def test_generators_and_settings_are_as_before() -> None:
    def state() -> Any:
        context = sys.modules["tensorflow.python.eager.context"].context()  # type: ignore[attr-defined]
        return (
            random.getstate(), np.random.get_state()[1].tolist(), context._seed, context._rng.getstate(),
            keras.config.floatx(), keras.config.dtype_policy().name, tf.config.functions_run_eagerly(),
        )  # fmt: skip

    keras.utils.set_random_seed(5)
    before = state()
    with preserved(guards()):
        of = trainer(regularised, val=VAL, fit_kwargs={"callbacks": [stopping()]})
        of.train(3)
        read(of, "val")
    assert state() == before


PROGRAM = """
import numpy as np
import keras
from keras import layers
from pytest_overfit import Case
from pytest_overfit.adapters.dispatch import trainer_for
from pytest_overfit.data.splits import open_split
from pytest_overfit.measures.predictions.scores import scores_of

x = np.random.default_rng(0).normal(size=(70, 6)).astype("float32")
y = (x[:, :3]).argmax(axis=1)

def net(rate=0.5):
    parts = [layers.Dense(8, "relu", kernel_regularizer="l2" if rate else None), layers.Dropout(rate)]
    model = keras.Sequential([keras.Input((6,)), *parts, layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy")
    return model

stop = keras.callbacks.EarlyStopping(patience=3, restore_best_weights=True)
case = Case(name="net", model=net, train=(x, y), val=(x[:20], y[:20]), fit_kwargs={"callbacks": [stop]})
plain = Case(name="net", model=lambda: net(0.0), train=(x, y))

def of(case, without):
    return trainer_for(case, open_split(case, "train"), 1, without)

first, again, twin, written = of(case, False), of(case, False), of(case, True), of(plain, False)
losses = first.train(3)
assert len(losses) == 3 and losses == [loss for _ in range(3) for loss in again.train(1)], losses
assert len(twin.removed) == 3, twin.removed
assert written.start_from(twin.state())
assert twin.train(3) == written.train(3) and twin.train(5)[-1] < 1.0
scores = scores_of(twin.read(open_split(case, "val")), None)
assert abs(scores.loss - twin.model.evaluate(x[:20], y[:20], verbose=0)) < 1e-4, scores
assert scores.score > 0.5
"""


@pytest.mark.parametrize("backend", ["torch"])  # jax gives the same, and takes twice the time
def test_other_backends(backend: str, tmp_path: Any) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    environment = {**os.environ, "KERAS_BACKEND": backend, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "program.py"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
