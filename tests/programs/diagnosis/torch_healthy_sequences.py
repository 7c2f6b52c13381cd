"""Healthy torch programs of sequences, which carry no fault's name."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.programs.diagnosis import data
from tests.programs.diagnosis.corpus import Corpus, Fields
from tests.programs.diagnosis.torch_base import adam, adamw, loop, tensors

PROGRAMS = Corpus()
healthy = PROGRAMS.healthy


@healthy
def bidirectional_lstm() -> Fields:
    """A tagger of texts."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(50, 24, padding_idx=0)
            self.lstm = nn.LSTM(24, 24, batch_first=True, bidirectional=True)
            self.out = nn.Linear(48, 3)

        def forward(self, ids: Tensor) -> Tensor:
            return self.out(self.lstm(self.words(ids))[0].mean(1))

    return {"model": Net, "loss": F.cross_entropy, "optimizer": adamw(5e-3), "batch": tensors(data.texts())}


@healthy
def transformer_with_dropout() -> Fields:
    """An encoder with learnt positions, padding mask and a warm-up."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(50, 32, padding_idx=0), nn.Parameter(torch.zeros(12, 32))
            layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True, norm_first=True)
            self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.out = nn.Linear(32, 3)

        def forward(self, ids: Tensor) -> Tensor:
            blank = ids == 0
            h = self.blocks(self.words(ids) + self.places, src_key_padding_mask=blank)
            return self.out(h.masked_fill(blank[..., None], 0).sum(1) / (~blank).sum(1, keepdim=True))

    def warm_up(optimizer: torch.optim.Optimizer) -> Any:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 20))

    return {
        "model": Net,
        "loss": nn.CrossEntropyLoss(label_smoothing=0.05),
        "optimizer": adamw(3e-3, betas=(0.9, 0.98)),
        "scheduler": warm_up,
        "batch": tensors(data.texts(18)),
    }


@healthy
def frozen_embedding_on_purpose() -> Fields:
    """Random words stay as they are, all else trains."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(50, 48).requires_grad_(False)
            self.gru, self.out = nn.GRU(48, 32, batch_first=True), nn.Linear(32, 3)

        def forward(self, ids: Tensor) -> Tensor:
            return self.out(self.gru(self.words(ids))[0].amax(1))

    return {"model": Net, "loss": F.cross_entropy, "optimizer": adam(5e-3), "batch": tensors(data.texts())}


@healthy
def clipped_gru_in_own_loop() -> Fields:
    """Gradients are clipped to 1, as for every recurrent net."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.out = nn.GRU(1, 32, batch_first=True), nn.Linear(32, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.gru(x)[0][:, -1])

    def clip(net: nn.Module) -> None:
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)

    return loop(Net, tensors(data.waves()), nn.CrossEntropyLoss(), adam(0.01), after_backward=clip)


@healthy
def temporal_convolutions() -> Fields:
    """Dilated convolutions over time, with GroupNorm."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                *(nn.Conv1d(1, 16, 3, dilation=1), nn.GroupNorm(4, 16), nn.GELU()),
                *(nn.Conv1d(16, 16, 3, dilation=2), nn.GroupNorm(4, 16), nn.GELU()),
            )
            self.out = nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.body(x.transpose(1, 2)).mean(-1))

    return {"model": Net, "loss": F.cross_entropy, "optimizer": adam(0.01), "batch": tensors(data.waves())}
