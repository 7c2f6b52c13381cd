"""Keras programs whose step does something else than one step down one batch's gradient, and healthy odd ones."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

from tests.programs.wiring.corpus import Corpus, Fields
from tests.programs.wiring.keras_base import (
    ROWS,
    Apply,
    Net,
    apply,
    case,
    chain,
    compiled,
    differentiate,
    labels,
    mlp,
    normal,
    pictures,
    rows,
    stepping,
    tokens,
)

PROGRAMS = Corpus()
twins = PROGRAMS.twins
healthy = PROGRAMS.healthy()

SGD, Adam = keras.optimizers.SGD, keras.optimizers.Adam


def by(make: Any) -> Fields:
    """The MLP with this optimizer."""
    return case(lambda: compiled(mlp(), optimizer=make()))


@twins("gradient_ascent", "lr_negative", "wrong_loss")
def minus_before_the_loss(broken: bool) -> Fields:
    """A likelihood that is minimised."""

    def loss(y: Any, o: Any) -> Any:
        found = keras.losses.sparse_categorical_crossentropy(y, o, from_logits=True)
        return -found if broken else found

    return case(lambda: compiled(mlp(), loss, SGD(0.1)))


@twins("gradient_ascent", "lr_negative")
def step_goes_up(broken: bool) -> Fields:
    """A train_step that adds the gradient by hand."""

    def step(model: Any, x: Any, y: Any) -> Any:
        loss, found, variables = differentiate(model, x, y)
        for variable, gradient in zip(variables, found, strict=True):
            variable.assign_add((0.1 if broken else -0.1) * gradient)
        return loss

    return stepping(step)


@twins("gradient_ascent", "lr_negative")
def gradients_negated(broken: bool) -> Fields:
    """A minus in front of the gradients."""

    def step(model: Any, x: Any, y: Any) -> Any:
        loss, found, variables = differentiate(model, x, y)
        apply(model.optimizer, [-each if broken else each for each in found], variables)
        return loss

    return stepping(step)


def swish(sign: float, whole: bool = True) -> Any:
    @tf.custom_gradient
    def function(x: Any) -> Any:
        s = tf.sigmoid(x)

        def backward(gradient: Any) -> Any:
            return sign * gradient * (s * (1 + x * (1 - s)) if whole else s)

        return x * s, backward

    return function


BACKWARD = ("wrong_backward", "gradient_ascent")


@twins(*BACKWARD)
def backward_of_another_sign(broken: bool) -> Fields:
    """tf.custom_gradient with the sign wrong."""
    made = swish(-1.0 if broken else 1.0)
    parts = lambda: (layers.Dense(32), Apply(made), layers.Dense(32), Apply(made), layers.Dense(5))  # noqa: E731
    return case(lambda: compiled(chain(*parts()), optimizer=SGD(0.1)))


@twins(*BACKWARD)
def backward_five_times_too_large(broken: bool) -> Fields:
    """A factor in the wrong place."""
    made = swish(5.0 if broken else 1.0)
    return case(lambda: compiled(chain(layers.Dense(32), Apply(made), layers.Dense(5)), optimizer=SGD(0.02)))


@twins("lr_zero", "update_skipped", "lr_too_low")
def rate_of_zero(broken: bool) -> Fields:
    return by(lambda: SGD(0.0 if broken else 0.1))


@twins("lr_too_low")
def rate_a_hundred_thousand_times_too_low(broken: bool) -> Fields:
    return by(lambda: SGD(1e-6 if broken else 0.1))


@twins("lr_too_high")
def rate_a_thousand_times_too_high(broken: bool) -> Fields:
    return by(lambda: SGD(100.0 if broken else 0.1))


@twins("bad_adam_epsilon", "lr_too_low")
def epsilon_above_the_gradients(broken: bool) -> Fields:
    return by(lambda: Adam(1e-3, epsilon=1e4 if broken else 1e-7))


@twins("grad_clip_too_small", "lr_too_low")
def clipped_to_nothing(broken: bool) -> Fields:
    return by(lambda: SGD(0.1, global_clipnorm=1e-7 if broken else 1.0))


@twins(
    "excessive_weight_decay",
    "lr_too_high",
    "gradient_ascent",
)
def decay_outweighs_the_loss(broken: bool) -> Fields:
    """weight_decay=5: a step takes a tenth of the weights."""
    return by(lambda: SGD(0.02, weight_decay=5.0 if broken else 1e-3))


@twins("schedule_kills_rate", "lr_too_low", "lr_zero")
def schedule_of_epochs_by_step(broken: bool) -> Fields:
    """A tenth each step."""
    schedule = keras.optimizers.schedules.ExponentialDecay
    return by(lambda: SGD(schedule(0.1, 1 if broken else 3000, 0.1)))


@twins("schedule_kills_rate", "lr_too_low", "lr_zero")
def cosine_over_three_steps(broken: bool) -> Fields:
    """decay_steps counts epochs, not steps."""
    return by(lambda: Adam(keras.optimizers.schedules.CosineDecay(1e-2, 3 if broken else 3000)))


@twins("updated_twice", "parameter_twice")
def applied_twice(broken: bool) -> Fields:
    """apply_gradients twice with one gradient."""

    def step(model: Any, x: Any, y: Any) -> Any:
        loss, found, variables = differentiate(model, x, y)
        for _ in range(2 if broken else 1):
            apply(model.optimizer, found, variables)
        return loss

    return stepping(step, compiling=lambda model: compiled(model, optimizer=SGD(0.1)))


class Noisy(Net):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = keras.Sequential([layers.Dense(32), layers.BatchNormalization(), layers.ReLU()], name="encoder")


@twins(
    "step_in_eval_mode",
    "batchnorm_eval_mismatch",
    "inert_regularizer",
)
def stepped_in_evaluation(broken: bool) -> Fields:
    """self(x, training=False) under the tape."""

    def step(model: Any, x: Any, y: Any) -> Any:
        loss, found, variables = differentiate(model, x, y, training=not broken)
        apply(model.optimizer, found, variables)
        return loss

    return stepping(step, Noisy)


@twins("ema_overwrite", "lr_too_low", "update_skipped")
def average_written_over_the_weights(broken: bool) -> Fields:
    """ema_overwrite_frequency=1; the healthy one keeps the average beside."""
    more = {"ema_overwrite_frequency": 1} if broken else {}
    return by(lambda: Adam(1e-2, use_ema=True, ema_momentum=0.99, **more))


def micro(model: Any, x: Any, y: Any, share: float) -> Any:
    sums, total = [ops.zeros_like(each) for each in model.trainable_variables], 0.0
    for part in range(4):
        rows_of_it = slice(4 * part, 4 * part + 4)
        loss, found, variables = differentiate(model, x[rows_of_it], y[rows_of_it])
        sums = [a + share * b for a, b in zip(sums, found, strict=True)]
        total += loss / 4
    apply(model.optimizer, sums, variables)
    return total


@twins("accumulation_not_divided", "lr_too_high")
def micro_batches_added(broken: bool) -> Fields:
    """Gradients of four micro-batches are added."""
    step = lambda model, x, y: micro(model, x, y, 1.0 if broken else 0.25)  # noqa: E731
    return stepping(step, compiling=lambda model: compiled(model, optimizer=SGD(0.1)))


@twins("loss_not_scaled", "lr_too_low")
def unscaled_without_scaling(broken: bool) -> Fields:
    """LossScaleOptimizer divides what scale_loss never multiplied."""

    def step(model: Any, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=True))
            scaled = loss if broken else model.optimizer.scale_loss(loss)
        variables = model.trainable_variables
        apply(model.optimizer, tape.gradient(scaled, variables), variables)
        return loss

    return stepping(step, compiling=lambda model: compiled(model, optimizer=scaling(), auto_scale_loss=False))


def scaling() -> Any:
    return keras.optimizers.LossScaleOptimizer(SGD(0.1), initial_scale=2.0**15)


# ------------------------------------------------------------------ healthy


class Gated(layers.Layer):
    """A residual block whose gate starts at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = layers.Dense(32, "relu"), layers.Dense(32)

    def build(self, shape: Any) -> None:
        self.a.build(shape)
        self.b.build(shape)
        self.gate = self.add_weight(shape=(), initializer="zeros", name="gate")

    def call(self, x: Any) -> Any:
        return x + self.gate * self.b(self.a(x))


