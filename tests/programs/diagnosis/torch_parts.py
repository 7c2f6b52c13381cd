"""Torch programs with a part that mixes rows, forgets them, or differs in evaluation."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.programs.diagnosis import data
from tests.programs.diagnosis.corpus import Corpus, Fields
from tests.programs.diagnosis.torch_base import adam, column, tensors, tower

PROGRAMS = Corpus()
pair = PROGRAMS.pair


@pair("excessive_dropout")
def digits_dropout_of_almost_all(broken: bool) -> Fields:
    """nn.Dropout(0.99), in the belief that it is the share that is kept."""
    return {
        "model": lambda: nn.Sequential(
            *(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.99 if broken else 0.1)),
            *(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.99 if broken else 0.1), nn.Linear(64, 10)),
        ),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": adam(3e-3),
        "batch": tensors(data.digits(32)),
    }


@pair("excessive_dropout")
def regression_dropout_at_the_input(broken: bool) -> Fields:
    """Nine inputs in ten are blanked."""
    return {
        "model": lambda: nn.Sequential(nn.Dropout(0.9 if broken else 0.0), *tower(10, 64, 64, 1)),
        "loss": nn.MSELoss(),
        "optimizer": adam(5e-3),
        "batch": column(data.diabetes(24)),
    }


def _dense(channels: int, momentum: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, 48), nn.BatchNorm1d(48, momentum=momentum), nn.ReLU())


@pair("batchnorm_eval_mismatch")
def statistics_that_never_move(broken: bool) -> Fields:
    """momentum=0, as another library counts it."""
    return {
        "model": lambda: nn.Sequential(nn.Linear(13, 13), *_dense(13, 0.0 if broken else 0.1), nn.Linear(48, 3)),
        "loss": F.cross_entropy,
        "optimizer": adam(0.01),
        "batch": tensors((data.scaled("wine", 30)[0] * 5 + 20, data.scaled("wine", 30)[1])),
    }


@pair("batchnorm_eval_mismatch", "batch_mixing")
def one_norm_for_two_views(broken: bool) -> Fields:
    """One BatchNorm is used behind two layers of very different scale."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.small, self.large, self.out = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(32, 4)
            self.norm = nn.BatchNorm1d(16)
            self.other = self.norm if broken else nn.BatchNorm1d(16)

        def forward(self, x: Tensor) -> Tensor:
            a, b = self.norm(self.small(x[:, :8])), self.other(30 * self.large(x[:, 8:]) + 50)
            return self.out(torch.relu(torch.cat([a, b], 1)))

    return {"model": Net, "loss": F.cross_entropy, "optimizer": adam(0.01), "batch": tensors(data.noise(24))}


@pair("batch_mixing")
def transformer_over_the_batch(broken: bool) -> Fields:
    """batch_first is left out: rows attend to rows."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(50, 16)
            self.block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=not broken)
            self.out = nn.Linear(16, 3)

        def forward(self, ids: Tensor) -> Tensor:
            return self.out(self.block(self.words(ids)).mean(1))

    return {"model": Net, "loss": F.cross_entropy, "optimizer": adam(5e-3), "batch": tensors(data.texts(18))}


@pair("batch_mixing")
def centred_by_the_batch(broken: bool) -> Fields:
    """Features are centred over dim 0; over the features was meant."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.out = nn.Linear(30, 32), nn.Linear(32, 1)

        def forward(self, x: Tensor) -> Any:
            h = torch.tanh(self.body(x))
            return self.out(h - h.mean(0 if broken else 1, keepdim=True))

    return {
        "model": Net,
        "loss": F.binary_cross_entropy_with_logits,
        "optimizer": adam(0.02),
        "batch": column(data.scaled("breast_cancer", 24)),
    }


@pair("input_ignored", "input_unused")
def zeros_like_left_in(broken: bool) -> Fields:
    """A line of debugging feeds zeros."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = tower(64, 48, 10)

        def forward(self, x: Tensor) -> Any:
            if broken:
                x = torch.zeros_like(x)
            return self.net(x)

    return {"model": Net, "loss": F.cross_entropy, "optimizer": adam(), "batch": tensors(data.digits(32))}


@pair("input_ignored", "input_unused")
def decoder_forgets_its_code(broken: bool) -> Fields:
    """A recurrent net is read at its initial state."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.out = nn.GRU(1, 32, batch_first=True), nn.Linear(32, 3)

        def forward(self, x: Tensor) -> Tensor:
            start = torch.zeros(1, len(x), 32)
            _, last = self.gru(x, start)
            return self.out((start if broken else last)[0])

    return {"model": Net, "loss": nn.CrossEntropyLoss(), "optimizer": adam(0.02), "batch": tensors(data.waves())}


@pair("input_ignored", "dead_relu")
def pooled_over_features_of_layer_norm(broken: bool) -> Fields:
    """The mean over the features that LayerNorm has just made 0 is all that the head sees."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.norm = nn.Linear(13, 32), nn.LayerNorm(32, elementwise_affine=False)
            self.out = nn.Linear(1 if broken else 32, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.norm(torch.tanh(self.body(x)))
            return self.out(h.mean(1, keepdim=True) if broken else h)

    return {"model": Net, "loss": F.cross_entropy, "optimizer": adam(0.02), "batch": tensors(data.scaled("wine", 30))}
