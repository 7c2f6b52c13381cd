"""More Keras programs whose step does something else than it should; written without a look at the rules."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

from tests.programs.wiring.corpus import Corpus, Fields
from tests.programs.wiring.keras_base import (
    Net,
    case,
    chain,
    compiled,
    differentiate,
    mlp,
    pictures,
    rows,
    stepping,
    values,
)

PROGRAMS = Corpus()
twins = PROGRAMS.twins

SGD, Adam = keras.optimizers.SGD, keras.optimizers.Adam


@twins("gradient_ascent", "wrong_loss", "lr_negative")
def bound_is_minimised(broken: bool) -> Fields:
    """The evidence lower bound of an autoencoder goes to the optimizer with its own sign."""

    class Auto(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = keras.Sequential([layers.Dense(32, "relu"), layers.Dense(16)])
            self.decoder = keras.Sequential([layers.Dense(32, "relu"), layers.Dense(20)])

        def call(self, x: Any) -> Any:
            return self.decoder(self.encoder(x)[:, :8])

        def train_step(self, data: Any) -> Any:
            x = data[0] if isinstance(data, tuple) else data
            with tf.GradientTape() as tape:
                mean, log_var = tf.split(self.encoder(x), 2, axis=-1)
                z = mean + tf.exp(0.5 * log_var) * tf.random.normal(tf.shape(mean))
                log_likelihood = -tf.reduce_mean(tf.reduce_sum((x - self.decoder(z)) ** 2, -1))
                kl = -0.5 * tf.reduce_mean(tf.reduce_sum(1 + log_var - mean**2 - tf.exp(log_var), -1))
                elbo = log_likelihood - kl
                loss = elbo if broken else -elbo
            gradients = tape.gradient(loss, self.trainable_weights)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
            return {"loss": loss}

    return case(lambda: compiled(Auto(), "mse", Adam(1e-3)), lambda: (rows()[0], rows()[0]))


@twins("missing_zero_grad", "accumulation_not_divided", "lr_too_high")
def accumulators_never_emptied(broken: bool) -> Fields:
    """Gradients are added to variables of the model for four calls, applied, and never set back to zero."""

    def step(model: Any, x: Any, y: Any) -> Any:
        loss, found, variables = differentiate(model, x, y)
        if not hasattr(model, "sums"):
            model.sums = [tf.Variable(tf.zeros_like(v), trainable=False) for v in variables]
        for total, gradient in zip(model.sums, found, strict=True):
            total.assign_add(gradient)
        model.optimizer.apply_gradients(zip([t.value() for t in model.sums], variables, strict=True))
        for total in model.sums:
            if not broken:
                total.assign(tf.zeros_like(total))
        return loss

    def compiling(model: Any) -> Any:
        model(rows()[0])
        return compiled(model, optimizer=SGD(0.1), run_eagerly=True)

    return stepping(step, compiling=compiling)


@twins("updated_twice", missed="two updates with a gradient of their own each may be meant so")
def step_of_the_base_and_one_more(broken: bool) -> Fields:
    """super().train_step(data) is called, and then the gradient is applied again."""

    class Model(Net):
        def train_step(self, data: Any) -> Any:
            logs = super().train_step(data) if broken else {}
            x, y = data
            loss, found, variables = differentiate(self, x, y)
            self.optimizer.apply(found, variables)
            return {**logs, "loss": loss}

    return case(lambda: compiled(Model()))


class Regular(keras.Model):
    """Convolutions with a norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = layers.Conv2D(8, 3), layers.BatchNormalization()
        self.drop, self.head = layers.Dropout(0.3), layers.Dense(4)

    def call(self, x: Any, training: bool = False) -> Any:
        h = ops.relu(self.norm(self.conv(x), training=training))
        return self.head(self.drop(layers.Flatten()(h), training=training))


@twins("step_in_eval_mode", "batchnorm_eval_mismatch", "inert_regularizer")
def training_flag_forgotten(broken: bool) -> Fields:
    """self(x) in a train_step whose call() has training=False for a default."""

    def step(model: Any, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            scores = model(x) if broken else model(x, training=True)
            loss = model.compute_loss(x=x, y=y, y_pred=scores)
        found = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply(found, model.trainable_variables)
        return loss

    return stepping(step, Regular, batch=pictures)


def by(make: Any, **fields: Any) -> Fields:
    return case(lambda: compiled(mlp(), optimizer=make()), **fields)


@twins("grad_clip_too_small", "lr_too_low")
def values_clipped_to_nothing(broken: bool) -> Fields:
    """clipvalue=1e-8 with plain descent."""
    return by(lambda: SGD(0.1, clipvalue=1e-8 if broken else 0.5))


@twins("grad_clip_too_small", "update_skipped", "lr_too_low", "lr_zero", "cut_gradient", "optimizer_wrong_params")
def clipped_to_a_norm_of_zero(broken: bool) -> Fields:
    """tf.clip_by_global_norm(gradients, 0.0): the default of an option."""

    def step(model: Any, x: Any, y: Any) -> Any:
        loss, found, variables = differentiate(model, x, y)
        found, _ = tf.clip_by_global_norm(found, 0.0 if broken else 1.0)
        model.optimizer.apply_gradients(zip(found, variables, strict=True))
        return loss

    return stepping(step)


@twins("excessive_weight_decay", "lr_too_high", "gradient_ascent")
def decay_of_thirty(broken: bool) -> Fields:
    """AdamW(weight_decay=30)."""
    return by(lambda: keras.optimizers.AdamW(1e-2, weight_decay=30.0 if broken else 1e-2))


@twins("lr_too_high", "loss_not_scaled", "gradient_ascent")
def scaled_and_never_unscaled(broken: bool) -> Fields:
    """The loss is multiplied by 2**15, and the inner optimizer gets the gradients as they are."""

    def step(model: Any, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=True))
            scaled = loss * 2.0**15
        found = tape.gradient(scaled, model.trainable_variables)
        if not broken:
            found = [each / 2.0**15 for each in found]
        model.optimizer.apply(found, model.trainable_variables)
        return loss

    return stepping(step, compiling=lambda model: compiled(model, optimizer=SGD(0.05)))


