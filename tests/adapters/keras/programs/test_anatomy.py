"""What a Keras program is made of, whoever calls its functions and whatever its layers are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pytest_overfit.adapters.programs import Anatomy
from tests.adapters.keras.programs.keras_programs import (
    CLASSES,
    X,
    adam,
    as_before,  # noqa: F401
    dense,
    keras,
    layers,
    ops,
    program,
    sequential,
    tf,
)


def anatomy(make: Callable[[], Any], **fields: Any) -> Anatomy:
    return program(make, **fields)[1].anatomy()


class Net(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="net")
        self.hidden, self.out = layers.Dense(8), layers.Dense(4, name="out")
        self.attention = layers.MultiHeadAttention(2, 4)

    def call(self, inputs: Any) -> Any:
        x = tf.nn.tanh(self.hidden(inputs))
        x = self.attention(x[:, None], x[:, None])[:, 0]
        return ops.reshape(keras.activations.softmax(self.out(x)), (-1, 2, 2))


def test_functions_in_the_order_of_their_calls() -> None:
    make = sequential(
        dense(8, "relu", name="a"), layers.LeakyReLU, dense(4, name="b"), lambda: layers.Softmax(name="s")
    )
    found = anatomy(make).activations
    assert [(each.function, each.last, each.units) for each in found] == [
        ("relu", False, 8),
        ("other", False, 8),
        ("softmax", True, 4),
    ]
    assert found[0].where == "activation of Dense 'a'"
    assert (found[2].where, found[2].axis) == ("Softmax 's'", 1)


def test_functions_that_a_call_of_the_users_calls_by_name() -> None:
    def make() -> Any:
        model = Net()
        model.compile(adam(), lambda y, p: ops.mean(p, axis=(1, 2)))
        return model

    found = anatomy(make)
    assert [(each.function, each.where) for each in found.activations] == [  # attention's own softmax is its own affair
        ("tanh", "tanh in Net 'net'"),
        ("softmax", "softmax in Net 'net'"),
    ]
    assert found.activations[1].last  # it was only reshaped


def test_what_the_last_function_is_given() -> None:
    twice = sequential(dense(8, "relu"), dense(4, "tanh"), layers.Softmax)
    assert [each.feeds_last for each in anatomy(twice).activations] == [False, True, False]
    assert [each.feeds_last for each in anatomy(sequential(dense(8, "relu"), dense(4, "softmax"))).activations] == [
        False,
        False,
    ]


@pytest.mark.filterwarnings("ignore:.*from_logits")
def test_a_softmax_that_the_loss_looks_through_is_not_there() -> None:
    """Keras' losses of raw scores take those that its own softmax was made of."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    stack = [dense(8, "relu"), dense(4, "softmax")]
    assert [each.function for each in anatomy(sequential(*stack, loss=loss)).activations] == ["relu"]
    assert [each.last for each in anatomy(sequential(*stack)).activations] == [False, True]


def test_names_are_those_of_the_model_that_the_user_sees() -> None:
    learner, found = program(sequential(dense(8, "relu"), dense(4, "softmax")))
    assert [each.name for each in found.anatomy().weights] == [each.path for each in learner.model.weights]


def test_dead_and_saturated_units() -> None:
    off = keras.initializers.Constant([-100.0] * 6 + [0.0] * 2)
    wide = keras.initializers.RandomNormal(stddev=1e4, seed=1)
    found = anatomy(
        sequential(dense(8, "relu", bias_initializer=off), dense(8, "tanh", kernel_initializer=wide), dense(4))
    )
    assert found.activations[0].dead == pytest.approx(0.75, abs=0.13)
    assert found.activations[1].saturated > 0.5
    fine = anatomy(sequential(dense(8, "relu"), dense(8, "tanh"), dense(4)))
    assert all(each.dead < 0.5 and each.saturated < 0.1 for each in fine.activations)


def test_weights_at_the_start() -> None:
    def make() -> Any:
        stack = [dense(8, "relu", kernel_initializer="zeros"), dense(8, "relu"), dense(4, "softmax")]
        model = sequential(*stack)()
        model.layers[1].trainable = False
        return model

    kernels = [each for each in anatomy(make).weights if each.main]
    assert [each.units for each in kernels] == [8, 8, 4]
    assert [each.equal_units for each in kernels] == [True, False, False]
    assert [each.trainable for each in kernels] == [True, False, True]
    assert [each.held for each in kernels] == [True, False, True]
    assert [each.size == 0 for each in kernels] == [True, False, False]
    assert kernels[0].usual == pytest.approx(6**-0.5)
    assert all(0.5 < each.size / each.usual < 2 for each in kernels[1:])
    assert kernels[2].gradient == 0.0  # behind layers that give nothing but zeros


