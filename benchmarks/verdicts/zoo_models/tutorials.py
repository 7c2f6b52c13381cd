"""What tutorials build in PyTorch: images and tables."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.nn import functional as F

from benchmarks.verdicts.zoo_models.base import Architecture, adam, adamw, digits, random, sgd

MNIST_MEAN, MNIST_STD = 0.1307, 0.3081


def mnist(rows: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Digits of 28 x 28 pixels, normalised as tutorials normalise MNIST."""
    x, y = digits(rows, 28)
    return (x - MNIST_MEAN) / MNIST_STD, y


def itself(rows: int = 8, pixels: int = 28) -> tuple[torch.Tensor, torch.Tensor]:
    x, _ = digits(rows, pixels)
    return x, x


def line() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.linspace(0, 1, 32)[:, None]
    return x, 0.7 * x + 0.3


def tumours() -> tuple[torch.Tensor, torch.Tensor]:
    """A table of 30 measurements, standardised, and a yes or no."""
    x, y = load_breast_cancer(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    return torch.tensor(x[:64], dtype=torch.float32), torch.tensor(y[:64], dtype=torch.float32)[:, None]


def lenet() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10)),
    )


def quickstart() -> nn.Module:
    """The first model of the official tutorials; they train it with SGD at 1e-3 and stop far from a fit."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )


def mnist_example() -> nn.Module:
    """Two convolutions, two dropouts, log-probabilities; trained with Adadelta 1.0."""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25)),
        *(nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10), nn.LogSoftmax(1)),
    )


def cifar_tutorial() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(x)


def resnet9() -> nn.Module:
    def block(before: int, after: int) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]

    return nn.Sequential(
        *(*block(1, 32), *block(32, 64), nn.MaxPool2d(2), Residual(nn.Sequential(*block(64, 64), *block(64, 64)))),
        *(*block(64, 128), nn.MaxPool2d(2), Residual(nn.Sequential(*block(128, 128), *block(128, 128)))),
        *(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(128, 10)),
    )


def conv_mixer() -> nn.Module:
    block = lambda: [  # noqa: E731
        Residual(nn.Sequential(nn.Conv2d(32, 32, 5, groups=32, padding=2), nn.GELU(), nn.BatchNorm2d(32))),
        *(nn.Conv2d(32, 32, 1), nn.GELU(), nn.BatchNorm2d(32)),
    ]
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 4, stride=4), nn.GELU(), nn.BatchNorm2d(32), *block(), *block()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)),
    )


class MlpMixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        mlp = lambda size: nn.Sequential(nn.Linear(size, 64), nn.GELU(), nn.Linear(64, size))  # noqa: E731
        self.patches = nn.Conv2d(1, 32, 7, stride=7)
        self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(5))
        self.across, self.along = nn.ModuleList(mlp(16) for _ in range(2)), nn.ModuleList(mlp(32) for _ in range(2))
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.patches(x).flatten(2).transpose(1, 2)
        for number, (across, along) in enumerate(zip(self.across, self.along, strict=True)):
            h = h + across(self.norms[2 * number](h).transpose(1, 2)).transpose(1, 2)
            h = h + along(self.norms[2 * number + 1](h))
        return self.head(self.norms[4](h).mean(1))


class SpatialTransformer(nn.Module):
    """Learns where to look before it classifies; starts from looking everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.where = nn.Sequential(
            *(nn.Conv2d(1, 8, 7), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(8, 10, 5), nn.MaxPool2d(2), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(90, 32), nn.ReLU(), nn.Linear(32, 6)),
        )
        self.where[-1].weight.data.zero_()
        self.where[-1].bias.data.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))
        self.what = nn.Sequential(
            *(nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(10, 20, 5), nn.Dropout2d()),
            *(nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(320, 50), nn.ReLU(), nn.Dropout(), nn.Linear(50, 10)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        grid = F.affine_grid(self.where(x).view(-1, 2, 3), list(x.shape), align_corners=False)
        return F.log_softmax(self.what(F.grid_sample(x, grid, align_corners=False)), dim=1)


def autoencoder() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 32), nn.ReLU(),
        nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 784), nn.Sigmoid(), nn.Unflatten(1, (1, 28, 28)),
    )  # fmt: skip


def conv_autoencoder() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.ConvTranspose2d(32, 16, 2, stride=2), nn.ReLU(), nn.ConvTranspose2d(16, 1, 2, stride=2), nn.Sigmoid()),
    )


class Vae(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.mean, self.log_variance = nn.Linear(784, 400), nn.Linear(400, 20), nn.Linear(400, 20)
        self.decoder = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        h = torch.relu(self.hidden(x.flatten(1)))
        mean, log_variance = self.mean(h), self.log_variance(h)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance) if self.training else mean
        return self.decoder(z), mean, log_variance


def elbo(outputs: Any, y: torch.Tensor) -> torch.Tensor:
    image, mean, log_variance = outputs
    divergence = -0.5 * torch.sum(1 + log_variance - mean**2 - log_variance.exp())
    return F.binary_cross_entropy(image, y.flatten(1), reduction="sum") + divergence


