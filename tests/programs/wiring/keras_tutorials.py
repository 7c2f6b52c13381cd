"""Healthy Keras programs in the manner of public tutorials: pictures, text, series, tables, graphs."""

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
    from_logits,
    labels,
    normal,
    pictures,
    random,
    rows,
    series,
    tokens,
    values,
    yes_no,
)

PROGRAMS = Corpus()
healthy = PROGRAMS.healthy()


def digits(size: int = 14, classes: int = 10) -> Any:
    x = random(3).uniform(0, 1, (ROWS, size, size, 1)).astype("float32")
    return x, random(1).permutation(np.arange(ROWS) % classes)


def patches(x: Any, size: int = 4, units: int = 32) -> Any:
    h = layers.Conv2D(units, size, strides=size)(x)
    return layers.Reshape((-1, units))(h)


# ----------------------------------------------------------------- pictures


@healthy
def mnist_convnet() -> Fields:
    """Two convolutions, dropout, one-hot labels under categorical_crossentropy."""
    x, y = digits()

    def model() -> Any:
        parts = (layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(2),
                 layers.Conv2D(64, 3, activation="relu"), layers.MaxPooling2D(2), layers.Flatten(),
                 layers.Dropout(0.5), layers.Dense(10, activation="softmax"))  # fmt: skip
        return compiled(chain(*parts, shape=(14, 14, 1)), "categorical_crossentropy", "adam", metrics=["accuracy"])

    return case(model, lambda: (x, keras.utils.to_categorical(y, 10)))


@healthy
def image_classification_from_scratch() -> Fields:
    """A small Xception: rescaling, separable blocks, residual projections, one sigmoid or logits."""

    def model() -> Any:
        inputs = keras.Input((24, 24, 3))
        h = layers.Rescaling(1.0 / 255)(inputs)
        h = layers.Activation("relu")(layers.BatchNormalization()(layers.Conv2D(16, 3, strides=2, padding="same")(h)))
        previous = h
        for size in (24, 32):
            h = layers.Activation("relu")(h)
            h = layers.BatchNormalization()(layers.SeparableConv2D(size, 3, padding="same")(h))
            h = layers.Activation("relu")(h)
            h = layers.BatchNormalization()(layers.SeparableConv2D(size, 3, padding="same")(h))
            h = layers.MaxPooling2D(3, strides=2, padding="same")(h)
            h = layers.add([h, layers.Conv2D(size, 1, strides=2, padding="same")(previous)])
            previous = h
        h = layers.Dropout(0.25)(layers.GlobalAveragePooling2D()(h))
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        return compiled(keras.Model(inputs, layers.Dense(1)(h)), loss, keras.optimizers.Adam(3e-4))

    x = random(3).integers(0, 256, (ROWS, 24, 24, 3)).astype("float32")
    return case(model, lambda: (x, labels(2).astype("float32")))


@healthy
def vision_transformer() -> Fields:
    def model() -> Any:
        inputs = keras.Input((16, 16, 3))
        h = patches(layers.RandomFlip("horizontal")(inputs))
        h = h + layers.Embedding(16, 32)(ops.arange(16))
        for _ in range(2):
            n = layers.LayerNormalization(epsilon=1e-6)(h)
            h = layers.Add()([layers.MultiHeadAttention(4, 32, dropout=0.1)(n, n), h])
            n = layers.LayerNormalization(epsilon=1e-6)(h)
            n = layers.Dropout(0.1)(layers.Dense(64, activation=keras.activations.gelu)(n))
            h = layers.Add()([layers.Dense(32)(n), h])
        h = layers.Dropout(0.5)(layers.Flatten()(layers.LayerNormalization(epsilon=1e-6)(h)))
        return compiled(keras.Model(inputs, layers.Dense(5)(h)), optimizer=keras.optimizers.AdamW(1e-3, 1e-4))

    return case(model, lambda: (normal(ROWS, 16, 16, 3), labels(5)))


@healthy
def mlp_mixer() -> Fields:
    class Mixer(layers.Layer):
        def __init__(self, count: int, units: int) -> None:
            super().__init__()
            self.mlp1 = keras.Sequential([layers.Dense(count, "gelu"), layers.Dense(count), layers.Dropout(0.2)])
            self.mlp2 = keras.Sequential([layers.Dense(units, "gelu"), layers.Dense(units), layers.Dropout(0.2)])
            self.norm = layers.LayerNormalization(epsilon=1e-6)

        def build(self, shape: Any) -> None:
            self.built = True

        def call(self, inputs: Any) -> Any:
            turned = ops.transpose(self.norm(inputs), axes=(0, 2, 1))
            h = ops.transpose(self.mlp1(turned), axes=(0, 2, 1)) + inputs
            return h + self.mlp2(self.norm(h))

    def model() -> Any:
        inputs = keras.Input((16, 16, 3))
        h = keras.Sequential([Mixer(16, 32), Mixer(16, 32)])(patches(inputs))
        h = layers.Dropout(0.2)(layers.GlobalAveragePooling1D()(h))
        return compiled(keras.Model(inputs, layers.Dense(5, activation="softmax")(h)),
                        "sparse_categorical_crossentropy")  # fmt: skip

    return case(model, lambda: (normal(ROWS, 16, 16, 3), labels(5)))


