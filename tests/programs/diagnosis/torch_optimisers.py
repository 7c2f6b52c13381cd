"""Torch programs whose steps are of the wrong size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.programs.diagnosis import data
from tests.programs.diagnosis.corpus import Corpus, Fields
from tests.programs.diagnosis.torch_base import adam, adamw, column, images, mlp, sgd, stepping, tensors

PROGRAMS = Corpus()
pair = PROGRAMS.pair


def cnn() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(8 * 16, 32), nn.ReLU(), nn.Linear(32, 10)),
    )


@pair("lr_too_low")
def digits_sgd_of_a_millionth(broken: bool) -> Fields:
    """SGD with 1e-6."""
    return {
        "model": lambda: mlp(64, 10),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": sgd(1e-6 if broken else 0.3),
        "train": tensors(data.digits(32)),
    }


@pair("lr_too_low")
def cnn_adam_of_a_ten_millionth(broken: bool) -> Fields:
    """Adam with 1e-7, in a CNN."""
    return {
        "model": cnn,
        "loss": F.cross_entropy,
        "optimizer": adam(1e-7 if broken else 3e-3),
        "batch": images(data.digits(24)),
    }


@pair("lr_too_low")
def lstm_fine_tuning_rate(broken: bool) -> Fields:
    """AdamW with the rate of a large pretrained model's fine-tuning, and less, for an LSTM that starts from nothing."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(50, 16, padding_idx=0)
            self.lstm, self.out = nn.LSTM(16, 32, batch_first=True), nn.Linear(32, 3)

        def forward(self, ids: Tensor) -> Tensor:
            return self.out(self.lstm(self.words(ids))[0].amax(1))

    return {
        "model": Net,
        "loss": F.cross_entropy,
        "optimizer": adamw(2e-6 if broken else 0.01),
        "batch": tensors(data.texts()),
    }


@pair("lr_too_high", "dead_relu")
def digits_sgd_of_fifty(broken: bool) -> Fields:
    """SGD with 50, in place of 0.5."""
    return {
        "model": lambda: mlp(64, 10),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": sgd(50 if broken else 0.5),
        "batch": tensors(data.digits(48)),
    }


@pair("lr_too_high", "dead_relu")
def cnn_adam_of_one(broken: bool) -> Fields:
    """Adam with a rate of 1."""
    return {
        "model": cnn,
        "loss": F.cross_entropy,
        "optimizer": adam(1.0 if broken else 3e-3),
        "batch": images(data.digits(24)),
    }


@pair("lr_too_high")
def diabetes_momentum_diverges(broken: bool) -> Fields:
    """SGD with momentum and a rate of 2 in a regression."""
    return {
        "model": lambda: nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 1)),
        "loss": nn.MSELoss(),
        "optimizer": sgd(2.0 if broken else 0.03, momentum=0.9),
        "batch": column(data.diabetes(24)),
    }


@pair("lr_too_high")
def transformer_rmsprop_of_a_half(broken: bool) -> Fields:
    """RMSprop with 0.5 for a small transformer."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(50, 16)
            self.block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
            self.out = nn.Linear(16, 3)

        def forward(self, ids: Tensor) -> Tensor:
            return self.out(self.block(self.words(ids)).mean(1))

    return {
        "model": Net,
        "loss": F.cross_entropy,
        "optimizer": lambda parameters: torch.optim.RMSprop(parameters, lr=0.5 if broken else 1e-3),
        "batch": tensors(data.texts(18)),
    }


@pair("lr_zero", "update_skipped")
def rate_by_whole_division(broken: bool) -> Fields:
    """The rate is divided with //."""
    batch = 32
    return {
        "model": lambda: mlp(13, 3),
        "loss": F.cross_entropy,
        "optimizer": sgd(3 // batch if broken else 3 / batch, momentum=0.9),
        "batch": tensors(data.scaled("wine", 32)),
    }


@pair("lr_zero", "schedule_kills_rate", "update_skipped")
def warm_up_that_stays_at_zero(broken: bool) -> Fields:
    """A warm-up over 10 steps, counted in whole numbers of warm-ups."""

    def factor(step: int) -> float:
        return 0.0 if broken else min(1.0, (step + 1) / 10)

    return {
        "model": lambda: mlp(6, 1),
        "loss": nn.MSELoss(),
        "optimizer": adam(0.01),
        "scheduler": lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, factor),
        "batch": tensors(data.surfaces()),
    }


