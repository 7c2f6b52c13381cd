"""More Keras programs whose outputs, loss and targets do not fit; written without a look at the rules."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

from tests.programs.wiring.corpus import Corpus, Fields
from tests.programs.wiring.keras_base import (
    ROWS,
    case,
    chain,
    compiled,
    from_logits,
    labels,
    normal,
    pictures,
    random,
    rows,
    series,
    yes_no,
)

PROGRAMS = Corpus()
twins = PROGRAMS.twins


class Ending(keras.Model):
    """A hidden layer, scores, and a function at the end of call()."""

    def __init__(self, outputs: int, end: Any) -> None:
        super().__init__()
        self.hidden, self.scores, self.end = layers.Dense(32, "relu"), layers.Dense(outputs), end

    def call(self, x: Any) -> Any:
        return self.end(self.scores(self.hidden(x)))


def same(o: Any) -> Any:
    return o


@twins("double_softmax")
def softmax_by_tf_under_logits(broken: bool) -> Fields:
    """tf.nn.softmax ends call(), the loss takes logits: Keras cannot undo this one, as it does its own."""
    return case(lambda: compiled(Ending(5, tf.nn.softmax if broken else same)))


@twins("double_sigmoid")
def sigmoid_by_tf_under_logits(broken: bool) -> Fields:
    """tf.sigmoid and BinaryCrossentropy(from_logits=True)."""
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    return case(lambda: compiled(Ending(1, tf.sigmoid if broken else same), loss), yes_no)


@twins("softmax_single_unit", "wrong_output_units", missed="outputs are looked at where there is one head")
def one_softmax_unit_among_two_heads(broken: bool) -> Fields:
    """Dense(1, activation="softmax") for `is it spam`."""

    def model() -> Any:
        x = keras.Input((20,))
        h = layers.Dense(32, "relu")(x)
        spam = layers.Dense(1, activation="softmax" if broken else "sigmoid", name="spam")(h)
        topic = layers.Dense(5, activation="softmax", name="topic")(h)
        losses = {"spam": "binary_crossentropy", "topic": "sparse_categorical_crossentropy"}
        return compiled(keras.Model(x, {"spam": spam, "topic": topic}), losses)

    return case(model, lambda: (rows()[0], {"spam": yes_no()[1], "topic": labels()}))


@twins("relu_on_logits", "dead_relu", "output_range")
def relu_in_the_last_layer(broken: bool) -> Fields:
    """Dense(4, activation="relu") under a loss of logits."""

    def model() -> Any:
        parts = (layers.Conv2D(8, 3, activation="relu"), layers.MaxPooling2D(), layers.Flatten())
        last = layers.Dense(4, activation="relu" if broken else None)
        return compiled(chain(*parts, last, shape=(12, 12, 3)), from_logits())

    return case(model, pictures)


@twins("output_range", "unnormalised_target")
def tanh_for_values_up_to_ten(broken: bool) -> Fields:
    """activation="tanh" for ratings between 0 and 10."""
    y = random(2).uniform(0, 10, (ROWS, 1)).astype("float32")

    def model() -> Any:
        last = layers.Dense(1, activation="tanh" if broken else None)
        return compiled(chain(layers.Dense(32, "relu"), last), "mse")

    return case(model, lambda: (rows()[0], y))


@twins("output_range")
def sigmoid_for_pixels_from_minus_one(broken: bool) -> Fields:
    """An autoencoder of pictures scaled to [-1, 1] that ends with a sigmoid."""
    x = random(2).uniform(-1, 1, (ROWS, 8, 8, 1)).astype("float32")

    def model() -> Any:
        parts = (layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"), layers.Flatten(),
                 layers.Dense(16, "relu"), layers.Dense(128, "relu"), layers.Reshape((4, 4, 8)))  # fmt: skip
        last = layers.Conv2DTranspose(1, 3, strides=2, padding="same", activation="sigmoid" if broken else "tanh")
        return compiled(chain(*parts, last, shape=(8, 8, 1)), "mse")

    return case(model, lambda: (x, x))


@twins("label_off_by_one", "wrong_output_units")
def classes_counted_from_one_by_a_map(broken: bool) -> Fields:
    """map(lambda x, y: (x, y + 1)) and a spare unit."""

    def data() -> Any:
        made = tf.data.Dataset.from_tensor_slices((normal(64, 20), random(1).integers(0, 5, 64)))
        return (made.map(lambda x, y: (x, y + 1)) if broken else made).batch(16)

    model = lambda: compiled(chain(layers.Dense(32, "relu"), layers.Dense(6 if broken else 5)))  # noqa: E731
    return {"model": model, "train": data}


@twins(
    "wrong_loss",
    "target_broadcast",
    "wrong_output_units",
    missed="a column that broadcasts in a loss of Keras is not seen",
)
def class_numbers_against_probabilities(broken: bool) -> Fields:
    """Five softmax units and class numbers under loss="mse", which broadcasts."""

    def model() -> Any:
        return compiled(chain(layers.Dense(32, "relu"), layers.Dense(5, activation="softmax")), "mse")

    x, y = rows()
    return case(model, lambda: (x, y[:, None] if broken else keras.utils.to_categorical(y, 5)))


@twins("softmax_wrong_axis", "missing_softmax")
def softmax_over_time(broken: bool) -> Fields:
    """Softmax(axis=1) over (batch, time, tags)."""

    def model() -> Any:
        parts = (layers.Conv1D(16, 3, padding="same", activation="relu"), layers.Dense(4))
        last = layers.Softmax(axis=1 if broken else -1)
        return compiled(chain(*parts, last, shape=(10, 8)), "sparse_categorical_crossentropy")

    return case(model, lambda: (series()[0], random(3).integers(0, 4, (ROWS, 10))))


@twins("target_broadcast")
def vector_against_column_in_compute_loss(broken: bool) -> Fields:
    """y of shape (N,), outputs of shape (N, 1), and a loss by hand."""

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.net = keras.Sequential([layers.Dense(32, "relu"), layers.Dense(1)])

        def call(self, x: Any) -> Any:
            return self.net(x)

        def compute_loss(
            self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, **more: Any
        ) -> Any:
            y = ops.cast(y, "float32")
            return ops.mean(ops.square(y - (y_pred if broken else ops.squeeze(y_pred, -1))))

    def model() -> Any:
        made = Model()
        made.compile(optimizer=keras.optimizers.Adam(1e-2))
        return made

    return case(model, lambda: (rows()[0], normal(ROWS, seed=4)))


@twins("missing_softmax", "output_range", "log_of_zero")
def divergence_of_raw_scores(broken: bool) -> Fields:
    """KLDivergence between soft labels and scores without a softmax."""

    def model() -> Any:
        last = layers.Dense(5, activation=None if broken else "softmax")
        return compiled(chain(layers.Dense(32, "relu"), last), keras.losses.KLDivergence())

    y = random(2).dirichlet([1.0] * 5, ROWS).astype("float32")
    return case(model, lambda: (rows()[0], y))


@twins("softmax_without_log", "wrong_loss")
def likelihood_of_probabilities(broken: bool) -> Fields:
    """-p[y] as a negative log-likelihood."""

    def loss(y: Any, p: Any) -> Any:
        right = ops.sum(p * ops.one_hot(ops.cast(ops.reshape(y, (-1,)), "int32"), 5), -1)
        return -ops.mean(right if broken else ops.log(right + 1e-7))

    return case(lambda: compiled(chain(layers.Dense(32, "relu"), layers.Dense(5, activation="softmax")), loss))


@twins("double_sigmoid", missed="how a focal loss takes its outputs is not known")
def focal_loss_of_probabilities(broken: bool) -> Fields:
    """A sigmoid in the model, and BinaryFocalCrossentropy(from_logits=True) over a Rescaling."""
    loss = keras.losses.BinaryFocalCrossentropy(from_logits=True)

    def model() -> Any:
        parts = (layers.Dense(32, "relu"), layers.Dense(3, activation="sigmoid" if broken else None))
        return compiled(chain(*parts, layers.Identity()), loss)

    y = random(3).integers(0, 2, (ROWS, 3)).astype("float32")
    return case(model, lambda: (rows()[0], y))


@twins("gradient_ascent", "wrong_loss", missed="a loss with two ends may be meant the one way or the other")
def cosine_with_the_wrong_sign(broken: bool) -> Fields:
    """1 + cos as a distance."""

    def loss(y: Any, p: Any) -> Any:
        cosine = ops.sum(ops.normalize(y, axis=-1) * ops.normalize(p, axis=-1), -1)
        return ops.mean(1 + cosine if broken else 1 - cosine)

    return case(lambda: compiled(chain(layers.Dense(32, "relu"), layers.Dense(8)), loss),
                lambda: (rows()[0], normal(ROWS, 8, seed=4)))  # fmt: skip


@twins("wrong_reduction")
def sum_over_batch_and_time(broken: bool) -> Fields:
    """reduction="sum" in a tagger, with the rate of a mean."""
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="sum" if broken else "sum_over_batch_size"
    )

    def model() -> Any:
        parts = (layers.Conv1D(16, 3, padding="same", activation="relu"), layers.Dense(4))
        return compiled(chain(*parts, shape=(10, 8)), loss, keras.optimizers.SGD(0.1))

    return case(model, lambda: (series()[0], random(3).integers(0, 4, (ROWS, 10))))


# -------------------------------------------------------------------- start

START = ("over_confident_start", "too_large_init", "lr_too_high")


@twins(*START)
def kernels_of_deviation_ten(broken: bool) -> Fields:
    """kernel_initializer=RandomNormal(stddev=10) throughout."""

    def dense(units: int, activation: Any = None) -> Any:
        start = keras.initializers.RandomNormal(stddev=10.0 if broken else 0.1)
        return layers.Dense(units, activation, kernel_initializer=start)

    return case(lambda: compiled(chain(dense(32, "relu"), dense(32, "relu"), dense(5))))


@twins(*START)
def scores_over_a_tiny_temperature(broken: bool) -> Fields:
    """scores / 0.01, copied from a model that normalises its features."""
    return case(lambda: compiled(Ending(5, (lambda o: o / 0.01) if broken else same)))