@healthy
def conv_mixer() -> Fields:
    def model() -> Any:
        inputs = keras.Input((16, 16, 3))
        h = layers.BatchNormalization()(layers.Activation("gelu")(layers.Conv2D(32, 2, strides=2)(inputs)))
        for _ in range(2):
            mixed = layers.DepthwiseConv2D(3, padding="same")(h)
            h = layers.Add()([layers.BatchNormalization()(layers.Activation("gelu")(mixed)), h])
            h = layers.BatchNormalization()(layers.Activation("gelu")(layers.Conv2D(32, 1)(h)))
        h = layers.GlobalAvgPool2D()(h)
        return compiled(keras.Model(inputs, layers.Dense(5, activation="softmax")(h)),
                        "sparse_categorical_crossentropy")  # fmt: skip

    return case(model, lambda: (normal(ROWS, 16, 16, 3), labels(5)))


@healthy
def external_attention() -> Fields:
    """EANet: double normalisation, first over tokens, then over the memory."""

    def attend(h: Any, units: int = 32, heads: int = 4) -> Any:
        h = layers.Dense(units * 4)(h)
        h = ops.transpose(ops.reshape(h, (-1, 16, heads, units * 4 // heads)), axes=[0, 2, 1, 3])
        scores = layers.Activation("softmax")(layers.Dense(8)(h))
        scores = layers.Lambda(lambda a: a / (1e-9 + ops.convert_to_tensor(ops.sum(a, axis=-1, keepdims=True))))(scores)
        h = layers.Dense(units * 4 // heads)(layers.Dropout(0.1)(scores))
        h = ops.reshape(ops.transpose(h, axes=[0, 2, 1, 3]), [-1, 16, units * 4])
        return layers.Dense(units)(h)

    def model() -> Any:
        inputs = keras.Input((16, 16, 3))
        h = patches(inputs)
        h = layers.add([attend(layers.LayerNormalization()(h)), h])
        h = layers.GlobalAveragePooling1D()(h)
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
        return compiled(keras.Model(inputs, layers.Dense(5, activation="softmax")(h)), loss,
                        keras.optimizers.AdamW(1e-3, 1e-4))  # fmt: skip

    return case(model, lambda: (normal(ROWS, 16, 16, 3), keras.utils.to_categorical(labels(5), 5)))


@healthy
def unet_segmentation() -> Fields:
    """Down, up, skip by a projection; three classes a pixel."""

    def model() -> Any:
        inputs = keras.Input((16, 16, 3))
        h = layers.Activation("relu")(
            layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2, padding="same")(inputs))
        )
        skip = h
        for size in (16, 8):
            h = layers.Activation("relu")(h)
            h = layers.BatchNormalization()(layers.SeparableConv2D(size, 3, padding="same")(h))
            h = layers.MaxPooling2D(3, strides=2, padding="same")(h)
            skip = layers.Conv2D(size, 1, strides=2, padding="same")(skip)
            h = skip = layers.add([h, skip])
        for size in (16, 8, 8):
            h = layers.Activation("relu")(h)
            h = layers.BatchNormalization()(layers.Conv2DTranspose(size, 3, padding="same")(h))
            h = layers.UpSampling2D(2)(h)
            skip = layers.Conv2D(size, 1, padding="same")(layers.UpSampling2D(2)(skip))
            h = skip = layers.add([h, skip])
        outputs = layers.Conv2D(3, 3, activation="softmax", padding="same")(h)
        return compiled(keras.Model(inputs, outputs), "sparse_categorical_crossentropy", keras.optimizers.Adam(1e-3))

    return case(model, lambda: (normal(8, 16, 16, 3), random(3).integers(0, 3, (8, 16, 16))))


@healthy
def super_resolution() -> Fields:
    """ESPCN: the last convolution's channels become pixels."""

    def model() -> Any:
        inputs = keras.Input((None, None, 1))
        arguments = {"activation": "relu", "kernel_initializer": "orthogonal", "padding": "same"}
        h = layers.Conv2D(16, 5, **arguments)(inputs)
        h = layers.Conv2D(16, 3, **arguments)(h)
        h = layers.Conv2D(4, 3, **arguments | {"activation": None})(h)
        outputs = layers.Lambda(lambda t: tf.nn.depth_to_space(t, 2), output_shape=(None, None, 1))(h)
        return compiled(keras.Model(inputs, outputs), keras.losses.MeanSquaredError(), keras.optimizers.Adam(1e-3))

    large = random(3).uniform(0, 1, (8, 16, 16, 1)).astype("float32")
    return case(model, lambda: (large[:, ::2, ::2], large))


@healthy
def denoising_autoencoder() -> Fields:
    """Sigmoid pixels under binary crossentropy, targets between 0 and 1."""
    x, _ = digits(16)

    def model() -> Any:
        parts = (layers.Conv2D(16, 3, activation="relu", padding="same"), layers.MaxPooling2D(2, padding="same"),
                 layers.Conv2D(16, 3, activation="relu", padding="same"),
                 layers.Conv2DTranspose(16, 3, strides=2, activation="relu", padding="same"),
                 layers.Conv2D(1, 3, activation="sigmoid", padding="same"))  # fmt: skip
        return compiled(chain(*parts, shape=(16, 16, 1)), "binary_crossentropy", "adam")

    return case(model, lambda: (np.clip(x + 0.1 * normal(*x.shape), 0, 1), (x > 0.5).astype("float32")))


@healthy
def frozen_base_in_inference_mode() -> Fields:
    """Transfer learning: base.trainable = False, and base(x, training=False)."""

    def model() -> Any:
        base = keras.Sequential(
            [keras.Input((16, 16, 3)), layers.Conv2D(8, 3), layers.BatchNormalization(), layers.ReLU()], name="base"
        )
        base.trainable = False
        inputs = keras.Input((16, 16, 3))
        h = base(layers.Rescaling(1 / 127.5, offset=-1)(layers.RandomRotation(0.1)(inputs)), training=False)
        h = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(h))
        return compiled(keras.Model(inputs, layers.Dense(1)(h)), keras.losses.BinaryCrossentropy(from_logits=True))

    x = random(3).integers(0, 256, (ROWS, 16, 16, 3)).astype("float32")
    return case(model, lambda: (x, labels(2).astype("float32")), frozen=("*conv2d*", "*batch_normalization*"))


@healthy
def volumes_by_three_dimensions() -> Fields:
    def model() -> Any:
        parts = (layers.Conv3D(8, 3, activation="relu"), layers.MaxPool3D(2), layers.BatchNormalization(),
                 layers.Conv3D(8, 3, activation="relu"), layers.GlobalAveragePooling3D(), layers.Dense(16, "relu"),
                 layers.Dropout(0.3), layers.Dense(1, activation="sigmoid"))  # fmt: skip
        schedule = keras.optimizers.schedules.ExponentialDecay(
            1e-3, decay_steps=100000, decay_rate=0.96, staircase=True
        )
        return compiled(chain(*parts, shape=(10, 10, 10, 1)), "binary_crossentropy", keras.optimizers.Adam(schedule))

    return case(model, lambda: (normal(8, 10, 10, 10, 1), np.arange(8) % 2))


@healthy
def next_frames_by_conv_lstm() -> Fields:
    x = (random(3).uniform(0, 1, (8, 5, 10, 10, 1)) > 0.7).astype("float32")

    def model() -> Any:
        inputs = keras.Input((None, 10, 10, 1))
        h = layers.ConvLSTM2D(8, 3, padding="same", return_sequences=True, activation="relu")(inputs)
        h = layers.BatchNormalization()(h)
        h = layers.ConvLSTM2D(8, 3, padding="same", return_sequences=True, activation="relu")(h)
        outputs = layers.Conv3D(1, 3, activation="sigmoid", padding="same")(h)
        return compiled(keras.Model(inputs, outputs), keras.losses.BinaryCrossentropy())

    return case(model, lambda: (x[:, :-1], x[:, 1:]))


@healthy
def captcha_by_ctc() -> Fields:
    """Convolutions, two LSTMs, and keras.losses.CTC."""

    def model() -> Any:
        image = keras.Input((24, 8, 1))
        h = layers.MaxPooling2D(2)(layers.Conv2D(8, 3, activation="relu", padding="same")(image))
        h = layers.Dropout(0.2)(layers.Dense(16, activation="relu")(layers.Reshape((12, 32))(h)))
        h = layers.Bidirectional(layers.LSTM(16, return_sequences=True))(h)
        return compiled(keras.Model(image, layers.Dense(7)(h)), keras.losses.CTC())

    return case(model, lambda: (normal(8, 24, 8, 1), random(3).integers(1, 7, (8, 4))))


@healthy
def keypoints_by_sigmoid() -> Fields:
    """Coordinates within the picture under a squared error."""

    def model() -> Any:
        parts = (layers.Conv2D(8, 3, activation="relu"), layers.SeparableConv2D(8, 3, activation="relu"),
                 layers.Flatten(), layers.Dropout(0.3), layers.Dense(6, activation="sigmoid"))  # fmt: skip
        return compiled(chain(*parts, shape=(12, 12, 3)), "mse", keras.optimizers.Adam(1e-3))

    return case(model, lambda: (pictures()[0], random(3).uniform(0.1, 0.9, (ROWS, 6)).astype("float32")))


@healthy
def boxes_and_classes() -> Fields:
    """A detector's two outputs under Huber and cross-entropy, by list."""

    def model() -> Any:
        image = keras.Input((12, 12, 3))
        h = layers.Flatten()(layers.Conv2D(8, 3, activation="relu")(image))
        box = layers.Dense(4, activation="sigmoid", name="box")(h)
        label = layers.Dense(4, activation="softmax", name="class")(h)
        losses = [keras.losses.Huber(), keras.losses.SparseCategoricalCrossentropy()]
        return compiled(keras.Model(image, [box, label]), losses, loss_weights=[5.0, 1.0])

    y = [random(3).uniform(0, 1, (ROWS, 4)).astype("float32"), labels(4)]
    return case(model, lambda: (pictures()[0], y))


# --------------------------------------------------------------------- text


@healthy
def imdb_by_two_lstms() -> Fields:
    def model() -> Any:
        inputs = keras.Input((None,), dtype="int32")
        h = layers.Embedding(30, 32)(inputs)
        h = layers.Bidirectional(layers.LSTM(16, return_sequences=True))(h)
        h = layers.Bidirectional(layers.LSTM(16))(h)
        return compiled(keras.Model(inputs, layers.Dense(1, activation="sigmoid")(h)), "binary_crossentropy", "adam")

    x = tokens(count=ROWS, length=14) * (np.arange(14) >= (np.arange(ROWS) % 7)[:, None])
    return case(model, lambda: (x, labels(2)))


class TransformerBlock(layers.Layer):
    """That of the text classification examples."""

    def __init__(self, units: int, heads: int, inner: int, rate: float = 0.1, causal: bool = False) -> None:
        super().__init__()
        self.att, self.causal = layers.MultiHeadAttention(heads, units), causal
        self.ffn = keras.Sequential([layers.Dense(inner, activation="relu"), layers.Dense(units)])
        self.norm1, self.norm2 = layers.LayerNormalization(epsilon=1e-6), layers.LayerNormalization(epsilon=1e-6)
        self.drop1, self.drop2 = layers.Dropout(rate), layers.Dropout(rate)

    def call(self, inputs: Any) -> Any:
        h = self.norm1(inputs + self.drop1(self.att(inputs, inputs, use_causal_mask=self.causal)))
        return self.norm2(h + self.drop2(self.ffn(h)))


class Places(layers.Layer):
    """Token and position embedding."""

    def __init__(self, length: int, words: int, units: int) -> None:
        super().__init__()
        self.words, self.places = layers.Embedding(words, units), layers.Embedding(length, units)

    def call(self, x: Any) -> Any:
        return self.words(x) + self.places(ops.arange(0, ops.shape(x)[-1]))


@healthy
def text_by_a_transformer() -> Fields:
    """Padded words without any mask, as the example has it."""

    def model() -> Any:
        inputs = keras.Input((12,))
        h = TransformerBlock(32, 2, 32)(Places(12, 30, 32)(inputs))
        h = layers.Dropout(0.1)(layers.GlobalAveragePooling1D()(h))
        h = layers.Dropout(0.1)(layers.Dense(20, activation="relu")(h))
        return compiled(keras.Model(inputs, layers.Dense(2, activation="softmax")(h)),
                        "sparse_categorical_crossentropy", "adam")  # fmt: skip

    x = tokens(count=ROWS) * (np.arange(12) >= (np.arange(ROWS) % 7)[:, None])
    return case(model, lambda: (x, labels(2)))


@healthy
def miniature_gpt() -> Fields:
    """Two outputs, [logits, hidden], of which compile(loss=[loss, None]) uses one."""

    def model() -> Any:
        inputs = keras.Input((11,), dtype="int32")
        h = TransformerBlock(32, 2, 32, causal=True)(Places(11, 30, 32)(inputs))
        return compiled(keras.Model(inputs, [layers.Dense(30)(h), h]), [from_logits(), None], "adam")

    ids = tokens(count=ROWS)
    return case(model, lambda: (ids[:, :-1], ids[:, 1:]))


@healthy
def characters_sequence_to_sequence() -> Fields:
    """Encoder and decoder LSTM over one-hot characters, the decoder's input shifted."""

    def model() -> Any:
        source = keras.Input((None, 12))
        _, h, c = layers.LSTM(24, return_state=True)(source)
        target = keras.Input((None, 14))
        out, _, _ = layers.LSTM(24, return_sequences=True, return_state=True)(target, initial_state=[h, c])
        scores = layers.Dense(14, activation="softmax")(out)
        return compiled(keras.Model([source, target], scores), "categorical_crossentropy", "rmsprop")

    draw = random(4).integers
    hot = keras.utils.to_categorical
    target = hot(draw(0, 14, (ROWS, 9)), 14)
    return case(model, lambda: ([hot(draw(0, 12, (ROWS, 8)), 12), target[:, :-1]], target[:, 1:]))


@healthy
def addition_by_recurrence() -> Fields:
    """RepeatVector between two LSTMs."""

    def model() -> Any:
        parts = (layers.LSTM(32), layers.RepeatVector(4), layers.LSTM(32, return_sequences=True),
                 layers.Dense(12, activation="softmax"))  # fmt: skip
        return compiled(chain(*parts, shape=(7, 12)), "categorical_crossentropy", "adam")

    hot = keras.utils.to_categorical
    draw = random(4).integers
    return case(model, lambda: (hot(draw(0, 12, (ROWS, 7)), 12), hot(draw(0, 12, (ROWS, 4)), 12)))


@healthy
def translation_by_a_transformer() -> Fields:
    """Source and shifted target; mask_zero; padded ends; cross-attention."""

    class Translate(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.source = layers.Embedding(30, 32, mask_zero=True)
            self.target = layers.Embedding(30, 32, mask_zero=True)
            self.read, self.own = layers.MultiHeadAttention(2, 16), layers.MultiHeadAttention(2, 16)
            self.cross, self.scores = layers.MultiHeadAttention(2, 16), layers.Dense(30)
            self.norms = [layers.LayerNormalization() for _ in range(3)]

        def call(self, inputs: Any) -> Any:
            s, t = self.source(inputs["encoder_inputs"]), self.target(inputs["decoder_inputs"])
            real = ops.not_equal(inputs["encoder_inputs"], 0)[:, None, :]  # sums lose the mask
            s = self.norms[0](s + self.read(s, s))
            t = self.norms[1](t + self.own(t, t, use_causal_mask=True))
            return self.scores(self.norms[2](t + self.cross(t, s, attention_mask=real)))

    def ragged(seed: int, length: int) -> Any:
        ids = random(seed).integers(1, 30, (ROWS, length))
        return ids * (np.arange(length) < (5 + np.arange(ROWS) % (length - 4))[:, None])

    target = ragged(5, 10)
    x = {"encoder_inputs": ragged(4, 9), "decoder_inputs": target[:, :-1]}
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)
    return case(lambda: compiled(Translate(), loss), lambda: (x, target[:, 1:]))


@healthy
def masked_language_model() -> Fields:
    """BERT's task: words behind [mask], weighed by where they were."""
    ids = tokens(count=ROWS)
    chosen = random(6).uniform(size=ids.shape) < 0.25
    x = np.where(chosen, 29, ids)

    def model() -> Any:
        inputs = keras.Input((12,), dtype="int32")
        h = TransformerBlock(32, 2, 32)(Places(12, 30, 32)(inputs))
        scores = layers.Dense(30, name="mlm_cls", activation="softmax")(h)
        return compiled(keras.Model(inputs, scores), "sparse_categorical_crossentropy", keras.optimizers.Adam(1e-3))

    return case(model, lambda: (x, ids, chosen.astype("float32")))


@healthy
def entities_by_a_transformer() -> Fields:
    """Named entities with a loss of one's own that masks label 0."""

    def loss(y: Any, p: Any) -> Any:
        each = keras.losses.sparse_categorical_crossentropy(y, p, from_logits=False)
        mask = ops.cast(y > 0, "float32")
        return ops.sum(each * mask) / ops.sum(mask)

    class Tagger(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.places, self.block = Places(12, 30, 32), TransformerBlock(32, 4, 64)
            self.drop1, self.ff = layers.Dropout(0.1), layers.Dense(64, activation="relu")
            self.drop2, self.last = layers.Dropout(0.1), layers.Dense(6, activation="softmax")

        def call(self, inputs: Any, training: bool = False) -> Any:
            h = self.drop1(self.block(self.places(inputs)), training=training)
            return self.last(self.drop2(self.ff(h), training=training))

    keep = np.arange(12) < (6 + np.arange(ROWS) % 6)[:, None]
    x, y = tokens(count=ROWS) * keep, random(3).integers(1, 6, (ROWS, 12)) * keep
    return case(lambda: compiled(Tagger(), loss, "adam"), lambda: (x, y))


@healthy
def similar_sentences_by_two_inputs() -> Fields:
    """Quora-like pairs: shared encoder, |a-b| and a*b."""

    def model() -> Any:
        a, b = keras.Input((12,), dtype="int32"), keras.Input((12,), dtype="int32")
        words, rnn = layers.Embedding(30, 16, mask_zero=True), layers.Bidirectional(layers.GRU(16))
        left, right = rnn(words(a)), rnn(words(b))
        h = layers.concatenate([ops.abs(left - right), left * right])
        return compiled(keras.Model([a, b], layers.Dense(1, activation="sigmoid")(layers.Dense(16, "relu")(h))),
                        "binary_crossentropy")  # fmt: skip

    return case(model, lambda: ([tokens(count=ROWS), random(9).integers(1, 30, (ROWS, 12))], labels(2)))


@healthy
def switch_transformer() -> Fields:
    """Experts by the largest gate, with a load-balancing loss by add_loss."""

    class Switch(layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.gate = layers.Dense(3)
            self.experts = [keras.Sequential([layers.Dense(32, "relu"), layers.Dense(32)]) for _ in range(3)]

        def call(self, h: Any) -> Any:
            gates = ops.softmax(self.gate(h))
            chosen = ops.one_hot(ops.argmax(gates, -1), 3)
            density, proxy = ops.mean(chosen, (0, 1)), ops.mean(gates, (0, 1))
            self.add_loss(0.01 * 3 * ops.sum(density * proxy))
            outputs = ops.stack([expert(h) for expert in self.experts], -2)
            return ops.sum(outputs * (chosen * gates)[..., None], -2)

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.places, self.switch, self.last = Places(12, 30, 32), Switch(), layers.Dense(2, activation="softmax")

        def call(self, x: Any) -> Any:
            h = self.places(x)
            return self.last(ops.mean(h + self.switch(h), 1))

    loss = keras.losses.SparseCategoricalCrossentropy()
    return case(lambda: compiled(Model(), loss), lambda: (tokens(count=ROWS), labels(2)))


# ------------------------------------------------------------------- series


@healthy
def series_by_convolutions() -> Fields:
    def model() -> Any:
        inputs = keras.Input((24, 1))
        h = inputs
        for _ in range(3):
            h = layers.ReLU()(layers.BatchNormalization()(layers.Conv1D(16, 3, padding="same")(h)))
        h = layers.GlobalAveragePooling1D()(h)
        return compiled(keras.Model(inputs, layers.Dense(2, activation="softmax")(h)),
                        "sparse_categorical_crossentropy")  # fmt: skip

    return case(model, lambda: (normal(ROWS, 24, 1), labels(2)))


@healthy
def series_by_a_transformer() -> Fields:
    def model() -> Any:
        inputs = keras.Input((16, 1))
        h = inputs
        for _ in range(2):
            a = layers.MultiHeadAttention(2, 16, dropout=0.25)(h, h)
            h = layers.LayerNormalization(epsilon=1e-6)(layers.Dropout(0.25)(a)) + h
            f = layers.Dropout(0.25)(layers.Conv1D(4, 1, activation="relu")(h))
            h = layers.LayerNormalization(epsilon=1e-6)(layers.Conv1D(1, 1)(f)) + h
        h = layers.GlobalAveragePooling1D(data_format="channels_last")(h)
        h = layers.Dropout(0.4)(layers.Dense(32, activation="relu")(h))
        return compiled(keras.Model(inputs, layers.Dense(2, activation="softmax")(h)),
                        "sparse_categorical_crossentropy", keras.optimizers.Adam(1e-4))  # fmt: skip

    return case(model, lambda: (normal(ROWS, 16, 1), labels(2)))


@healthy
def weather_by_timeseries_dataset() -> Fields:
    """timeseries_dataset_from_array and an LSTM, as in the weather example."""

    def data() -> Any:
        found = normal(200, 5).cumsum(0) / 10
        return keras.utils.timeseries_dataset_from_array(
            found[:-12], found[12:, :1], sequence_length=12, sampling_rate=1, batch_size=16
        )

    def model() -> Any:
        inputs = keras.Input((12, 5))
        return compiled(keras.Model(inputs, layers.Dense(1)(layers.LSTM(32)(inputs))), "mse",
                        keras.optimizers.Adam(1e-3))  # fmt: skip

    return {"model": model, "train": data}


@healthy
def anomalies_by_an_autoencoder() -> Fields:
    x = normal(ROWS, 32, 1)

    def model() -> Any:
        parts = (layers.Conv1D(16, 7, padding="same", strides=2, activation="relu"), layers.Dropout(0.2),
                 layers.Conv1D(8, 7, padding="same", strides=2, activation="relu"),
                 layers.Conv1DTranspose(8, 7, padding="same", strides=2, activation="relu"), layers.Dropout(0.2),
                 layers.Conv1DTranspose(16, 7, padding="same", strides=2, activation="relu"),
                 layers.Conv1DTranspose(1, 7, padding="same"))  # fmt: skip
        return compiled(chain(*parts, shape=(32, 1)), "mse")

    return case(model, lambda: (x, x))


@healthy
def dilated_causal_convolutions() -> Fields:
    """WaveNet-like gates, quantised samples."""
    found = random(4).integers(0, 16, (ROWS, 21))

    def model() -> Any:
        inputs = keras.Input((None,), dtype="int32")
        h = layers.Embedding(16, 16)(inputs)
        skips = []
        for rate in (1, 2, 4):
            gate = layers.Conv1D(16, 2, padding="causal", dilation_rate=rate, activation="sigmoid")(h)
            z = layers.multiply(
                [layers.Conv1D(16, 2, padding="causal", dilation_rate=rate, activation="tanh")(h), gate]
            )
            skips.append(layers.Conv1D(16, 1)(z))
            h = layers.add([h, layers.Conv1D(16, 1)(z)])
        return compiled(keras.Model(inputs, layers.Conv1D(16, 1)(layers.Activation("relu")(layers.add(skips)))))

    return case(model, lambda: (found[:, :-1], found[:, 1:]))


@healthy
def several_quantiles() -> Fields:
    def loss(y: Any, p: Any) -> Any:
        q = ops.convert_to_tensor([0.1, 0.5, 0.9])
        error = y - p
        return ops.mean(ops.maximum(q * error, (q - 1) * error))

    return case(lambda: compiled(chain(layers.Dense(32, "relu"), layers.Dense(3)), loss), values)


# ------------------------------------------------------------------- tables


@healthy
def structured_data_by_a_feature_dict() -> Fields:
    """StringLookup-like categories by CategoryEncoding, numbers by Normalization; a dict of columns."""

    def model() -> Any:
        age, sex = keras.Input((1,), name="age"), keras.Input((1,), dtype="int32", name="sex")
        thal = keras.Input((1,), dtype="int32", name="thal")
        norm = layers.Normalization()
        norm.adapt(random(4).uniform(20, 80, (100, 1)))
        hot = [layers.CategoryEncoding(n, output_mode="one_hot")(i) for n, i in ((2, sex), (4, thal))]
        h = layers.Dropout(0.5)(layers.Dense(32, activation="relu")(layers.concatenate([norm(age), *hot])))
        outputs = layers.Dense(1, activation="sigmoid")(h)
        return compiled(keras.Model([age, sex, thal], outputs), "binary_crossentropy", "adam")

    draw = random(4)
    x = {"age": draw.uniform(20, 80, (ROWS, 1)), "sex": draw.integers(0, 2, (ROWS, 1)),
         "thal": draw.integers(0, 4, (ROWS, 1))}  # fmt: skip
    return case(model, lambda: (x, labels(2)))


@healthy
def wide_deep_and_cross() -> Fields:
    def model() -> Any:
        numbers, kinds = keras.Input((8,), name="numbers"), keras.Input((1,), dtype="int32", name="kinds")
        features = layers.concatenate([numbers, layers.Flatten()(layers.Embedding(6, 4)(kinds))])
        cross = features
        for _ in range(2):
            cross = features * layers.Dense(12)(cross) + cross
        deep = layers.Dropout(0.1)(layers.ReLU()(layers.BatchNormalization()(layers.Dense(32)(features))))
        merged = layers.concatenate([layers.BatchNormalization()(cross), deep])
        answers = layers.Dense(4, activation="softmax")(merged)
        loss = keras.losses.SparseCategoricalCrossentropy()
        return compiled(keras.Model({"numbers": numbers, "kinds": kinds}, answers), loss)

    x = {"numbers": normal(ROWS, 8), "kinds": random(4).integers(0, 6, (ROWS, 1))}
    return case(model, lambda: (x, labels(4)))


@healthy
def gated_residual_selection() -> Fields:
    """GRN and variable selection, as in the census example."""

    class Unit(layers.Layer):
        def __init__(self, units: int) -> None:
            super().__init__()
            self.elu, self.linear = layers.Dense(units, "elu"), layers.Dense(units)
            self.drop, self.norm = layers.Dropout(0.1), layers.LayerNormalization()
            self.left, self.right = layers.Dense(units), layers.Dense(units, "sigmoid")
            self.project = layers.Dense(units)

        def call(self, x: Any) -> Any:
            h = self.drop(self.linear(self.elu(x)))
            return self.norm(self.project(x) + self.left(h) * self.right(h))

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.each, self.join = [Unit(8) for _ in range(4)], Unit(8)
            self.weights_of, self.last = layers.Dense(4, "softmax"), layers.Dense(1, "sigmoid")

        def call(self, x: Any) -> Any:
            columns = ops.split(x, 4, axis=-1)
            chosen = self.weights_of(self.join(x))
            h = ops.stack([unit(c) for unit, c in zip(self.each, columns, strict=True)], 1)
            return self.last(ops.sum(h * chosen[..., None], 1))

    return case(lambda: compiled(Model(), "binary_crossentropy"), yes_no)


@healthy
def neural_decision_forest() -> Fields:
    """Routing by sigmoids, leaves by softmax of a weight matrix."""

    class Tree(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.decision = layers.Dense(8, "sigmoid")
            self.leaves = self.add_weight(shape=(8, 5), initializer="random_normal", name="leaves")

        def call(self, x: Any) -> Any:
            d = self.decision(x)[..., None]
            d = ops.concatenate([d, 1 - d], axis=2)
            mu = ops.ones_like(d[:, :1, 0])
            start = 1
            for level in range(3):
                mu = ops.reshape(ops.tile(mu[..., None], (1, 1, 2)), (-1, 2 ** (level + 1)))
                mu = mu * ops.reshape(d[:, start : start + 2**level], (-1, 2 ** (level + 1)))
                start += 2**level
            return ops.matmul(mu, ops.softmax(self.leaves))

    loss = keras.losses.SparseCategoricalCrossentropy()
    return case(lambda: compiled(Tree(), loss), lambda: (normal(ROWS, 20), labels(5)))


@healthy
def films_by_collaborative_filtering() -> Fields:
    """RecommenderNet: a dot product with biases, under a sigmoid; ratings between 0 and 1."""

    class Recommender(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            penalty = lambda: keras.regularizers.l2(1e-6)  # noqa: E731
            self.user = layers.Embedding(20, 8, embeddings_initializer="he_normal", embeddings_regularizer=penalty())
            self.film = layers.Embedding(30, 8, embeddings_initializer="he_normal", embeddings_regularizer=penalty())
            self.user_bias, self.film_bias = layers.Embedding(20, 1), layers.Embedding(30, 1)

        def call(self, inputs: Any) -> Any:
            user, film = self.user(inputs[:, 0]), self.film(inputs[:, 1])
            both = ops.sum(user * film, axis=1, keepdims=True)
            return ops.nn.sigmoid(both + self.user_bias(inputs[:, 0]) + self.film_bias(inputs[:, 1]))

    draw = random(4)
    x = np.stack([draw.integers(0, 20, ROWS), draw.integers(0, 30, ROWS)], 1)
    y = draw.integers(0, 11, ROWS) / 10.0
    return case(lambda: compiled(Recommender(), keras.losses.BinaryCrossentropy(), keras.optimizers.Adam(1e-3)),
                lambda: (x, y.astype("float32")))  # fmt: skip


@healthy
def fraud_with_weights_of_classes() -> Fields:
    y = (np.arange(64) % 16 == 0).astype("float32")

    def model() -> Any:
        parts = (layers.Dense(64, "relu"), layers.Dropout(0.3), layers.Dense(64, "relu"), layers.Dropout(0.3),
                 layers.Dense(1, activation="sigmoid"))  # fmt: skip
        return compiled(chain(*parts), "binary_crossentropy", keras.optimizers.Adam(1e-2))

    return case(model, lambda: (normal(64, 20), y[:, None]), fit_kwargs={"class_weight": {0: 1 / 60, 1: 1 / 4}})


# ------------------------------------------------------------ graphs, points


@healthy
def papers_of_a_citation_graph() -> Fields:
    """Node classification: the graph is a constant of the model, rows are node numbers."""
    draw = random(4)
    features = draw.normal(size=(24, 10)).astype("float32")
    edges = draw.integers(0, 24, (2, 80))

    class Graph(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.pre, self.message = layers.Dense(16, "gelu"), layers.Dense(16, "gelu")
            self.update, self.scores = layers.Dense(16, "gelu"), layers.Dense(5)

        def call(self, nodes: Any) -> Any:
            h = self.pre(ops.convert_to_tensor(features))
            sent = self.message(ops.take(h, edges[1], axis=0))
            got = ops.segment_sum(sent, ops.convert_to_tensor(edges[0]), num_segments=24)
            h = h + self.update(ops.concatenate([h, got], 1))
            return self.scores(ops.take(h, nodes, axis=0))

    nodes = draw.permutation(24)[:ROWS]
    return case(lambda: compiled(Graph()), lambda: (nodes, labels(5)))


@healthy
def molecules_by_adjacency() -> Fields:
    """Padded graphs: adjacency and features, message passing, a sum over nodes."""

    def model() -> Any:
        adjacency, nodes = keras.Input((6, 6), name="adjacency"), keras.Input((6, 5), name="nodes")
        h = layers.Dense(16)(nodes)
        for _ in range(2):
            h = layers.GRU(16, return_sequences=False)(layers.Reshape((1, -1))(layers.Dot(axes=(2, 1))([adjacency, h])))
            h = layers.Reshape((6, 16))(layers.Dense(96, "relu")(h))
        h = layers.Lambda(lambda t: ops.sum(t, 1), output_shape=(16,))(h)
        return compiled(
            keras.Model([adjacency, nodes], layers.Dense(1, activation="sigmoid")(h)), "binary_crossentropy"
        )

    draw = random(4)
    x = [(draw.uniform(size=(ROWS, 6, 6)) > 0.6).astype("float32"), normal(ROWS, 6, 5)]
    return case(model, lambda: (x, labels(2)))


@healthy
def clouds_of_points() -> Fields:
    """PointNet: a T-net that starts at the identity, with an orthogonality penalty."""

    class Orthogonal(keras.regularizers.Regularizer):
        def __call__(self, x: Any) -> Any:
            x = ops.reshape(x, (-1, 3, 3))
            xxt = ops.tensordot(x, x, axes=(2, 2))
            xxt = ops.reshape(xxt, (-1, 3, 3))
            return ops.sum(1e-3 * ops.square(xxt - ops.eye(3)))

    def model() -> Any:
        inputs = keras.Input((32, 3))
        t = layers.GlobalMaxPooling1D()(layers.Conv1D(16, 1, activation="relu")(inputs))
        bias = keras.initializers.Constant(np.eye(3).flatten())
        t = layers.Dense(9, kernel_initializer="zeros", bias_initializer=bias, activity_regularizer=Orthogonal())(t)
        h = layers.Dot(axes=(2, 1))([inputs, layers.Reshape((3, 3))(t)])
        h = layers.GlobalMaxPooling1D()(layers.Conv1D(32, 1, activation="relu")(h))
        return compiled(keras.Model(inputs, layers.Dense(4, activation="softmax")(layers.Dropout(0.3)(h))),
                        "sparse_categorical_crossentropy")  # fmt: skip

    return case(model, lambda: (normal(ROWS, 32, 3), labels(4)))


@healthy
def answers_by_picture_and_question() -> Fields:
    """An image and a question, by a dict; a softmax over answers."""

    def model() -> Any:
        image, question = keras.Input((12, 12, 3), name="image"), keras.Input((8,), dtype="int32", name="question")
        seen = layers.Dense(32, "tanh")(layers.Flatten()(layers.MaxPooling2D()(layers.Conv2D(8, 3)(image))))
        asked = layers.Dense(32, "tanh")(layers.LSTM(16)(layers.Embedding(20, 16)(question)))
        h = layers.Dense(32, "relu")(layers.Multiply()([seen, asked]))
        return compiled(keras.Model({"image": image, "question": question}, layers.Dense(6, activation="softmax")(h)),
                        "sparse_categorical_crossentropy")  # fmt: skip

    x = {"image": pictures()[0], "question": random(4).integers(1, 20, (ROWS, 8))}
    return case(model, lambda: (x, labels(6)))


@healthy
def radiance_field() -> Fields:
    """Positions as sines and cosines, colours by sigmoids."""

    def encode(x: Any) -> Any:
        parts = [x]
        for i in range(4):
            parts += [ops.sin(2.0**i * x), ops.cos(2.0**i * x)]
        return ops.concatenate(parts, -1)

    def model() -> Any:
        inputs = keras.Input((3,))
        h = x = layers.Lambda(encode, output_shape=(27,))(inputs)
        for i in range(4):
            h = layers.Dense(32, activation="relu")(h)
            if i == 2:
                h = layers.concatenate([h, x], axis=-1)
        return compiled(keras.Model(inputs, layers.Dense(3, activation="sigmoid")(h)), "mse")

    return case(model, lambda: (random(4).uniform(-1, 1, (64, 3)), random(5).uniform(0, 1, (64, 3))))


@healthy
def class_numbers_from_a_directory_style_dataset() -> Fields:
    """tf.data with augmentation by map, cache, shuffle and prefetch."""
    x, y = pictures()

    def data() -> Any:
        found = tf.data.Dataset.from_tensor_slices((np.repeat(x, 4, 0), np.repeat(y, 4))).cache().shuffle(64, seed=1)
        return found.batch(16).map(lambda a, b: (tf.image.random_flip_left_right(a), b)).prefetch(tf.data.AUTOTUNE)

    def model() -> Any:
        parts = (layers.Conv2D(8, 3, activation="relu"), layers.MaxPooling2D(), layers.Flatten(), layers.Dense(4))
        return compiled(chain(*parts, shape=(12, 12, 3)))

    return {"model": model, "train": data}


@healthy
def series_rows() -> Fields:
    """The plain recurrent classifier of the guides."""
    return case(lambda: compiled(chain(layers.SimpleRNN(24), layers.Dense(3), shape=(10, 8))), series)


@healthy
def logistic_regression() -> Fields:
    return case(lambda: compiled(chain(layers.Dense(5, activation="softmax")), "sparse_categorical_crossentropy",
                                 keras.optimizers.SGD(0.1)), rows)  # fmt: skip
