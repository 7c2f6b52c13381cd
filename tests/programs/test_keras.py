"""`overfit_batch` on what people train in Keras: each kind of program with a twin that has a planted fault."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from keras import layers, ops  # noqa: E402

from pytest_overfit import Case, CaseError, Verdict, run_probes  # noqa: E402
from pytest_overfit.adapters.dispatch import learner_for  # noqa: E402
from pytest_overfit.data.telling import batch_of  # noqa: E402

ROWS = 12
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 6)).astype("float32")
OTHER = RNG.normal(size=(ROWS, 6)).astype("float32")
LABELS = np.arange(ROWS) % 3
VALUES = RNG.normal(size=(ROWS, 1)).astype("float32")
SEVERAL = (RNG.random((ROWS, 4)) > 0.5).astype("float32")
IMAGES = RNG.normal(size=(ROWS, 8, 8, 1)).astype("float32")
PIXELS = (IMAGES[..., 0] > 0).astype("int64") + (IMAGES[..., 0] > 0.8)
GREY = RNG.random((ROWS, 16)).astype("float32")
TOKENS = RNG.integers(1, 9, size=(ROWS, 6))
TOKENS[::2, 4:] = 0
SERIES = RNG.normal(size=(ROWS, 5, 3)).astype("float32")
SPARSE = "sparse_categorical_crossentropy"


@dataclasses.dataclass(frozen=True)
class Program:
    """A factory that takes whether it is to be broken, its batch, and what the verdict on the broken one says."""

    make: Callable[[bool], Any]
    batch: Any
    says: str = "loss ratio"
    outcome: str = "failed"
    fields: Any = dataclasses.field(default_factory=dict)

    def verdict(self, broken: bool) -> Verdict:
        fields = {"limits": {"steps": 250}, **self.fields}
        case = Case(name="case", model=lambda: self.make(broken), batch=self.batch, **fields)
        return run_probes(case, ["overfit_batch"])[0]


class Blind(layers.Layer):
    """Lets nothing through: what follows it sees no input."""

    supports_masking = True

    def call(self, x: Any) -> Any:
        return 0.0 * x  # zero gradients, where zeros_like would give none at all, of which Keras warns


def compiled(model: Any, loss: Any = SPARSE, rate: float = 1e-2, **more: Any) -> Any:
    model.compile(**{"optimizer": keras.optimizers.Adam(rate), "loss": loss, **more})
    return model


def chain(broken: bool, *parts: Any, shape: tuple[int | None, ...] = (6,)) -> Any:
    """A chain of layers; in the broken one nothing comes through to the last."""
    return keras.Sequential([keras.Input(shape), *parts[:-1], *([Blind()] if broken else []), parts[-1]])


def mlp(broken: bool, outputs: int = 3, activation: str | None = "softmax", *between: Any) -> Any:
    return chain(broken, layers.Dense(48, "relu"), *between, layers.Dense(outputs, activation))


# several inputs and outputs


def two_heads(kind: str) -> Callable[[bool], Any]:
    """Two inputs, two outputs; in the broken one the first head sees nothing."""

    def make(broken: bool) -> Any:
        a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
        joined = layers.Dense(48, "relu")(layers.Concatenate()([a, b]))
        label = layers.Dense(3, "softmax", name="label")(Blind()(joined) if broken else joined)
        amount = layers.Dense(1, name="amount")(joined)
        if kind == "dict":
            model = keras.Model({"a": a, "b": b}, {"label": label, "amount": amount})
            return compiled(model, {"label": SPARSE, "amount": "mse"}, loss_weights={"label": 0.2, "amount": 2.0})
        pair = (a, b), (label, amount)
        model = keras.Model(*(list(each) if kind == "list" else each for each in pair))
        return compiled(model, [SPARSE, "mse"])

    return make


def one_without_loss(broken: bool) -> Any:
    inputs = keras.Input((6,))
    hidden = layers.Dense(48, "relu")(inputs)
    label = layers.Dense(3, "softmax", name="label")(Blind()(hidden) if broken else hidden)
    return compiled(keras.Model(inputs, [label, layers.Dense(8, name="shown")(hidden)]), [SPARSE, None])


class Subclassed(keras.Model):
    def __init__(self, broken: bool) -> None:
        super().__init__()
        self.hidden, self.label, self.amount = layers.Dense(48, "relu"), layers.Dense(3, "softmax"), layers.Dense(1)
        self.blind = Blind() if broken else layers.Identity()

    def call(self, x: Any) -> Any:
        hidden = self.hidden(ops.concatenate([x["a"], x["b"]], axis=-1))
        return {"label": self.label(hidden), "amount": self.amount(self.blind(hidden))}


NAMED, PAIR = {"a": X, "b": OTHER}, (LABELS, VALUES)
HEADS = {
    "two_heads_dict": Program(two_heads("dict"), (NAMED, {"label": LABELS, "amount": VALUES}), "accuracy[label]"),
    "two_heads_list": Program(two_heads("list"), ([X, OTHER], list(PAIR)), "accuracy[label]"),
    "head_without_loss": Program(one_without_loss, (X, [LABELS, GREY[:, :8]])),
    "subclassed": Program(
        lambda broken: compiled(Subclassed(broken), {"label": SPARSE, "amount": "mse"}),
        (NAMED, {"label": LABELS, "amount": VALUES}),
        "1 - R2 is 1",
    ),
}


# losses made inside the model or its step


class Endpoint(layers.Layer):
    """Takes the labels as an input and adds the loss, as CTC models do."""

    def call(self, inputs: Any) -> Any:
        labels, shown = inputs
        self.add_loss(ops.mean(keras.losses.sparse_categorical_crossentropy(labels, shown)))
        return shown


def endpoint(broken: bool) -> Any:
    x, labels = keras.Input((6,)), keras.Input((), dtype="int32")
    model = keras.Model([x, labels], Endpoint()([labels, mlp(broken)(x)]))
    model.compile(keras.optimizers.Adam(1e-2))
    return model


class AddsLoss(keras.Model):
    """An autoencoder whose loss is added in its call, next to a penalty on weights."""

    def __init__(self, broken: bool) -> None:
        super().__init__()
        self.coder, self.decoder = layers.Dense(32, "relu", kernel_regularizer="l2"), layers.Dense(6)
        self.blind = Blind() if broken else layers.Identity()

    def call(self, x: Any) -> Any:
        shown = self.decoder(self.blind(self.coder(x)))
        self.add_loss(ops.mean((shown - x) ** 2))
        return shown


class Distilled(keras.Model):
    """A custom step with two terms, one against a frozen teacher."""

    def __init__(self, broken: bool) -> None:
        super().__init__()
        self.student, self.teacher = mlp(broken, 3, None, layers.Dropout(0.1)), mlp(False, 3)
        self.teacher.trainable = False

    def call(self, x: Any, training: bool = False) -> Any:
        return self.student(x, training=training)

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            shown, soft = self(x, training=True), self.teacher(x)
            hard = ops.mean(keras.losses.sparse_categorical_crossentropy(y, shown, from_logits=True))
            loss = 0.9 * hard + 0.1 * ops.mean(keras.losses.kl_divergence(soft, ops.softmax(shown)))
        weights = self.student.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss}


def contrast(first: Any, second: Any) -> Any:
    """Cross-entropy over all pairs: each row's partner is the row of the same number."""
    close = ops.matmul(ops.normalize(first), ops.transpose(ops.normalize(second))) / 0.1
    numbers = ops.arange(ops.shape(close)[0])
    return ops.mean(keras.losses.sparse_categorical_crossentropy(numbers, close, from_logits=True))


