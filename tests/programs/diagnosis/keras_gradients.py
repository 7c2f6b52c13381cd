"""Keras programs in which the gradient does not reach the variables, or is made something else of than a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

from tests.programs.diagnosis import data
from tests.programs.diagnosis.corpus import Corpus, Fields
from tests.programs.diagnosis.keras_base import Apply, bce, ce, chain, column, dense, images

PROGRAMS = Corpus()
pair = PROGRAMS.pair


def adam(rate: float = 0.01) -> Any:
    return lambda: keras.optimizers.Adam(rate)


class Net(keras.Model):
    """A body and a head."""

    def __init__(self, outputs: int = 10, units: int = 48) -> None:
        super().__init__()
        self.body, self.head = layers.Dense(units, "relu", name="body"), layers.Dense(outputs, name="head")

    def call(self, x: Any, training: bool = False) -> Any:
        return self.head(self.body(x))


def stepping(step: Callable[[Any, Any, Any], Any], loss: Any, outputs: int = 10, units: int = 48) -> Callable[[], Any]:
    """A factory of `Net` with a train_step of its own, which gives the loss."""

    class Stepping(Net):
        def train_step(self, batch: Any) -> Any:
            return {"loss": step(self, *batch)}

    def make() -> Any:
        model = Stepping(outputs, units)
        model.compile(optimizer=keras.optimizers.Adam(0.01), loss=loss)
        return model

    return make


@pair("detached_graph", "cut_gradient", "frozen_parameters")
def features_stopped(broken: bool) -> Fields:
    """stop_gradient behind an encoder that ends in two units."""

    def parts() -> Any:
        return [
            *(keras.Input((64,)), layers.Dense(32, "tanh"), layers.Dense(2)),
            *(Apply(lambda h: ops.stop_gradient(h) if broken else h), layers.Dense(10)),
        ]

    return {"model": chain(parts, ce(), adam(0.02)), "batch": data.digits(16)}


@pair("detached_graph", "cut_gradient", "frozen_parameters", "update_skipped")
def loss_outside_of_the_tape(broken: bool) -> Fields:
    """The forward pass was made before the tape was opened."""

    def step(model: Any, x: Any, y: Any) -> Any:
        before = model(x, training=True)
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x=x, y=y, y_pred=before if broken else model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    return {"model": stepping(step, ce()), "batch": data.digits(24)}


@pair("non_differentiable", "cut_gradient", "detached_graph")
def answers_rounded(broken: bool) -> Fields:
    """Probabilities are rounded before the loss."""

    def parts() -> Any:
        return [*dense(30, 1, "sigmoid"), Apply(lambda p: ops.round(p) if broken else p)]

    return {"model": chain(parts, "mse", adam()), "batch": column(data.scaled("breast_cancer", 24))}


@pair("non_differentiable", "cut_gradient")
def hidden_steps(broken: bool) -> Fields:
    """Hidden units that fire or do not."""

    def fire(h: Any) -> Any:
        return ops.cast(h > 0, "float32") if broken else ops.sigmoid(h)

    def parts() -> Any:
        return [keras.Input((2,)), layers.Dense(12), Apply(fire), layers.Dense(2)]

    return {"model": chain(parts, ce(), adam(0.05)), "batch": data.spirals(20)}


@pair("frozen_parameters", "optimizer_wrong_params")
def backbone_frozen_without_pretraining(broken: bool) -> Fields:
    """trainable=False on a backbone whose weights were never loaded, four channels wide."""

    def parts() -> Any:
        backbone = keras.Sequential(
            [
                *(keras.Input((8, 8, 1)), layers.Conv2D(8, 3, strides=2, activation="tanh")),
                *(layers.Conv2D(4, 3, activation="tanh"), layers.Flatten()),
            ]
        )
        backbone.trainable = not broken
        return [keras.Input((8, 8, 1)), backbone, layers.Dense(10)]

    return {"model": chain(parts, ce(), adam(0.02)), "batch": images(data.digits(16))}


@pair("frozen_parameters", "update_skipped")
def everything_frozen(broken: bool) -> Fields:
    """model.trainable = False before compile, from an adversarial net."""

    def make() -> Any:
        model = keras.Sequential(dense(13, 3, "softmax"))
        model.trainable = not broken
        model.compile(optimizer=keras.optimizers.Adam(0.01), loss="sparse_categorical_crossentropy")
        return model

    return {"model": make, "batch": data.scaled("wine", 24)}


@pair("unregistered_parameters", "optimizer_wrong_params", "frozen_parameters", "detached_graph")
def variable_of_tensorflow(broken: bool) -> Fields:
    """A mixing matrix is a tf.Variable, which Keras 3 does not track."""

    class Mixing(layers.Layer):
        def build(self, shape: Any) -> None:
            start = 0.5 * data.random().normal(size=(shape[-1], 24)).astype("float32")
            if broken:
                self.mixing = tf.Variable(start)
            else:
                self.mixing = self.add_weight(shape=start.shape, initializer=lambda *args, **kwargs: start)

        def call(self, x: Any) -> Any:
            return ops.tanh(ops.matmul(x, self.mixing))

    def parts() -> Any:
        return [keras.Input((6,)), Mixing(), layers.Dense(1)]

    return {"model": chain(parts, "mse", adam(0.02)), "batch": data.surfaces(40)}


@pair("unregistered_parameters", "optimizer_wrong_params", "frozen_parameters")
def layers_inside_a_function(broken: bool) -> Fields:
    """The hidden layers live in a dict that a function keeps."""

    class Hidden(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            hidden = [layers.Dense(32, "tanh"), layers.Dense(8, "tanh")]

            def through(x: Any) -> Any:
                for layer in hidden:
                    x = layer(x)
                return x

            self.through, self.out = through, layers.Dense(10)
            if not broken:
                self.hidden = hidden

        def call(self, x: Any) -> Any:
            return self.out(self.through(x))

    def make() -> Any:
        model = Hidden()
        model.compile(optimizer=keras.optimizers.Adam(0.02), loss=ce())
        return model

    return {"model": make, "batch": data.digits(16)}


@pair("optimizer_wrong_params", "frozen_parameters")
def only_the_head_is_applied(broken: bool) -> Fields:
    """train_step applies gradients to the head, behind a body of three units."""

    def step(model: Any, x: Any, y: Any) -> Any:
        variables = model.head.trainable_variables if broken else model.trainable_variables
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=True))
        gradients = tape.gradient(loss, variables)
        model.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    return {"model": stepping(step, "mse", outputs=2, units=24), "batch": data.surfaces(40, targets=2)}


@pair("grad_clip_too_small", "lr_too_low")
def clipped_to_a_millionth(broken: bool) -> Fields:
    """clipnorm=1e-6, which was meant for epsilon; SGD."""
    clip = 1e-6 if broken else 5.0
    return {
        "model": chain(lambda: dense(64, 10), ce(), lambda: keras.optimizers.SGD(0.1, momentum=0.9, clipnorm=clip)),
        "batch": data.digits(24),
    }


@pair("grad_clip_too_small", "lr_too_low")
def clipped_by_value(broken: bool) -> Fields:
    """clipvalue=1e-7 in a regression; SGD."""
    clip = 1e-7 if broken else 1.0
    return {
        "model": chain(lambda: dense(6, 1), "mse", lambda: keras.optimizers.SGD(0.1, clipvalue=clip)),
        "batch": data.surfaces(16),
    }


@pair("gradient_ascent")
def likelihood_without_minus(broken: bool) -> Fields:
    """The log-likelihood is minimised."""

    def loss(y: Any, outputs: Any) -> Any:
        likelihood = -keras.losses.sparse_categorical_crossentropy(y, outputs, from_logits=True)
        return likelihood if broken else -likelihood

    return {"model": chain(lambda: dense(13, 3), loss, adam()), "batch": data.scaled("wine", 24)}


@pair("gradient_ascent", "lr_negative")
def gradients_negated(broken: bool) -> Fields:
    """train_step turns the gradients round, as for a domain that is to be confused."""

    def step(model: Any, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=True))
        gradients = [-each if broken else each for each in tape.gradient(loss, model.trainable_variables)]
        model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    return {"model": stepping(step, bce(), outputs=5), "batch": data.tags()}


@pair("missing_zero_grad")
def gradients_added_up(broken: bool) -> Fields:
    """train_step adds gradients to those of the steps before, for an accumulation that never ends."""

    class Adding(Net):
        def build(self, shape: Any) -> None:
            super().build(shape)
            self.body.build(shape)
            self.head.build((None, 48))
            self.sums = [
                self.add_weight(shape=each.shape, initializer="zeros", trainable=False, name=f"sum_{index}")
                for index, each in enumerate([*self.body.trainable_variables, *self.head.trainable_variables])
            ]

        def train_step(self, batch: Any) -> Any:
            x, y = batch
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
            for total, gradient in zip(self.sums, tape.gradient(loss, self.trainable_variables), strict=True):
                total.assign(total + gradient if broken else gradient)
            totals = [each.value for each in self.sums]
            self.optimizer.apply_gradients(zip(totals, self.trainable_variables, strict=True))
            return {"loss": loss}

    def make() -> Any:
        model = Adding(1)
        model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
        return model

    return {"model": make, "batch": data.surfaces(24)}