@pair("lr_negative")
def rate_with_a_minus(broken: bool) -> Fields:
    """The sign of the step was put into the rate."""
    return {
        "model": lambda: mlp(64, 10),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": sgd(-0.1 if broken else 0.1, momentum=0.9),
        "batch": tensors(data.digits(24)),
    }


@pair("lr_negative", "gradient_ascent")
def schedule_crosses_zero(broken: bool) -> Fields:
    """A linear schedule with a slope that was meant to be a factor."""

    def factor(step: int) -> float:
        return -1.0 if broken else 1.0

    return {
        "model": lambda: mlp(10, 1),
        "loss": nn.MSELoss(),
        "optimizer": sgd(0.1),
        "scheduler": lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, factor),
        "batch": column(data.diabetes(24)),
    }


@pair("bad_adam_epsilon", "lr_too_low")
def epsilon_of_ten_thousand(broken: bool) -> Fields:
    """eps=1e4 for 1e-4."""
    return {
        "model": lambda: mlp(64, 10),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": adam(3e-3, eps=1e4 if broken else 1e-4),
        "batch": tensors(data.digits(32)),
    }


@pair("bad_adam_epsilon", "lr_too_low")
def epsilon_of_a_hundred(broken: bool) -> Fields:
    """AdamW with eps=100 on a tagger."""
    return {
        "model": lambda: nn.Sequential(nn.Linear(12, 64), nn.SiLU(), nn.Linear(64, 5)),
        "loss": nn.BCEWithLogitsLoss(),
        "optimizer": adamw(0.01, eps=100.0 if broken else 1e-8),
        "batch": tensors(data.tags()),
    }


@pair("schedule_kills_rate", "lr_too_low")
def halved_after_every_batch(broken: bool) -> Fields:
    """ExponentialLR of 0.5, meant for epochs, is stepped after every batch."""
    return {
        "model": lambda: mlp(64, 10),
        "loss": F.cross_entropy,
        "optimizer": sgd(0.3),
        "scheduler": lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5 if broken else 0.999),
        "batch": tensors(data.digits(32)),
    }


@pair("schedule_kills_rate", "lr_too_low")
def cosine_over_ten_steps(broken: bool) -> Fields:
    """OneCycleLR's tail: a polynomial decay to 0 within ten epochs, counted in batches."""

    def schedule(optimizer: torch.optim.Optimizer) -> Any:
        return torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=10 if broken else 5000)

    return {
        "model": lambda: mlp(6, 1),
        "loss": nn.MSELoss(),
        "optimizer": adam(0.01),
        "scheduler": schedule,
        "batch": tensors(data.surfaces()),
    }


@pair("excessive_weight_decay")
def sgd_decay_of_five(broken: bool) -> Fields:
    """weight_decay=5 for 5e-4."""
    return {
        "model": lambda: mlp(64, 10),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": sgd(0.1, weight_decay=5 if broken else 5e-4),
        "batch": tensors(data.digits(32)),
    }


@pair("excessive_weight_decay")
def adam_decay_of_one(broken: bool) -> Fields:
    """Adam with weight_decay=1, in a regression with several targets."""
    return {
        "model": lambda: nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 3)),
        "loss": nn.MSELoss(),
        "optimizer": adam(0.01, weight_decay=1.0 if broken else 0.0),
        "batch": tensors(data.surfaces(targets=3)),
    }


@pair("excessive_weight_decay")
def penalty_in_own_loop(broken: bool) -> Fields:
    """The sum of all squared weights is added, by hand, with a factor of 1."""

    def make_step(net: nn.Module) -> Callable[[Any, Any], Any]:
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        strength = 1.0 if broken else 1e-5

        def step(x: Tensor, y: Tensor) -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), y)
            penalty = sum((each**2).sum() for each in net.parameters())
            (loss + strength * penalty).backward()
            optimizer.step()
            return loss

        return step

    return stepping(make_step, model=lambda: mlp(13, 3), batch=tensors(data.scaled("wine", 30)))


@pair("excessive_weight_decay")
def decoupled_decay_of_fifty(broken: bool) -> Fields:
    """AdamW, whose decay is multiplied by the rate, with a decay set for one that is not."""
    return {
        "model": cnn,
        "loss": F.cross_entropy,
        "optimizer": adamw(3e-3, weight_decay=60.0 if broken else 0.01),
        "batch": images(data.digits(24)),
    }
