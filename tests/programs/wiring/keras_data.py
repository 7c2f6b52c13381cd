"""Keras programs that mix rows, leave inputs unread, or look ahead in a sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from tests.programs.wiring.corpus import Corpus, Fields
from tests.programs.wiring.keras_base import (
    ROWS,
    Apply,
    case,
    chain,
    compiled,
    labels,
    normal,
    pictures,
    random,
    rows,
    series,
    tokens,
)

PROGRAMS = Corpus()
twins = PROGRAMS.twins

MIXED = ("batch_mixing", "wrong_reshape", "softmax_wrong_axis", "batchnorm_eval_mismatch")


def between(function: Callable[[Any], Any], **fields: Any) -> Fields:
    """A classifier with this function in its middle."""
    return case(lambda: compiled(chain(layers.Dense(32, "relu"), Apply(function), layers.Dense(5))), **fields)


class Attending(keras.Model):
    """Attention over what stands on axis 1, if `turn` does not turn it round."""

    def __init__(self, turn: bool) -> None:
        super().__init__()
        self.attention, self.head, self.turn = layers.MultiHeadAttention(2, 4), layers.Dense(3), turn

    def call(self, x: Any) -> Any:
        h = ops.transpose(x, (1, 0, 2)) if self.turn else x
        h = self.attention(h, h)
        h = ops.transpose(h, (1, 0, 2)) if self.turn else h
        return self.head(ops.mean(h, 1))


@twins(*MIXED)
def attention_over_the_batch(broken: bool) -> Fields:
    """[T, N, F], as other libraries have it."""
    return case(lambda: compiled(Attending(broken)), series)


@twins(*MIXED)
def centred_over_the_batch(broken: bool) -> Fields:
    """A mean over axis 0."""
    return between(lambda h: h - ops.mean(h, axis=0 if broken else 1, keepdims=True))


@twins(*MIXED)
def gates_over_rows(broken: bool) -> Fields:
    """A softmax over axis 0."""
    return between(lambda h: 16 * h * ops.softmax(h, axis=0 if broken else 1))


@twins(*MIXED)
def neighbour_rows(broken: bool) -> Fields:
    """Rolled along the rows."""
    return between(lambda h: h + 0.5 * ops.roll(h, 1, axis=0 if broken else 1))


@twins(*MIXED)
def batch_norm_always_training(broken: bool) -> Fields:
    """call() gives its BatchNormalization training=True."""

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm, self.head = layers.Dense(32), layers.BatchNormalization(), layers.Dense(5)

        def call(self, x: Any, training: bool = False) -> Any:
            return self.head(ops.relu(self.norm(self.a(x), training=broken or training)))

    return case(lambda: compiled(Model()))


@twins(*MIXED)
def frames_reshaped_into_rows(broken: bool) -> Fields:
    """A reshape to [T, N, F], and back after a recurrence."""

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = layers.GRU(16, return_sequences=True), layers.Dense(3)

        def call(self, x: Any) -> Any:
            if broken:
                x = ops.reshape(ops.transpose(x, (1, 0, 2)), (-1, *x.shape[1:]))
            return self.head(self.rnn(x)[:, -1])

    return case(lambda: compiled(Model()), series)


@twins(*MIXED)
def unit_length_over_rows(broken: bool) -> Fields:
    """UnitNormalization(axis=0)."""
    axis = 0 if broken else -1
    norm = lambda: layers.UnitNormalization(axis=axis)  # noqa: E731
    return case(lambda: compiled(chain(layers.Dense(32, "relu"), norm(), layers.Dense(32, "relu"), layers.Dense(5))))


# ------------------------------------------------------------------- inputs

UNREAD = ("input_unused", "input_ignored")


@twins(*UNREAD)
def first_half_read_twice(broken: bool) -> Fields:
    """Both towers read the same features."""

    def model() -> Any:
        x = keras.Input((20,))
        a = layers.Dense(16, "relu")(x[:, :10])
        b = layers.Dense(16, "relu")(x[:, :10] if broken else x[:, 10:])
        return compiled(keras.Model(x, layers.Dense(5)(layers.Concatenate()([a, b]))))

    return case(model)


@twins(*UNREAD)
def last_steps_cropped(broken: bool) -> Fields:
    """Cropping1D left from another dataset."""
    crop = (0, 3) if broken else (0, 0)
    return case(
        lambda: compiled(chain(layers.Cropping1D(crop), layers.GRU(16), layers.Dense(3), shape=(10, 8))), series
    )


def two_inputs(broken: bool) -> Any:
    a, b = keras.Input((12,), name="image"), keras.Input((8,), name="meta")
    h = layers.Dense(16, "relu")(a), layers.Dense(16, "relu")(0.0 * b if broken else b)
    return compiled(keras.Model({"image": a, "meta": b}, layers.Dense(5)(layers.Concatenate()(list(h)))))


@twins(*UNREAD)
def second_input_times_zero(broken: bool) -> Fields:
    """One of two named inputs moves nothing."""
    x, y = rows()
    return case(lambda: two_inputs(broken), lambda: ({"image": x[:, :12], "meta": x[:, 12:]}, y))


@twins(*UNREAD)
def second_of_a_list_ignored(broken: bool) -> Fields:
    """call([a, b]) reads a twice."""

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = layers.Dense(16, "relu"), layers.Dense(16, "relu"), layers.Dense(5)

        def call(self, inputs: Any) -> Any:
            a, b = inputs
            return self.head(ops.concatenate([self.a(a), self.b(a if broken else b)], -1))

    x, y = rows()
    return case(lambda: compiled(Model()), lambda: ([x[:, :10], x[:, 10:]], y))


@twins(*UNREAD)
def channel_dropped(broken: bool) -> Fields:
    """Two of three channels."""
    cut = Apply(lambda x: x[..., :2] if broken else x, (12, 12, 2 if broken else 3))
    parts = lambda: (Apply(cut.function, cut.shape), layers.Conv2D(8, 3, activation="relu"))  # noqa: E731
    return case(
        lambda: compiled(chain(*parts(), layers.GlobalAveragePooling2D(), layers.Dense(4), shape=(12, 12, 3))),
        pictures,
    )


@twins(*UNREAD)
def category_read_twice(broken: bool) -> Fields:
    """Two columns of categories, two embeddings of the first."""

    def model() -> Any:
        x = keras.Input((2,), dtype="int32")
        a = layers.Embedding(7, 8)(x[:, 0])
        b = layers.Embedding(7, 8)(x[:, 0 if broken else 1])
        return compiled(keras.Model(x, layers.Dense(5)(layers.Concatenate()([a, b]))))

    return case(model, lambda: (random(4).integers(0, 7, (ROWS, 2)), labels()))


UNMASKED = ("mask_ignored", "input_unused", "input_ignored")


def padded() -> Any:
    mask = (np.arange(10) < (3 + np.arange(ROWS) % 7)[:, None]).astype("int64")
    return tokens(count=ROWS, length=10) * mask, mask


@twins(*UNMASKED)
def padding_averaged_in(broken: bool) -> Fields:
    """A mean by hand, which drops the mask of mask_zero; GlobalAveragePooling1D heeds it."""
    mean = (lambda: Apply(lambda h: ops.mean(h, 1), (16,))) if broken else layers.GlobalAveragePooling1D

    def model() -> Any:
        words = layers.Embedding(30, 16, mask_zero=True)
        x = keras.Input((10,), dtype="int32")
        return compiled(keras.Model(x, layers.Dense(4)(layers.Dense(16, "relu")(mean()(words(x))))))

    return case(model, lambda: (padded()[0], labels(4)))


class Masked(keras.Model):
    def __init__(self, attend: bool, average: bool) -> None:
        super().__init__()
        self.words, self.attention, self.head = (
            layers.Embedding(30, 16),
            layers.MultiHeadAttention(2, 8),
            layers.Dense(4),
        )
        self.attend, self.average = attend, average

    def call(self, x: Any) -> Any:
        h, mask = self.words(x["input_ids"]), ops.cast(x["attention_mask"], "bool")
        h = h + self.attention(h, h, attention_mask=mask[:, None] if self.attend else None)
        weights = ops.cast(mask, "float32")[..., None] if self.average else ops.ones_like(h[..., :1])
        return self.head(ops.sum(h * weights, 1) / ops.sum(weights, 1))


def masked(attend: bool, average: bool) -> Fields:
    ids, mask = padded()
    x = {"input_ids": ids, "attention_mask": mask}
    return case(lambda: compiled(Masked(attend, average)), lambda: (x, labels(4)))


@twins(*UNMASKED)
def mask_never_used(broken: bool) -> Fields:
    """The dict has a mask, and call() does not read it."""
    return masked(not broken, not broken)


@twins(*UNMASKED)
def padding_attended_to(broken: bool) -> Fields:
    """Only the mean is masked."""
    return masked(not broken, True)


# ---------------------------------------------------------------- sequences


def language(causal: bool = True, words: int = 30, length: int = 12) -> Any:
    x = keras.Input((None,), dtype="int32", name="input_ids")
    h = layers.Embedding(words, 32)(x)
    norm = layers.LayerNormalization()(h)
    h = h + layers.MultiHeadAttention(2, 16)(norm, norm, use_causal_mask=causal)
    h = h + layers.Dense(32)(layers.Dense(64, "gelu")(layers.LayerNormalization()(h)))
    return compiled(keras.Model(x, layers.Dense(words)(h)))


def next_tokens(ahead: int = 1) -> Any:
    ids = tokens()
    return (ids[:, :-ahead], ids[:, ahead:]) if ahead else (ids, ids)


def reader(*parts: Any) -> Any:
    return compiled(keras.Sequential([layers.Embedding(30, 16), *parts, layers.Dense(30)]))


@twins("lookahead", "batch_mixing")
def causal_mask_lost(broken: bool) -> Fields:
    """use_causal_mask=False."""
    return case(lambda: language(not broken), next_tokens, task="language_model")


@twins("lookahead", "batch_mixing")
def bidirectional_recurrence(broken: bool) -> Fields:
    """A next-token model in both directions."""

    def model() -> Any:
        rnn = layers.GRU(16, return_sequences=True)
        return reader(layers.Bidirectional(rnn) if broken else rnn)

    return case(model, next_tokens)


@twins("lookahead", "batch_mixing")
def convolution_sees_both_sides(broken: bool) -> Fields:
    """padding="same" where "causal" was meant."""
    padding = "same" if broken else "causal"
    return case(lambda: reader(layers.Conv1D(32, 3, padding=padding, activation="relu")), next_tokens)


@twins("targets_not_shifted")
def targets_are_the_inputs(broken: bool) -> Fields:
    """Nothing shifts them."""
    return case(language, lambda: next_tokens(0 if broken else 1))


@twins("targets_not_shifted")
def targets_two_ahead(broken: bool) -> Fields:
    """Shifted by the dataset and by its map."""
    return case(lambda: reader(layers.LSTM(16, return_sequences=True)), lambda: next_tokens(2 if broken else 1))


@twins("padding_in_loss", "mask_ignored", "label_ignored", missed="targets that padding reaches are not seen")
def padding_among_the_targets(broken: bool) -> Fields:
    """Padded targets of 0 count; the healthy one weighs them by the mask."""

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.rnn = layers.Embedding(30, 16), layers.GRU(16, return_sequences=True)
            self.head = layers.Dense(30)

        def call(self, x: Any) -> Any:
            mask = ops.cast(x["attention_mask"], "bool")
            return self.head(self.rnn(self.words(x["input_ids"]), mask=mask))

    ids = tokens(count=ROWS)
    mask = (np.arange(12) < (6 + np.arange(ROWS) % 6)[:, None]).astype("int64")
    x = {"input_ids": (ids * mask)[:, :-1], "attention_mask": mask[:, :-1]}
    y = (ids * mask)[:, 1:]
    batch = (x, y) if broken else (x, y, mask[:, 1:].astype("float32"))
    return case(lambda: compiled(Model()), lambda: batch)


@PROGRAMS.healthy()
def causal_language_model() -> Fields:
    return case(language, next_tokens)


@PROGRAMS.healthy()
def tagging_in_both_directions() -> Fields:
    def model() -> Any:
        rnn = layers.Bidirectional(layers.GRU(16, return_sequences=True))
        return compiled(keras.Sequential([layers.Embedding(30, 16), rnn, layers.Dense(5)]))

    return case(model, lambda: (tokens(), tokens() % 5))


@PROGRAMS.healthy()
def recurrence_over_masked_padding() -> Fields:
    def model() -> Any:
        words = layers.Embedding(30, 16, mask_zero=True)
        return compiled(keras.Sequential([words, layers.LSTM(16), layers.Dense(4)]))

    return case(model, lambda: (padded()[0], labels(4)))


@PROGRAMS.healthy()
def recurrence_over_padding() -> Fields:
    """mask_zero forgotten, as in every first tutorial."""

    def model() -> Any:
        return compiled(keras.Sequential([layers.Embedding(30, 16), layers.LSTM(16), layers.Dense(4)]))

    return case(model, lambda: (padded()[0], labels(4)))


@PROGRAMS.healthy()
def strides_that_leave_a_border() -> Fields:
    parts = lambda: (layers.Conv2D(16, 5, strides=5, activation="relu"), layers.Flatten(), layers.Dense(4))  # noqa: E731
    return case(lambda: compiled(chain(*parts(), shape=(12, 12, 3))), pictures)


@PROGRAMS.healthy()
def valid_windows_and_maxima() -> Fields:
    parts = lambda: (  # noqa: E731
        layers.Conv2D(8, 3, activation="relu"), layers.MaxPooling2D(4), layers.Conv2D(8, 2), layers.GlobalMaxPooling2D()
    )  # fmt: skip
    return case(lambda: compiled(chain(*parts(), layers.Dense(4), shape=(12, 12, 3))), pictures)


@PROGRAMS.healthy()
def constant_columns() -> Fields:
    x, y = rows()
    x = np.concatenate([x, np.ones((ROWS, 12), "float32"), np.zeros((ROWS, 12), "float32")], 1)
    return case(lambda: compiled(chain(layers.Dense(32, "relu"), layers.Dense(5), shape=(44,))), lambda: (x, y))


@PROGRAMS.healthy()
def functional_batch_norm_training() -> Fields:
    """training=True in a functional model: evaluation overrides it."""

    def model() -> Any:
        x = keras.Input((20,))
        h = layers.BatchNormalization(momentum=0.9)(layers.Dense(32)(x), training=True)
        return compiled(keras.Model(x, layers.Dense(5)(layers.ReLU()(h))))

    return case(model)


@PROGRAMS.healthy()
def contrast_within_the_batch() -> Fields:
    """A table of all pairs of rows."""

    class Pairs(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = layers.Dense(16), layers.Dense(16)

        def call(self, inputs: Any) -> Any:
            a, b = (ops.normalize(f(x)) for f, x in zip((self.left, self.right), inputs, strict=True))
            return ops.matmul(a, ops.transpose(b)) / 0.1

    x = normal(ROWS, 20)
    return case(lambda: compiled(Pairs()), lambda: ([x[:, :12], x[:, 12:]], np.arange(ROWS)))
