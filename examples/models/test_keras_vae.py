"""A variational autoencoder with a custom training step, as tutorials write it: no targets, no call, no metric.

The loss is the one that the step differentiates. Its divergence term looks at no data and is taken off; what is left
is judged against the best picture that is the same for all rows. The verdict says so, and that evaluation samples.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from sklearn.datasets import load_digits

from pytest_overfit import Case, Overfit, run_probes


def digits() -> tuple[np.ndarray, None]:
    return load_digits().data[:32] / 16, None


class Sampling(layers.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.random = keras.random.SeedGenerator(0)

    def call(self, inputs):
        mean, log_variance = inputs
        return mean + ops.exp(0.5 * log_variance) * keras.random.normal(ops.shape(mean), seed=self.random)


class Vae(keras.Model):
    def __init__(self, reads_code: bool = True) -> None:
        super().__init__()
        picture, code = keras.Input((64,)), keras.Input((8,))
        hidden = layers.Dense(64, "relu")(picture)
        mean, log_variance = layers.Dense(8)(hidden), layers.Dense(8)(hidden)
        self.encoder = keras.Model(picture, [mean, log_variance, Sampling()([mean, log_variance])])
        seen = code if reads_code else 0.0 * code
        self.decoder = keras.Model(code, layers.Dense(64, "sigmoid")(layers.Dense(64, "relu")(seen)), name="decoder")

    def train_step(self, data):
        with tf.GradientTape() as tape:
            mean, log_variance, code = self.encoder(data)
            error = ops.mean(ops.sum((self.decoder(code) - data) ** 2, axis=-1))
            divergence = -0.5 * ops.mean(ops.sum(1 + log_variance - mean**2 - ops.exp(log_variance), axis=-1))
            loss = error + 0.1 * divergence
        weights = self.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss, "error": error}


def vae(reads_code: bool = True) -> keras.Model:
    model = Vae(reads_code)
    model.compile(keras.optimizers.Adam(5e-3))
    return model


def test_vae_can_learn(overfit: Overfit) -> None:
    verdict = overfit.batch(Case(name="vae", model=vae, batch=digits))
    (how,) = verdict.data["remarks"]
    assert "decoder" in how


def test_a_decoder_that_does_not_read_the_code_does_not_pass() -> None:
    blind = Case(name="blind_vae", model=lambda: vae(reads_code=False), batch=digits)
    (verdict,) = run_probes(blind, ["overfit_batch"])
    assert not verdict.passed