@healthy
def gates_of_zero() -> Fields:
    return case(lambda: compiled(chain(layers.Dense(32, "relu"), Gated(), Gated(), Gated(), layers.Dense(5))))


@healthy
def layers_of_zero() -> Fields:
    """A head of zeros, and a branch that ends in zeros."""
    zeros = lambda units: layers.Dense(units, kernel_initializer="zeros")  # noqa: E731

    def model() -> Any:
        x = keras.Input((20,))
        h = layers.Dense(32, "relu")(x)
        h = h + zeros(32)(layers.Dense(32, "relu")(h))
        return compiled(keras.Model(x, zeros(5)(h)))

    return case(model)


@healthy
def idle_experts() -> Fields:
    """The best of eight experts, weighed by its share; some are chosen by no row."""

    class Experts(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.router, self.experts = layers.Dense(8), [layers.Dense(16, "relu") for _ in range(8)]
            self.head = layers.Dense(5)

        def call(self, x: Any) -> Any:
            shares = ops.softmax(self.router(x))
            chosen = shares * ops.one_hot(ops.argmax(shares, -1), 8)
            outs = ops.stack([each(x) for each in self.experts], 1)
            return self.head(ops.concatenate([ops.sum(outs * chosen[..., None], 1), x], -1))

    return case(lambda: compiled(Experts()))


@healthy
def branches_dropped_by_row() -> Fields:
    class Drop(layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.seed = keras.random.SeedGenerator(7)

        def call(self, x: Any, training: bool = False) -> Any:
            if not training:
                return x
            keep = ops.floor(0.5 + keras.random.uniform((ops.shape(x)[0], 1), seed=self.seed))
            return 2 * x * keep

    def model() -> Any:
        x = keras.Input((20,))
        h = layers.Dense(32, "relu")(x)
        for _ in range(2):
            h = h + Drop()(layers.Dense(32, "relu")(h))
        return compiled(keras.Model(x, layers.Dense(5)(h)))

    return case(model)


@healthy
def frozen_teacher() -> Fields:
    class Distiller(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.student, self.teacher = mlp(), mlp(units=64)
            self.teacher.trainable = False

        def call(self, x: Any, training: bool = False) -> Any:
            return self.student(x, training=training)

        def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, **_: Any):  # type: ignore[no-untyped-def]
            hard = super().compute_loss(x, y, y_pred, sample_weight)
            return hard + 0.1 * ops.mean(keras.losses.kl_divergence(ops.softmax(self.teacher(x)), ops.softmax(y_pred)))

    return case(lambda: compiled(Distiller()))


@healthy
def pooler_that_no_head_uses() -> Fields:
    """A body with a pooler, whose result call() throws away."""

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.attention = layers.Embedding(30, 16), layers.MultiHeadAttention(2, 8)
            self.pooler, self.head = layers.Dense(16, "tanh"), layers.Dense(4)

        def call(self, x: Any) -> Any:
            h = self.words(x)
            h = h + self.attention(h, h)
            self.pooler(h[:, 0])
            return self.head(ops.mean(h, 1))

    return case(lambda: compiled(Model()), lambda: (tokens(count=ROWS), labels(4)))


@healthy
def tied_embedding() -> Fields:
    """Scores by the transposed embedding."""

    class Tied(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.rnn = layers.Embedding(30, 32), layers.GRU(32, return_sequences=True)

        def call(self, x: Any) -> Any:
            h = self.rnn(self.words(x))
            return ops.matmul(h, ops.transpose(self.words.embeddings))

    ids = tokens()
    return case(lambda: compiled(Tied()), lambda: (ids[:, :-1], ids[:, 1:]))


@healthy
def bias_before_batch_norm() -> Fields:
    parts = lambda: (layers.Conv2D(8, 3), layers.BatchNormalization(), layers.ReLU(), layers.GlobalMaxPooling2D())  # noqa: E731
    return case(lambda: compiled(chain(*parts(), layers.Dense(4), shape=(12, 12, 3)), optimizer=SGD(0.05)), pictures)


@healthy
def prelu_behind_softplus() -> Fields:
    parts = lambda: (layers.Dense(32, "softplus"), layers.PReLU(alpha_initializer=keras.initializers.Constant(0.25)))  # noqa: E731
    return case(lambda: compiled(chain(*parts(), layers.Dense(5))))


@healthy
def reversed_gradient() -> Fields:
    """Domain-adversarial features."""

    @tf.custom_gradient
    def reverse(x: Any) -> Any:
        return tf.identity(x), lambda gradient: -gradient

    def model() -> Any:
        x = keras.Input((20,))
        h = layers.Dense(32, "relu")(x)
        outputs = {
            "label": layers.Dense(5, name="label")(h),
            "domain": layers.Dense(2, name="domain")(Apply(reverse)(h)),
        }
        loss = keras.losses.SparseCategoricalCrossentropy
        return compiled(keras.Model(x, outputs), {name: loss(from_logits=True) for name in outputs})

    return case(model, lambda: (rows()[0], {"label": labels(), "domain": labels() % 2}))


@healthy
def straight_through_codes() -> Fields:
    """A codebook of which few entries are used."""

    class Codes(layers.Layer):
        def build(self, shape: Any) -> None:
            self.codes = self.add_weight(shape=(16, shape[-1]), initializer="random_normal", name="codes")

        def call(self, h: Any) -> Any:
            distances = ops.sum((h[:, None] - self.codes) ** 2, -1)
            code = ops.take(self.codes, ops.argmin(distances, -1), axis=0)
            self.add_loss(ops.mean((code - ops.stop_gradient(h)) ** 2) + ops.mean((h - ops.stop_gradient(code)) ** 2))
            return h + ops.stop_gradient(code - h)

    x = normal(ROWS, 20)
    return case(lambda: compiled(chain(layers.Dense(8), Codes(), layers.Dense(20)), "mse"), lambda: (x, x))


@PROGRAMS.healthy()
def accumulation_over_eight_calls() -> Fields:
    return by(lambda: Adam(1e-2, gradient_accumulation_steps=8))


@healthy
def micro_batches_averaged() -> Fields:
    return micro_batches_added(False)


@healthy
def lion() -> Fields:
    return by(lambda: keras.optimizers.Lion(1e-3))


@healthy
def warm_up_of_a_thousand_steps() -> Fields:
    cosine = keras.optimizers.schedules.CosineDecay
    return by(lambda: Adam(cosine(1e-5, 5000, warmup_target=1e-2, warmup_steps=1000)))


@healthy
def dropout_noise_and_norm() -> Fields:
    def model() -> Any:
        parts = (layers.GaussianNoise(0.3), layers.Dense(64, "relu"), layers.LayerNormalization(), layers.Dropout(0.5))
        return compiled(chain(*parts, layers.Dense(5)))

    return case(model)


@healthy
def half_precision_by_policy() -> Fields:
    def model() -> Any:
        policy = keras.DTypePolicy("mixed_bfloat16")
        return compiled(chain(layers.Dense(32, "relu", dtype=policy), layers.Dense(5, dtype="float32")))

    return case(model)


@healthy
def sharpness_aware() -> Fields:
    """Up to the worst point nearby, and down by its gradient."""

    def step(model: Any, x: Any, y: Any) -> Any:
        loss, found, variables = differentiate(model, x, y)
        length = tf.linalg.global_norm(found) + 1e-12
        ups = [0.05 * each / length for each in found]
        for variable, up in zip(variables, ups, strict=True):
            variable.assign_add(up)
        _, again, _ = differentiate(model, x, y)
        for variable, up in zip(variables, ups, strict=True):
            variable.assign_sub(up)
        apply(model.optimizer, again, variables)
        return loss

    return stepping(step)


@healthy
def critic_more_often_than_generator() -> Fields:
    """Three steps of the critic, one of the generator, each with its optimizer."""

    class Gan(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.generator, self.critic = (
                chain(layers.Dense(32, "relu"), layers.Dense(20), shape=(4,)),
                chain(layers.Dense(32, "relu"), layers.Dense(1)),
            )
            self.theirs = Adam(1e-3)

        def call(self, x: Any) -> Any:
            return self.critic(x)

        def train_step(self, data: Any) -> Any:
            x = data[0] if isinstance(data, tuple) else data
            for _ in range(3):
                made = self.generator(keras.random.normal((ROWS, 4)))
                with tf.GradientTape() as tape:
                    loss = ops.mean(ops.softplus(self.critic(made))) + ops.mean(ops.softplus(-self.critic(x)))
                variables = self.critic.trainable_variables
                apply(self.theirs, tape.gradient(loss, variables), variables)
            with tf.GradientTape() as tape:
                ours = ops.mean(ops.softplus(-self.critic(self.generator(keras.random.normal((ROWS, 4))))))
            variables = self.generator.trainable_variables
            apply(self.optimizer, tape.gradient(ours, variables), variables)
            return {"loss": loss}

    def model() -> Any:
        made = Gan()
        made.compile(Adam(1e-3))
        return made

    return case(model, lambda: (normal(ROWS, 20), None))
