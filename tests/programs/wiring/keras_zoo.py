"""Healthy Keras programs of many kinds."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
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
    from_logits,
    labels,
    mlp,
    normal,
    pictures,
    random,
    rows,
    series,
    stepping,
    tokens,
    values,
)
from tests.programs.wiring.keras_data import padded

PROGRAMS = Corpus()
healthy = PROGRAMS.healthy()


@healthy
def augmented_pictures() -> Fields:
    """Turned, moved and disturbed in training alone."""

    def model() -> Any:
        parts = (layers.RandomFlip("horizontal"), layers.RandomTranslation(0.1, 0.1), layers.GaussianNoise(0.1))
        return compiled(chain(*parts, layers.Conv2D(8, 3, activation="relu"), layers.Flatten(), layers.Dense(4),
                              shape=(12, 12, 3)))  # fmt: skip

    return case(model, pictures)


@healthy
def features_normalised_by_a_layer() -> Fields:
    """Raw units behind Normalization, which was adapted."""
    x, y = rows()
    x = x * np.logspace(0, 3, 20, dtype="float32") + 100

    def model() -> Any:
        norm = layers.Normalization()
        norm.adapt(x)
        return compiled(chain(norm, layers.Dense(32, "relu"), layers.Dense(5)))

    return case(model, lambda: (x, y))


@healthy
def patches_and_a_class_token() -> Fields:
    class Token(layers.Layer):
        def build(self, shape: Any) -> None:
            self.token = self.add_weight(shape=(1, 1, shape[-1]), initializer="zeros", name="token")
            self.places = self.add_weight(shape=(1, shape[1] + 1, shape[-1]), name="places")

        def call(self, x: Any) -> Any:
            token = ops.broadcast_to(self.token, (ops.shape(x)[0], 1, x.shape[-1]))
            return ops.concatenate([token, x], 1) + self.places

        def compute_output_shape(self, shape: Any) -> Any:
            return (shape[0], shape[1] + 1, shape[2])

    def model() -> Any:
        x = keras.Input((12, 12, 3))
        h = Token()(layers.Reshape((9, 16))(layers.Conv2D(16, 4, strides=4)(x)))
        norm = layers.LayerNormalization()(h)
        h = h + layers.MultiHeadAttention(2, 8)(norm, norm)
        return compiled(keras.Model(x, layers.Dense(4)(h[:, 0])))

    return case(model, pictures)


@healthy
def recurrence_in_both_directions() -> Fields:
    return case(lambda: compiled(chain(layers.Bidirectional(layers.LSTM(8)), layers.Dense(3), shape=(10, 8))), series)


@healthy
def steps_masked_by_a_value() -> Fields:
    """Masking of padded steps, heeded by an LSTM."""
    x, y = series()
    x = x * (np.arange(10) < (4 + np.arange(ROWS) % 7)[:, None])[..., None]
    return case(
        lambda: compiled(chain(layers.Masking(), layers.LSTM(16), layers.Dense(3), shape=(10, 8))), lambda: (x, y)
    )


@healthy
def low_rank_adapters() -> Fields:
    """Dense.enable_lora, whose second factor starts at 0."""

    def model() -> Any:
        made = chain(layers.Dense(32, "relu"), layers.Dense(5))
        made.layers[0].enable_lora(4)
        return compiled(made)

    return case(model)


@healthy
def penalties_on_weights() -> Fields:
    parts = lambda: (layers.Dense(32, "relu", kernel_regularizer="l2"), layers.ActivityRegularization(1e-4))  # noqa: E731
    return case(lambda: compiled(chain(*parts(), layers.Dense(5))))


@healthy
def constrained_kernels() -> Fields:
    """Columns of bounded length, set after each update."""
    constraint = lambda: keras.constraints.MaxNorm(1.0)  # noqa: E731
    return case(lambda: compiled(chain(layers.Dense(32, "relu", kernel_constraint=constraint()), layers.Dense(5))))


@healthy
def spectral_normalisation() -> Fields:
    return case(lambda: compiled(chain(layers.SpectralNormalization(layers.Dense(32)), layers.ReLU(), layers.Dense(5))))


@healthy
def separable_and_grouped() -> Fields:
    parts = lambda: (layers.SeparableConv2D(8, 3), layers.GroupNormalization(4), layers.ReLU(), layers.Flatten())  # noqa: E731
    return case(lambda: compiled(chain(*parts(), layers.Dense(4), shape=(12, 12, 3))), pictures)


@healthy
def weighted_rows() -> Fields:
    return case(lambda: compiled(mlp()), lambda: (*rows(), np.linspace(0, 2, ROWS).astype("float32")))


@healthy
def weighted_classes() -> Fields:
    return case(lambda: compiled(mlp()), fit_kwargs={"class_weight": {0: 3.0, 1: 0.3, 2: 1.0, 3: 1.0, 4: 1.0}})


@healthy
def outputs_in_a_list() -> Fields:
    def model() -> Any:
        x = keras.Input((20,))
        h = layers.Dense(32, "relu")(x)
        return compiled(keras.Model(x, [layers.Dense(5)(h), layers.Dense(1)(h)]), [from_logits(), "mse"])

    return case(model, lambda: (rows()[0], [labels(), normal(ROWS, 1, seed=4)]))


@healthy
def code_that_is_drawn_in_evaluation_too() -> Fields:
    """The VAE of the guides: Sampling takes no notice of training."""

    class Sampling(layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.seed = keras.random.SeedGenerator(3)

        def call(self, inputs: Any) -> Any:
            mean, spread = inputs
            return mean + ops.exp(0.5 * spread) * keras.random.normal(ops.shape(mean), seed=self.seed)

    class Vae(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.mean, self.spread, self.sampling = layers.Dense(4), layers.Dense(4), Sampling()
            self.decoder = layers.Dense(20)

        def call(self, x: Any) -> Any:
            mean, spread = self.mean(x), self.spread(x)
            self.add_loss(-5e-4 * ops.mean(1 + spread - mean**2 - ops.exp(spread)))
            return self.decoder(self.sampling([mean, spread]))

    x = normal(ROWS, 20)
    return case(lambda: compiled(Vae(), "mse"), lambda: (x, x))


@healthy
def noise_that_is_predicted() -> Fields:
    """A diffusion model with a step of its own."""

    class Denoiser(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.net = keras.Sequential([layers.Dense(64, "silu"), layers.Dense(20)])
            self.seed = keras.random.SeedGenerator(5)

        def call(self, x: Any) -> Any:
            return self.net(x)

        def train_step(self, data: Any) -> Any:
            x = data[0] if isinstance(data, tuple) else data
            time = keras.random.uniform((ROWS, 1), seed=self.seed)
            noise = keras.random.normal((ROWS, 20), seed=self.seed)
            with tf.GradientTape() as tape:
                shown = self(ops.sqrt(1 - time) * x + ops.sqrt(time) * noise, training=True)
                loss = ops.mean((shown - noise) ** 2)
            variables = self.trainable_variables
            apply(self.optimizer, tape.gradient(loss, variables), variables)
            return {"loss": loss}

    x = normal(ROWS, 20)
    return case(lambda: compiled(Denoiser(), "mse"), lambda: (x, x))


@healthy
def taught_in_training_and_free_in_evaluation() -> Fields:
    """A decoder that reads the true words in training, and its own in evaluation."""

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.words = layers.GRU(16), layers.Embedding(10, 16)
            self.cell, self.head = layers.GRUCell(16), layers.Dense(10)

        def call(self, inputs: Any, training: bool = False) -> Any:
            source, target = inputs
            state, word = self.encoder(source), ops.zeros_like(target[:, 0])
            out = []
            for place in range(4):
                _, (state,) = self.cell(self.words(word), [state])
                out.append(self.head(state))
                word = target[:, place] if training else ops.cast(ops.argmax(out[-1], -1), "int64")
            return ops.stack(out, 1)

    y = random(2).integers(1, 10, size=(ROWS, 4))
    return case(lambda: compiled(Model()), lambda: ([series()[0], y], y))


@healthy
def stateful_recurrence() -> Fields:
    """A state that is kept from call to call, on purpose."""

    def model() -> Any:
        x = keras.Input(batch_shape=(ROWS, 10, 8))
        return compiled(keras.Model(x, layers.Dense(3)(layers.GRU(16, stateful=True)(x))))

    return case(model, series)


@healthy
def pixels_of_an_autoencoder() -> Fields:
    """Sigmoids for pixels of 0 and 1, under a squared error."""
    x = (normal(ROWS, 20) > 0).astype("float32")
    return case(lambda: compiled(mlp(layers.Activation("sigmoid"), outputs=20), "mse"), lambda: (x, x))


@healthy
def scaled_tanh_of_an_actor() -> Fields:
    """Actions within -2 and 2."""
    x, y = values()
    return case(
        lambda: compiled(mlp(Apply(lambda o: 2 * ops.tanh(o)), outputs=1), "mse"), lambda: (x, np.clip(y, -1.9, 1.9))
    )


@healthy
def softplus_of_positive_values() -> Fields:
    x, y = values()
    return case(lambda: compiled(mlp(layers.Activation("softplus"), outputs=1), "mse"), lambda: (x, np.abs(y)))


@healthy
def counts_by_their_rate() -> Fields:
    x, y = values()
    return case(
        lambda: compiled(mlp(layers.Activation("exponential"), outputs=1), "poisson"),
        lambda: (x, np.round(2 * np.abs(y))),
    )


@healthy
def hinge_of_signs() -> Fields:
    x, y = rows(classes=2)
    return case(lambda: compiled(mlp(outputs=1), "hinge"), lambda: (x, 2.0 * y.astype("float32")[:, None] - 1))


@healthy
def prices_in_raw_units() -> Fields:
    x, y = values()
    return case(lambda: compiled(mlp(outputs=1), "mae"), lambda: (x, 200 + 50 * y))


@healthy
def bag_of_words() -> Fields:
    """mask_zero and the mean that heeds it."""
    parts = lambda: (layers.Embedding(30, 16, mask_zero=True), layers.GlobalAveragePooling1D())  # noqa: E731
    return case(lambda: compiled(keras.Sequential([*parts(), layers.Dense(4)])), lambda: (padded()[0], labels(4)))


@healthy
def penalty_by_a_second_gradient() -> Fields:
    def step(model: Any, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=True))
            at_inputs = inner.gradient(loss, x)
            total = loss + 0.1 * ops.sum(at_inputs**2)
        variables = model.trainable_variables
        apply(model.optimizer, tape.gradient(total, variables), variables)
        return loss

    return stepping(step)


@healthy
def target_network_that_follows() -> Fields:
    """A frozen copy that the step moves slowly, as in BYOL."""

    class Model(Net):
        def __init__(self) -> None:
            super().__init__(16)
            self.target = chain(layers.Dense(32, "relu"), layers.Dense(16))
            self.target.trainable = False
            self.predict = layers.Dense(16)

        def call(self, x: Any, training: bool = False) -> Any:
            return self.predict(super().call(x, training=training))

    def step(model: Any, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            shown = model(x, training=True)
            loss = ops.mean((ops.normalize(shown) - ops.normalize(ops.stop_gradient(model.target(x + 0.1)))) ** 2)
        variables = model.trainable_variables
        apply(model.optimizer, tape.gradient(loss, variables), variables)
        for variable in model.target.weights:
            variable.assign(0.999 * variable)
        return loss

    return stepping(step, Model, compiling=lambda model: compiled(model, "mse"))


@healthy
def words_of_categories_and_numbers() -> Fields:
    def model() -> Any:
        kinds, numbers = keras.Input((2,), dtype="int32", name="kinds"), keras.Input((20,), name="numbers")
        h = layers.Concatenate()([layers.Flatten()(layers.Embedding(7, 4)(kinds)), numbers])
        inputs = {"kinds": kinds, "numbers": numbers}
        return compiled(keras.Model(inputs, layers.Dense(5)(layers.Dense(32, "relu")(h))))

    x = {"kinds": random(4).integers(0, 7, (ROWS, 2)), "numbers": normal(ROWS, 20)}
    return case(model, lambda: (x, labels()))


@healthy
def fine_tuning_rate() -> Fields:
    return case(lambda: compiled(mlp(), optimizer=keras.optimizers.AdamW(5e-5)))


@healthy
def adafactor() -> Fields:
    return case(lambda: compiled(mlp(), optimizer=keras.optimizers.Adafactor(1e-3)))


@healthy
def rmsprop_and_restarts() -> Fields:
    schedule = keras.optimizers.schedules.CosineDecayRestarts
    return case(lambda: compiled(mlp(), optimizer=keras.optimizers.RMSprop(schedule(1e-3, 50))))


@healthy
def words_by_position() -> Fields:
    """Tokens by a convolution and the largest of its answers."""
    parts = lambda: (layers.Embedding(30, 16), layers.Conv1D(16, 3, activation="relu"), layers.GlobalMaxPooling1D())  # noqa: E731
    return case(
        lambda: compiled(keras.Sequential([*parts(), layers.Dense(4)])), lambda: (tokens(count=ROWS), labels(4))
    )