@tf.custom_gradient
def wrong_relu(x: Any) -> Any:
    return tf.nn.relu(x), lambda gradient: gradient * tf.cast(x < 0, gradient.dtype)


@tf.custom_gradient
def right_relu(x: Any) -> Any:
    return tf.nn.relu(x), lambda gradient: gradient * tf.cast(x > 0, gradient.dtype)


@twins(
    "wrong_backward",
    "gradient_ascent",
    "cut_gradient",
    missed="a loss that falls along a wrong slope is not seen",
)
def backward_on_the_other_side(broken: bool) -> Fields:
    """A hand-written ReLU whose gradient passes where the input is negative."""
    relu = layers.Lambda(wrong_relu if broken else right_relu)
    return case(lambda: compiled(chain(layers.Dense(32), relu, layers.Dense(5)), optimizer=SGD(0.1)))


@twins(
    "wrong_backward",
    "gradient_ascent",
    "lr_too_high",
    missed="a loss that falls along a wrong slope is not seen",
)
def backward_of_a_square_without_its_two(broken: bool) -> Fields:
    """A custom gradient of x**3 / 3 that gives x in place of x**2."""

    @tf.custom_gradient
    def cube(x: Any) -> Any:
        return x**3 / 3.0, lambda gradient: gradient * (x if broken else x**2)

    parts = lambda: (layers.Dense(32, name="in"), layers.Lambda(cube), layers.Dense(1))  # noqa: E731
    return case(lambda: compiled(chain(*parts()), "mse", SGD(0.01)), values)


@twins("ema_overwrite", "lr_too_low", "update_skipped")
def average_swapped_in_after_each_batch(broken: bool) -> Fields:
    """A callback that keeps an average of the weights, and sets it on the model too early."""

    class Average(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            self.mean = self.model.get_weights()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            new = self.model.get_weights()
            self.mean = [0.99 * m + 0.01 * w for m, w in zip(self.mean, new, strict=True)]
            if broken:
                self.model.set_weights(self.mean)

    return by(lambda: SGD(0.1), fit_kwargs={"callbacks": [Average()]})


@twins("lr_too_high")
def adam_with_a_rate_of_three(broken: bool) -> Fields:
    return by(lambda: Adam(3.0 if broken else 3e-3))


@twins("lr_too_low")
def rmsprop_with_a_rate_of_nothing(broken: bool) -> Fields:
    """1e-10, a slip in a config."""
    return by(lambda: keras.optimizers.RMSprop(1e-10 if broken else 1e-3))


class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, whole: bool) -> None:
        self.whole = whole

    def __call__(self, step: Any) -> Any:
        step = tf.cast(step, "int32")
        if self.whole:
            return 1e-2 * tf.cast(step // 1000, "float32")
        return 1e-2 * tf.minimum(1.0, tf.cast(step + 1, "float32") / 20.0)


@twins("lr_zero", "update_skipped", "lr_too_low", "schedule_kills_rate")
def warm_up_by_whole_numbers(broken: bool) -> Fields:
    """step // 1000 stays 0 through all of the warm-up."""
    return by(lambda: Adam(WarmUp(broken)))


@twins("schedule_kills_rate", "lr_too_low", "lr_zero")
def piecewise_rate_of_nothing_after_five_steps(broken: bool) -> Fields:
    """Boundaries in epochs, which the schedule takes for steps."""
    bounds = [5, 10] if broken else [5000, 10000]
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay
    return by(lambda: SGD(schedule(bounds, [0.1, 1e-4, 1e-6])))


@twins("schedule_kills_rate", "lr_too_low", "lr_zero")
def rate_halved_by_a_callback_every_batch(broken: bool) -> Fields:
    """on_train_batch_end where on_epoch_end was meant, of a run of hundreds of batches."""

    class Halve(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if broken:
                rate = self.model.optimizer.learning_rate
                rate.assign(rate * 0.5)

    return by(lambda: SGD(0.1), fit_kwargs={"callbacks": [Halve()]})


@twins("gradient_ascent", "wrong_loss")
def reward_is_minimised(broken: bool) -> Fields:
    """A policy gradient with the sign of the advantage turned, as a custom train_step."""

    def step(model: Any, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            scores = tf.nn.log_softmax(model(x, training=True))
            chosen = tf.reduce_sum(scores * tf.one_hot(tf.cast(y, "int32"), 5), -1)
            loss = tf.reduce_mean(chosen) if broken else -tf.reduce_mean(chosen)
        found = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply(found, model.trainable_variables)
        return loss

    return stepping(step)
