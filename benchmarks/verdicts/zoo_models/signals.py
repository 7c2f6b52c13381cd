"""What tutorials build in PyTorch: sound, series, graphs, pairs, several heads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from benchmarks.verdicts.zoo_models.base import Architecture, adam, digits, random


def sound_net() -> nn.Module:
    """Convolutions on the raw wave, as in the tutorial on spoken commands."""
    conv = lambda a, b, k, s: [nn.Conv1d(a, b, k, s), nn.BatchNorm1d(b), nn.ReLU(), nn.MaxPool1d(4)]  # noqa: E731
    return nn.Sequential(
        *(*conv(1, 32, 80, 16), *conv(32, 32, 3, 1), *conv(32, 64, 3, 1)),
        *(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, 8), nn.LogSoftmax(1)),
    )


def waves() -> tuple[torch.Tensor, torch.Tensor]:
    time, pitch = torch.arange(8000) / 8000, torch.arange(16)[:, None] * 15.0 + 40
    noise = 0.1 * torch.randn(16, 8000, generator=random(2))
    return (torch.sin(2 * torch.pi * pitch * time) + noise)[:, None], torch.arange(16) % 8


class Crnn(nn.Module):
    """Convolutions, a recurrent net along the width, CTC: time comes first in its output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.rnn, self.head = nn.LSTM(32 * 4, 64, bidirectional=True, batch_first=True), nn.Linear(128, 11)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv(x).permute(0, 3, 1, 2).flatten(2)
        return self.head(self.rnn(h)[0]).log_softmax(2).transpose(0, 1)


def written() -> tuple[torch.Tensor, torch.Tensor]:
    """Four digits side by side."""
    x, y = digits(64)
    return x.view(16, 4, 8, 8).permute(0, 2, 1, 3).reshape(16, 1, 8, 32), y.view(16, 4) + 1


def ctc(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    steps, rows, _ = outputs.shape
    return F.ctc_loss(outputs, y, torch.full((rows,), steps), torch.full((rows,), y.shape[1]), zero_infinity=True)


class Forecaster(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(1, 50, batch_first=True), nn.Linear(50, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def series() -> tuple[torch.Tensor, torch.Tensor]:
    wave = torch.sin(0.3 * (torch.arange(32)[:, None] * 1.7 + torch.arange(21)))
    return wave[:, :20, None], wave[:, 20:]


class Gcn(nn.Module):
    """Two graph convolutions on a dense adjacency; dropout 0.5, Adam 0.01 with weight decay 5e-4."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.drop = nn.Linear(64, 32), nn.Linear(32, 10), nn.Dropout(0.5)

    def forward(self, x: torch.Tensor, links: torch.Tensor) -> torch.Tensor:
        return links @ self.second(self.drop(torch.relu(links @ self.first(self.drop(x)))))


def graph() -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Digits linked to their three nearest, normalised; every second one has a label, as in the paper's task."""
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x[:64] / 16, dtype=torch.float32), torch.tensor(y[:64])
    y[1::2] = -100
    near = torch.cdist(x, x).topk(4, largest=False).indices
    links = torch.zeros(64, 64).scatter_(1, near, 1)
    links = ((links + links.T) > 0).float()
    root = links.sum(1).rsqrt()
    return (x, root[:, None] * links * root[None]), y


class PointNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.points = nn.Sequential(nn.Conv1d(3, 64, 1), nn.BatchNorm1d(64), nn.ReLU(), nn.Conv1d(64, 128, 1))
        self.head = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.points(x).amax(2))


def clouds() -> tuple[torch.Tensor, torch.Tensor]:
    scale = torch.rand(16, 3, 1, generator=random(9)) + 0.5
    return torch.randn(16, 3, 128, generator=random(10)) * scale, torch.arange(16) % 4


class Siamese(nn.Module):
    """Says whether two digits are the same."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([self.body(one), self.body(other)], 1))[:, 0]


def two_digits() -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    x, y = digits(64)
    order = torch.cat([torch.argsort(y[:32], stable=True).roll(1), torch.arange(32, 64)])[:32]
    one, other = torch.argsort(y[:32], stable=True), order
    return (x[one], x[other]), (y[one] == y[other]).float()


class Embedder(nn.Module):
    """Three digits through one net, for the triplet loss."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 32))

    def forward(self, a: torch.Tensor, p: torch.Tensor, n: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.body(a), self.body(p), self.body(n)


def triplets() -> tuple[tuple[torch.Tensor, ...], None]:
    x, y = digits(200)
    ones, others = x[y == 3][:16], x[y != 3][:16]
    return (ones, ones.roll(1, 0), others), None


class Recommender(nn.Module):
    """Matrix factorisation: a user's vector times an item's."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(30, 20), nn.Embedding(40, 20)

    def forward(self, user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        return (self.users(user) * self.items(item)).sum(1)


def ratings() -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    ask = lambda size, seed: torch.randint(0, size, (64,), generator=random(seed))  # noqa: E731
    user, item = ask(30, 11), ask(40, 12)
    return (user, item), (user * 7 + item * 3) % 5 + 1.0


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU())
        self.kind, self.ink = nn.Linear(128, 10), nn.Linear(128, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        h = self.body(x)
        return {"kind": self.kind(h), "ink": self.ink(h)[:, 0]}


def both() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    x, y = digits()
    ink = x.mean((1, 2, 3))
    return x, {"kind": y, "ink": (ink - ink.mean()) / ink.std()}


class MeanAndVariance(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, spread = self.body(x).chunk(2, 1)
        return mean, F.softplus(spread) + 1e-3


def smooth() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(32, 4, generator=random(13))
    return x, torch.sin(x.sum(1, keepdim=True)) + 0.3 * x[:, :1]


class Siren(nn.Module):
    """One picture as a function of the place in it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 64), nn.Linear(64, 64), nn.Linear(64, 64)])
        self.head = nn.Linear(64, 1)
        for number, layer in enumerate([*self.layers, self.head]):
            bound = 1 / 2 if number == 0 else math.sqrt(6 / 64) / 30
            layer.weight.data.uniform_(-bound, bound)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.sin(30 * layer(x))
        return self.head(x)


