"""Healthy Keras programs in the manner of public tutorials: those with a step, a loss or an optimizer of their own."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from tests.programs.wiring.corpus import Corpus, Fields
from tests.programs.wiring.keras_base import (
    ROWS,
    Net,
    case,
    chain,
    compiled,
    labels,
    normal,
    pictures,
    random,
    rows,
)

PROGRAMS = Corpus()
healthy = PROGRAMS.healthy()


def grey() -> Any:
    return random(3).uniform(0, 1, (ROWS, 8, 8, 1)).astype("float32")


class Sampling(layers.Layer):
    """z = mean + exp(log_var / 2) * epsilon."""

    def __init__(self) -> None:
        super().__init__()
        self.seeds = keras.random.SeedGenerator(1337)

    def call(self, inputs: Any) -> Any:
        mean, log_var = inputs
        return mean + ops.exp(0.5 * log_var) * keras.random.normal(ops.shape(mean), seed=self.seeds)


@healthy
def variational_autoencoder() -> Fields:
    """The example's train_step with three trackers."""

    class VAE(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            inputs = keras.Input((8, 8, 1))
            h = layers.Dense(16, "relu")(layers.Flatten()(layers.Conv2D(8, 3, 2, "same", activation="relu")(inputs)))
            mean, log_var = layers.Dense(2)(h), layers.Dense(2)(h)
            self.encoder = keras.Model(inputs, [mean, log_var, Sampling()([mean, log_var])])
            self.decoder = chain(layers.Dense(128, "relu"), layers.Reshape((4, 4, 8)),
                                 layers.Conv2DTranspose(1, 3, 2, "same", activation="sigmoid"), shape=(2,))  # fmt: skip
            self.total = keras.metrics.Mean(name="loss")

        @property
        def metrics(self) -> Any:
            return [self.total]

        def call(self, x: Any) -> Any:
            return self.decoder(self.encoder(x)[2])

        def train_step(self, data: Any) -> Any:
            data = data[0] if isinstance(data, tuple) else data
            with tf.GradientTape() as tape:
                mean, log_var, z = self.encoder(data)
                made = self.decoder(z)
                image = ops.mean(ops.sum(keras.losses.binary_crossentropy(data, made), axis=(1, 2)))
                kl = -0.5 * (1 + log_var - ops.square(mean) - ops.exp(log_var))
                total = image + ops.mean(ops.sum(kl, axis=1))
            grads = tape.gradient(total, self.trainable_weights)
            self.optimizer.apply_gradients(zip(grads, self.trainable_weights, strict=True))
            self.total.update_state(total)
            return {"loss": self.total.result()}

    def model() -> Any:
        made = VAE()
        made.compile(optimizer=keras.optimizers.Adam())
        return made

    return case(model, lambda: (grey(), grey()))


class GAN(keras.Model):
    """The overriding-train_step example."""

    def __init__(self) -> None:
        super().__init__()
        self.discriminator = chain(layers.Conv2D(8, 3, 2), layers.LeakyReLU(), layers.Flatten(), layers.Dense(1),
                                   shape=(8, 8, 1))  # fmt: skip
        self.generator = chain(layers.Dense(128), layers.LeakyReLU(), layers.Reshape((4, 4, 8)),
                               layers.Conv2DTranspose(1, 4, 2, "same", activation="sigmoid"), shape=(6,))  # fmt: skip
        self.seeds = keras.random.SeedGenerator(1)

    def compile(self, d_optimizer: Any, g_optimizer: Any, loss_fn: Any) -> None:
        super().compile()
        self.d_optimizer, self.g_optimizer, self.loss_fn = d_optimizer, g_optimizer, loss_fn

    def call(self, x: Any) -> Any:
        return self.discriminator(x)

    def train_step(self, data: Any) -> Any:
        real = data[0] if isinstance(data, tuple) else data
        size = ops.shape(real)[0]
        made = self.generator(keras.random.normal((size, 6), seed=self.seeds))
        y = ops.concatenate([ops.ones((size, 1)), ops.zeros((size, 1))], 0)
        with tf.GradientTape() as tape:
            d_loss = self.loss_fn(y, self.discriminator(ops.concatenate([made, real], 0)))
        grads = tape.gradient(d_loss, self.discriminator.trainable_weights)
        self.d_optimizer.apply(grads, self.discriminator.trainable_weights)
        with tf.GradientTape() as tape:
            noise = keras.random.normal((size, 6), seed=self.seeds)
            g_loss = self.loss_fn(ops.zeros((size, 1)), self.discriminator(self.generator(noise)))
        grads = tape.gradient(g_loss, self.generator.trainable_weights)
        self.g_optimizer.apply(grads, self.generator.trainable_weights)
        return {"d_loss": d_loss, "g_loss": g_loss}


@healthy
def generative_adversarial() -> Fields:
    """Two optimizers, two losses, no compiled loss."""

    def model() -> Any:
        made = GAN()
        adam = keras.optimizers.Adam
        made.compile(adam(3e-4), adam(3e-4), keras.losses.BinaryCrossentropy(from_logits=True))
        return made

    return case(model, lambda: (grey(), grey()))


@healthy
def wasserstein_with_gradient_penalty() -> Fields:
    """Three critic steps in a call, with a second gradient."""

    class WGAN(GAN):
        def penalty(self, real: Any, made: Any) -> Any:
            mix = real + keras.random.uniform((ROWS, 1, 1, 1), seed=self.seeds) * (made - real)
            with tf.GradientTape() as tape:
                tape.watch(mix)
                found = self.discriminator(mix)
            norm = ops.sqrt(ops.sum(tape.gradient(found, mix) ** 2, (1, 2, 3)) + 1e-8)
            return ops.mean((norm - 1.0) ** 2)

        def train_step(self, data: Any) -> Any:
            real = data[0]
            for _ in range(3):
                with tf.GradientTape() as tape:
                    made = self.generator(keras.random.normal((ROWS, 6), seed=self.seeds))
                    d_loss = ops.mean(self.discriminator(made)) - ops.mean(self.discriminator(real))
                    d_loss += 10.0 * self.penalty(real, made)
                grads = tape.gradient(d_loss, self.discriminator.trainable_variables)
                self.d_optimizer.apply(grads, self.discriminator.trainable_variables)
            with tf.GradientTape() as tape:
                made = self.generator(keras.random.normal((ROWS, 6), seed=self.seeds))
                g_loss = -ops.mean(self.discriminator(made))
            grads = tape.gradient(g_loss, self.generator.trainable_variables)
            self.g_optimizer.apply(grads, self.generator.trainable_variables)
            return {"d_loss": d_loss, "g_loss": g_loss}

    def model() -> Any:
        made = WGAN()
        adam = keras.optimizers.Adam
        made.compile(adam(2e-4, 0.5), adam(2e-4, 0.5), None)
        return made

    return case(model, lambda: (grey(), grey()))


@healthy
def denoising_diffusion() -> Fields:
    """DDIM: a normaliser, a net, and an exponential average of the net beside it."""

    class Diffusion(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.network = chain(layers.Conv2D(16, 3, padding="same", activation="swish"),
                                 layers.Conv2D(1, 3, padding="same", kernel_initializer="zeros"),
                                 shape=(8, 8, 2))  # fmt: skip
            self.average = keras.models.clone_model(self.network)
            self.average.trainable = False
            self.seeds = keras.random.SeedGenerator(2)

        def call(self, x: Any) -> Any:
            return self.average(ops.concatenate([x, 0 * x + 0.5], -1))

        def train_step(self, data: Any) -> Any:
            x = data[0] if isinstance(data, tuple) else data
            noise = keras.random.normal(ops.shape(x), seed=self.seeds)
            time = keras.random.uniform((ops.shape(x)[0], 1, 1, 1), seed=self.seeds)
            noisy = ops.cos(1.5 * time) * x + ops.sin(1.5 * time) * noise
            with tf.GradientTape() as tape:
                found = self.network(ops.concatenate([noisy, ops.broadcast_to(time, ops.shape(x))], -1), training=True)
                loss = self.loss(noise, found)
            grads = tape.gradient(loss, self.network.trainable_weights)
            self.optimizer.apply_gradients(zip(grads, self.network.trainable_weights, strict=True))
            for weight, ema in zip(self.network.weights, self.average.weights, strict=True):
                ema.assign(0.999 * ema + 0.001 * weight)
            return {"loss": loss}

    return case(lambda: compiled(Diffusion(), keras.losses.MeanAbsoluteError(), keras.optimizers.AdamW(1e-3, 1e-4)),
                lambda: (grey(), grey()))  # fmt: skip


@healthy
def simclr() -> Fields:
    """Two views, an NT-Xent loss within the batch, a projection that is used in training alone."""

    class Contrast(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = chain(layers.Dense(32, "relu"), layers.Dense(16))
            self.projection = chain(layers.Dense(16, "relu"), layers.Dense(16), shape=(16,))
            self.noise, self.temperature = layers.GaussianNoise(0.3), 0.1

        def call(self, x: Any) -> Any:
            return self.encoder(x)

        def contrastive(self, a: Any, b: Any) -> Any:
            a, b = ops.normalize(a, axis=1), ops.normalize(b, axis=1)
            similar = ops.matmul(a, ops.transpose(b)) / self.temperature
            y = ops.arange(ops.shape(a)[0])
            loss = keras.losses.sparse_categorical_crossentropy
            return ops.mean(loss(y, similar, from_logits=True) + loss(y, ops.transpose(similar), from_logits=True)) / 2

        def train_step(self, data: Any) -> Any:
            x = data[0] if isinstance(data, tuple) else data
            with tf.GradientTape() as tape:
                one = self.projection(self.encoder(self.noise(x, training=True), training=True), training=True)
                two = self.projection(self.encoder(self.noise(x, training=True), training=True), training=True)
                loss = self.contrastive(one, two)
            weights = self.encoder.trainable_weights + self.projection.trainable_weights
            self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
            return {"loss": loss}

    def model() -> Any:
        made = Contrast()
        made.compile(optimizer=keras.optimizers.Adam(1e-3))
        return made

    return case(model, lambda: (rows()[0], rows()[0]))


@healthy
def barlow_twins() -> Fields:
    """A loss of its own over two views as two inputs, batch-normalised."""

    class Twins(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.net = chain(layers.Dense(32, "relu"), layers.BatchNormalization(), layers.Dense(12))

        def call(self, x: Any, training: bool = False) -> Any:
            return self.net(x, training=training)

        def train_step(self, data: Any) -> Any:
            x, _ = data
            with tf.GradientTape() as tape:
                a, b = self(x + 0.1, training=True), self(x * 0.9, training=True)
                a, b = ((z - ops.mean(z, 0)) / (ops.std(z, 0) + 1e-6) for z in (a, b))
                c = ops.matmul(ops.transpose(a), b) / ROWS
                eye = ops.eye(12)
                loss = ops.sum(ops.where(eye > 0, (1 - c) ** 2, 5e-3 * c**2))
            grads = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply(grads, self.trainable_variables)
            return {"loss": loss}

    def model() -> Any:
        made = Twins()
        made.compile(optimizer=keras.optimizers.Adam(1e-3))
        return made

    return case(model, lambda: (rows()[0], rows()[0]))


@healthy
def siamese_triplets() -> Fields:
    """Three inputs, a distance layer as output, and a margin."""

    class Siamese(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = chain(layers.Dense(32, "relu"), layers.BatchNormalization(), layers.Dense(8))

        def call(self, inputs: Any) -> Any:
            anchor, positive, negative = (self.encoder(each) for each in inputs)
            return ops.sum((anchor - positive) ** 2, -1), ops.sum((anchor - negative) ** 2, -1)

        def train_step(self, data: Any) -> Any:
            with tf.GradientTape() as tape:
                near, far = self(data[0], training=True)
                loss = ops.mean(ops.maximum(near - far + 0.5, 0.0))
            grads = tape.gradient(loss, self.encoder.trainable_weights)
            self.optimizer.apply_gradients(zip(grads, self.encoder.trainable_weights, strict=True))
            return {"loss": loss}

    def model() -> Any:
        made = Siamese()
        made.compile(optimizer=keras.optimizers.Adam(1e-4))
        return made

    x = normal(ROWS, 20)
    return case(model, lambda: ((x, x + normal(ROWS, 20, seed=2), x + normal(ROWS, 20, seed=3)), labels(2)))


@healthy
def knowledge_distillation() -> Fields:
    """compute_loss that adds the teacher's soft targets."""

    class Distiller(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.teacher, self.student = chain(layers.Dense(64, "relu"), layers.Dense(5)), chain(layers.Dense(5))
            self.teacher.trainable = False

        def compute_loss(
            self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, **more: Any
        ) -> Any:
            taught = self.teacher(x, training=False)
            hard = super().compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight)
            soft = keras.losses.kl_divergence(ops.softmax(taught / 10, axis=1), ops.softmax(y_pred / 10, axis=1))
            return 0.1 * hard + 0.9 * ops.mean(soft) * 100

        def call(self, x: Any) -> Any:
            return self.student(x)

    return case(lambda: compiled(Distiller()))


@healthy
def deep_q_network() -> Fields:
    """States in, values of actions out; the target net gives the future."""

    class Q(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.target = (
                chain(layers.Dense(32, "relu"), layers.Dense(4)),
                chain(layers.Dense(32, "relu"), layers.Dense(4)),
            )
            self.target.trainable = False

        def call(self, x: Any) -> Any:
            return self.net(x["state"] if isinstance(x, dict) else x)

        def train_step(self, data: Any) -> Any:
            x, _ = data
            future = x["reward"] + 0.9 * ops.max(self.target(x["next"]), -1)
            with tf.GradientTape() as tape:
                chosen = ops.sum(self.net(x["state"]) * ops.one_hot(x["action"], 4), -1)
                loss = keras.losses.Huber()(future, chosen)
            grads = tape.gradient(loss, self.net.trainable_variables)
            self.optimizer.apply_gradients(zip(grads, self.net.trainable_variables, strict=True))
            return {"loss": loss}

    def model() -> Any:
        made = Q()
        made.compile(optimizer=keras.optimizers.Adam(2.5e-4, clipnorm=1.0))
        return made

    draw = random(4)
    x = {"state": normal(ROWS, 20), "next": normal(ROWS, 20, seed=2), "action": draw.integers(0, 4, ROWS),
         "reward": normal(ROWS, seed=3)}  # fmt: skip
    return case(model, lambda: (x, normal(ROWS, 4)))


@healthy
def actor_and_critic() -> Fields:
    """Policy and value share a body; entropy is rewarded."""

    class Actor(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.policy, self.value = layers.Dense(32, "relu"), layers.Dense(4, "softmax"), layers.Dense(1)

        def call(self, x: Any) -> Any:
            h = self.body(x)
            return self.policy(h), self.value(h)

        def train_step(self, data: Any) -> Any:
            x, y = data
            with tf.GradientTape() as tape:
                p, v = self(x, training=True)
                logp = ops.log(ops.sum(p * ops.one_hot(ops.cast(y["action"], "int32"), 4), -1) + 1e-8)
                advantage = y["return"] - ops.stop_gradient(v[:, 0])
                loss = -ops.mean(logp * advantage) + 0.5 * ops.mean((y["return"] - v[:, 0]) ** 2)
            grads = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply(grads, self.trainable_variables)
            return {"loss": loss}

    def model() -> Any:
        made = Actor()
        made.compile(optimizer=keras.optimizers.Adam(1e-3))
        return made

    y = {"action": random(4).integers(0, 4, ROWS), "return": normal(ROWS, seed=3)}
    return case(model, lambda: (rows()[0], y))


@healthy
def gradient_centralised() -> Fields:
    """An optimizer that centres the gradients before it applies them."""

    class Centred(keras.optimizers.RMSprop):
        def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
            centred = [g - ops.mean(g, axis=list(range(len(g.shape) - 1)), keepdims=True) if len(g.shape) > 1 else g
                       for g in grads]  # fmt: skip
            return super().apply(centred, trainable_variables)

    def model() -> Any:
        parts = (layers.Conv2D(16, 3, activation="relu"), layers.Dropout(0.5), layers.MaxPooling2D(2), layers.Flatten(),
                 layers.Dense(32, "relu"), layers.Dense(4, activation="softmax"))  # fmt: skip
        return compiled(chain(*parts, shape=(12, 12, 3)), "sparse_categorical_crossentropy", Centred(1e-3))

    return case(model, pictures)


@healthy
def adaptive_clipping() -> Fields:
    """Gradients clipped by the norm of each weight."""

    class Clipped(Net):
        def train_step(self, data: Any) -> Any:
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
            found = []
            for p, g in zip(self.trainable_variables, tape.gradient(loss, self.trainable_variables), strict=True):
                most = 0.5 * ops.maximum(ops.norm(p), 1e-3)
                norm = ops.norm(g)
                found.append(ops.where(norm < most, g, g * (most / ops.maximum(norm, 1e-6))))
            self.optimizer.apply(found, self.trainable_variables)
            return {"loss": loss}

    return case(lambda: compiled(Clipped(), optimizer=keras.optimizers.Adam(1e-3)))


@healthy
def mixed_up_pictures() -> Fields:
    """MixUp by tf.data; soft labels."""
    x, y = pictures()
    y = keras.utils.to_categorical(y, 4)

    def data() -> Any:
        one = tf.data.Dataset.from_tensor_slices((x, y)).repeat(4).shuffle(64, seed=1).batch(16)
        two = tf.data.Dataset.from_tensor_slices((x, y)).repeat(4).shuffle(64, seed=2).batch(16)

        def mix(a: Any, b: Any) -> Any:
            share = 0.7
            return share * a[0] + (1 - share) * b[0], share * a[1] + (1 - share) * b[1]

        return tf.data.Dataset.zip((one, two)).map(mix)

    def model() -> Any:
        parts = (layers.Conv2D(8, 3, activation="relu"), layers.Flatten(), layers.Dense(4, activation="softmax"))
        return compiled(chain(*parts, shape=(12, 12, 3)), "categorical_crossentropy")

    return {"model": model, "train": data}


@healthy
def consistency_with_a_teacher_average() -> Fields:
    """Noisy student: supervised and consistency terms in one step, teacher by average."""

    class Consistent(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.student, self.teacher = (chain(layers.Dense(32, "relu"), layers.Dense(5)) for _ in range(2))
            self.teacher.trainable = False

        def call(self, x: Any) -> Any:
            return self.student(x)

        def train_step(self, data: Any) -> Any:
            x, y = data
            with tf.GradientTape() as tape:
                scores = self.student(x + 0.1 * tf.random.normal(tf.shape(x)))
                loss = ops.mean(keras.losses.sparse_categorical_crossentropy(y, scores, from_logits=True))
                loss += ops.mean((ops.softmax(scores) - ops.softmax(self.teacher(x))) ** 2)
            grads = tape.gradient(loss, self.student.trainable_variables)
            self.optimizer.apply(grads, self.student.trainable_variables)
            for t, s in zip(self.teacher.weights, self.student.weights, strict=True):
                t.assign(0.99 * t + 0.01 * s)
            return {"loss": loss}

    return case(lambda: compiled(Consistent()))


@healthy
def flow_with_affine_couplings() -> Fields:
    """RealNVP: scale and shift by nets whose last layers start at nothing."""

    class Flow(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.masks = [np.array([0, 1] * 2, "float32"), np.array([1, 0] * 2, "float32")] * 2
            penalty = keras.regularizers.l2(0.01)
            first = lambda: layers.Dense(16, "relu", kernel_regularizer=penalty)  # noqa: E731
            self.scales = [chain(first(), layers.Dense(4, "tanh"), shape=(4,)) for _ in self.masks]
            self.shifts = [chain(layers.Dense(16, "relu"), layers.Dense(4), shape=(4,)) for _ in self.masks]

        def call(self, x: Any) -> Any:
            log_det = 0.0
            for mask, scale, shift in zip(self.masks, self.scales, self.shifts, strict=True):
                kept, other = x * mask, 1 - mask
                s, t = scale(kept) * other, shift(kept) * other
                x = other * (x * ops.exp(-s) - t * ops.exp(-s)) + kept
                log_det -= ops.sum(s, -1)
            return ops.concatenate([x, ops.reshape(log_det, (-1, 1))], -1)

    def loss(y: Any, p: Any) -> Any:
        return -ops.mean(-0.5 * ops.sum(p[:, :4] ** 2, -1) + p[:, 4])

    x = normal(32, 4)
    return case(lambda: compiled(Flow(), loss, keras.optimizers.Adam(1e-4)), lambda: (x, x))


@healthy
def gaussian_likelihood() -> Fields:
    """Mean and deviation by two heads, joined; a negative log-likelihood."""

    def loss(y: Any, p: Any) -> Any:
        mean, deviation = p[:, :1], ops.softplus(p[:, 1:]) + 1e-3
        return ops.mean(ops.log(deviation) + 0.5 * ((y - mean) / deviation) ** 2)

    return case(lambda: compiled(chain(layers.Dense(32, "relu"), layers.Dense(2)), loss),
                lambda: (rows()[0], normal(ROWS, 1, seed=4)))  # fmt: skip


@PROGRAMS.healthy(alarm="the targets are checked against a loss that the step gives something else")
def metric_learning_by_pairs() -> Fields:
    """Anchors and positives of each class, similarities as logits."""

    class Metric(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.net = chain(layers.Dense(32, "relu"), layers.Dense(8), layers.UnitNormalization())

        def call(self, x: Any) -> Any:
            return self.net(x)

        def train_step(self, data: Any) -> Any:
            anchors, positives = data
            with tf.GradientTape() as tape:
                a, b = self(anchors, training=True), self(positives, training=True)
                similar = ops.einsum("ae,pe->ap", a, b) / 0.2
                loss = self.compute_loss(y=ops.arange(ROWS), y_pred=similar)
            grads = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply(grads, self.trainable_variables)
            return {"loss": loss}

    x = normal(ROWS, 20)
    return case(lambda: compiled(Metric()), lambda: (x, x + 0.2 * normal(ROWS, 20, seed=2)))


@healthy
def learned_resizer() -> Fields:
    """A resizing model before the classifier, with a residual of bilinear pixels."""

    def model() -> Any:
        inputs = keras.Input((16, 16, 3))
        naive = layers.Resizing(8, 8, interpolation="bilinear")(inputs)
        h = layers.LeakyReLU(negative_slope=0.2)(layers.Conv2D(8, 7, padding="same")(inputs))
        h = bottleneck = layers.Resizing(8, 8, interpolation="bilinear")(layers.BatchNormalization()(h))
        h = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same", use_bias=False)(h))
        h = layers.Add()([bottleneck, h])
        h = layers.Add()([naive, layers.Conv2D(3, 7, padding="same")(h)])
        h = layers.Flatten()(layers.Conv2D(8, 3, activation="relu")(h))
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
        return compiled(keras.Model(inputs, layers.Dense(4, activation="softmax")(h)), loss, "sgd")

    y = keras.utils.to_categorical(labels(4), 4)
    return case(model, lambda: (random(3).uniform(0, 1, (ROWS, 16, 16, 3)).astype("float32"), y))


@healthy
def pixel_cnn() -> Fields:
    """Masked convolutions over binary pixels, the picture is its own target."""

    class Masked(layers.Layer):
        def __init__(self, kind: str, **arguments: Any) -> None:
            super().__init__()
            self.kind, self.conv = kind, layers.Conv2D(**arguments)

        def build(self, shape: Any) -> None:
            self.conv.build(shape)
            size = self.conv.kernel.shape
            self.mask = np.zeros(size, "float32")
            self.mask[: size[0] // 2] = 1.0
            self.mask[size[0] // 2, : size[1] // 2] = 1.0
            if self.kind == "B":
                self.mask[size[0] // 2, size[1] // 2] = 1.0

        def call(self, x: Any) -> Any:
            self.conv.kernel.assign(self.conv.kernel * self.mask)
            return self.conv(x)

        def compute_output_shape(self, shape: Any) -> Any:
            return self.conv.compute_output_shape(shape)

    def model() -> Any:
        inputs = keras.Input((8, 8, 1))
        h = Masked("A", filters=8, kernel_size=5, activation="relu", padding="same")(inputs)
        h = Masked("B", filters=8, kernel_size=1, activation="relu", padding="valid")(h)
        return compiled(keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid")(h)), "binary_crossentropy")

    x = (grey() > 0.5).astype("float32")
    return case(model, lambda: (x, x))


@healthy
def supervised_then_frozen_encoder() -> Fields:
    """The second stage of contrastive learning: layers frozen one by one, a head of dropout and two Dense."""

    def model() -> Any:
        encoder = chain(layers.Dense(32, "relu"), layers.Dense(16, "relu"))
        for layer in encoder.layers:
            layer.trainable = False
        inputs = keras.Input((20,))
        h = layers.Dropout(0.5)(layers.Dense(16, "relu")(layers.Dropout(0.5)(encoder(inputs))))
        return compiled(keras.Model(inputs, layers.Dense(5, activation="softmax")(h)),
                        keras.losses.SparseCategoricalCrossentropy())  # fmt: skip

    return case(model)


@healthy
def monte_carlo_dropout() -> Fields:
    """Dropout(training=True) by hand, on purpose: a distribution of answers."""

    def model() -> Any:
        x = keras.Input((20,))
        h = layers.Dropout(0.2)(layers.Dense(32, "relu")(x), training=True)
        return compiled(keras.Model(x, layers.Dense(5)(h)))

    return case(model)


@healthy
def weights_by_lora_on_attention() -> Fields:
    """Frozen words and attention, LoRA on value and query, a new head."""

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = layers.Embedding(30, 16), layers.Dense(4)
            self.query, self.value = layers.Dense(16), layers.Dense(16)
            self.words.trainable = False
            for each in (self.query, self.value):
                each.build((None, None, 16))
                each.enable_lora(2)

        def call(self, ids: Any) -> Any:
            h = self.words(ids)
            scores = ops.matmul(self.query(h), ops.transpose(h, (0, 2, 1))) / 4.0
            return self.head(ops.mean(ops.matmul(ops.softmax(scores), self.value(h)), 1))

    x = random(4).integers(1, 30, (ROWS, 12))
    return case(lambda: compiled(Model()), lambda: (x, labels(4)))
