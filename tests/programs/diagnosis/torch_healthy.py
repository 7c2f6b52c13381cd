"""Healthy torch programs, which carry no fault's name: ordinary ones, and some that look odd and are right."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.programs.diagnosis import data
from tests.programs.diagnosis.corpus import Corpus, Fields
from tests.programs.diagnosis.torch_base import adam, adamw, column, images, mlp, sgd, tensors, tower

PROGRAMS = Corpus()
healthy = PROGRAMS.healthy


@healthy
def lenet_on_mnist() -> Fields:
    """Convolutions, pooling, two dense layers."""
    return {
        "model": lambda: nn.Sequential(
            *(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(16 * 16, 84), nn.ReLU(), nn.Linear(84, 10)),
        ),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": adam(1e-3),
        "batch": lambda: images((data.mnist(24)[0] / 255, data.mnist(24)[1]), 28),
    }


@healthy
def residual_with_batch_norm() -> Fields:
    """Two residual blocks."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.norm1 = nn.Conv2d(12, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
            self.conv2, self.norm2 = nn.Conv2d(12, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)

        def forward(self, x: Tensor) -> Tensor:
            h = F.relu(self.norm1(self.conv1(x)))
            return F.relu(x + self.norm2(self.conv2(h)))

    return {
        "model": lambda: nn.Sequential(
            *(nn.Conv2d(1, 12, 3, padding=1), Block(), nn.MaxPool2d(2), Block()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10)),
        ),
        "loss": F.cross_entropy,
        "optimizer": sgd(0.05, momentum=0.9, nesterov=True, weight_decay=5e-4),
        "batch": images(data.digits(24)),
    }


@healthy
def autoencoder_of_pixels() -> Fields:
    """Sigmoid under binary cross-entropy on grey values: the loss never comes to 0."""
    x, _ = tensors(data.digits(12))
    return {
        "model": lambda: nn.Sequential(*tower(64, 96, 24, 96, 64), nn.Sigmoid()),
        "loss": nn.BCELoss(),
        "optimizer": adam(5e-3),
        "batch": (x, x),
    }


@healthy
def logistic_regression() -> Fields:
    """One layer: no activation is missing where a plane suffices."""
    return {
        "model": lambda: nn.Linear(30, 1),
        "loss": nn.BCEWithLogitsLoss(),
        "optimizer": sgd(0.5),
        "batch": column(data.scaled("breast_cancer", 32)),
    }


@healthy
def iris_without_scaling() -> Fields:
    """Centimetres are near enough to unit scale."""
    return {
        "model": lambda: mlp(4, 3),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": adam(0.02),
        "batch": tensors(data.raw("iris", 24)),
    }


@healthy
def digits_of_sixteen() -> Fields:
    """Pixels of 0 to 16, as the data set has them."""
    x, y = data.raw("digits", 48)
    return {
        "model": lambda: tower(64, 64, 32, 10),
        "loss": F.cross_entropy,
        "optimizer": adam(2e-3),
        "train": tensors((x, y.astype("int64"))),
    }


@healthy
def bounded_regression_of_bounded_targets() -> Fields:
    """Tanh at the end, and targets between -0.9 and 0.9."""
    x, y = tensors(data.surfaces(24))
    return {
        "model": lambda: nn.Sequential(*tower(6, 64, 1, between=nn.Tanh), nn.Tanh()),
        "loss": nn.MSELoss(),
        "optimizer": adam(0.01),
        "batch": (x, 0.9 * torch.tanh(y)),
    }


@healthy
def counts_by_poisson() -> Fields:
    """Counts by the log of their rate: the best loss is not 0."""
    x, y = tensors(data.surfaces(24))
    return {
        "model": lambda: tower(6, 64, 64, 1, between=nn.SiLU),
        "loss": nn.PoissonNLLLoss(),
        "optimizer": adam(0.01),
        "batch": (x, (3 * (y - y.min())).round()),
    }


@healthy
def siamese_by_cosine() -> Fields:
    """Scores that are cosines times a scale: bounded, but far enough."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.centres = tower(64, 64, 32), nn.Parameter(torch.randn(10, 32))

        def forward(self, x: Tensor) -> Tensor:
            return 16 * F.normalize(self.body(x), dim=1) @ F.normalize(self.centres, dim=1).T

    return {"model": Net, "loss": F.cross_entropy, "optimizer": adam(3e-3), "batch": tensors(data.digits(32))}


@healthy
def zero_start_of_the_last_layer() -> Fields:
    """The last layer starts at 0, so that every class is as likely."""

    def model() -> nn.Module:
        net = tower(64, 64, 10)
        nn.init.zeros_(net[-1].weight), nn.init.zeros_(net[-1].bias)
        return net

    return {"model": model, "loss": F.cross_entropy, "optimizer": adam(3e-3), "batch": tensors(data.digits(32))}


@healthy
def half_of_the_units_dropped() -> Fields:
    """Dropout of a half, and decay."""
    return {
        "model": lambda: nn.Sequential(nn.Linear(13, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 3)),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": adamw(0.01, weight_decay=0.05),
        "batch": tensors(data.scaled("wine", 30)),
    }


@healthy
def weighted_focal_tags() -> Fields:
    """Focal loss of several labels, by hand."""

    def focal(outputs: Tensor, y: Tensor) -> Tensor:
        plain = F.binary_cross_entropy_with_logits(outputs, y, reduction="none")
        return ((1 - torch.exp(-plain)) ** 2 * plain * (1 + y)).mean()

    return {"model": lambda: mlp(12, 5), "loss": focal, "optimizer": adam(0.01), "batch": tensors(data.tags())}


@healthy
def sine_activations() -> Fields:
    """Sines between the layers, with their own draw."""

    class Sine(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(6 * x)

    return {
        "model": lambda: tower(2, 48, 48, 1, between=Sine),
        "loss": F.mse_loss,
        "optimizer": adam(1e-3),
        "batch": tensors(data.surfaces(24, features=2)),
    }


@healthy
def mixture_of_experts() -> Fields:
    """Three experts, by a soft gate."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.experts = nn.Linear(10, 3), nn.ModuleList(tower(10, 24, 1) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            weights = self.gate(x).softmax(-1)
            return (weights * torch.cat([expert(x) for expert in self.experts], 1)).sum(1, keepdim=True)

    return {"model": Net, "loss": nn.HuberLoss(), "optimizer": adam(0.01), "batch": column(data.diabetes(24))}


@healthy
def cosine_schedule_with_restarts() -> Fields:
    """The rate comes to nearly nothing, and back."""

    def schedule(optimizer: torch.optim.Optimizer) -> Any:
        return torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 50)

    return {
        "model": lambda: tower(30, 32, 2, between=nn.ELU),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": sgd(0.1, momentum=0.9),
        "scheduler": schedule,
        "batch": tensors(data.scaled("breast_cancer", 32)),
    }
