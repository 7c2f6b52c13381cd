"""A changed program differs in one thing only, and the one that it was opened on stays as it is."""

from __future__ import annotations

import gc
import random
from typing import Any

import numpy as np
import pytest

from pytest_overfit.adapters.programs import Change, Kind, UnchangeableError
from tests.adapters.keras.programs.keras_programs import (
    CLASSES,
    VALUES,
    Y,
    adam,
    as_before,  # noqa: F401
    dense,
    keras,
    layers,
    ops,
    program,
    sequential,
    weights_of,
)


class Net(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = layers.Dense(16), layers.Dense(4)

    def call(self, inputs: Any) -> Any:
        return ops.softmax(self.out(ops.relu(self.hidden(inputs))))


def subclassed() -> Any:
    model = Net()
    model.compile(adam(), CLASSES)
    return model


def functional() -> Any:
    given = keras.Input((6,))
    x = layers.Dense(16, "relu")(given)
    x = layers.Concatenate()([x, layers.Dense(8, "tanh")(given)])
    model = keras.Model(given, layers.Softmax()(layers.Dense(4)(x)))
    model.compile(adam(), CLASSES)
    return model


CHAIN = sequential(dense(16, "relu"), lambda: layers.Dropout(0.3), dense(4, "softmax"))
MODELS = {"sequential": CHAIN, "functional": functional, "subclassed": subclassed}

#: changes to what is there already
SAME = (Change(kind="rate", factor=1.0), Change(kind="epsilon", factor=1e-7), Change(kind="rate_to", factor=0.01))


@pytest.mark.parametrize("name", MODELS)
def test_a_change_to_what_is_there_already_changes_nothing(name: str) -> None:
    learner, found = program(MODELS[name])
    losses = learner.train(8)
    for change in SAME:
        changed = found.changed(change)
        assert changed.train(8) == pytest.approx(losses, rel=1e-4)
        del changed


def test_learners_of_the_same_trace_each_start_from_the_first_weights() -> None:
    learner, found = program(CHAIN)
    losses = learner.train(8)
    fast = found.changed(Change(kind="rate", factor=30.0))
    model = fast.model
    assert fast.train(8) != pytest.approx(losses, rel=1e-3)
    del fast
    gc.collect()
    again = found.changed(Change(kind="rate", factor=1.0))
    assert again.model is model  # it was not traced again
    assert again.train(8) == losses


def test_learners_that_live_together_have_models_of_their_own() -> None:
    _, found = program(CHAIN)
    first, second = (found.changed(Change(kind="rate", factor=each)) for each in (0.1, 10.0))
    assert first.model is not second.model
    assert float(first.model.optimizer.learning_rate) == pytest.approx(0.001)
    assert float(second.model.optimizer.learning_rate) == pytest.approx(0.1)


EACH = [
    Change(kind="rate", factor=0.1),
    Change(kind="rate_to", factor=0.5),
    Change(kind="reversed"),
    Change(kind="epsilon", factor=1.0),
    Change(kind="activation", at=0),
    Change(kind="activation", at=0, value="tanh"),
    Change(kind="activations", value="sigmoid"),
    Change(kind="on_top", value="sigmoid"),
    Change(kind="standardised", value="inputs"),
    Change(kind="drawn_anew"),
]


@pytest.mark.parametrize("name", MODELS)
def test_the_original_is_left_alone(name: str) -> None:
    learner, found = program(MODELS[name])
    losses = program(MODELS[name])[0].train(3)
    before, model, config = weights_of(learner.model), learner.model, learner.model.optimizer.get_config()
    for change in EACH:
        assert found.changed(change).train(2) != losses[:2], change
    assert learner.model is model
    assert all(np.array_equal(*pair) for pair in zip(before, weights_of(model), strict=True))
    assert model.optimizer.get_config() == config
    assert all("call" not in vars(each) for each in (model, *model.layers))
    assert learner.train(3) == pytest.approx(losses, rel=1e-5)


def test_functions_of_keras_and_tensorflow_are_what_they_were() -> None:
    import tensorflow as tf

    before = keras.ops.softmax, keras.activations.relu, tf.nn.softmax, tf.nn.relu, tf.Tensor.__truediv__
    _, found = program(subclassed)
    found.anatomy()
    found.changed(Change(kind="activation", at=1)).train(2)
    assert before == (keras.ops.softmax, keras.activations.relu, tf.nn.softmax, tf.nn.relu, tf.Tensor.__truediv__)


def test_the_anatomy_draws_nothing() -> None:
    _, found = program(CHAIN)
    random.seed(5)
    found.anatomy()  # a factory is seeded, so that all of its models are the same
    first = random.random()
    random.seed(6)
    found.anatomy()
    assert random.random() == first


IMPOSSIBLE: dict[str, Change] = {
    "has 2 activations, none of number 7": Change(kind="activation", at=7),
    "no activation 'wobble'": Change(kind="activation", at=0, value="wobble"),
    "no two layers": Change(kind="between", value="relu"),
    "gradients of its own": Change(kind="zero_grad"),
    "does not clip": Change(kind="without", value="clipping"),
    "no schedule": Change(kind="without", value="schedule"),
    "neither weight decay nor penalties": Change(kind="without", value="decay"),
    "leave out 'hope'": Change(kind="without", value="hope"),
    "classes, not quantities": Change(kind="standardised", value="targets"),
    "do not have as many numbers": Change(kind="targets_shaped"),
    "that can be trained is": Change(kind="all_trained"),
    "stops gradients": Change(kind="attached"),
    "elsewhere than first": Change(kind="rows_first"),
    "an output for each target": Change(kind="loss", value="squared_error"),
    "no loss 'joy'": Change(kind="loss", value="joy"),
}


@pytest.mark.parametrize("reason", IMPOSSIBLE)
def test_what_cannot_be_changed_is_said_in_words(reason: str) -> None:
    _, found = program(CHAIN)
    with pytest.raises(UnchangeableError, match=reason):
        found.changed(IMPOSSIBLE[reason])


def test_an_optimizer_without_epsilon_says_so() -> None:
    _, found = program(sequential(dense(4, "softmax"), optimizer=lambda: keras.optimizers.SGD(0.1)))
    with pytest.raises(UnchangeableError, match="no epsilon"):
        found.changed(Change(kind="epsilon", factor=1e-7))


def test_a_class_of_the_users_cannot_be_made_wider() -> None:
    _, found = program(subclassed)
    with pytest.raises(UnchangeableError, match="Net is a class"):
        found.changed(Change(kind="wider", factor=4.0))


class Stepped(Net):
    def train_step(self, data: Any) -> Any:
        return super().train_step(data)


@pytest.mark.parametrize("kind", ["loss", "all_trained"])
def test_a_step_of_the_users_keeps_what_is_its_own(kind: Kind) -> None:
    def make() -> Any:
        model = Stepped()
        model.compile(adam(), CLASSES)
        return model

    _, found = program(make)
    with pytest.raises(UnchangeableError, match="its train_step"):
        found.changed(Change(kind=kind, value="cross_entropy"))


def test_another_seed_is_another_program() -> None:
    learner, found = program(CHAIN)
    other = found.again(1)
    first, second = (each.changed(Change(kind="rate", factor=1.0)) for each in (found, other))
    assert first.train(3) == pytest.approx(learner.train(3), rel=1e-5)
    assert second.train(3) != pytest.approx(first.train(3), rel=1e-3)


def test_the_control_run_of_a_changed_program_is_changed_as_well() -> None:
    _, found = program(CHAIN)
    changed = found.changed(Change(kind="rate", factor=0.5))
    assert float(changed.blinded().model.optimizer.learning_rate) == pytest.approx(0.005)
    other = found.changed(Change(kind="activation", at=1))
    blind = other.blinded()
    assert not np.allclose(blind.read("fit").outputs[0].sum(axis=-1), 1.0)


def test_regression_by_shape_and_scale() -> None:
    make = sequential(dense(16, "relu"), dense(1), loss="mse")
    _, found = program(make, y=VALUES[:, 0])
    assert found.changed(Change(kind="targets_shaped")).targets[0].shape == (16, 1)
    scaled = found.changed(Change(kind="standardised", value="targets")).targets[0]
    assert (scaled.mean(), scaled.std()) == pytest.approx((0.0, 1.0), abs=1e-5)


def test_inputs_that_are_indices_have_no_scale() -> None:
    make = sequential(lambda: layers.Embedding(9, 4), layers.Flatten, dense(4, "softmax"), shape=(3,))
    x = np.arange(48).reshape(16, 3) % 9
    _, found = program(make, x=x, y=Y)
    with pytest.raises(UnchangeableError, match="indices"):
        found.changed(Change(kind="standardised", value="inputs"))
