"""Keras programs in which gradients are cut, variables are left out or skipped, or what is frozen moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from tests.programs.wiring.corpus import Corpus, Fields
from tests.programs.wiring.keras_base import (
    Apply,
    Net,
    apply,
    case,
    chain,
    compiled,
    differentiate,
    from_logits,
    labels,
    mlp,
    normal,
    pictures,
    rows,
    stepping,
)

PROGRAMS = Corpus()
twins = PROGRAMS.twins

CUT = ("cut_gradient", "detached_graph", "non_differentiable", "unused_parameters", "frozen_parameters")


def between(broken: Callable[[Any], Any], healthy: Callable[[Any], Any] = lambda h: h) -> Callable[[bool], Fields]:
    """A classifier with one of two functions in its middle."""

    def make(flag: bool) -> Fields:
        return case(
            lambda: compiled(
                chain(
                    layers.Dense(32, "relu", name="stem"), Apply(broken if flag else healthy),
                    layers.Dense(32, "relu"), layers.Dense(5),
                )
            )
        )  # fmt: skip

    return make


@twins(*CUT)
def stopped_behind_the_stem(broken: bool) -> Fields:
    """stop_gradient left from a linear probe."""
    return between(ops.stop_gradient)(broken)


@twins(*CUT)
def rounded_features(broken: bool) -> Fields:
    """Rounding; the healthy one lets the gradient straight through."""
    return between(lambda h: ops.round(4 * h) / 4, lambda h: h + ops.stop_gradient(ops.round(4 * h) / 4 - h))(broken)


@twins(*CUT)
def features_by_comparison(broken: bool) -> Fields:
    """Larger than the mean or not."""
    return between(lambda h: ops.cast(h > 0.3, "float32"), lambda h: ops.sigmoid(8 * (h - 0.3)))(broken)


@twins(*CUT)
def routed_by_argmax(broken: bool) -> Fields:
    """One-hot gates from an argmax."""

    class Routed(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.router, self.experts = layers.Dense(3), [layers.Dense(16, "relu") for _ in range(3)]
            self.head = layers.Dense(5)

        def call(self, x: Any) -> Any:
            scores = self.router(x)
            gates = ops.one_hot(ops.argmax(scores, -1), 3) if broken else ops.softmax(scores)
            outs = ops.stack([each(x) for each in self.experts], 1)
            return self.head(ops.sum(outs * gates[..., None], 1))

    return case(lambda: compiled(Routed()))


@twins(*CUT)
def scale_read_as_a_number(broken: bool) -> Fields:
    """A learnt scale behind stop_gradient."""

    class Scaled(layers.Layer):
        def build(self, shape: Any) -> None:
            self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

        def call(self, x: Any) -> Any:
            return x * (ops.stop_gradient(self.scale) if broken else self.scale)

    return case(lambda: compiled(chain(layers.Dense(32, "relu"), Scaled(), layers.Dense(5))))


@twins(*CUT)
def embedding_through_numpy(broken: bool) -> Fields:
    """A numpy_function in the middle, which has no gradient."""

    def by_numpy(h: Any) -> Any:
        out = tf.numpy_function(lambda a: np.tanh(a), [h], tf.float32)
        out.set_shape(h.shape)
        return out

    return between(by_numpy, ops.tanh)(broken)


@twins(*CUT, "zero_init", "input_ignored")
def branch_times_zero(broken: bool) -> Fields:
    """A branch that is weighed by 0."""

    def model() -> Any:
        x = keras.Input((20,))
        side = layers.Dense(32, "tanh", name="side")(x)
        h = layers.Dense(32, "relu")(x) + (0.0 if broken else 0.5) * side
        return compiled(keras.Model(x, layers.Dense(5)(h)))

    return case(model)


def two_heads(losses: Any) -> Callable[[], Any]:
    def model() -> Any:
        x = keras.Input((20,))
        h = layers.Dense(32, "relu")(x)
        outputs = {"label": layers.Dense(5, name="label")(h), "value": layers.Dense(1, name="value")(h)}
        return compiled(keras.Model(x, outputs), losses)

    return model


@twins("head_without_loss", "unused_parameters", "cut_gradient")
def second_head_without_loss(broken: bool) -> Fields:
    """compile() names a loss for one of two outputs."""
    losses = {"label": from_logits(), "value": None if broken else "mse"}
    return case(two_heads(losses), lambda: (rows()[0], {"label": labels(), "value": normal(16, 1, seed=3)}))


@twins("head_without_loss", "unused_parameters", "cut_gradient")
def second_term_forgotten(broken: bool) -> Fields:
    """A train_step whose loss takes the first of two outputs."""

    class Both(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.label, self.again = layers.Dense(32, "relu"), layers.Dense(5), layers.Dense(20)

        def call(self, x: Any, training: bool = False) -> Any:
            h = self.body(x)
            return self.label(h), self.again(h)

    def step(model: Any, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            scores, again = model(x, training=True)
            loss = ops.mean(keras.losses.sparse_categorical_crossentropy(y, scores, from_logits=True))
            if not broken:
                loss += 0.1 * ops.mean((again - x) ** 2)
        found = tape.gradient(loss, model.trainable_variables)
        pairs = [(g, v) for g, v in zip(found, model.trainable_variables, strict=True) if g is not None]
        model.optimizer.apply_gradients(pairs)
        return loss

    return stepping(step, Both)


WRONG = ("optimizer_wrong_params", "frozen_parameters", "unused_parameters")


@twins(*WRONG)
def tape_over_the_head_alone(broken: bool) -> Fields:
    """Fine-tuning left over in train_step; the healthy one has frozen the encoder."""

    def step(model: Any, x: Any, y: Any) -> Any:
        loss, found, variables = differentiate(model, x, y, model.head.trainable_variables)
        apply(model.optimizer, found, variables)
        return loss

    def compiling(model: Any) -> Any:
        model.encoder.trainable = broken
        return compiled(model)

    return stepping(step, compiling=compiling)


def over(wanted: Callable[[Any], bool]) -> Callable[[Any, Any, Any], Any]:
    def step(model: Any, x: Any, y: Any) -> Any:
        loss, found, variables = differentiate(model, x, y, [v for v in model.trainable_variables if wanted(v)])
        apply(model.optimizer, found, variables)
        return loss

    return step


@twins(*WRONG)
def biases_alone(broken: bool) -> Fields:
    """The step moves the biases."""
    return stepping(over(lambda v: v.name == "bias" or not broken))


@twins(*WRONG)
def kernels_alone(broken: bool) -> Fields:
    """The step moves all but the biases."""
    return stepping(over(lambda v: v.name == "kernel" or not broken))


@twins("parameter_twice", "updated_twice", "optimizer_wrong_params")
def head_in_two_optimizers(broken: bool) -> Fields:
    """An optimizer for everything, and one more for the head."""

    def step(model: Any, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=True))
        all_of_it, head = model.trainable_variables, model.head.trainable_variables
        first = all_of_it if broken else model.encoder.trainable_variables
        found, again = tape.gradient(loss, [first, head])
        apply(model.optimizer, found, first)
        apply(model.second, again, head)
        return loss

    def compiling(model: Any) -> Any:
        model.second = keras.optimizers.SGD(0.1)
        return compiled(model)

    return stepping(step, compiling=compiling)


SKIPPED = ("update_skipped", "lr_zero")


@twins(*SKIPPED)
def gradients_never_applied(broken: bool) -> Fields:
    """A train_step without apply_gradients."""

    def step(model: Any, x: Any, y: Any) -> Any:
        loss, found, variables = differentiate(model, x, y)
        if not broken:
            apply(model.optimizer, found, variables)
        return loss

    return stepping(step)


@twins(*SKIPPED)
def accumulation_longer_than_any_run(broken: bool) -> Fields:
    """gradient_accumulation_steps=4000; the healthy one accumulates over 4 calls."""
    steps = 4000 if broken else 4
    return case(lambda: compiled(mlp(), optimizer=keras.optimizers.Adam(1e-2, gradient_accumulation_steps=steps)))


@twins(*SKIPPED)
def weights_put_back_by_a_callback(broken: bool) -> Fields:
    """A callback that restores the weights of the start after every batch."""

    class Restores(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            self.start = self.model.get_weights()

        def on_train_batch_end(self, batch: Any, logs: Any = None) -> None:
            if broken:
                self.model.set_weights(self.start)

    return case(lambda: compiled(mlp()), fit_kwargs={"callbacks": [Restores()]})


@twins("update_skipped", "optimizer_wrong_params", "frozen_parameters")
def encoders_gradients_zeroed(broken: bool) -> Fields:
    """Multiplied by 0 `while warming up`, for ever."""

    def step(model: Any, x: Any, y: Any) -> Any:
        loss, found, variables = differentiate(model, x, y)
        ours = {id(v) for v in model.encoder.trainable_variables}
        found = [g * (0.0 if broken and id(v) in ours else 1.0) for g, v in zip(found, variables, strict=True)]
        apply(model.optimizer, found, variables)
        return loss

    return stepping(step)


@twins("update_skipped")
def three_updates_in_four_skipped(broken: bool) -> Fields:
    """apply_gradients in every fourth call, each time with this call's gradient alone."""

    def step(model: Any, x: Any, y: Any) -> Any:
        loss, found, variables = differentiate(model, x, y)
        model.calls.assign_add(1)
        share = ops.cast(ops.equal(model.calls % 4, 0), "float32") if broken else 1.0
        old = [ops.convert_to_tensor(v) + 0.0 for v in variables]
        apply(model.optimizer, found, variables)
        for variable, before in zip(variables, old, strict=True):
            variable.assign(before + share * (variable - before))
        return loss

    def compiling(model: Any) -> Any:
        model.calls = model.add_weight(shape=(), dtype="int32", trainable=False, initializer="zeros")
        return compiled(model, optimizer=keras.optimizers.SGD(0.1))

    return stepping(step, compiling=compiling)