class Contrastive(keras.Model):
    """Two noisy views of each row through one encoder: no targets, and no call."""

    def __init__(self, broken: bool) -> None:
        super().__init__()
        self.encoder, self.augment = mlp(broken, 16, None), layers.GaussianNoise(0.1)

    def train_step(self, data: Any) -> Any:
        x = data[0] if isinstance(data, tuple) else data
        with tf.GradientTape() as tape:
            loss = contrast(*[self.encoder(self.augment(x, training=True)) for _ in range(2)])
        weights = self.encoder.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss}


def stepping(kind: Any) -> Callable[[bool], Any]:
    def make(broken: bool) -> Any:
        model = kind(broken)
        model.compile(keras.optimizers.Adam(1e-2))
        return model

    return make


INSIDE = {
    "add_loss_layer": Program(endpoint, ([X, LABELS.astype("int32")], None)),
    "add_loss_model": Program(stepping(AddsLoss), (X, None)),
    "distillation_step": Program(stepping(Distilled), (X, LABELS)),
    "contrastive_step": Program(stepping(Contrastive), (X, None), ""),
}


# weights


def weighted(broken: bool) -> Any:
    return compiled(mlp(broken))


WEIGHTS = {
    "class_weight": Program(weighted, (X, LABELS), fields={"fit_kwargs": {"class_weight": {0: 2.0, 2: 0.5}}}),
    "class_weight_zero": Program(
        weighted, (X, LABELS), outcome="inconclusive", fields={"fit_kwargs": {"class_weight": {2: 0.0}}}
    ),
    "sample_weight": Program(weighted, (X, LABELS, np.linspace(0, 2, ROWS))),
}


