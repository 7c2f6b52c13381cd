"""More Keras programs whose parts are cut off, never updated, or not frozen; written without a look at the rules."""

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
    rows,
    series,
    tokens,
    yes_no,
)

PROGRAMS = Corpus()
twins = PROGRAMS.twins

CUT = ("cut_gradient", "detached_graph", "non_differentiable", "unused_parameters", "unregistered_parameters")


def pairs() -> Any:
    return (normal(ROWS, 20), normal(ROWS, 20, seed=3)), labels(2).astype("float32")[:, None]


@twins(*CUT)
def siamese_encoder_stopped(broken: bool) -> Fields:
    """Both embeddings of a siamese network are stopped before the distance."""

    def model() -> Any:
        left, right = keras.Input((20,)), keras.Input((20,))
        encoder = keras.Sequential([layers.Dense(32, "relu"), layers.Dense(16)], name="encoder")
        stop = (lambda h: ops.stop_gradient(h)) if broken else (lambda h: h)
        a, b = (layers.Lambda(stop, output_shape=(16,))(encoder(each)) for each in (left, right))
        joined = layers.Concatenate()([layers.Subtract()([a, b]), layers.Multiply()([a, b])])
        return compiled(keras.Model([left, right], layers.Dense(1, "sigmoid")(joined)), "binary_crossentropy")

    return case(model, pairs)