# ------------------------------------------------------------------ frozen


def transferred(normalised: Any) -> Callable[[], Any]:
    """A stem with a norm, and a head; `normalised` freezes."""

    def model() -> Any:
        stem = keras.Sequential(
            [keras.Input((12, 12, 3)), layers.Conv2D(8, 3), layers.BatchNormalization(), layers.ReLU()], name="stem"
        )
        normalised(stem)
        return compiled(chain(stem, layers.GlobalAveragePooling2D(), layers.Dense(4), shape=(12, 12, 3)))

    return model


def freeze(stem: Any) -> None:
    stem.trainable = False


@twins("not_frozen")
def frozen_and_trained(broken: bool) -> Fields:
    """Declared as frozen, and nobody froze it."""
    return case(transferred(lambda stem: None if broken else freeze(stem)), pictures, frozen=("*conv2d*",))


@twins("not_frozen")
def frozen_and_its_statistics_move(broken: bool) -> Fields:
    """The variables are frozen one by one, so that the norm still follows the batches."""

    def one_by_one(stem: Any) -> None:
        for variable in stem.trainable_variables:
            variable.trainable = False

    return case(transferred(one_by_one if broken else freeze), pictures, frozen=("*conv2d*", "*batch_normalization*"))


@twins("not_frozen")
def frozen_and_decayed(broken: bool) -> Fields:
    """Gradients of the encoder set to zero: the optimizer's decay moves it."""

    def step(model: Any, x: Any, y: Any) -> Any:
        head = model.head.trainable_variables
        loss, found, variables = differentiate(model, x, y, None if broken else head)
        ours = {id(v) for v in head}
        found = [g if id(v) in ours else g * 0.0 for g, v in zip(found, variables, strict=True)]
        apply(model.optimizer, found, variables)
        return loss

    def compiling(model: Any) -> Any:
        model.encoder.trainable = broken
        return compiled(model, optimizer=keras.optimizers.AdamW(1e-2, weight_decay=0.1))

    return stepping(step, compiling=compiling, frozen=("*encoder*",))