# sequences and pictures


def masked_rnn(broken: bool) -> Any:
    parts = layers.Embedding(9, 16, mask_zero=True), layers.Bidirectional(layers.LSTM(16)), layers.Dense(3, "softmax")
    return compiled(chain(broken, *parts, shape=(6,)), rate=2e-2)


def tagger(broken: bool) -> Any:
    parts = layers.Embedding(9, 16, mask_zero=True), layers.GRU(24, return_sequences=True), layers.Dense(9, "softmax")
    return compiled(chain(broken, *parts, shape=(6,)), rate=2e-2)


def stateful(broken: bool) -> Any:
    parts = [keras.Input(batch_shape=(ROWS, 5, 3)), layers.Masking(-1.0), layers.LSTM(24, stateful=True)]
    return compiled(keras.Sequential([*parts, *([Blind()] if broken else []), layers.Dense(1)]), "mse")


def segmenter(loss: str) -> Callable[[bool], Any]:
    def make(broken: bool) -> Any:
        conv = layers.Conv2D(24, 3, padding="same", activation="relu")
        return compiled(chain(broken, conv, layers.Conv2D(3, 1, activation="softmax"), shape=(8, 8, 1)), loss)

    return make


def augmented(broken: bool) -> Any:
    parts = layers.RandomFlip(), layers.RandomRotation(0.1), layers.Conv2D(16, 3, activation="relu"), layers.Flatten()
    return compiled(chain(broken, *parts, layers.Dense(3, "softmax"), shape=(8, 8, 1)))


SHAPED = {
    "masked_bidirectional_lstm": Program(masked_rnn, (TOKENS, TOKENS.sum(axis=1) % 3)),
    "masked_tagging": Program(tagger, (TOKENS, TOKENS)),
    "stateful_lstm": Program(stateful, (SERIES, VALUES)),
    "segmentation_sparse": Program(segmenter(SPARSE), (IMAGES, PIXELS[..., None])),
    "segmentation_one_hot": Program(segmenter("categorical_crossentropy"), (IMAGES, np.eye(3)[PIXELS])),
    "augmentation": Program(augmented, (IMAGES, LABELS)),
}


# other losses


def likelihood(y: Any, shown: Any) -> Any:
    return ops.mean(shown[:, 1:] + 0.5 * ((y - shown[:, :1]) / ops.exp(shown[:, 1:])) ** 2)


