"""Torch programs that start from weights from which nothing can be learnt."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.programs.diagnosis import data
from tests.programs.diagnosis.corpus import Corpus, Fields
from tests.programs.diagnosis.torch_base import adam, column, drawn, images, sgd, tensors, tower

PROGRAMS = Corpus()
pair = PROGRAMS.pair


def constant(net: nn.Module, value: float) -> nn.Module:
    """Weights of one value, biases of 0."""
    for parameter in net.parameters():
        nn.init.constant_(parameter, value if parameter.ndim > 1 else 0.0)
    return net


@pair("zero_init", "constant_init", "dead_relu")
def digits_all_zero(broken: bool) -> Fields:
    """Every parameter is set to 0."""

    def model() -> nn.Module:
        net = tower(64, 48, 10)
        if broken:
            for parameter in net.parameters():
                nn.init.zeros_(parameter)
        return net

    return {"model": model, "loss": F.cross_entropy, "optimizer": adam(), "batch": tensors(data.digits(32))}


@pair("zero_init", "constant_init")
def tanh_weights_zero(broken: bool) -> Fields:
    """Weights of 0 behind tanh, in apply(init_weights)."""

    def init_weights(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            if broken:
                module.weight.data.fill_(0.0)
            module.bias.data.fill_(0.0)

    return {
        "model": lambda: tower(6, 32, 32, 2, between=nn.Tanh).apply(init_weights),
        "loss": nn.MSELoss(),
        "optimizer": sgd(0.1, momentum=0.9),
        "batch": tensors(data.surfaces(24, targets=2)),
    }


@pair("constant_init")
def digits_all_equal(broken: bool) -> Fields:
    """All weights of the hidden layer and of the last one are 0.05: the units never differ."""

    def model() -> nn.Module:
        net = tower(64, 32, 10)
        return constant(net, 0.05) if broken else net

    return {"model": model, "loss": nn.CrossEntropyLoss(), "optimizer": adam(0.01), "batch": tensors(data.digits(32))}


@pair("constant_init")
def filters_all_equal(broken: bool) -> Fields:
    """The same in a CNN: one filter, eight times over."""

    def model() -> nn.Module:
        net = nn.Sequential(
            *(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
            *(nn.Flatten(), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 10)),
        )
        return constant(net, 0.1) if broken else net

    return {"model": model, "loss": F.cross_entropy, "optimizer": adam(0.01), "batch": images(data.digits(16))}


@pair("too_large_init", "over_confident_start")
def tanh_weights_of_twenty(broken: bool) -> Fields:
    """Normal weights of deviation 20 behind tanh: all units are saturated."""

    def model() -> nn.Module:
        net = tower(6, 24, 24, 1, between=nn.Tanh)
        return drawn(net, lambda weight: nn.init.normal_(weight, std=20.0)) if broken else net

    return {"model": model, "loss": nn.MSELoss(), "optimizer": adam(0.01), "batch": tensors(data.surfaces())}


@pair("too_large_init", "over_confident_start", "dead_relu")
def deep_weights_of_deviation_one(broken: bool) -> Fields:
    """torch.randn for every weight of eight layers: scores of many millions, SGD."""

    def model() -> nn.Module:
        net = tower(64, *([64] * 7), 10)
        return drawn(net, nn.init.normal_ if broken else nn.init.kaiming_normal_)

    return {
        "model": model,
        "loss": F.cross_entropy,
        "optimizer": sgd(0.05, momentum=0.9),
        "batch": tensors(data.digits(24)),
    }


@pair("too_small_init", "vanishing_gradient")
def deep_weights_of_a_thousandth(broken: bool) -> Fields:
    """Normal weights of deviation 0.001 in six layers: what comes out is the bias."""

    def model() -> nn.Module:
        net = tower(64, *([48] * 5), 10)
        return drawn(
            net, lambda weight: nn.init.normal_(weight, std=1e-3) if broken else nn.init.kaiming_normal_(weight)
        )

    return {
        "model": model,
        "loss": nn.CrossEntropyLoss(),
        "optimizer": sgd(0.05, momentum=0.9),
        "batch": tensors(data.digits(32)),
    }


@pair("too_small_init", "vanishing_gradient")
def cnn_weights_nearly_nothing(broken: bool) -> Fields:
    """trunc_normal_ with std=1e-4, in a CNN of four layers."""

    def model() -> nn.Module:
        net = nn.Sequential(
            *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU()),
            *(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 10)),
        )
        return drawn(net, lambda weight: nn.init.trunc_normal_(weight, std=1e-4)) if broken else net

    return {
        "model": model,
        "loss": F.cross_entropy,
        "optimizer": sgd(0.1, momentum=0.9),
        "batch": images(data.digits(12)),
    }


@pair("dead_relu")
def biases_far_below_zero(broken: bool) -> Fields:
    """Biases of -10 in the hidden layer: no unit is ever on."""

    def model() -> nn.Module:
        net = tower(13, 48, 3)
        nn.init.constant_(net[0].bias, -10.0 if broken else 0.0)
        return net

    return {"model": model, "loss": F.cross_entropy, "optimizer": adam(), "batch": tensors(data.scaled("wine", 30))}


@pair("dead_relu")
def weights_of_one_sign(broken: bool) -> Fields:
    """Weights drawn from -0.2 to 0 on pixels, which are never below 0."""

    def model() -> nn.Module:
        net = tower(64, 64, 32, 10)
        low, high = (-0.2, 0.0) if broken else (-0.2, 0.2)
        return drawn(net, lambda weight: nn.init.uniform_(weight, low, high))

    return {
        "model": model,
        "loss": nn.CrossEntropyLoss(),
        "optimizer": sgd(0.1, momentum=0.9),
        "batch": tensors(data.digits(32)),
    }


@pair("dead_relu")
def negated_before_relu(broken: bool) -> Fields:
    """A minus that was copied with a distance makes what comes to ReLU negative, always."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.centres, self.out = nn.Parameter(torch.randn(40, 10)), nn.Linear(40, 1)

        def forward(self, x: Tensor) -> Tensor:
            distances = ((x[:, None] - self.centres) ** 2).mean(-1)
            return self.out(torch.relu((-distances if broken else distances) - 2.0))

    return {"model": Net, "loss": nn.MSELoss(), "optimizer": adam(0.02), "batch": column(data.diabetes(16))}