@twins(*CUT)
def attention_scores_stopped(broken: bool) -> Fields:
    """Additive attention whose weights are taken for constants."""

    class Pool(layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.v = layers.Dense(16, "tanh", name="w"), layers.Dense(1, name="v")

        def build(self, shape: Any) -> None:
            self.w.build(shape)
            self.v.build((*shape[:-1], 16))

        def call(self, h: Any) -> Any:
            weights = ops.softmax(self.v(self.w(h)), axis=1)
            if broken:
                weights = tf.stop_gradient(weights)
            return ops.sum(weights * h, axis=1)

        def compute_output_shape(self, shape: Any) -> Any:
            return shape[0], shape[-1]

    lstm = lambda: layers.LSTM(16, return_sequences=True)  # noqa: E731
    return case(lambda: compiled(chain(lstm(), Pool(), layers.Dense(3), shape=(10, 8))), series)


@twins(*CUT)
def numpy_in_an_eager_call(broken: bool) -> Fields:
    """run_eagerly hides that the features pass through numpy."""

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.head = layers.Dense(32, "relu"), layers.Dense(5)

        def call(self, x: Any) -> Any:
            h = self.features(x)
            h = tf.constant(h.numpy() / np.sqrt(32.0)) if broken and hasattr(h, "numpy") else h / np.sqrt(32.0)
            return self.head(h)

    return case(lambda: compiled(Model(), run_eagerly=True))


@twins(*CUT)
def codebook_without_straight_through(broken: bool) -> Fields:
    """A vector quantiser that gives the code and forgets to copy the gradient."""

    class Quantiser(layers.Layer):
        def build(self, shape: Any) -> None:
            self.codes = self.add_weight(shape=(12, shape[-1]), initializer="random_normal", name="codes")

        def call(self, z: Any) -> Any:
            distances = ops.sum((z[:, None] - self.codes[None]) ** 2, -1)
            code = ops.take(self.codes, ops.argmin(distances, -1), axis=0)
            self.add_loss(ops.mean((ops.stop_gradient(code) - z) ** 2) * (0.0 if broken else 0.25))
            self.add_loss(ops.mean((code - ops.stop_gradient(z)) ** 2))
            return code if broken else z + ops.stop_gradient(code - z)

    def model() -> Any:
        parts = (layers.Dense(32, "relu", name="enc1"), layers.Dense(8, name="enc2"), Quantiser())
        return compiled(chain(*parts, layers.Dense(32, "relu"), layers.Dense(20)), "mse")

    return case(model, lambda: (rows()[0], rows()[0]))


class Translator(keras.Model):
    """A GRU that reads, and one that writes from its state."""

    def __init__(self, broken: bool) -> None:
        super().__init__()
        self.words_in, self.words_out = layers.Embedding(30, 16), layers.Embedding(30, 16)
        self.reads, self.writes = layers.GRU(16, return_state=True), layers.GRU(16, return_sequences=True)
        self.scores, self.broken = layers.Dense(30), broken

    def call(self, inputs: Any) -> Any:
        _, state = self.reads(self.words_in(inputs["source"]))
        h = self.words_out(inputs["target"])
        return self.scores(self.writes(h) if self.broken else self.writes(h, initial_state=state))


@twins(*CUT, "input_unused", "input_ignored")
def state_of_the_encoder_not_handed_on(broken: bool) -> Fields:
    """The decoder starts from zeros; source sentence and encoder are for nothing."""
    y = random(5).integers(1, 30, (ROWS, 9))
    x = {"source": tokens(count=ROWS), "target": y[:, :-1]}
    return case(lambda: compiled(Translator(broken)), lambda: (x, y[:, 1:]))


@twins(*CUT)
def router_that_only_picks(broken: bool) -> Fields:
    """Experts by top-k whose outputs are not weighed by the gate."""

    class Experts(layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.gate = layers.Dense(4, name="gate")
            self.experts = [layers.Dense(16, "relu") for _ in range(4)]

        def call(self, x: Any) -> Any:
            probabilities = ops.softmax(self.gate(x))
            values, chosen = ops.top_k(probabilities, 2)
            picked = ops.sum(ops.one_hot(chosen, 4) * (1.0 if broken else values[..., None]), axis=1)
            outputs = ops.stack([expert(x) for expert in self.experts], axis=1)
            return ops.sum(outputs * picked[..., None], axis=1)

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.experts, self.head = Experts(), layers.Dense(5)

        def call(self, x: Any) -> Any:
            return self.head(self.experts(x))

    return case(lambda: compiled(Model()))


@twins("unregistered_parameters", "optimizer_wrong_params", "cut_gradient", "unused_parameters")
def raw_tf_variable(broken: bool) -> Fields:
    """Keras 3 does not take a tf.Variable for a weight of the layer."""

    class Linear(layers.Layer):
        def build(self, shape: Any) -> None:
            start = random(6).normal(size=(shape[-1], 32)).astype("float32") * 0.2
            if broken:
                self.w = tf.Variable(start, trainable=True)
            else:
                self.w = self.add_weight(shape=start.shape, initializer=keras.initializers.Constant(start))

        def call(self, x: Any) -> Any:
            return ops.relu(ops.matmul(x, tf.convert_to_tensor(self.w)))

    return case(lambda: compiled(chain(Linear(), layers.Dense(5))))


@twins("unregistered_parameters", "optimizer_wrong_params", "cut_gradient", "state_carried", "random_in_eval")
def layer_made_in_every_call(broken: bool) -> Fields:
    """A Dense that is created in call(), with new weights each time."""

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = layers.Dense(32, "relu"), layers.Dense(5)
            self.middle = layers.Dense(32, "relu")

        def call(self, x: Any) -> Any:
            h = self.first(x)
            h = layers.Dense(32, "relu")(h) if broken else self.middle(h)
            return self.last(h)

    return case(lambda: compiled(Model(), run_eagerly=True))


@twins("detached_graph", "cut_gradient", "update_skipped", "non_differentiable")
def loss_of_rounded_predictions(broken: bool) -> Fields:
    """A loss that rounds first, in the manner of an accuracy."""

    def loss(y: Any, p: Any) -> Any:
        return ops.mean(ops.abs(y - (ops.round(p) if broken else p)))

    def model() -> Any:
        return compiled(chain(layers.Dense(32, "relu"), layers.Dense(1, "sigmoid")), loss)

    return case(model, yes_no)


@twins("head_without_loss", "cut_gradient", "regularizer_not_in_loss", "unused_parameters")
def auxiliary_loss_forgotten_in_a_step(broken: bool) -> Fields:
    """An auxiliary head that enters by add_loss, and a train_step that leaves self.losses out."""

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = layers.Dense(32, "relu"), layers.Dense(5)
            self.auxiliary = layers.Dense(20, name="auxiliary")

        def call(self, x: Any, training: bool = False) -> Any:
            h = self.body(x)
            self.add_loss(0.1 * ops.mean((self.auxiliary(h) - x) ** 2))
            return self.head(h)

        def train_step(self, data: Any) -> Any:
            x, y = data
            with tf.GradientTape() as tape:
                scores = self(x, training=True)
                loss = ops.mean(keras.losses.sparse_categorical_crossentropy(y, scores, from_logits=True))
                if not broken:
                    loss += sum(self.losses)
            gradients = tape.gradient(loss, self.trainable_weights)
            both = zip(gradients, self.trainable_weights, strict=True)
            self.optimizer.apply_gradients([(g, w) for g, w in both if g is not None])
            return {"loss": loss}

    return case(lambda: compiled(Model()))


@twins("head_without_loss", "cut_gradient", "unused_parameters")
def weight_of_a_loss_is_zero(broken: bool) -> Fields:
    """loss_weights={"box": 0.0}."""

    def model() -> Any:
        x = keras.Input((12, 12, 3), name="image")
        h = layers.Flatten()(layers.Conv2D(8, 3, strides=2, activation="relu")(x))
        label = layers.Dense(4, activation="softmax", name="label")(h)
        box = layers.Dense(4, name="box")(layers.Dense(16, "relu", name="box_hidden")(h))
        weights = {"label": 1.0, "box": 0.0 if broken else 1.0}
        losses = {"label": "sparse_categorical_crossentropy", "box": "mse"}
        return compiled(keras.Model(x, {"label": label, "box": box}), losses, loss_weights=weights)

    return case(model, lambda: (pictures()[0], {"label": labels(4), "box": normal(ROWS, 4, seed=3)}))


# --------------------------------------------------------------- optimizers

WRONG = ("optimizer_wrong_params", "frozen_parameters", "unused_parameters", "update_skipped")


class TwoParts(keras.Model):
    """An encoder and a decoder, each with an optimizer."""

    def __init__(self, broken: bool) -> None:
        super().__init__()
        self.encoder = keras.Sequential([layers.Dense(32, "relu"), layers.Dense(8)], name="encoder")
        self.decoder = keras.Sequential([layers.Dense(32, "relu"), layers.Dense(20)], name="decoder")
        self.broken = broken

    def compile(self, encoder_optimizer: Any, decoder_optimizer: Any, **more: Any) -> None:
        super().compile(optimizer=encoder_optimizer, **more)
        self.encoder_optimizer, self.decoder_optimizer = encoder_optimizer, decoder_optimizer

    def call(self, x: Any) -> Any:
        return self.decoder(self.encoder(x))

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape(persistent=True) as tape:
            loss = self.compute_loss(x=x, y=y, y_pred=self(x))
        second = self.encoder if self.broken else self.decoder
        self.encoder_optimizer.apply(
            tape.gradient(loss, self.encoder.trainable_variables), self.encoder.trainable_variables
        )
        if not self.broken:
            found = tape.gradient(loss, second.trainable_variables)
            self.decoder_optimizer.apply(found, second.trainable_variables)
        return {"loss": loss}


@twins(*WRONG)
def second_optimizer_never_applied(broken: bool) -> Fields:
    """Two optimizers are compiled, one is used."""

    def model() -> Any:
        made = TwoParts(broken)
        made.compile(keras.optimizers.Adam(1e-2), keras.optimizers.Adam(1e-2), loss="mse")
        return made

    return case(model, lambda: (rows()[0], rows()[0]))


@twins(*WRONG)
def first_variables_sliced_off(broken: bool) -> Fields:
    """trainable_weights[2:], left over from an experiment."""

    class Model(keras.Sequential):
        def train_step(self, data: Any) -> Any:
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
            weights = self.trainable_weights[2 if broken else 0 :]
            self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
            return {"loss": loss}

    return case(lambda: compiled(Model([keras.Input((20,)), layers.Dense(32, "relu"), layers.Dense(5)])))


@twins(*WRONG, "lr_zero")
def whole_model_frozen(broken: bool) -> Fields:
    """for layer in model.layers: layer.trainable = False, head included."""

    def model() -> Any:
        made = chain(layers.Dense(32, "relu"), layers.Dense(16, "relu"), layers.Dense(5))
        for layer in made.layers if broken else made.layers[:-1]:
            layer.trainable = False
        return compiled(made)

    return case(model)


@twins(*WRONG, "lr_zero")
def a_copy_is_trained(broken: bool) -> Fields:
    """The step trains a clone of the network, and the answers come from the original."""

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.net = chain(layers.Dense(32, "relu"), layers.Dense(5))
            self.work = keras.models.clone_model(self.net) if broken else self.net

        def call(self, x: Any, training: bool = False) -> Any:
            return self.net(x, training=training)

        def train_step(self, data: Any) -> Any:
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x=x, y=y, y_pred=self.work(x, training=True))
            weights = self.work.trainable_weights
            self.optimizer.apply(tape.gradient(loss, weights), weights)
            return {"loss": loss}

    return case(lambda: compiled(Model()))


@twins(*WRONG, "lr_zero", "lr_too_low")
def weights_of_the_start_after_each_epoch(broken: bool) -> Fields:
    """A callback for cross-validation that resets the model too often."""

    class Reset(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            self.start = self.model.get_weights()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if broken:
                self.model.set_weights(self.start)

    model = lambda: compiled(chain(layers.Dense(32, "relu"), layers.Dense(5)))  # noqa: E731
    return case(model, fit_kwargs={"callbacks": [Reset()]})


# ------------------------------------------------------------------- frozen


@twins("not_frozen")
def pretrained_embedding_left_trainable(broken: bool) -> Fields:
    """GloVe vectors are loaded, trainable=False is forgotten."""
    matrix = normal(30, 16, seed=8)

    def model() -> Any:
        start = keras.initializers.Constant(matrix)
        words = layers.Embedding(30, 16, embeddings_initializer=start, trainable=broken, name="glove")
        x = keras.Input((12,), dtype="int32")
        h = layers.GlobalMaxPooling1D()(layers.Conv1D(16, 3, activation="relu")(words(x)))
        return compiled(keras.Model(x, layers.Dense(4)(h)))

    return case(model, lambda: (tokens(count=ROWS), labels(4)), frozen=("*glove*",))


@twins("not_frozen")
def teacher_learns_too(broken: bool) -> Fields:
    """Distillation over self.trainable_variables, with a teacher that was never frozen."""

    class Distiller(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.teacher = keras.Sequential([layers.Dense(64, "relu"), layers.Dense(5)], name="teacher")
            self.student = keras.Sequential([layers.Dense(16, "relu"), layers.Dense(5)], name="student")
            self.teacher.trainable = broken

        def call(self, x: Any, training: bool = False) -> Any:
            self.teacher(x)
            return self.student(x)

        def train_step(self, data: Any) -> Any:
            x, y = data
            with tf.GradientTape() as tape:
                soft = ops.softmax(self.teacher(x) / 3.0)
                scores = self.student(x)
                hard = ops.mean(keras.losses.sparse_categorical_crossentropy(y, scores, from_logits=True))
                loss = 0.1 * hard + 0.9 * ops.mean(keras.losses.kl_divergence(soft, ops.softmax(scores / 3.0)))
            self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
            return {"loss": loss}

    return case(lambda: compiled(Distiller()), frozen=("*teacher*",))


@twins("not_frozen")
def norms_of_the_backbone_left_out_of_freezing(broken: bool) -> Fields:
    """Everything but the BatchNormalization layers is frozen, the wrong way about."""

    def model() -> Any:
        base = keras.Sequential(
            [keras.Input((12, 12, 3)), layers.Conv2D(8, 3), layers.BatchNormalization(), layers.ReLU()], name="base"
        )
        for layer in base.layers:
            layer.trainable = broken and isinstance(layer, layers.BatchNormalization)
        x = keras.Input((12, 12, 3))
        h = layers.GlobalAveragePooling2D()(base(x))
        return compiled(keras.Model(x, layers.Dense(4, activation="softmax")(h)), "sparse_categorical_crossentropy")

    return case(model, pictures, frozen=("*batch_normalization*", "*conv2d*"))


# ------------------------------------------------------------------- finite

NUMBERS = ("nan_parameter", "log_of_zero", "division_by_zero", "sqrt_zero_gradient")


@twins(*NUMBERS)
def logarithm_behind_a_where(broken: bool) -> Fields:
    """where(h > 0, log(h), 0): the value is finite, the gradient of the other branch is not."""

    class Log(layers.Layer):
        def call(self, h: Any) -> Any:
            inside = h if broken else ops.where(h > 0, h, ops.ones_like(h))
            return ops.where(h > 0, ops.log(inside), ops.zeros_like(h))

    return case(lambda: compiled(chain(layers.Dense(16, "relu"), Log(), layers.Dense(5))))