def hardest_triplet(y: Any, shown: Any) -> Any:
    shown, y = ops.normalize(shown), ops.reshape(y, (-1,))
    apart = ops.sum((shown[:, None] - shown[None]) ** 2, axis=-1)
    same = ops.cast(y[:, None] == y[None], "float32")
    return ops.mean(ops.relu(ops.max(apart * same, axis=1) - ops.min(apart + 9.0 * same, axis=1) + 0.5))


def siamese(broken: bool) -> Any:
    tower, a, b = mlp(broken, 8, None), keras.Input((6,)), keras.Input((6,))
    apart = ops.sum((tower(a) - tower(b)) ** 2, axis=-1, keepdims=True)
    return compiled(keras.Model([a, b], apart), lambda y, d: ops.mean(ops.where(y > 0, d**2, ops.relu(1.0 - d) ** 2)))


LOSSES = {
    "autoencoder_grey_pixels": Program(
        lambda broken: compiled(
            chain(broken, layers.Dense(64, "relu"), layers.Dense(16, "sigmoid"), shape=(16,)), "binary_crossentropy"
        ),
        (GREY, GREY),
    ),
    "multilabel": Program(
        lambda broken: compiled(mlp(broken, 4, "sigmoid"), "binary_crossentropy", 3e-2), (X, SEVERAL)
    ),
    "learnt_variance": Program(
        lambda broken: compiled(mlp(broken, 2, None), likelihood), (X, VALUES), "no longer falling"
    ),
    "triplet": Program(lambda broken: compiled(mlp(broken, 8, None), hardest_triplet), (X, LABELS), ""),
    "siamese_contrastive": Program(siamese, ([X, OTHER], np.arange(ROWS) % 2), ""),
}


# optimizers, precision and how it is run


class Counting(layers.Layer):
    """A layer with states of its own that move in training only."""

    def build(self, shape: Any) -> None:
        self.mean = self.add_weight(shape=(shape[-1],), initializer="zeros", trainable=False)

    def call(self, x: Any, training: bool = False) -> Any:
        if training:
            self.mean.assign(0.9 * self.mean + 0.1 * ops.mean(x, axis=0))
        return x - self.mean


def normalised(broken: bool) -> Any:
    adapted = layers.Normalization()
    adapted.adapt(X * 100 + 500)
    parts = layers.Dense(48), layers.LayerNormalization(), layers.GroupNormalization(8), layers.ReLU(), Counting()
    return compiled(chain(broken, adapted, *parts, layers.SpectralNormalization(layers.Dense(3, "softmax"))))


def optimized(make: Callable[[], Any]) -> Program:
    return Program(lambda broken: compiled(mlp(broken), optimizer=make()), (X, LABELS))


def mixed(policy: str) -> Program:
    """Sets the policy and leaves it set, as scripts do."""

    def make(broken: bool) -> Any:
        keras.config.set_dtype_policy(policy)
        return compiled(mlp(broken))

    return Program(make, (X, LABELS), "nothing is trained")


Adam = keras.optimizers.Adam
TRAINED = {
    "normalisations_and_states": Program(normalised, (X * 100 + 500, LABELS)),
    "accumulation": optimized(lambda: Adam(3e-2, gradient_accumulation_steps=4)),
    "clipnorm_ema": optimized(
        lambda: Adam(1e-2, clipnorm=0.5, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=5)
    ),
    "decay_and_schedule": optimized(
        lambda: keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(1e-2, 400), weight_decay=1e-3)
    ),
    "loss_scale": optimized(lambda: Adam(1e-2, loss_scale_factor=128.0)),
    "mixed_float16": mixed("mixed_float16"),
    "mixed_bfloat16": mixed("mixed_bfloat16"),
    "jit_compile": Program(lambda broken: compiled(mlp(broken), jit_compile=True), (X, LABELS)),
    "steps_per_execution": Program(lambda broken: compiled(mlp(broken), steps_per_execution=5), (X, LABELS)),
    "run_eagerly": Program(
        lambda broken: compiled(mlp(broken), run_eagerly=True), (X, LABELS), fields={"limits": {"steps": 100}}
    ),
}