@twins("not_frozen")
def frozen_and_written_to(broken: bool) -> Fields:
    """A call that shrinks its own kernel."""

    class Shrinking(layers.Layer):
        def build(self, shape: Any) -> None:
            self.kernel = self.add_weight(shape=(shape[-1], 32), name="fixed_kernel", trainable=False)

        def call(self, x: Any, training: bool = False) -> Any:
            if training and broken:
                self.kernel.assign(0.99 * self.kernel)
            return ops.matmul(x, self.kernel)

    return case(lambda: compiled(chain(Shrinking(), layers.ReLU(), layers.Dense(5))), frozen=("*fixed_kernel*",))


NUMBERS = ("nan_parameter", "sqrt_zero_gradient", "division_by_zero")


@twins(*NUMBERS)
def root_of_zero(broken: bool) -> Fields:
    """Distances to centres of which some begin in the data."""

    class Distances(layers.Layer):
        def build(self, shape: Any) -> None:
            start = keras.initializers.Constant(rows()[0][:6])
            self.centres = self.add_weight(shape=(6, 20), initializer=start, name="centres")

        def call(self, x: Any) -> Any:
            squares = ops.mean((x[:, None] - self.centres) ** 2, -1)
            return ops.sqrt(squares if broken else squares + 1e-6)

    return case(lambda: compiled(chain(Distances(), layers.Dense(5))))


@twins(*NUMBERS)
def mean_of_nothing(broken: bool) -> Fields:
    """A running mean over chosen rows, and none is chosen: the variable is NaN, the loss is not."""

    class Watching(layers.Layer):
        def build(self, shape: Any) -> None:
            self.seen = self.add_weight(shape=(shape[-1],), initializer="zeros", trainable=False, name="seen")

        def call(self, x: Any, training: bool = False) -> Any:
            if training:
                chosen = ops.cast(x[:, :1] > 100, "float32")
                count = ops.sum(chosen) if broken else ops.sum(chosen) + 1
                self.seen.assign(0.9 * self.seen + 0.1 * ops.sum(x * chosen, 0) / count)
            return x

    return case(lambda: compiled(chain(layers.Dense(32, "relu"), Watching(), layers.Dense(5))))


@PROGRAMS.healthy()
def encoder_frozen_by_its_model() -> Fields:
    """Net, whose frozen encoder is declared."""

    def model() -> Any:
        made = Net()
        made.encoder.trainable = False
        return compiled(made)

    return case(model, frozen=("*encoder*",))


@PROGRAMS.healthy()
def two_optimizers_on_two_parts() -> Fields:
    return head_in_two_optimizers(False)