def test_kernels_of_convolutions_and_attention_by_the_inputs_of_a_unit() -> None:
    stack = [lambda: layers.Conv1D(8, 3), lambda: layers.EinsumDense("abc,cde->abde", (4, 2, 5)), layers.Flatten]
    make = sequential(*stack, dense(4, "softmax"), shape=(6, 2))
    kernels = [each for each in anatomy(make, x=np.stack([X, X], -1)).weights if each.main]
    assert [each.usual**-2 for each in kernels[:2]] == pytest.approx([6, 8])


def test_layers_that_follow_each_other_directly() -> None:
    stack = [dense(8, name="a"), lambda: layers.Dropout(0.5), dense(8, "relu", name="b"), dense(4, "softmax", name="c")]
    assert anatomy(sequential(*stack)).direct == (("Dense 'a'", "Dense 'b'"),)
    between = [dense(8, name="a"), lambda: layers.Lambda(ops.sin), dense(4, name="c")]
    assert anatomy(sequential(*between)).direct == ()


def test_dropping_behind_the_last_layer_with_weights() -> None:
    stack = [dense(8), lambda: layers.Dropout(0.9, name="d"), dense(4), lambda: layers.Dropout(0.2, name="e")]
    found = anatomy(sequential(*stack)).dropping
    assert [(each.where, each.rate, each.last) for each in found] == [
        ("Dropout 'd'", 0.9, False),
        ("Dropout 'e'", 0.2, True),
    ]


def test_the_optimizer_its_loss_and_penalties() -> None:
    rate = keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.5)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    penalised = dense(8, kernel_regularizer="l2", name="p")
    found = anatomy(
        sequential(penalised, dense(4), optimizer=lambda: adam(rate, weight_decay=0.1, clipnorm=2.0), loss=loss)
    )
    assert found.optimizer is not None
    assert (found.optimizer.kind, found.optimizer.scheduled) == ("Adam", True)
    numbers = (found.optimizer.rate, found.optimizer.epsilon, found.optimizer.decay, found.optimizer.clipping)
    assert numbers == pytest.approx((0.5, 1e-7, 0.1, 2.0))
    assert found.losses == ("sparse_categorical_crossentropy(from_logits=True)",)
    assert found.penalties == ("L2 0.01 (kernel of p)",)
    plain = anatomy(sequential(dense(4, "softmax"), loss=CLASSES))
    assert (plain.losses, plain.penalties, plain.dropping) == ((CLASSES,), (), ())
    assert plain.optimizer is not None
    assert (plain.optimizer.scheduled, plain.optimizer.clipping) == (False, None)


def cut_by(function: Callable[[Any], Any]) -> Callable[[], Any]:
    class Cutting(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            return function(inputs)

    return sequential(dense(8, name="a"), lambda: Cutting(name="cutting"), dense(4, "softmax", name="b"))


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize(
    ("function", "operation", "smooth"),
    [
        (ops.stop_gradient, "stop_gradient", True),
        (ops.round, "round", False),
        (lambda h: ops.cast(h > 0, "float32"), "greater", False),
        (lambda h: ops.one_hot(ops.argmax(h, axis=-1), 8), "argmax", False),
    ],
)
def test_what_cuts_the_gradient_on_its_way(function: Callable[[Any], Any], operation: str, smooth: bool) -> None:
    found = anatomy(cut_by(function))
    cut = found.cuts[0]
    assert (cut.operation, cut.smooth, cut.where) == (operation, smooth, "Cutting 'cutting'")
    assert [each.rpartition("a/")[2] for each in cut.behind] == ["bias", "kernel"]
    assert found.depends


def test_where_every_weight_has_a_gradient_nothing_is_looked_for() -> None:
    assert anatomy(cut_by(lambda h: ops.where(h > 0, h, 0.1 * h))).cuts == ()


def test_what_the_first_layers_are_given() -> None:
    (given,) = anatomy(
        sequential(lambda: layers.Rescaling(1e-3), dense(8, "relu", name="a"), dense(4, "softmax"))
    ).given
    assert given.where == "Dense 'a'"
    assert given.size == pytest.approx(1e-3 * float(np.sqrt((X**2).mean())), rel=1e-3)