PROGRAMS = {**HEADS, **INSIDE, **WEIGHTS, **SHAPED, **LOSSES, **TRAINED}


@pytest.mark.filterwarnings("ignore:Gradients do not exist")  # Keras says so of the head that has no loss
@pytest.mark.parametrize("name", PROGRAMS)
def test_healthy_passes_and_its_blind_twin_does_not(name: str) -> None:
    program = PROGRAMS[name]
    policy = keras.config.dtype_policy().name
    healthy, blind = program.verdict(broken=False), program.verdict(broken=True)
    assert healthy.outcome == "passed", healthy.summary
    assert blind.outcome == program.outcome, blind.summary
    assert program.says in " ".join([blind.summary, *(each.message for each in blind.findings)])
    assert keras.config.dtype_policy().name == policy


# models that sample


class Latent(layers.Layer):
    """Mean plus noise times deviation; adds the divergence from the prior itself."""

    def __init__(self, adds: bool) -> None:
        super().__init__()
        self.adds, self.random = adds, keras.random.SeedGenerator(1)

    def call(self, inputs: Any) -> Any:
        mean, log_variance = inputs
        if self.adds:
            self.add_loss(1e-3 * divergence(mean, log_variance))
        return mean + ops.exp(0.5 * log_variance) * keras.random.normal(ops.shape(mean), seed=self.random)


def divergence(mean: Any, log_variance: Any) -> Any:
    return -0.5 * ops.mean(ops.sum(1 + log_variance - mean**2 - ops.exp(log_variance), axis=-1))


def coders(broken: bool, adds: bool) -> tuple[Any, Any]:
    x, code = keras.Input((16,)), keras.Input((8,))
    hidden = layers.Dense(48, "relu")(x)
    start = keras.initializers.Constant(-5.0)
    mean, log_variance = layers.Dense(8)(hidden), layers.Dense(8, bias_initializer=start)(hidden)
    encoder = keras.Model(x, [mean, log_variance, Latent(adds)([mean, log_variance])])
    decoder = keras.Model(code, chain(broken, layers.Dense(48, "relu"), layers.Dense(16, "sigmoid"), shape=(8,))(code))
    return encoder, decoder


def vae_add_loss(broken: bool) -> Any:
    encoder, decoder = coders(broken, adds=True)
    return compiled(keras.Model(encoder.inputs, decoder(encoder.outputs[2])), "mse")


class Vae(keras.Model):
    """As tutorials write it: an encoder, a decoder, a custom step, and no call."""

    def __init__(self, broken: bool) -> None:
        super().__init__()
        (self.encoder, self.decoder), self.tracker = coders(broken, adds=False), keras.metrics.Mean(name="loss")

    @property
    def metrics(self) -> list[Any]:
        return [self.tracker]

    def train_step(self, data: Any) -> Any:
        x = data[0] if isinstance(data, tuple) else data
        with tf.GradientTape() as tape:
            mean, log_variance, code = self.encoder(x)
            error = ops.mean(ops.sum((self.decoder(code) - x) ** 2, axis=-1))
            loss = error + 1e-2 * divergence(mean, log_variance)
        weights = self.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        self.tracker.update_state(loss)
        return {"loss": self.tracker.result(), "error": error}


VAES = {
    "add_loss": Program(vae_add_loss, (GREY, GREY)),
    "train_step": Program(stepping(Vae), (GREY, None)),
}