class UNet(nn.Module):
    def __init__(self, classes: int = 1) -> None:
        super().__init__()
        self.down1, self.down2 = self._block(1, 16), self._block(16, 32)
        self.bottom = self._block(32, 64)
        self.lift2, self.up2 = nn.ConvTranspose2d(64, 32, 2, stride=2), self._block(64, 32)
        self.lift1, self.up1 = nn.ConvTranspose2d(32, 16, 2, stride=2), self._block(32, 16)
        self.head = nn.Conv2d(16, classes, 1)

    @staticmethod
    def _block(before: int, after: int) -> nn.Module:
        conv = lambda size: [nn.Conv2d(size, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]  # noqa: E731
        return nn.Sequential(*conv(before), *conv(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        h = self.bottom(F.max_pool2d(two, 2))
        h = self.up2(torch.cat([two, self.lift2(h)], 1))
        return self.head(self.up1(torch.cat([one, self.lift1(h)], 1)))


def ink(rows: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Digits, and where the ink is."""
    x, _ = digits(rows, 32)
    return x, (x > 0.5).float()


def discriminator() -> nn.Module:
    """DCGAN's, for 32 pixels; asked to tell digits from noise."""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)),
        *(nn.Conv2d(32, 64, 4, 2, 1, bias=False), nn.BatchNorm2d(64), nn.LeakyReLU(0.2)),
        *(nn.Conv2d(64, 128, 4, 2, 1, bias=False), nn.BatchNorm2d(128), nn.LeakyReLU(0.2)),
        *(nn.Conv2d(128, 1, 4, 1, 0, bias=False), nn.Flatten(0)),
    )


def real_and_fake() -> tuple[torch.Tensor, torch.Tensor]:
    x, _ = digits(16, 32)
    noise = torch.rand(x.shape, generator=random(6))
    return torch.cat([x, noise]) * 2 - 1, torch.cat([torch.ones(16), torch.zeros(16)])


def generator() -> nn.Module:
    """DCGAN's, trained to give one digit for each code."""
    return nn.Sequential(
        *(nn.ConvTranspose2d(32, 128, 4, 1, 0, bias=False), nn.BatchNorm2d(128), nn.ReLU()),
        *(nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.ConvTranspose2d(64, 32, 4, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.ConvTranspose2d(32, 1, 4, 2, 1, bias=False), nn.Tanh()),
    )


def codes() -> tuple[torch.Tensor, torch.Tensor]:
    x, _ = digits(16, 32)
    return torch.randn(16, 32, 1, 1, generator=random(7)), x * 2 - 1


def super_resolution() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 64, 5, padding=2), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(64, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 9, 3, padding=1), nn.PixelShuffle(3)),
    )


def enlarged() -> tuple[torch.Tensor, torch.Tensor]:
    large, _ = digits(8, 24)
    return F.interpolate(large, size=(8, 8), mode="area"), large


def wide_table() -> nn.Module:
    hidden = [nn.Linear(30, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 32), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(32, 1))


def architectures() -> Iterator[Architecture]:
    cross_entropy = functools.partial(Architecture, loss=F.cross_entropy, batch=mnist, optimizer=adam())
    flat = lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 10))  # noqa: E731
    adadelta = lambda parameters: torch.optim.Adadelta(parameters, lr=1.0)  # noqa: E731
    momentum = sgd(1e-3, momentum=0.9)
    cifar = functools.partial(digits, 4, 32, 3)
    yield Architecture(
        name="linear_regression", model=lambda: nn.Linear(1, 1), loss=F.mse_loss, optimizer=sgd(0.1), batch=line
    )
    yield cross_entropy(name="logistic_regression", model=flat)
    yield cross_entropy(name="quickstart_mlp", model=quickstart, optimizer=sgd(1e-3))
    yield cross_entropy(name="lenet5", model=lenet)
    yield cross_entropy(name="mnist_example", model=mnist_example, loss=F.nll_loss, optimizer=adadelta)
    yield cross_entropy(name="cifar10_tutorial", model=cifar_tutorial, optimizer=momentum, batch=cifar)
    yield cross_entropy(
        name="resnet9",
        model=resnet9,
        batch=functools.partial(mnist, 8),
        optimizer=sgd(0.05, momentum=0.9, weight_decay=5e-4),
    )
    yield cross_entropy(name="conv_mixer", model=conv_mixer, optimizer=adamw(1e-2))
    yield cross_entropy(name="mlp_mixer", model=MlpMixer)
    yield cross_entropy(name="spatial_transformer", model=SpatialTransformer, loss=F.nll_loss, optimizer=sgd(0.01))
    yield Architecture(name="autoencoder", model=autoencoder, loss=F.mse_loss, optimizer=adam(), batch=itself)
    yield Architecture(
        name="conv_autoencoder", model=conv_autoencoder, loss=F.binary_cross_entropy, optimizer=adam(), batch=itself
    )
    yield Architecture(name="vae", model=Vae, loss=elbo, optimizer=adam(), batch=itself)
    yield Architecture(name="unet", model=UNet, loss=F.binary_cross_entropy_with_logits, optimizer=adam(), batch=ink)
    yield Architecture(
        name="dcgan_discriminator",
        model=discriminator,
        loss=F.binary_cross_entropy_with_logits,
        optimizer=adam(2e-4, betas=(0.5, 0.999)),
        batch=real_and_fake,
    )
    yield Architecture(
        name="dcgan_generator", model=generator, loss=F.mse_loss, batch=codes, optimizer=adam(2e-4, betas=(0.5, 0.999))
    )
    yield Architecture(
        name="super_resolution", model=super_resolution, loss=F.mse_loss, optimizer=adam(), batch=enlarged
    )
    yield Architecture(
        name="tabular_mlp", model=wide_table, loss=F.binary_cross_entropy_with_logits, optimizer=adam(), batch=tumours
    )
