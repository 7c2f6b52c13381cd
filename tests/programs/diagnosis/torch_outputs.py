"""Torch programs with a softmax or a sigmoid too many, too few, or in the wrong place."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.programs.diagnosis import data
from tests.programs.diagnosis.corpus import Corpus, Fields
from tests.programs.diagnosis.torch_base import adam, adamw, column, images, maybe, mlp, sgd, tensors

PROGRAMS = Corpus()
pair = PROGRAMS.pair


@pair("double_softmax", "bounded_logits")
def digits_softmax_twice(broken: bool) -> Fields:
    """nn.Softmax at the end, as the tutorial for Keras had it, and CrossEntropyLoss."""
    return {
        "model": lambda: mlp(64, 10, *maybe(broken, nn.Softmax(dim=1))),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": adam(1e-3),
        "train": tensors(data.digits(64)),
    }


@pair("double_softmax", "bounded_logits")
def mnist_cnn_softmax_twice(broken: bool) -> Fields:
    """F.softmax in forward and F.cross_entropy outside."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 8, 5, stride=2), nn.Conv2d(8, 16, 5, stride=2)
            self.fc = nn.Linear(16 * 4 * 4, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.conv2(F.relu(self.conv1(x / 255))))
            x = self.fc(x.flatten(1))
            return F.softmax(x, dim=-1) if broken else x

    return {
        "model": Net,
        "loss": F.cross_entropy,
        "optimizer": adam(2e-3),
        "train": lambda: images(data.mnist(24), 28),
    }


@pair("double_softmax", "bounded_logits")
def texts_softmax_twice(broken: bool) -> Fields:
    """A bag of words that returns probabilities, trained with label smoothing of none."""

    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.out = nn.EmbeddingBag(50, 24, padding_idx=0), nn.Linear(24, 3)

        def forward(self, ids: Tensor) -> Tensor:
            scores = self.out(torch.relu(self.words(ids)))
            return torch.softmax(scores, 1) if broken else scores

    return {
        "model": Bag,
        "loss": lambda outputs, y: F.cross_entropy(outputs, y, label_smoothing=0.0),
        "optimizer": adam(0.02),
        "batch": tensors(data.texts()),
    }


@pair("softmax_without_log")
def iris_nll_of_probabilities(broken: bool) -> Fields:
    """NLLLoss on probabilities: Softmax where LogSoftmax was meant."""
    return {
        "model": lambda: mlp(4, 3, nn.Softmax(dim=1) if broken else nn.LogSoftmax(dim=1)),
        "loss": nn.NLLLoss(),
        "optimizer": adam(0.01),
        "batch": tensors(data.scaled("iris", 24)),
    }


@pair("softmax_without_log")
def lstm_nll_of_probabilities(broken: bool) -> Fields:
    """The same at the end of an LSTM."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.out = nn.LSTM(1, 32, batch_first=True), nn.Linear(32, 3)

        def forward(self, x: Tensor) -> Tensor:
            scores = self.out(self.lstm(x)[0][:, -1])
            return F.softmax(scores, -1) if broken else F.log_softmax(scores, -1)

    return {"model": Net, "loss": F.nll_loss, "optimizer": adam(0.02), "batch": tensors(data.waves())}


@pair("missing_softmax", "wrong_loss")
def wine_nll_of_scores(broken: bool) -> Fields:
    """NLLLoss on raw scores: the loss falls without end."""
    return {
        "model": lambda: mlp(13, 3, *maybe(not broken, nn.LogSoftmax(dim=-1))),
        "loss": nn.NLLLoss(),
        "optimizer": sgd(0.1, momentum=0.9),
        "batch": tensors(data.scaled("wine", 30)),
    }


@pair("missing_softmax", "wrong_loss")
def distilled_without_softmax(broken: bool) -> Fields:
    """A student learns a teacher's probabilities by KLDivLoss from its raw scores."""
    x, y = tensors(data.digits(24))
    soft = F.one_hot(y, 10) * 0.9 + 0.01
    return {
        "model": lambda: mlp(64, 10, *maybe(not broken, nn.LogSoftmax(dim=-1))),
        "loss": nn.KLDivLoss(reduction="batchmean"),
        "optimizer": adam(3e-3),
        "batch": (x, soft),
    }


