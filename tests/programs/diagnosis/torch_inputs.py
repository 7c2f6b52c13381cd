"""Torch programs whose inputs are not what the model needs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.programs.diagnosis import data
from tests.programs.diagnosis.corpus import Corpus, Fields
from tests.programs.diagnosis.torch_base import adam, column, images, mlp, sgd, tensors

PROGRAMS = Corpus()
pair = PROGRAMS.pair


@pair("unnormalised_input", "dead_relu")
def wine_own_units(broken: bool) -> Fields:
    """Proline is in the thousands, hue about 1; SGD."""
    return {
        "model": lambda: mlp(13, 3),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": sgd(0.05, momentum=0.9),
        "train": lambda: tensors(data.raw("wine", 60) if broken else data.scaled("wine", 60)),
    }


@pair("unnormalised_input")
def cancer_own_units(broken: bool) -> Fields:
    """Areas beside fractal dimensions, in a net of tanh."""
    return {
        "model": lambda: nn.Sequential(nn.Linear(30, 16), nn.Tanh(), nn.Linear(16, 1)),
        "loss": nn.BCEWithLogitsLoss(),
        "optimizer": adam(0.01),
        "batch": column(data.raw("breast_cancer", 32) if broken else data.scaled("breast_cancer", 32)),
    }


@pair("unnormalised_input")
def surface_of_timestamps(broken: bool) -> Fields:
    """One feature is a time in seconds since 1970."""
    x, y = data.surfaces()
    x = x.copy()
    if broken:
        x[:, 0] = 1.7e9 + 86_400 * x[:, 0]
    return {
        "model": lambda: mlp(6, 1),
        "loss": nn.MSELoss(),
        "optimizer": adam(3e-3),
        "batch": tensors((x, y)),
    }


@pair("unnormalised_input", "lr_too_high")
def mnist_in_bytes(broken: bool) -> Fields:
    """Pixels of 0 to 255, SGD with a rate for 0 to 1."""
    x, y = data.mnist(32)
    return {
        "model": lambda: nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)),
        "loss": F.cross_entropy,
        "optimizer": sgd(0.2),
        "batch": tensors((x if broken else x / 255, y)),
    }


@pair("double_normalised")
def mnist_scaled_twice(broken: bool) -> Fields:
    """Divided by 255 in the dataset, and again in forward."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.out = nn.Conv2d(1, 8, 5, stride=3), nn.Linear(8 * 8 * 8, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(F.relu(self.conv(x / 255 if broken else x)).flatten(1))

    x, y = data.mnist(24)
    return {
        "model": Net,
        "loss": F.cross_entropy,
        "optimizer": sgd(0.1, momentum=0.9),
        "batch": images((x / 255, y), 28),
    }


@pair("double_normalised")
def digits_scaled_twice(broken: bool) -> Fields:
    """Divided by 255, as pixels are, after they were brought to 0..1 by their own 16."""
    x, y = data.digits(48)
    return {
        "model": lambda: mlp(64, 10),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": sgd(0.5),
        "train": tensors((x / 255 if broken else x, y)),
    }


@pair("double_normalised")
def sound_scaled_twice(broken: bool) -> Fields:
    """Samples are divided by 32768 by the reader of the file, and again before the LSTM."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.out = nn.LSTM(1, 32, batch_first=True), nn.Linear(32, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.lstm(x / 32768 if broken else x)[0].amax(1))

    return {
        "model": Net,
        "loss": nn.CrossEntropyLoss(),
        "optimizer": sgd(0.3, momentum=0.9),
        "batch": tensors(data.waves()),
    }


@pair("constant_input", "labels_collapsed")
def digits_cast_to_integers(broken: bool) -> Fields:
    """Pixels of 0 to 1 are cast to bytes."""
    x, y = data.digits(48)
    x = x * 0.99
    return {
        "model": lambda: mlp(64, 10),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": adam(),
        "train": tensors((x.astype("uint8").astype("float32") if broken else x, y)),
    }


@pair("constant_input", "conflicting_labels")
def texts_all_unknown(broken: bool) -> Fields:
    """The vocabulary is in lower case and the texts are not: every word is number 1, and none is padding."""
    x, y = data.texts()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(50, 16)
            self.gru, self.out = nn.GRU(16, 24, batch_first=True), nn.Linear(24, 3)

        def forward(self, ids: Tensor) -> Tensor:
            return self.out(self.gru(self.words(ids))[0].mean(1))

    return {
        "model": Net,
        "loss": F.cross_entropy,
        "optimizer": adam(0.01),
        "batch": tensors((np.ones_like(x) if broken else x, y)),
    }


@pair("constant_input", "input_ignored")
def one_file_read_again_and_again(broken: bool) -> Fields:
    """The loop over the files reads the first one each time."""

    class Folder(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 48

        def __getitem__(self, index: int) -> Any:
            x, y = data.digits(48)
            return torch.as_tensor(x[0 if broken else index]).reshape(1, 8, 8), int(y[index])

    def model() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))

    return {
        "model": model,
        "loss": nn.CrossEntropyLoss(),
        "optimizer": adam(),
        "train": lambda: torch.utils.data.DataLoader(Folder(), batch_size=24),
    }


@pair("nan_in_input", "nan_parameter")
def diabetes_with_gaps(broken: bool) -> Fields:
    """Missing values were not filled."""
    x, y = data.diabetes(32)
    x[data.random().random(x.shape) < 0.05] = np.nan if broken else 0
    return {
        "model": lambda: mlp(10, 1),
        "loss": nn.MSELoss(),
        "optimizer": adam(0.01),
        "batch": column((x, y)),
    }


@pair("nan_in_input", "division_by_zero", "nan_parameter")
def digits_standardised_with_blank_columns(broken: bool) -> Fields:
    """Columns that are always blank have a deviation of 0: 0 / 0."""
    x, y = data.digits(48)
    with np.errstate(invalid="ignore", divide="ignore"):
        x = (x - x.mean(0)) / (x.std(0) if broken else x.std(0).clip(1e-2))
    return {
        "model": lambda: mlp(64, 10),
        "loss": F.cross_entropy,
        "optimizer": adam(),
        "train": tensors((x, y)),
    }
