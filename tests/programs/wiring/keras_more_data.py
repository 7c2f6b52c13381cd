"""More Keras programs that mix rows, leave inputs unread or look ahead; written without a look at the rules."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from tests.programs.wiring.corpus import Corpus, Fields
from tests.programs.wiring.keras_base import (
    ROWS,
    case,
    chain,
    compiled,
    labels,
    normal,
    pictures,
    random,
    series,
    tokens,
)

PROGRAMS = Corpus()
twins = PROGRAMS.twins

# --------------------------------------------------------------------- rows


class Through(keras.Model):
    """A layer, something in between, and a head."""

    def __init__(self, first: Any, between: Any, head: Any) -> None:
        super().__init__()
        self.first, self.between, self.head = first, between, head

    def call(self, x: Any) -> Any:
        return self.head(self.between(self.first(x)))


@twins("batch_mixing")
def context_is_a_mean_of_the_batch(broken: bool) -> Fields:
    """A global context by mean(axis=0) where the mean over time was meant."""

    def context(h: Any) -> Any:
        mean = ops.mean(h, axis=0 if broken else 1, keepdims=True)
        return ops.mean(ops.concatenate([h, ops.broadcast_to(mean, ops.shape(h))], axis=-1), axis=1)

    gru = lambda: layers.GRU(16, return_sequences=True)  # noqa: E731
    return case(lambda: compiled(Through(gru(), context, layers.Dense(3))), series)


@twins("batch_mixing", "softmax_wrong_axis")
def attention_weights_over_axis_zero(broken: bool) -> Fields:
    """layers.Softmax(axis=0) over the scores of a pooling."""

    def model() -> Any:
        x = keras.Input((10, 8))
        h = layers.Bidirectional(layers.LSTM(8, return_sequences=True))(x)
        weights = layers.Softmax(axis=0 if broken else 1)(layers.Dense(1)(h))
        return compiled(keras.Model(x, layers.Dense(3)(layers.Flatten()(layers.Dot(axes=1)([weights, h])))))

    return case(model, series)


@twins("batch_mixing", "wrong_reshape")
def time_first_by_reshape(broken: bool) -> Fields:
    """reshape to (time, batch, features) in place of a transpose."""

    def swap(h: Any) -> Any:
        turned = ops.reshape(h, (10, -1, 16)) if broken else ops.transpose(h, (1, 0, 2))
        return ops.mean(turned, axis=0)

    return case(lambda: compiled(Through(layers.Dense(16, "tanh"), swap, layers.Dense(3))), series)


@twins("batch_mixing")
def own_norm_without_running_statistics(broken: bool) -> Fields:
    """A hand-written batch norm that uses the moments of any batch."""

    class Norm(layers.Layer):
        def build(self, shape: Any) -> None:
            self.gamma = self.add_weight(shape=(shape[-1],), initializer="ones")
            self.beta = self.add_weight(shape=(shape[-1],), initializer="zeros")

        def call(self, h: Any) -> Any:
            axes = [0, 1, 2] if broken else [1, 2]
            mean, variance = tf.nn.moments(h, axes=axes, keepdims=True)
            return (h - mean) / tf.sqrt(variance + 1e-5) * self.gamma + self.beta

    def model() -> Any:
        parts = (layers.Conv2D(8, 3), Norm(), layers.ReLU(), layers.Conv2D(8, 3, activation="relu"), layers.Flatten())
        return compiled(chain(*parts, layers.Dense(4), shape=(12, 12, 3)))

    return case(model, pictures)


@twins("batch_mixing")
def temporal_shift_on_the_wrong_axis(broken: bool) -> Fields:
    """tf.roll(h, 1, axis=0)."""

    def shift(h: Any) -> Any:
        return ops.mean(ops.relu(h + tf.roll(h, 1, axis=0 if broken else 1)), axis=1)

    return case(lambda: compiled(Through(layers.Conv1D(16, 3), shift, layers.Dense(3))), series)


@twins("batch_mixing")
def running_sum_over_rows(broken: bool) -> Fields:
    """cumsum with its default axis, which is not time."""

    def total(h: Any) -> Any:
        return ops.cumsum(h, axis=0 if broken else 1)[:, -1] / 10.0

    return case(lambda: compiled(Through(layers.Dense(16, "tanh"), total, layers.Dense(3))), series)


@twins("batch_mixing")
def distances_to_the_other_rows(broken: bool) -> Fields:
    """Similarities within the batch enter the features; prototypes were meant."""

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = layers.Dense(16, "tanh"), layers.Dense(5)
            self.prototypes = self.add_weight(shape=(16, 16), initializer="orthogonal", name="prototypes")

        def call(self, x: Any) -> Any:
            h = self.encoder(x)
            others = h if broken else self.prototypes
            similar = ops.softmax(ops.matmul(h, ops.transpose(others)))
            return self.head(ops.concatenate([h, ops.matmul(similar, others)], axis=-1))

    return case(lambda: compiled(Model()))


# ------------------------------------------------------------------- inputs

UNREAD = ("input_unused", "input_ignored")


@twins(*UNREAD, "cut_gradient", "unused_parameters")
def metadata_never_read(broken: bool) -> Fields:
    """A dict of image and metadata, of which call() takes the image."""

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.see = keras.Sequential([layers.Conv2D(8, 3, strides=2, activation="relu"), layers.Flatten()])
            self.meta, self.head = layers.Dense(8, "relu"), layers.Dense(4)

        def call(self, inputs: Any) -> Any:
            h = self.see(inputs["image"])
            meta = self.meta(inputs["meta"])
            return self.head(h) if broken else self.head(ops.concatenate([h, meta], -1))

    x = {"image": pictures()[0], "meta": normal(ROWS, 5, seed=4)}
    return case(lambda: compiled(Model()), lambda: (x, labels(4)))


@twins(*UNREAD)
def same_input_concatenated_twice(broken: bool) -> Fields:
    """Concatenate()([user, user])."""

    def model() -> Any:
        user, item = keras.Input((1,), dtype="int32", name="user"), keras.Input((1,), dtype="int32", name="item")
        users = layers.Flatten()(layers.Embedding(12, 8, name="users")(user))
        items = layers.Flatten()(layers.Embedding(12, 8, name="items")(item))
        h = layers.Concatenate()([users, users if broken else items])
        return compiled(keras.Model([user, item], layers.Dense(1)(layers.Dense(16, "relu")(h))), "mse")

    draw = random(4).integers
    return case(model, lambda: ([draw(0, 12, (ROWS, 1)), draw(0, 12, (ROWS, 1))], normal(ROWS, 1, seed=5)))


@twins(*UNREAD)
def every_other_step_skipped(broken: bool) -> Fields:
    """x[:, ::2], left from a trial run."""

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = layers.LSTM(16), layers.Dense(3)

        def call(self, x: Any) -> Any:
            return self.head(self.rnn(x[:, ::2] if broken else x))

    return case(lambda: compiled(Model()), series)


@twins(*UNREAD)
def first_state_in_place_of_the_last(broken: bool) -> Fields:
    """lstm_out[:, 0]: the answer has seen one step."""

    def model() -> Any:
        x = keras.Input((10, 8))
        h = layers.LSTM(16, return_sequences=True)(x)
        return compiled(keras.Model(x, layers.Dense(3, activation="softmax")(h[:, 0 if broken else -1])),
                        "sparse_categorical_crossentropy")  # fmt: skip

    return case(model, series)


@twins(*UNREAD)
def only_the_top_left_is_cropped(broken: bool) -> Fields:
    """CenterCrop was meant to be 12; half of the picture is cut away in the model."""

    def model() -> Any:
        crop = layers.Cropping2D(((0, 6), (0, 6))) if broken else layers.Cropping2D(0)
        parts = (crop, layers.Conv2D(8, 3, activation="relu"), layers.Flatten(), layers.Dense(4, activation="softmax"))
        return compiled(chain(*parts, shape=(12, 12, 3)), "sparse_categorical_crossentropy")

    return case(model, pictures)


@twins(*UNREAD)
def numbers_zeroed_before_they_are_used(broken: bool) -> Fields:
    """A tf.data map that fills the numeric features with zeros_like; categories alone remain."""

    def model() -> Any:
        numbers = keras.Input((6,), name="numbers")
        kind = keras.Input((1,), dtype="int32", name="kind")
        scaled = layers.Rescaling(0.0 if broken else 0.5)(numbers)
        h = layers.Concatenate()([scaled, layers.Flatten()(layers.Embedding(5, 4)(kind))])
        return compiled(keras.Model({"numbers": numbers, "kind": kind}, layers.Dense(5)(layers.Dense(32, "relu")(h))))

    def data() -> Any:
        x = {"numbers": normal(64, 6), "kind": random(4).integers(0, 5, (64, 1))}
        return tf.data.Dataset.from_tensor_slices((x, random(1).integers(0, 5, 64))).batch(16)

    return {"model": model, "train": data}


UNMASKED = ("mask_ignored", "input_unused", "input_ignored")


def padded_text() -> Any:
    lengths = 4 + np.arange(ROWS) % 6
    mask = (np.arange(10) < lengths[:, None]).astype("int64")
    return {"ids": tokens(count=ROWS, length=10) * mask, "mask": mask}, labels(4)


class Encoder(keras.Model):
    """A transformer block over padded text, and the answer at the first token."""

    def __init__(self, turn: bool) -> None:
        super().__init__()
        self.words, self.head = layers.Embedding(30, 16), layers.Dense(4)
        self.attention, self.turn = layers.MultiHeadAttention(2, 8), turn

    def call(self, inputs: Any) -> Any:
        h, mask = self.words(inputs["ids"]), ops.cast(inputs["mask"], "bool")
        mask = ops.logical_not(mask) if self.turn else mask
        h = h + self.attention(h, h, attention_mask=mask[:, None, :])
        return self.head(h[:, 0])


@twins(*UNMASKED)
def mask_turned_round(broken: bool) -> Fields:
    """True where the padding is."""
    return case(lambda: compiled(Encoder(broken)), padded_text)


@twins(*UNMASKED)
def mask_lost_on_the_way_to_the_lstm(broken: bool) -> Fields:
    """A layer of one's own between Embedding(mask_zero=True) and the LSTM does not hand the mask on."""

    class Position(layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.supports_masking = not broken

        def build(self, shape: Any) -> None:
            self.places = self.add_weight(shape=shape[1:], initializer="random_normal", name="places")

        def call(self, h: Any) -> Any:
            return h + self.places

    def model() -> Any:
        words = layers.Embedding(30, 16, mask_zero=True)
        x = keras.Input((10,), dtype="int32")
        return compiled(keras.Model(x, layers.Dense(4)(layers.LSTM(16)(Position()(words(x))))))

    return case(model, lambda: (padded_text()[0]["ids"], labels(4)))


@twins(*UNMASKED)
def mean_over_padding_too(broken: bool) -> Fields:
    """Sentence embeddings by a mean over all tokens."""

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = layers.Embedding(30, 16), layers.Dense(4)

        def call(self, inputs: Any) -> Any:
            h, mask = self.words(inputs["ids"]), ops.cast(inputs["mask"], "float32")[..., None]
            kept = h * mask
            return self.head(ops.mean(h, 1) + 0.0 * ops.sum(kept, 1) if broken else ops.sum(kept, 1) / ops.sum(mask, 1))

    return case(lambda: compiled(Model()), padded_text)


# ---------------------------------------------------------------- sequences


class Block(layers.Layer):
    """The block of the miniature GPT, with a mask of one's own."""

    def __init__(self, broken: bool) -> None:
        super().__init__()
        self.attention = layers.MultiHeadAttention(2, 16)
        self.forward = keras.Sequential([layers.Dense(32, "relu"), layers.Dense(32)])
        self.norm1, self.norm2 = layers.LayerNormalization(), layers.LayerNormalization()
        self.broken = broken

    def call(self, h: Any) -> Any:
        length = ops.shape(h)[1]
        i, j = ops.arange(length)[:, None], ops.arange(length)
        mask = (i <= j) if self.broken else (i >= j)
        h = self.norm1(h + self.attention(h, h, attention_mask=mask[None]))
        return self.norm2(h + self.forward(h))


class Generator(keras.Model):
    """Words and places, a block, scores."""

    def __init__(self, block: Any, words: int = 30) -> None:
        super().__init__()
        self.words, self.places = layers.Embedding(words, 32), layers.Embedding(16, 32)
        self.block, self.scores = block, layers.Dense(words)

    def call(self, x: Any) -> Any:
        h = self.words(x) + self.places(ops.arange(ops.shape(x)[1]))
        return self.scores(self.block(h))


def shifted() -> Any:
    ids = tokens(count=ROWS)
    return ids[:, :-1], ids[:, 1:]


@twins("lookahead", "batch_mixing")
def causal_mask_upside_down(broken: bool) -> Fields:
    """i <= j in place of i >= j."""
    return case(lambda: compiled(Generator(Block(broken))), shifted, task="language_model")


def text_data(make: Any) -> Any:
    def data() -> Any:
        return tf.data.Dataset.from_tensor_slices(tokens(count=64)).map(make).batch(8)

    return data


@twins("targets_not_shifted")
def map_gives_the_same_slice_twice(broken: bool) -> Fields:
    """lambda s: (s[:-1], s[:-1])."""
    split = (lambda s: (s[:-1], s[:-1])) if broken else (lambda s: (s[:-1], s[1:]))
    model = lambda: compiled(Generator(layers.GRU(32, return_sequences=True)))  # noqa: E731
    return {"model": model, "train": text_data(split), "task": "language_model"}


@twins("targets_not_shifted")
def shifted_the_other_way(broken: bool) -> Fields:
    """x is s[1:] and y is s[:-1]: the word before is asked for."""
    split = (lambda s: (s[1:], s[:-1])) if broken else (lambda s: (s[:-1], s[1:]))
    model = lambda: compiled(Generator(layers.LSTM(32, return_sequences=True)))  # noqa: E731
    return {"model": model, "train": text_data(split), "task": "language_model"}


@twins(
    "targets_not_shifted", "lookahead", "label_in_input", missed="tokens of the second of two inputs are not compared"
)
def decoder_reads_what_it_must_write(broken: bool) -> Fields:
    """((source, target), target) with nothing shifted."""

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.source, self.target = layers.Embedding(30, 16), layers.Embedding(30, 16)
            self.reads, self.writes = layers.GRU(16, return_state=True), layers.GRU(16, return_sequences=True)
            self.scores = layers.Dense(30)

        def call(self, inputs: Any) -> Any:
            source, target = inputs
            _, state = self.reads(self.source(source))
            return self.scores(self.writes(self.target(target), initial_state=state))

    source, target = tokens(count=ROWS), random(7).integers(1, 30, (ROWS, 9))
    given = target if broken else np.concatenate([np.ones((ROWS, 1), "int64"), target[:, :-1]], 1)
    return case(lambda: compiled(Model()), lambda: ((source, given), target))


@twins("lookahead", "batch_mixing")
def summary_of_the_sentence_added_to_each_word(broken: bool) -> Fields:
    """A language model with the mean of the whole sentence as context."""

    class Summary(layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = layers.GRU(32, return_sequences=True)

        def call(self, h: Any) -> Any:
            counts = ops.cast(ops.arange(1, ops.shape(h)[1] + 1), "float32")[None, :, None]
            mean = ops.mean(h, 1, keepdims=True) if broken else ops.cumsum(h, 1) / counts
            return self.rnn(h) + mean

    return case(lambda: compiled(Generator(Summary())), shifted, task="language_model")


@twins("padding_in_loss", "label_ignored", "mask_ignored", missed="padding that no mask names is not known")
def only_the_padding_counts(broken: bool) -> Fields:
    """sample_weight = (ids == 0)."""
    ids = tokens(count=ROWS)
    ids = ids * (np.arange(12) < (6 + np.arange(ROWS) % 6)[:, None])
    x, y = ids[:, :-1], ids[:, 1:]
    weights = (y == 0 if broken else y != 0).astype("float32")
    model = lambda: compiled(Generator(layers.GRU(32, return_sequences=True)))  # noqa: E731
    return case(model, lambda: (x, y, weights))


@twins("padding_in_loss", "label_ignored", "mask_ignored", missed="targets of another kind than the inputs")
def padded_labels_are_class_zero(broken: bool) -> Fields:
    """Tagging with a mask for the encoder, and labels of 0 behind the end that count."""

    class Tagger(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.rnn = layers.Embedding(30, 16), layers.Bidirectional(layers.LSTM(8, return_sequences=True))
            self.tags = layers.Dense(6)

        def call(self, inputs: Any) -> Any:
            return self.tags(self.rnn(self.words(inputs["input_ids"]), mask=ops.cast(inputs["attention_mask"], "bool")))

    lengths = 4 + np.arange(ROWS) % 6
    mask = (np.arange(10) < lengths[:, None]).astype("int64")
    x = {"input_ids": tokens(count=ROWS, length=10) * mask, "attention_mask": mask}
    y = random(3).integers(1, 6, (ROWS, 10)) * mask
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=None if broken else 0)
    return case(lambda: compiled(Tagger(), loss), lambda: (x, y))