def places() -> tuple[torch.Tensor, torch.Tensor]:
    picture, _ = digits(1, 24)
    axis = torch.linspace(-1, 1, 24)
    return torch.cartesian_prod(axis, axis), picture.view(-1, 1) * 2 - 1


class Denoiser(nn.Module):
    """Predicts the noise in a picture, given how much there is: one step of a diffusion model."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(1, 32), nn.SiLU(), nn.Linear(32, 32))
        self.enter, self.exit = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 1, 3, padding=1)
        self.body = nn.Sequential(
            nn.GroupNorm(8, 32), nn.SiLU(), nn.Conv2d(32, 64, 3, padding=1), nn.SiLU(), nn.Conv2d(64, 32, 3, padding=1)
        )

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        h = self.enter(x) + self.time(time)[:, :, None, None]
        return self.exit(h + self.body(h))


def noised() -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    x, _ = digits(16)
    share = torch.linspace(0.1, 0.9, 16)[:, None]
    noise = torch.randn(x.shape, generator=random(14))
    kept = share[:, :, None, None]
    return ((1 - kept).sqrt() * (x * 2 - 1) + kept.sqrt() * noise, share), noise


def alike(outputs: tuple[torch.Tensor, torch.Tensor], _: Any) -> torch.Tensor:
    """NT-Xent over two views."""
    z = F.normalize(torch.cat(outputs), dim=1)
    likeness = (z @ z.T / 0.5).fill_diagonal_(-1e9)
    rows = len(z) // 2
    return F.cross_entropy(likeness, torch.cat([torch.arange(rows, 2 * rows), torch.arange(rows)]))


class TwoViews(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 32))

    def forward(self, one: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.body(one), self.body(other)


def views() -> tuple[tuple[torch.Tensor, torch.Tensor], None]:
    x, _ = digits(16)
    shake = lambda seed: x + 0.1 * torch.randn(x.shape, generator=random(seed))  # noqa: E731
    return (shake(15), shake(16)), None


def architectures() -> Iterator[Architecture]:
    row = Architecture
    yield row(name="m5_audio", model=sound_net, loss=F.nll_loss, optimizer=adam(0.01, weight_decay=1e-4), batch=waves)
    yield row(name="crnn_ctc", model=Crnn, loss=ctc, optimizer=adam(), batch=written)
    yield row(name="lstm_forecast", model=Forecaster, loss=F.mse_loss, optimizer=adam(0.01), batch=series)
    yield row(
        name="gcn",
        model=Gcn,
        loss=F.cross_entropy,
        optimizer=adam(0.01, weight_decay=5e-4),
        batch=graph,
        options={"overfit_batch": {"rows_interact": True}},
    )
    yield row(name="pointnet", model=PointNet, loss=F.cross_entropy, optimizer=adam(), batch=clouds)
    yield row(
        name="siamese", model=Siamese, loss=F.binary_cross_entropy_with_logits, optimizer=adam(), batch=two_digits
    )
    yield row(
        name="triplet",
        model=Embedder,
        loss=lambda out, _: F.triplet_margin_loss(*out),
        optimizer=adam(),
        batch=triplets,
    )
    yield row(name="matrix_factorisation", model=Recommender, loss=F.mse_loss, optimizer=adam(0.05), batch=ratings)
    yield row(
        name="two_heads",
        model=TwoHeads,
        optimizer=adam(),
        batch=both,
        loss=lambda out, y: F.cross_entropy(out["kind"], y["kind"]) + F.mse_loss(out["ink"], y["ink"]),
    )
    yield row(
        name="mean_and_variance",
        model=MeanAndVariance,
        optimizer=adam(5e-3),
        batch=smooth,
        loss=lambda out, y: F.gaussian_nll_loss(out[0], y, out[1]),
    )
    yield row(name="siren", model=Siren, loss=F.mse_loss, optimizer=adam(1e-4), batch=places)
    yield row(name="ddpm_denoiser", model=Denoiser, loss=F.mse_loss, optimizer=adam(), batch=noised)
    yield row(name="simclr", model=TwoViews, loss=alike, optimizer=adam(), batch=views)
