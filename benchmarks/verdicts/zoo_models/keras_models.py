"""keras.applications at 64 pixels, and what tutorials build in Keras."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import layers

from benchmarks.verdicts.zoo_models import base
from benchmarks.verdicts.zoo_models.base import Architecture

#: name: side of the image, channels scaled to 0..255 because the model normalises them itself
APPLICATIONS = {
    "MobileNet": (64, False),
    "MobileNetV2": (64, False),
    "MobileNetV3Small": (64, True),
    "EfficientNetB0": (64, True),
    "EfficientNetV2B0": (64, True),
    "ResNet50": (64, False),
    "ResNet50V2": (64, False),
    "DenseNet121": (64, False),
    "NASNetMobile": (64, False),
    "ConvNeXtTiny": (64, True),
    "Xception": (96, False),
}
CLASSES = "sparse_categorical_crossentropy"


def digits(rows: int = 32, pixels: int = 8, channels: int = 1) -> tuple[Any, Any]:
    """Channels last."""
    x, y = base.digits(rows, pixels, channels)
    return x.numpy().transpose(0, 2, 3, 1), y.numpy()


def photographs(pixels: int, whole: bool) -> tuple[Any, Any]:
    x, y = digits(8, pixels, 3)
    return (x * 255 if whole else x * 2 - 1), y


def texts() -> tuple[Any, Any]:
    x = base.tokens(16, 20).numpy()
    lengths = 20 - np.arange(16) % 8
    return x * (np.arange(20)[None] < lengths[:, None]), (np.arange(16) % 2).astype("float32")[:, None]


def next_tokens() -> tuple[Any, Any]:
    x = base.tokens(8, 17, 80).numpy()
    return x[:, :-1], x[:, 1:]


def _application(name: str, pixels: int) -> keras.Model:
    model = getattr(keras.applications, name)(weights=None, input_shape=(pixels, pixels, 3), classes=10)
    model.compile(keras.optimizers.Adam(1e-3), CLASSES)
    return model


def _sequential(shape: tuple[Any, ...], *parts: Any, loss: Any = CLASSES, optimizer: Any = "adam") -> keras.Model:
    model = keras.Sequential([keras.Input(shape), *parts])
    model.compile(optimizer, loss)
    return model


def mnist_mlp() -> keras.Model:
    """The quickstart: logits, and a loss that expects them."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    parts = [layers.Flatten(), layers.Dense(128, "relu"), layers.Dropout(0.2), layers.Dense(10)]
    return _sequential((28, 28, 1), *parts, loss=loss)


def mnist_convnet() -> keras.Model:
    return _sequential(
        (28, 28, 1),
        *(layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(), layers.Conv2D(64, 3, activation="relu")),
        *(layers.MaxPooling2D(), layers.Flatten(), layers.Dropout(0.5), layers.Dense(10, "softmax")),
    )


def linear_regression() -> keras.Model:
    return _sequential((1,), layers.Dense(1), loss="mse", optimizer=keras.optimizers.SGD(0.1))


def line() -> tuple[Any, Any]:
    x = np.linspace(0, 1, 32, dtype="float32")[:, None]
    return x, 0.7 * x + 0.3


def bidirectional_lstm() -> keras.Model:
    return _sequential(
        (None,),
        *(layers.Embedding(200, 64, mask_zero=True), layers.Bidirectional(layers.LSTM(32, return_sequences=True))),
        *(layers.Bidirectional(layers.LSTM(32)), layers.Dense(1, "sigmoid")),
        loss="binary_crossentropy",
    )


def text_convnet() -> keras.Model:
    return _sequential(
        (20,),
        *(layers.Embedding(200, 64), layers.Dropout(0.5), layers.Conv1D(64, 5, activation="relu")),
        *(layers.GlobalMaxPooling1D(), layers.Dense(64, "relu"), layers.Dropout(0.5), layers.Dense(1, "sigmoid")),
        loss="binary_crossentropy",
    )