@pair("missing_sigmoid", "wrong_loss")
def cancer_bce_of_scores(broken: bool) -> Fields:
    """BCELoss gets scores of any size."""
    return {
        "model": lambda: mlp(30, 1, *maybe(not broken, nn.Sigmoid())),
        "loss": nn.BCELoss(),
        "optimizer": adam(0.01),
        "batch": column(data.scaled("breast_cancer", 32)),
    }


@pair("missing_sigmoid", "log_of_zero", "wrong_loss")
def own_bce_of_scores(broken: bool) -> Fields:
    """A binary cross-entropy written by hand, on scores that no sigmoid has seen: logs of negative numbers."""

    def bce(p: Tensor, y: Tensor) -> Tensor:
        return -(y * torch.log(p + 1e-7) + (1 - y) * torch.log(1 - p + 1e-7)).mean()

    return {
        "model": lambda: mlp(12, 5, *maybe(not broken, nn.Sigmoid())),
        "loss": bce,
        "optimizer": adam(0.01),
        "batch": tensors(data.tags()),
    }


@pair("double_sigmoid", "bounded_logits")
def cancer_sigmoid_twice(broken: bool) -> Fields:
    """Sigmoid at the end, and BCEWithLogitsLoss."""
    return {
        "model": lambda: nn.Sequential(nn.Linear(30, 16), nn.Tanh(), nn.Linear(16, 1), *maybe(broken, nn.Sigmoid())),
        "loss": nn.BCEWithLogitsLoss(),
        "optimizer": adam(0.02),
        "train": column(data.scaled("breast_cancer", 64)),
    }


@pair("double_sigmoid", "bounded_logits")
def tags_sigmoid_twice(broken: bool) -> Fields:
    """Five labels a row."""

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(12, 5, units=64)

        def forward(self, x: Tensor) -> Any:
            scores = self.net(x)
            return scores.sigmoid() if broken else scores

    return {
        "model": Tagger,
        "loss": F.binary_cross_entropy_with_logits,
        "optimizer": adamw(0.01),
        "batch": tensors(data.tags()),
    }


@pair("softmax_single_unit", "output_range")
def cancer_softmax_of_one(broken: bool) -> Fields:
    """Softmax over one unit is 1, whatever comes in."""
    return {
        "model": lambda: mlp(30, 1, nn.Softmax(dim=1) if broken else nn.Sigmoid()),
        "loss": nn.BCELoss(),
        "optimizer": adam(0.01),
        "batch": column(data.scaled("breast_cancer", 32)),
    }


@pair("softmax_single_unit", "output_range", "input_ignored")
def spirals_softmax_of_one(broken: bool) -> Fields:
    """The same, under a squared error, with the class in one column."""
    return {
        "model": lambda: nn.Sequential(
            *(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)),
            nn.Softmax(-1) if broken else nn.Sigmoid(),
        ),
        "loss": nn.MSELoss(),
        "optimizer": adam(0.01),
        "batch": column(data.spirals(32)),
    }


@pair("softmax_wrong_axis")
def digits_log_softmax_over_rows(broken: bool) -> Fields:
    """log_softmax over dim 0, the batch."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            return F.log_softmax(self.body(x), dim=0 if broken else 1)

    return {"model": Net, "loss": F.nll_loss, "optimizer": adam(3e-3), "batch": tensors(data.digits(32))}


@pair("softmax_wrong_axis", "batch_mixing")
def iris_softmax_over_rows(broken: bool) -> Fields:
    """Probabilities that sum to 1 over the batch, against one-hot targets."""
    x, y = tensors(data.scaled("iris", 24))
    return {
        "model": lambda: mlp(4, 3, nn.Softmax(dim=0 if broken else 1)),
        "loss": nn.MSELoss(),
        "optimizer": adam(0.01),
        "batch": (x, F.one_hot(y, 3).float()),
    }