@pytest.mark.parametrize("name", VAES)
def test_a_vae_passes_and_one_whose_decoder_sees_no_code_does_not(name: str) -> None:
    healthy, blind = (VAES[name].verdict(broken) for broken in (False, True))
    assert healthy.outcome == "passed", healthy.summary
    assert "the model samples" in healthy.data["reference"]["how"]
    if name == "train_step":
        (remark,) = healthy.data["remarks"]
        assert "the loss that custom train_step differentiates" in remark
        assert "without terms that compare nothing with the batch" in remark
    assert any(each.name == "eval_forwards_agree" and each.outcome == "warning" for each in healthy.findings)
    assert blind.outcome != "passed", blind.summary


def test_models_that_train_against_each_other_are_not_judged() -> None:
    class Rivals(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.maker, self.critic = mlp(False, 6, None), mlp(False, 1, None)
            self.other = keras.optimizers.Adam()

        def train_step(self, data: Any) -> Any:
            found = {}
            for name, part, optimizer in (("d", self.critic, self.other), ("g", self.maker, self.optimizer)):
                with tf.GradientTape() as tape:
                    loss = ops.mean(self.critic(self.maker(data))) * (1.0 if name == "d" else -1.0)
                weights = part.trainable_weights
                optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
                found[f"{name}_loss"] = loss
            return found

    def make() -> Any:
        model = Rivals()
        model.compile(keras.optimizers.Adam())
        return model

    (found,) = run_probes(Case(name="case", model=make, batch=(X, None)), ["overfit_batch"])
    assert found.outcome == "not_applicable"
    assert "d_loss, g_loss" in found.summary


# data


class Batches(keras.utils.PyDataset):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Any:
        return X, LABELS


def endless() -> Any:
    while True:
        yield X, LABELS


SLICES = tf.data.Dataset.from_tensor_slices


@pytest.mark.parametrize(
    "train",
    [
        lambda: SLICES((X, LABELS)).batch(ROWS),
        lambda: SLICES((X, LABELS, np.ones(ROWS, "float32"))).batch(ROWS, drop_remainder=True),
        lambda: Batches(),
        endless,
        (X, LABELS),
    ],
    ids=["tf_data", "tf_data_weights", "py_dataset", "generator", "arrays"],
)
def test_data_as_fit_takes_them(train: Any) -> None:
    (found,) = run_probes(Case(name="case", model=lambda: weighted(False), train=train), ["overfit_batch"])
    assert found.outcome == "passed", found.summary
    assert found.data["rows"] == ROWS


def test_of_data_sorted_by_class_the_rows_that_are_taken_keep_their_weights() -> None:
    x, y = np.tile(X, (6, 1)) + np.arange(6 * ROWS, dtype="float32")[:, None] / 50, np.repeat(np.arange(3), 2 * ROWS)
    case = Case(
        name="case",
        model=lambda: compiled(mlp(False)),
        train=(x, y),
        fit_kwargs={"sample_weight": y.astype("float32"), "batch_size": 12},
    )
    learner = learner_for(case, batch_of(case), 0)
    assert np.array_equal(learner.feed.row_weights, learner.targets[0])
    assert set(learner.targets[0].tolist()) == {0, 1, 2}
    (found,) = run_probes(case, ["overfit_batch"])
    assert found.outcome == "passed", found.summary


def test_data_by_name() -> None:
    def train() -> Any:
        return SLICES((NAMED, {"label": LABELS, "amount": VALUES})).batch(ROWS)

    (found,) = run_probes(Case(name="case", model=lambda: two_heads("dict")(False), train=train), ["overfit_batch"])
    assert found.outcome == "passed", found.summary


def test_a_dataset_that_is_not_batched_is_refused() -> None:
    case = Case(name="case", model=lambda: compiled(mlp(False, 6, None), "mse"), train=lambda: SLICES((X, OTHER)))
    with pytest.raises(CaseError, match=r"shape \(6,\).*that of one sample.*dataset\.batch"):
        run_probes(case, ["overfit_batch"])