def _attention_block(x: Any, causal: bool = False, drop: float = 0.1) -> Any:
    size = x.shape[-1]
    seen = layers.MultiHeadAttention(2, size // 2)(x, x, use_causal_mask=causal)
    x = layers.LayerNormalization()(x + layers.Dropout(drop)(seen))
    inner = layers.Dense(size)(layers.Dense(2 * size, "relu")(x))
    return layers.LayerNormalization()(x + layers.Dropout(drop)(inner))


def _embedded(length: int, words: int, size: int = 32) -> tuple[Any, Any]:
    inputs = keras.Input((length,), dtype="int32")
    places = layers.Embedding(length, size)(keras.ops.arange(length))
    return inputs, layers.Embedding(words, size)(inputs) + places


def text_transformer() -> keras.Model:
    inputs, x = _embedded(20, 200)
    x = layers.GlobalAveragePooling1D()(_attention_block(x))
    model = keras.Model(inputs, layers.Dense(2, "softmax")(layers.Dense(20, "relu")(x)))
    model.compile("adam", CLASSES)
    return model


def text_classes() -> tuple[Any, Any]:
    x, y = texts()
    return x, y[:, 0].astype("int64")


def mini_gpt() -> keras.Model:
    inputs, x = _embedded(16, 80, 64)
    for _ in range(2):
        x = _attention_block(x, causal=True)
    model = keras.Model(inputs, layers.Dense(80)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-3), loss)
    return model


def vision_transformer() -> keras.Model:
    inputs = keras.Input((28, 28, 1))
    x = layers.Reshape((16, 32))(layers.Conv2D(32, 7, strides=7)(inputs))
    x = x + layers.Embedding(16, 32)(keras.ops.arange(16))
    for _ in range(2):
        x = _attention_block(x)
    model = keras.Model(inputs, layers.Dense(10, "softmax")(layers.GlobalAveragePooling1D()(x)))
    model.compile(keras.optimizers.AdamW(1e-3, weight_decay=1e-4), CLASSES)
    return model


def autoencoder() -> keras.Model:
    parts = [layers.Flatten(), layers.Dense(32, "relu"), layers.Dense(784, "sigmoid"), layers.Reshape((28, 28, 1))]
    return _sequential((28, 28, 1), *parts, loss="binary_crossentropy")


def itself() -> tuple[Any, Any]:
    x, _ = digits(8, 28)
    return x, x


