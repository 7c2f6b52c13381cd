"""Torch programs whose layers cannot carry the task."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.programs.diagnosis import data
from tests.programs.diagnosis.corpus import Corpus, Fields
from tests.programs.diagnosis.torch_base import adam, images, sgd, tensors, tower

PROGRAMS = Corpus()
pair = PROGRAMS.pair


@pair("vanishing_gradient", "wrong_hidden_activation")
def eight_layers_of_sigmoid(broken: bool) -> Fields:
    """Eight layers with sigmoid between them, SGD with momentum; the healthy one has ReLU and its own draw."""
    between = nn.Sigmoid if broken else nn.ReLU

    def model() -> nn.Module:
        net = tower(64, *([32] * 7), 10, between=between)
        for module in net:
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight)
        return net

    return {
        "model": model,
        "loss": F.cross_entropy,
        "optimizer": sgd(0.05, momentum=0.9),
        "batch": tensors(data.digits(24)),
    }


@pair("vanishing_gradient")
def deep_without_shortcuts(broken: bool) -> Fields:
    """Thirty layers of tanh, drawn by torch's default; the healthy one adds each layer's input to its output."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.out = nn.Linear(6, 24), nn.Linear(24, 1)
            self.blocks = nn.ModuleList(nn.Linear(24, 24) for _ in range(30))

        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x)
            for block in self.blocks:
                h = torch.tanh(block(h)) if broken else h + 0.2 * torch.tanh(block(h))
            return self.out(h)

    return {
        "model": Net,
        "loss": nn.MSELoss(),
        "optimizer": sgd(0.02, momentum=0.9),
        "batch": tensors(data.surfaces(20)),
    }


@pair("vanishing_gradient")
def rnn_over_a_long_past(broken: bool) -> Fields:
    """A plain RNN has to remember the first of 60 steps; the healthy one reads the greatest over time."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.out = nn.RNN(2, 24, batch_first=True), nn.Linear(24, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = self.rnn(x)[0]
            return self.out(h[:, -1] if broken else h.amax(1))

    x = torch.zeros(8, 60, 2)
    y = torch.arange(8) % 2
    x[torch.arange(8), 0, y] = 1.0
    return {"model": Net, "loss": F.cross_entropy, "optimizer": sgd(0.05), "batch": (x, y)}


@pair("wrong_hidden_activation", "vanishing_gradient")
def softmax_between_layers(broken: bool) -> Fields:
    """Softmax behind hidden layers."""

    def between() -> nn.Module:
        return nn.Softmax(dim=1) if broken else nn.ReLU()

    return {
        "model": lambda: nn.Sequential(
            *(nn.Linear(64, 64), between(), nn.Linear(64, 64), between(), nn.Linear(64, 10)),
        ),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": sgd(0.2, momentum=0.9),
        "batch": tensors(data.digits(32)),
    }


@pair("wrong_hidden_activation", "dead_relu")
def threshold_above_the_pixels(broken: bool) -> Fields:
    """Hardshrink with 2, in a CNN whose units are mostly below."""

    def between() -> nn.Module:
        return nn.Hardshrink(2.0) if broken else nn.ReLU()

    def model() -> nn.Module:
        return nn.Sequential(
            *(nn.Conv2d(1, 8, 3), between(), nn.Conv2d(8, 16, 3, stride=2), between()),
            *(nn.Flatten(), nn.Linear(64, 10)),
        )

    return {"model": model, "loss": F.cross_entropy, "optimizer": adam(5e-3), "batch": images(data.digits(24))}


@pair("missing_nonlinearity")
def spirals_by_lines(broken: bool) -> Fields:
    """Four layers and nothing between them, for two spirals."""

    def between() -> nn.Module:
        return nn.Identity() if broken else nn.Tanh()

    def model() -> nn.Module:
        return nn.Sequential(
            *(nn.Linear(2, 64), between(), nn.Linear(64, 64), between(), nn.Linear(64, 64), between()),
            nn.Linear(64, 2),
        )

    return {"model": model, "loss": nn.CrossEntropyLoss(), "optimizer": adam(0.01), "batch": tensors(data.spirals(48))}


@pair("missing_nonlinearity", "insufficient_capacity")
def surface_by_a_plane(broken: bool) -> Fields:
    """forward calls the layers, but not the ReLU that __init__ made."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2, self.fc3 = nn.Linear(3, 64), nn.Linear(64, 64), nn.Linear(64, 1)
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            if broken:
                return self.fc3(self.fc2(self.fc1(x)))
            return self.fc3(self.relu(self.fc2(self.relu(self.fc1(x)))))

    return {
        "model": Net,
        "loss": nn.MSELoss(),
        "optimizer": adam(0.01),
        "batch": tensors(data.surfaces(32, features=3)),
    }


@pair("insufficient_capacity")
def digits_through_one_unit(broken: bool) -> Fields:
    """One hidden unit for ten classes."""
    return {
        "model": lambda: tower(64, 1 if broken else 48, 10),
        "loss": F.cross_entropy,
        "optimizer": adam(0.01),
        "batch": tensors(data.digits(48)),
    }


@pair("insufficient_capacity")
def autoencoder_of_one_number(broken: bool) -> Fields:
    """A code of one number for sixteen pictures of 64 pixels, in a narrow net."""
    x, _ = tensors(data.digits(16))

    def model() -> nn.Module:
        width, code = (2, 1) if broken else (64, 32)
        return nn.Sequential(
            *(nn.Linear(64, width), nn.Tanh(), nn.Linear(width, code)),
            *(nn.Linear(code, width), nn.Tanh(), nn.Linear(width, 64)),
        )

    return {"model": model, "loss": nn.MSELoss(), "optimizer": adam(5e-3), "batch": (x, x)}


@pair("insufficient_capacity")
def lstm_of_one_unit(broken: bool) -> Fields:
    """An LSTM with one unit, which has to tell noise apart."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            units = 1 if broken else 48
            self.lstm, self.out = nn.LSTM(4, units, batch_first=True), nn.Linear(units, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.lstm(x)[0][:, -1])

    x, y = tensors(data.noise(24, features=24))
    return {"model": Net, "loss": F.cross_entropy, "optimizer": adam(0.02), "batch": (x.reshape(24, 6, 4), y)}
