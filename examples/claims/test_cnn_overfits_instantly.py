"""A tutorial claims that a Keras CNN which overfits instantly has too much capacity. Its three programs.

It offers fewer filters (here 32 and 16 for 64 and 32), batch normalisation with dropout and L2, and augmentation. On
400 of scikit-learn's digits, with the ten epochs of the programs, the network with fewer filters is worse in training
and in validation: it was behind, not better regularised. Batch normalisation, dropout and L2 together help; the
comparison does not show which of them does, only that the claim is right about the three. Shifts of a fifth of the
image, turns of 20 degrees and a mirror, which no digit of the validation rows shows, cost 30 points. From another two
random seeds (one for the second program), and at most 16 pairs, the verdicts were the same.

Adapted: the images are 8 x 8, not 28 x 28, so the convolutions are padded to let two poolings fit. The first two
programs are written in torch here, with the initial weights of Keras, because Keras takes about a second to build and
trace each of twenty networks. The third is Keras: `ImageDataGenerator` is deprecated, and Keras' random layers take
its place. Batch normalisation is never taken out by itself: `unregularized=` names the network without it.
"""

from typing import Any

import keras
import numpy as np
import torch
from keras import layers
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from pytest_overfit import Case, Verdict, run_probes


def digits(rows: slice, *image: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return (x[rows] / 16).astype("float32").reshape(-1, *image), y[rows]


def verdict(name: str, image: tuple[int, ...] = (1, 8, 8), seed: int = 0, **given: Any) -> Verdict:
    splits = {"train": digits(slice(400), *image), "val": digits(slice(1400, None), *image)}
    return run_probes(Case(name=name, seed=seed, **splits, **given), ["regularization"], epochs=10)[0]


class CNN(nn.Module):
    """Gives its answers and the sum of the squared weights of its last layer, for a loss that penalises them."""

    def __init__(self, first: int, second: int, regularized: bool) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for before, after in ((1, first), (first, second)):
            normal = [nn.BatchNorm2d(after)] if regularized else []
            parts += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), *normal, nn.MaxPool2d(2)]
        self.features = nn.Sequential(*parts, nn.Dropout(0.25 if regularized else 0.0), nn.Flatten())
        self.last = nn.Linear(4 * second, 10)
        for each in (*parts, self.last):
            if isinstance(each, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(each.weight)
                nn.init.zeros_(each.bias)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.last(self.features(x)), self.last.weight.square().sum()


def without_penalty(outputs: tuple[torch.Tensor, torch.Tensor], y: torch.Tensor) -> torch.Tensor:
    return cross_entropy(outputs[0], y)


def with_penalty(outputs: tuple[torch.Tensor, torch.Tensor], y: torch.Tensor) -> torch.Tensor:
    return without_penalty(outputs, y) + 0.01 * outputs[1]


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.001)


def fewer_filters(seed: int = 0) -> Verdict:
    wide = lambda: CNN(64, 32, False)  # noqa: E731
    narrow = lambda: CNN(32, 16, False)  # noqa: E731
    return verdict("fewer", model=narrow, unregularized=wide, loss=without_penalty, optimizer=adam, seed=seed)


def three_regularizers(seed: int = 0) -> Verdict:
    plain = {"model": lambda: CNN(64, 32, False), "loss": without_penalty}
    model = lambda: CNN(64, 32, True)  # noqa: E731
    return verdict("three", model=model, loss=with_penalty, unregularized=plain, optimizer=adam, seed=seed)


def augmented() -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.RandomRotation(20 / 360, fill_mode="nearest"),
            layers.RandomTranslation(0.2, 0.2, fill_mode="nearest"),
            layers.RandomFlip("horizontal"),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def augmentation(seed: int = 0) -> Verdict:
    return verdict("augmentation", (8, 8, 1), model=augmented, seed=seed)


def test_fewer_filters_harm() -> None:
    found = fewer_filters()
    assert found.outcome == "failed"
    assert found.summary.startswith("harms")
    assert any("shapes differ" in each.message for each in found.findings)


def test_batch_normalisation_with_dropout_and_l2_helps() -> None:
    found = three_regularizers()
    assert found.outcome == "passed"
    assert found.summary.startswith("helps")


def test_augmentation_harms() -> None:
    found = augmentation()
    assert [each.split(" (")[0] for each in found.data["removed"]] == [
        "augmentation RandomRotation",
        "augmentation RandomTranslation",
        "augmentation RandomFlip",
    ]
    assert found.outcome == "failed"
    assert found.summary.startswith("harms")