class Vae(keras.Model):
    """A training step of its own, with two losses and no `compile(loss=...)`."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = keras.Sequential([layers.Flatten(), layers.Dense(128, "relu"), layers.Dense(4)])
        self.decoder = keras.Sequential([layers.Dense(128, "relu"), layers.Dense(784, "sigmoid")])
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, x: Any, training: bool = False) -> Any:
        mean, log_variance = keras.ops.split(self.encoder(x), 2, axis=1)
        noise = keras.random.normal(keras.ops.shape(mean), seed=self.seeds)
        z = mean + keras.ops.exp(0.5 * log_variance) * noise if training else mean
        spread = 1 + log_variance - keras.ops.square(mean) - keras.ops.exp(log_variance)
        self.add_loss(-0.5 * keras.ops.mean(keras.ops.sum(spread, axis=1)))
        return keras.ops.reshape(self.decoder(z), (-1, 28, 28, 1))


def vae() -> keras.Model:
    model = Vae()
    model.compile("adam", lambda y, out: keras.ops.sum(keras.losses.binary_crossentropy(y, out), axis=(1, 2)))
    return model


def unet() -> keras.Model:
    inputs = keras.Input((32, 32, 1))
    conv = lambda x, size: layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(size, 3, padding="same")(x)))  # noqa: E731
    one = conv(inputs, 16)
    two = conv(layers.MaxPooling2D()(one), 32)
    x = conv(layers.UpSampling2D()(conv(layers.MaxPooling2D()(two), 64)), 32)
    x = conv(layers.UpSampling2D()(layers.Concatenate()([x, two])), 16)
    model = keras.Model(inputs, layers.Conv2D(2, 3, activation="softmax", padding="same")(x + one))
    model.compile("adam", CLASSES)
    return model


def ink() -> tuple[Any, Any]:
    x, _ = digits(8, 32)
    return x, (x > 0.5).astype("int64")


def tickets() -> keras.Model:
    """Two texts and tags in, a priority and a department out."""
    title, body = keras.Input((None,), name="title"), keras.Input((None,), name="body")
    tags = keras.Input((6,), name="tags")
    read = lambda text, size: layers.LSTM(size)(layers.Embedding(200, 32)(text))  # noqa: E731
    x = layers.concatenate([read(title, 64), read(body, 32), tags])
    model = keras.Model([title, body, tags], {"priority": layers.Dense(1)(x), "department": layers.Dense(4)(x)})
    losses = {
        "priority": keras.losses.BinaryCrossentropy(from_logits=True),
        "department": keras.losses.CategoricalCrossentropy(from_logits=True),
    }
    model.compile(keras.optimizers.RMSprop(1e-3), losses, loss_weights={"priority": 1.0, "department": 0.2})
    return model


def ticket_rows() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = {
        "title": rng.integers(1, 200, (16, 8)),
        "body": rng.integers(1, 200, (16, 20)),
        "tags": rng.integers(0, 2, (16, 6)).astype("float32"),
    }
    departments = np.eye(4, dtype="float32")[np.arange(16) % 4]
    return x, {"priority": rng.integers(0, 2, (16, 1)).astype("float32"), "department": departments}


def series_convnet() -> keras.Model:
    conv = lambda: [layers.Conv1D(64, 3, padding="same"), layers.BatchNormalization(), layers.ReLU()]  # noqa: E731
    return _sequential(
        (100, 1), *conv(), *conv(), *conv(), layers.GlobalAveragePooling1D(), layers.Dense(2, "softmax")
    )  # fmt: skip


def series() -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    pitch = 2 + np.arange(32)[:, None] % 2 + 0.2 * rng.normal(size=(32, 1))
    wave = np.sin(pitch * np.linspace(0, 12, 100)[None]) + 0.1 * rng.normal(size=(32, 100))
    return wave[..., None].astype("float32"), np.arange(32) % 2


def forecaster() -> keras.Model:
    return _sequential((20, 1), layers.LSTM(32), layers.Dense(1), loss="mse", optimizer=keras.optimizers.Adam(0.01))


def waves() -> tuple[Any, Any]:
    wave = np.sin(0.3 * (np.arange(32)[:, None] * 1.7 + np.arange(21))).astype("float32")
    return wave[:, :20, None], wave[:, 20:]


#: name: factory, batch
TUTORIALS: dict[str, tuple[Callable[[], keras.Model], Callable[[], tuple[Any, Any]]]] = {
    "linear_regression": (linear_regression, line),
    "mnist_mlp": (mnist_mlp, functools.partial(digits, 32, 28)),
    "mnist_convnet": (mnist_convnet, functools.partial(digits, 32, 28)),
    "vision_transformer": (vision_transformer, functools.partial(digits, 32, 28)),
    "autoencoder": (autoencoder, itself),
    "vae": (vae, itself),
    "unet": (unet, ink),
    "bidirectional_lstm": (bidirectional_lstm, texts),
    "text_convnet": (text_convnet, texts),
    "text_transformer": (text_transformer, text_classes),
    "mini_gpt": (mini_gpt, next_tokens),
    "tickets": (tickets, ticket_rows),
    "series_convnet": (series_convnet, series),
    "lstm_forecast": (forecaster, waves),
}


def architectures() -> Iterator[Architecture]:
    for name, (model, batch) in TUTORIALS.items():
        yield Architecture(name=f"keras.{name}", model=model, batch=batch, keras=True)
    for name, (pixels, whole) in APPLICATIONS.items():
        yield Architecture(
            name=f"keras.applications.{name}",
            model=functools.partial(_application, name, pixels),
            batch=functools.partial(photographs, pixels, whole),
            keras=True,
        )
