"""Torch programs that make numbers that are none, and programs that do not run."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.programs.diagnosis import data
from tests.programs.diagnosis.corpus import Corpus, Fields
from tests.programs.diagnosis.torch_base import adam, column, images, loop, sgd, tensors, tower

PROGRAMS = Corpus()
pair = PROGRAMS.pair


@pair("log_of_zero")
def own_divergence(broken: bool) -> Fields:
    """Kullback-Leibler by hand: t * log(t) of one-hot targets is 0 * -inf."""

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        t = F.one_hot(y, 10).float()
        own = t * torch.log(t) if broken else torch.xlogy(t, t)
        return (own - t * outputs.log_softmax(1)).sum(1).mean()

    return {
        "model": lambda: tower(64, 48, 10),
        "loss": loss,
        "optimizer": adam(0.02),
        "batch": tensors(data.digits(32)),
    }


@pair("log_of_zero", "nan_parameter")
def counts_by_their_log(broken: bool) -> Fields:
    """log of pixel values, most of which are 0."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = tower(64, 48, 10)

        def forward(self, x: Tensor) -> Any:
            return self.net(torch.log(x) if broken else torch.log1p(x))

    return {"model": Net, "loss": F.cross_entropy, "optimizer": adam(), "batch": tensors(data.digits(32))}


@pair("sqrt_zero_gradient", "nan_parameter")
def root_of_squared_error(broken: bool) -> Fields:
    """A root over each row's squared error, in a net that starts at 0 where one target is 0."""
    x, y = tensors(data.surfaces(24))
    y[0], x[0] = 0.0, 0.0

    def model() -> nn.Module:
        net = tower(6, 48, 1, between=nn.Tanh)
        nn.init.zeros_(net[0].bias), nn.init.zeros_(net[2].bias)
        return net

    def loss(outputs: Tensor, target: Tensor) -> Tensor:
        return torch.sqrt((outputs - target) ** 2 + (0 if broken else 1e-6)).mean()

    return {"model": model, "loss": loss, "optimizer": adam(0.01), "batch": (x, y)}


@pair("sqrt_zero_gradient", "nan_parameter")
def lengths_of_blank_words(broken: bool) -> Fields:
    """Words are scaled by their length, and padding has none."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.out = nn.Embedding(50, 16), nn.Linear(16, 3)

        def forward(self, ids: Tensor) -> Tensor:
            h = self.words(ids) * (ids != 0)[..., None]
            length = torch.sqrt((h**2).sum(-1, keepdim=True) + (0 if broken else 1e-8))
            return self.out((h / (1 + length)).sum(1))

    return {"model": Net, "loss": F.cross_entropy, "optimizer": adam(0.02), "batch": tensors(data.texts())}


@pair("division_by_zero", "nan_parameter")
def rows_divided_by_their_sum(broken: bool) -> Fields:
    """Rows are brought to a sum of 1, and one is blank."""
    x, y = data.digits(24)
    x[5] = 0

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = tower(64, 64, 10)

        def forward(self, x: Tensor) -> Any:
            total = x.sum(1, keepdim=True)
            return self.net(20 * x / (total if broken else total.clamp(min=1)))

    return {"model": Net, "loss": F.cross_entropy, "optimizer": adam(0.01), "batch": tensors((x, y))}


@pair("division_by_zero", "nan_parameter")
def mean_over_words_that_are_none(broken: bool) -> Fields:
    """The mean over the words of a text, by a mask, and one text is empty."""
    x, y = data.texts()
    x[3] = 0

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.out = nn.Embedding(50, 24), nn.Linear(24, 3)

        def forward(self, ids: Tensor) -> Tensor:
            mask = (ids != 0).float()[..., None]
            count = mask.sum(1) if broken else mask.sum(1).clamp(min=1)
            return self.out((self.words(ids) * mask).sum(1) / count)

    return {"model": Net, "loss": nn.CrossEntropyLoss(), "optimizer": adam(0.02), "batch": tensors((x, y))}


@pair("shape_mismatch")
def flatten_of_another_size(broken: bool) -> Fields:
    """The pictures got smaller, the layer behind flatten did not."""

    def model() -> nn.Module:
        inputs = 8 * 13 * 13 if broken else 8 * 3 * 3
        return nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(inputs, 10)
        )  # fmt: skip

    return {"model": model, "loss": F.cross_entropy, "optimizer": adam(), "batch": images(data.digits(24))}


@pair("shape_mismatch")
def hidden_sizes_that_differ(broken: bool) -> Fields:
    """128 units out, 64 in."""
    return {
        "model": lambda: nn.Sequential(nn.Linear(13, 128 if broken else 64), nn.ReLU(), nn.Linear(64, 3)),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": adam(),
        "batch": tensors(data.scaled("wine", 30)),
    }


@pair("shape_mismatch")
def one_hot_in_a_column(broken: bool) -> Fields:
    """Class numbers as a column under cross-entropy."""
    x, y = tensors(data.digits(24))
    return {
        "model": lambda: tower(64, 48, 10),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": adam(),
        "batch": (x, y[:, None] if broken else y),
    }


@pair("dtype_mismatch")
def classes_as_floats(broken: bool) -> Fields:
    """Class numbers as floats under cross-entropy."""
    x, y = tensors(data.digits(24))
    return loop(
        lambda: tower(64, 48, 10), (x, y.float() if broken else y), nn.CrossEntropyLoss(), sgd(0.2, momentum=0.9)
    )  # fmt: skip


@pair("dtype_mismatch")
def doubles_from_numpy(broken: bool) -> Fields:
    """numpy's own floats meet weights of single precision."""
    x, y = column(data.diabetes(24))
    x = torch.as_tensor(np.asarray(x, dtype="float64" if broken else "float32"))
    return {"model": lambda: tower(10, 48, 1), "loss": nn.MSELoss(), "optimizer": adam(0.01), "batch": (x, y)}


@pair("dtype_mismatch")
def word_numbers_as_floats(broken: bool) -> Fields:
    """Word numbers went through a float array."""
    x, y = tensors(data.texts())

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.out = nn.Embedding(50, 16), nn.Linear(16, 3)

        def forward(self, ids: Tensor) -> Tensor:
            return self.out(self.words(ids).mean(1))

    return {
        "model": Net,
        "loss": F.cross_entropy,
        "optimizer": adam(0.02),
        "batch": (x.float() if broken else x, y),
    }
