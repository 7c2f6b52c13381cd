"""Torch programs whose loss does not fit the task, or whose targets do not fit the outputs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.programs.diagnosis import data
from tests.programs.diagnosis.corpus import Corpus, Fields
from tests.programs.diagnosis.torch_base import adam, column, loop, mlp, tensors

PROGRAMS = Corpus()
pair = PROGRAMS.pair


@pair("wrong_loss")
def tags_cross_entropy(broken: bool) -> Fields:
    """Several labels a row, and a loss that shares one probability among them."""
    return {
        "model": lambda: mlp(12, 5),
        "loss": nn.CrossEntropyLoss() if broken else nn.BCEWithLogitsLoss(),
        "optimizer": adam(0.01),
        "batch": tensors(data.tags()),
    }


@pair("wrong_loss")
def surface_binary_cross_entropy(broken: bool) -> Fields:
    """A regression under BCEWithLogitsLoss."""
    return {
        "model": lambda: mlp(6, 1),
        "loss": nn.BCEWithLogitsLoss() if broken else nn.MSELoss(),
        "optimizer": adam(0.01),
        "batch": tensors(data.surfaces()),
    }


@pair("wrong_loss", "wrong_output_units")
def diabetes_cross_entropy(broken: bool) -> Fields:
    """A regression under cross-entropy of one unit: the loss is 0 from the start."""
    return {
        "model": lambda: mlp(10, 1),
        "loss": F.cross_entropy if broken else F.mse_loss,
        "optimizer": adam(0.01),
        "batch": column(data.diabetes(32)),
    }


@pair("wrong_loss")
def cancer_hinge_of_zero_and_one(broken: bool) -> Fields:
    """HingeEmbeddingLoss takes targets of -1 and 1; these are 0 and 1."""
    return {
        "model": lambda: nn.Sequential(nn.Linear(30, 24), nn.GELU(), nn.Linear(24, 1)),
        "loss": nn.HingeEmbeddingLoss() if broken else nn.BCEWithLogitsLoss(),
        "optimizer": adam(5e-3),
        "batch": column(data.scaled("breast_cancer", 32)),
    }


@pair("wrong_loss", "wrong_reduction")
def loss_of_means(broken: bool) -> Fields:
    """The mean of the errors squared, instead of the mean of the squared errors."""

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        return (outputs - y).mean() ** 2 if broken else ((outputs - y) ** 2).mean()

    return {"model": lambda: mlp(6, 1), "loss": loss, "optimizer": adam(0.01), "batch": tensors(data.surfaces())}


@pair("wrong_output_units", "label_out_of_range")
def digits_nine_units(broken: bool) -> Fields:
    """Nine units for ten classes."""
    return {
        "model": lambda: mlp(64, 9 if broken else 10),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": adam(),
        "batch": tensors(data.digits(48)),
    }


@pair("wrong_output_units", "label_out_of_range", "wrong_loss")
def cancer_one_unit_of_cross_entropy(broken: bool) -> Fields:
    """One unit for two classes, under CrossEntropyLoss."""
    return {
        "model": lambda: mlp(30, 1 if broken else 2),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": adam(),
        "batch": tensors(data.scaled("breast_cancer", 32)),
    }


@pair("wrong_output_units", "target_broadcast")
def three_targets_from_one_unit(broken: bool) -> Fields:
    """Three targets a row, one unit: the answer is compared with each."""
    return {
        "model": lambda: mlp(6, 1 if broken else 3),
        "loss": nn.MSELoss(),
        "optimizer": adam(0.01),
        "batch": tensors(data.surfaces(targets=3)),
    }


@pair("target_broadcast", "shape_mismatch")
def surface_forgotten_squeeze(broken: bool) -> Fields:
    """Outputs [N, 1] against targets [N]."""
    x, y = tensors(data.surfaces())
    return {
        "model": lambda: mlp(6, 1),
        "loss": nn.MSELoss(),
        "optimizer": adam(0.01),
        "batch": (x, y[:, 0] if broken else y),
    }


@pair("target_broadcast", "shape_mismatch")
def rnn_broadcast_in_own_loop(broken: bool) -> Fields:
    """A forecast of one value by a GRU, with the squared error written by hand in the loop."""

    class Forecast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.out = nn.GRU(1, 32, batch_first=True), nn.Linear(32, 1)

        def forward(self, x: Tensor) -> Any:
            answer = self.out(self.gru(x)[1][0])
            return answer if broken else answer.squeeze(1)

    waves = torch.as_tensor(data.waves(16)[0])
    return loop(
        Forecast, (waves[:, :-1], waves[:, -1, 0]), lambda outputs, y: ((outputs - y) ** 2).mean(), adam(0.02)
    )  # fmt: skip
