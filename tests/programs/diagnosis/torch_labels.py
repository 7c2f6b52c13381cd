"""Torch programs whose labels are not those of the task."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.programs.diagnosis import data
from tests.programs.diagnosis.corpus import LATER, Corpus, Fields
from tests.programs.diagnosis.torch_base import adam, column, images, mlp, sgd, tensors

PROGRAMS = Corpus()
pair = PROGRAMS.pair


@pair("label_out_of_range", "label_off_by_one")
def iris_counted_from_one(broken: bool) -> Fields:
    """Classes 1 to 3 for three units."""
    x, y = tensors(data.scaled("iris", 24))
    return {
        "model": lambda: mlp(4, 3),
        "loss": F.cross_entropy,
        "optimizer": adam(0.01),
        "batch": (x, y + 1 if broken else y),
    }


@pair("label_out_of_range")
def cancer_minus_one_and_one(broken: bool) -> Fields:
    """Classes of -1 and 1, as a support vector machine has them."""
    x, y = tensors(data.scaled("breast_cancer", 32))
    return {
        "model": lambda: mlp(30, 2),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": sgd(0.1, momentum=0.9),
        "batch": (x, 2 * y - 1 if broken else y),
    }


@pair("label_out_of_range")
def spam_numbers_beyond_the_vocabulary(broken: bool) -> Fields:
    """Classes that are the word numbers of their names."""
    x, y = tensors(data.texts())

    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.out = nn.Embedding(50, 16, padding_idx=0), nn.Linear(16, 3)

        def forward(self, ids: Tensor) -> Tensor:
            return self.out(self.words(ids).sum(1))

    return {"model": Bag, "loss": F.cross_entropy, "optimizer": adam(0.02), "batch": (x, y + 17 if broken else y)}


@pair("labels_collapsed")
def digits_divided_by_ten(broken: bool) -> Fields:
    """Targets go through the line that scales the pixels."""
    x, y = data.raw("digits", 64)
    y = (y // 16 if broken else y).astype("int64")
    return {
        "model": lambda: mlp(64, 10),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": adam(),
        "train": tensors((x / 16, y)),
    }


@pair("labels_collapsed")
def wine_argmax_over_one_column(broken: bool) -> Fields:
    """Labels in one column are decoded as if they were one-hot."""
    x, y = data.scaled("wine", 48)
    table = y[:, None]
    decoded = table.argmax(axis=1) if broken else table[:, 0]
    return {
        "model": lambda: mlp(13, 3),
        "loss": F.cross_entropy,
        "optimizer": adam(0.01),
        "train": tensors((x, decoded)),
    }


@pair("labels_collapsed", "unnormalised_target")
def diabetes_rounded_away(broken: bool) -> Fields:
    """Targets are cast to integers after they were brought to 0..1."""
    x, y = data.diabetes(48)
    unit = (y - y.min()) / (y.max() - y.min() + 0.01)
    return {
        "model": lambda: mlp(10, 1),
        "loss": nn.MSELoss(),
        "optimizer": adam(0.01),
        "train": column((x, unit.astype(int) if broken else unit)),
    }


@pair("conflicting_labels")
def texts_cut_to_one_word(broken: bool) -> Fields:
    """Texts are cut to their last two words, nearly all of them padding."""
    x, y = tensors(data.texts())

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.out = nn.Embedding(50, 16), nn.Linear(16, 3)

        def forward(self, ids: Tensor) -> Tensor:
            return self.out(self.words(ids).mean(1))

    return {"model": Net, "loss": F.cross_entropy, "optimizer": adam(0.02), "batch": (x[:, -2:] if broken else x, y)}


@pair("conflicting_labels")
def two_annotators(broken: bool) -> Fields:
    """The rows of two annotators one behind the other, who number the classes differently."""
    x, y = data.scaled("wine", 24)
    other = 2 - y if broken else y
    return {
        "model": lambda: mlp(13, 3),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": adam(0.01),
        "batch": tensors((np.concatenate([x, x]), np.concatenate([y, other]))),
    }


def _shifted(x: Any, y: Any, shift: int) -> Any:
    return tensors((x, np.roll(y, shift)))


@pair("misaligned_labels", probes=LATER)
def digits_labels_shuffled_alone(broken: bool) -> Fields:
    """The training labels are permuted, their rows are not."""
    x, y = data.digits(300)
    if broken:
        y = data.random().permutation(y)
    return {
        "model": lambda: mlp(64, 10),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": adam(0.01),
        "train": tensors((x, y)),
        "val": tensors(data.digits(200, 300)),
    }


@pair("misaligned_labels", probes=LATER)
def wine_labels_shifted_by_a_header(broken: bool) -> Fields:
    """One line too many was skipped in the file of the labels."""
    x, y = data.scaled("wine", 110)
    return {
        "model": lambda: mlp(13, 3),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": adam(0.01),
        "train": _shifted(x, y, -1 if broken else 0),
        "val": tensors(data.scaled("wine", 60, 110)),
    }


@pair("misaligned_labels", probes=LATER)
def digits_validation_in_another_order(broken: bool) -> Fields:
    """The rows of validation were sorted by brightness, their labels were not."""
    x, y = data.digits(200, 300)
    order = x.mean(1).argsort()

    def model() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))

    return {
        "model": model,
        "loss": nn.CrossEntropyLoss(),
        "optimizer": adam(5e-3),
        "train": images(data.digits(300)),
        "val": images((x[order], y if broken else y[order])),
    }


@pair("unnormalised_target")
def prices_in_cents(broken: bool) -> Fields:
    """Targets of some ten millions."""
    x, y = tensors(data.surfaces())
    return {
        "model": lambda: mlp(6, 1),
        "loss": nn.MSELoss(),
        "optimizer": adam(0.01),
        "batch": (x, 2e7 + 1e7 * y if broken else y),
    }


@pair("unnormalised_target")
def diabetes_own_units(broken: bool) -> Fields:
    """Targets of 25 to 346, and steps as for unit scale."""
    x, y = column(data.raw("diabetes", 32))
    x = torch.as_tensor(data.scaled("diabetes", 32)[0])
    return {
        "model": lambda: nn.Sequential(nn.Linear(10, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)),
        "loss": nn.MSELoss(),
        "optimizer": sgd(0.02, momentum=0.9),
        "batch": (x, y if broken else (y - 152) / 77),
    }
