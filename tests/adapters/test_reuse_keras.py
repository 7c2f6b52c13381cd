"""A traced Keras model is trained again from other weights: only where it is the same, and with the same numbers."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from pytest_overfit import run_probes  # noqa: E402
from pytest_overfit.adapters.dispatch import guards, seed_everything, trainer_for  # noqa: E402
from pytest_overfit.adapters.keras import reuse  # noqa: E402
from pytest_overfit.core.case import Case  # noqa: E402
from pytest_overfit.core.state import preserved  # noqa: E402
from pytest_overfit.data.splits import open_split  # noqa: E402
from pytest_overfit.measures.predictions.scores import scores_of  # noqa: E402

layers, callbacks = keras.layers, keras.callbacks

RNG = np.random.default_rng(0)
X = RNG.normal(size=(70, 6, 6, 1)).astype("float32")
Y = RNG.integers(0, 3, 70)
VAL = RNG.normal(size=(24, 6, 6, 1)).astype("float32"), RNG.integers(0, 3, 24)


@pytest.fixture(autouse=True)
def _as_before() -> Any:
    with preserved(guards()):
        yield


def net(*between: Any, optimizer: Any = "adam", loss: Any = "sparse_categorical_crossentropy", **more: Any) -> Any:
    model = keras.Sequential([keras.Input((6, 6, 1)), *between, layers.Flatten(), layers.Dense(3, "softmax")])
    model.compile(optimizer, loss, **more)
    return model


def functional() -> Any:
    given = keras.Input((6, 6, 1))
    x = layers.Flatten()(given)
    x = layers.Add()([layers.Dense(8, "relu")(x), layers.Dense(8, "tanh")(x)])
    model = keras.Model(given, layers.Dense(3)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, metrics=["accuracy"])
    return model


MODELS: dict[str, Callable[[], Any]] = {
    "dropout": lambda: net(layers.Flatten(), layers.Dense(8, "relu", kernel_regularizer="l2"), layers.Dropout(0.5)),
    "normalisation": lambda: net(layers.Conv2D(4, 3), layers.BatchNormalization(), optimizer="rmsprop"),
    "augmentation": lambda: net(layers.RandomFlip(), layers.Conv2D(4, 3), metrics=["accuracy"]),
    "noise and decay": lambda: net(layers.GaussianNoise(0.3), optimizer=keras.optimizers.AdamW(weight_decay=0.1)),
    "functional": functional,
}


def epochs_of(make: Callable[[], Any], seeds: list[int], plain: bool, **fields: Any) -> tuple[list[Any], list[bool]]:
    """What three epochs of each seed gave, one trainer after the other on one opened split; and if it was built new."""
    case = Case(name="net", model=make, train=(X, Y), val=VAL, **fields)
    train, val = open_split(case, "train"), open_split(case, "val")
    found, new, models = [], [], set()
    for seed in seeds:
        seed_everything(seed)
        trainer = trainer_for(case, train, seed, plain)
        losses = trainer.train(3)
        found.append(
            (losses, scores_of(trainer.read(val), None), [value for _, value in trainer.state()], trainer.removed)
        )
        new.append(id(trainer.model) not in models)
        models.add(id(trainer.model))
        del trainer
        gc.collect()
    return found, new


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_the_numbers_are_those_of_a_new_model(make: Callable[[], Any], plain: bool) -> None:
    again, new = epochs_of(make, [1, 2, 3], plain)
    assert new == [True, False, False]
    for number, seed in enumerate((1, 2, 3)):
        (alone,), _ = epochs_of(make, [seed], plain)
        losses, scores, weights, _ = again[number]
        assert losses == alone[0]
        assert scores.score == alone[1].score
        assert scores.loss == pytest.approx(alone[1].loss, rel=1e-5)
        assert all(np.array_equal(one, other) for one, other in zip(weights, alone[2], strict=True))


def test_a_rate_that_a_callback_lowered_is_back_and_the_twin_does_not_stop() -> None:
    given = {
        "callbacks": lambda: [
            callbacks.ReduceLROnPlateau(monitor="loss", factor=0.1, patience=0, min_delta=10),
            callbacks.EarlyStopping(monitor="loss", patience=1, min_delta=10),
        ]
    }
    for plain in (False, True):
        again, new = epochs_of(MODELS["dropout"], [1, 2], plain, fit_kwargs=given)
        (alone,), _ = epochs_of(MODELS["dropout"], [2], plain, fit_kwargs=given)
        assert new == [True, False]
        assert again[1][0] == alone[0]
        assert len(alone[0]) == (3 if plain else 2)
        assert [each.split(" (")[0] for each in again[1][3]] == [each.split(" (")[0] for each in alone[3]]


def custom_loss(y: Any, p: Any) -> Any:
    return keras.losses.sparse_categorical_crossentropy(y, p)


class OwnModel(keras.Sequential):  # type: ignore[misc]
    pass


class OwnLayer(layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return 2 * x


def own_model() -> Any:
    model = OwnModel([keras.Input((6, 6, 1)), layers.Flatten(), layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def patched() -> Any:
    model = net(layers.Conv2D(4, 3))
    own = model.layers[0].call
    model.layers[0].call = lambda x: 2 * own(x)
    return model


def adapted() -> Any:
    scaled = layers.Normalization()
    scaled.adapt(X)
    return net(scaled)


@pytest.mark.parametrize(
    "make",
    [
        lambda: net(loss=custom_loss),
        lambda: net(metrics=[custom_loss]),
        lambda: net(layers.Lambda(lambda x: 2 * x)),
        lambda: net(OwnLayer()),
        lambda: net(layers.Conv2D(4, 3, activation=lambda x: 2 * x)),
        lambda: net(layers.Conv2D(4, 3, kernel_regularizer=lambda w: 0.1 * keras.ops.sum(w**2))),
        lambda: net(run_eagerly=True),
        own_model,
        patched,
        adapted,
    ],
    ids=["loss", "metric", "Lambda", "layer", "activation", "penalty", "eager", "model", "patched", "adapted"],
)
def test_code_of_the_users_is_traced_anew(make: Callable[[], Any]) -> None:
    assert reuse.signature(make()) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: net(layers.Dropout(0.5)), lambda: net(layers.Dropout(0.4))),
        (lambda: net(optimizer=keras.optimizers.Adam(0.1)), lambda: net(optimizer=keras.optimizers.Adam(0.2))),
        (lambda: net(layers.Conv2D(4, 3)), lambda: net(layers.Conv2D(4, 3, trainable=False))),
        (lambda: net(layers.Conv2D(4, 3)), lambda: net(layers.Conv2D(4, 3, activation="relu"))),
        (lambda: net(), lambda: net(metrics=["accuracy"])),
    ],
    ids=["rate", "learning rate", "frozen", "activation", "metrics"],
)
def test_other_models_have_other_signatures(one: Callable[[], Any], other: Callable[[], Any]) -> None:
    assert reuse.signature(one()) is not None
    assert reuse.signature(one()) == reuse.signature(one())
    assert reuse.signature(one()) != reuse.signature(other())


def test_a_factory_that_makes_another_model_each_time_is_traced_each_time() -> None:
    rates = iter((0.1, 0.2, 0.2))
    _, new = epochs_of(lambda: net(layers.Dropout(next(rates))), [1, 2, 3], plain=False)
    assert new == [True, True, False]


def test_a_model_that_another_trainer_holds_is_left_alone() -> None:
    case = Case(name="net", model=functional, train=(X, Y))
    train = open_split(case, "train")
    first = trainer_for(case, train, 1, False)
    first.train(1)
    weights = first.state()
    second = trainer_for(case, train, 2, False)
    second.train(1)
    assert second.model is not first.model
    assert all(np.array_equal(one, other) for (_, one), (_, other) in zip(weights, first.state(), strict=True))


def test_nothing_is_kept_when_the_split_is_gone() -> None:
    epochs_of(functional, [1, 2], plain=False)
    gc.collect()
    assert len(reuse.kept._traced) == 0


def test_the_verdict_is_that_of_new_models(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(name="net", model=MODELS["dropout"], train=(X, Y), val=VAL)
    verdicts = [run_probes(case, ["regularization"], epochs=2, seeds=10)[0]]
    monkeypatch.setattr(reuse, "signature", lambda model: None)
    verdicts += run_probes(case, ["regularization"], epochs=2, seeds=10)
    assert verdicts[0].outcome == verdicts[1].outcome
    for arm in ("regularized", "unregularized"):
        of_both = [[(run["losses"], run["curve"], run["val"]["score"]) for run in each.data[arm]] for each in verdicts]
        assert of_both[0] == of_both[1]
