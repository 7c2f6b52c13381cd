"""Torch programs whose last layer cannot give what the loss asks for."""

from __future__ import annotations

import itertools

import torch.nn.functional as F
from torch import Tensor, nn

from tests.programs.diagnosis import data
from tests.programs.diagnosis.corpus import Corpus, Fields
from tests.programs.diagnosis.torch_base import adam, column, images, maybe, mlp, sgd, tensors

PROGRAMS = Corpus()
pair = PROGRAMS.pair


@pair("output_range")
def diabetes_tanh_at_the_end(broken: bool) -> Fields:
    """Tanh behind the last layer; a third of the standardised targets is beyond 1."""
    return {
        "model": lambda: mlp(10, 1, *maybe(broken, nn.Tanh())),
        "loss": nn.MSELoss(),
        "optimizer": adam(0.01),
        "train": column(data.diabetes(32)),
    }


@pair("output_range", "relu_on_logits", "dead_relu")
def surface_relu_at_the_end(broken: bool) -> Fields:
    """ReLU behind the last layer, as behind all others; half of the targets are below 0."""
    return {
        "model": lambda: mlp(6, 2, *maybe(broken, nn.ReLU())),
        "loss": nn.SmoothL1Loss(),
        "optimizer": adam(0.01),
        "batch": tensors(data.surfaces(targets=2)),
    }


@pair("output_range")
def autoencoder_sigmoid_on_standardised(broken: bool) -> Fields:
    """The decoder ends in a sigmoid, and the columns are standardised."""
    x, _ = tensors(data.scaled("wine", 16))

    def model() -> nn.Module:
        return nn.Sequential(
            *(nn.Linear(13, 64), nn.ELU(), nn.Linear(64, 16), nn.ELU(), nn.Linear(16, 64), nn.ELU()),
            *(nn.Linear(64, 13), *maybe(broken, nn.Sigmoid())),
        )

    return {"model": model, "loss": F.mse_loss, "optimizer": adam(5e-3), "batch": (x, x)}


@pair("bounded_logits", "double_sigmoid")
def digits_sigmoid_before_cross_entropy(broken: bool) -> Fields:
    """A sigmoid on each of ten scores."""
    return {
        "model": lambda: mlp(64, 10, *maybe(broken, nn.Sigmoid())),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": adam(3e-3),
        "batch": tensors(data.digits(32)),
    }


@pair("bounded_logits")
def wine_tanh_before_cross_entropy(broken: bool) -> Fields:
    """A loop over layers puts tanh behind each, the last included."""

    def model() -> nn.Module:
        sizes, layers = [13, 32, 32, 3], []
        for index, (size, following) in enumerate(itertools.pairwise(sizes)):
            layers.append(nn.Linear(size, following))
            if broken or index < 2:
                layers.append(nn.Tanh())
        return nn.Sequential(*layers)

    return {
        "model": model,
        "loss": F.cross_entropy,
        "optimizer": sgd(0.1, momentum=0.9),
        "batch": tensors(data.scaled("wine", 30)),
    }


@pair("relu_on_logits", "dead_relu")
def digits_relu_on_scores(broken: bool) -> Fields:
    """ReLU behind the last layer, whose biases start below 0 for rare classes."""

    def model() -> nn.Module:
        net = mlp(64, 10, *maybe(broken, nn.ReLU()))
        nn.init.constant_(net[2].bias, -1.0)
        return net

    return {
        "model": model,
        "loss": F.cross_entropy,
        "optimizer": adam(1e-3),
        "batch": tensors(data.digits(32)),
    }


@pair("relu_on_logits")
def lenet_relu_then_log_softmax(broken: bool) -> Fields:
    """F.relu(self.fc2(x)), then log_softmax."""

    class LeNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc1, self.fc2 = nn.Conv2d(1, 8, 3), nn.Linear(8 * 3 * 3, 32), nn.Linear(32, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = F.max_pool2d(F.relu(self.conv(x)), 2)
            x = self.fc2(F.relu(self.fc1(x.flatten(1))))
            return F.log_softmax(F.relu(x) if broken else x, dim=1)

    return {"model": LeNet, "loss": F.nll_loss, "optimizer": adam(3e-3), "batch": images(data.digits(32))}


@pair("dropout_on_output")
def wine_dropout_on_scores(broken: bool) -> Fields:
    """Dropout behind the last layer."""
    return {
        "model": lambda: mlp(13, 3, *maybe(broken, nn.Dropout(0.8))),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": adam(0.01),
        "batch": tensors(data.scaled("wine", 30)),
    }


@pair("dropout_on_output")
def diabetes_dropout_on_answer(broken: bool) -> Fields:
    """Half of the answers of a regression are set to 0 while it trains."""
    return {
        "model": lambda: mlp(10, 1, *maybe(broken, nn.Dropout(0.5))),
        "loss": nn.MSELoss(),
        "optimizer": adam(0.01),
        "batch": column(data.diabetes(32)),
    }
