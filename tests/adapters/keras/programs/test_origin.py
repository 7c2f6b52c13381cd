"""Where the first number came from that is not finite; and the distance that keeps it from coming."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pytest_overfit.adapters.programs import Change
from tests.adapters.keras.programs.keras_programs import (
    Y,
    as_before,  # noqa: F401
    dense,
    keras,
    layers,
    ops,
    program,
    sequential,
    tf,
    weights_of,
)


def between(function: Callable[[Any], Any]) -> Callable[[], Any]:
    """A net that applies this to what its ReLUs give, zeros among it."""
    return sequential(dense(16, "relu"), lambda: layers.Lambda(function, name="mine"), dense(4, "softmax"))


def nothing(x: Any) -> Any:
    return ops.sum(ops.relu(-ops.abs(x)), axis=-1, keepdims=True)


def log_of_a_difference(y: Any, p: Any) -> Any:
    right = tf.gather(p, tf.reshape(tf.cast(y, tf.int32), (-1,)), batch_dims=1)
    return -tf.math.log(tf.maximum(right - 0.3, 0.0))


#: what stands between the layers -> operation, and whether its slope is at fault and not its value
OPERATIONS: dict[str, tuple[Callable[[Any], Any], str, bool]] = {
    "log": (ops.log, "log", False),
    "division": (lambda x: x / nothing(x), "div", False),
    "exp": (lambda x: ops.exp(x * 1e3), "exp", False),
    "root": (ops.sqrt, "sqrt", True),
    "power": (lambda x: ops.power(x, 0.5), "pow", True),
    "norm": (lambda x: x * ops.norm(x * 0, axis=-1, keepdims=True), "sqrt", True),
    "log behind a condition": (lambda x: ops.where(x > 0, ops.log(x), 0.0), "log", True),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_layer_and_the_operation_are_named(name: str) -> None:
    function, operation, backward = OPERATIONS[name]
    found = program(between(function))[1].origin(60)
    assert found is not None
    assert (found.step, found.where, found.operation, found.backward) == (1, "Lambda 'mine'", operation, backward)
    assert found.given is not None
    assert found.given > 700 if operation == "exp" else found.given == 0.0


def test_an_operation_of_the_loss() -> None:
    found = program(sequential(dense(4, "softmax"), loss=log_of_a_difference))[1].origin(60)
    assert found is not None
    assert (found.where, found.operation, found.given) == ("the loss", "log", 0.0)


def test_a_rate_that_is_too_high_comes_to_it_later() -> None:
    make = sequential(dense(16, "relu"), dense(4), loss="mse", optimizer=lambda: keras.optimizers.SGD(1e3))
    learner, found = program(make, y=np.eye(4, dtype="float32")[Y])
    origin = found.origin(60)
    losses = learner.train(60)
    assert origin is not None
    assert origin.step > 1
    assert abs(origin.step - 1 - int(np.argmin(np.isfinite(losses)))) <= 1


def test_an_infinity_that_is_meant_is_no_origin() -> None:
    def masked(x: Any) -> Any:
        shares = ops.softmax(ops.where(ops.arange(16) < 8, x, -np.inf), axis=-1)
        return ops.log(ops.relu(shares * 0))

    found = program(between(masked))[1].origin(20)
    assert found is not None
    assert found.operation == "log"


def test_a_healthy_program_has_none() -> None:
    assert program(between(ops.tanh))[1].origin(40) is None


@pytest.mark.parametrize("name", ["log", "division", "root", "norm"])
def test_guarded_it_trains(name: str) -> None:
    learner, found = program(between(OPERATIONS[name][0]))
    guarded = found.changed(Change(kind="guarded"))
    for each in (learner, guarded):
        each.train(5)
    assert not all(np.isfinite(each).all() for each in weights_of(learner.model))
    assert all(np.isfinite(each).all() for each in weights_of(guarded.model))


def test_guarded_is_also_the_loss() -> None:
    learner, found = program(sequential(dense(4, "softmax"), loss=log_of_a_difference))
    assert not np.isfinite(learner.train(5)).all()
    assert np.isfinite(found.changed(Change(kind="guarded")).train(5)).all()


def test_what_watches_is_gone_afterwards() -> None:
    from tensorflow.python.framework import op_callbacks

    gradient = tf.GradientTape.gradient
    program(between(ops.log))[1].origin(5)
    assert tf.GradientTape.gradient is gradient
    assert not op_callbacks.should_invoke_op_callbacks()
