"""Networks that memorise only after more than a thousand steps, and faulty ones that are as slow and never do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_breast_cancer
from torch import Tensor, nn

from pytest_overfit import Verdict
from tests.programs.helpers import Forget, adam, digits, verdict

Fields = dict[str, Any]


def encoded(*inside: nn.Module, code: int = 12, last: nn.Module | None = None) -> nn.Sequential:
    """An autoencoder of digits through so few units that its loss falls like a power of the steps."""
    return nn.Sequential(
        nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, code), *inside, nn.ReLU(), nn.Linear(code, 32), nn.ReLU(),
        nn.Linear(32, 64), last or nn.Sigmoid(),
    )  # fmt: skip


def autoencoder(model: Callable[[], nn.Module] = encoded, rows: int = 32, **more: Any) -> Fields:
    x, _ = digits(rows)
    return {"model": model, "loss": F.mse_loss, "batch": (x, x.clone()), "optimizer": adam(1e-3), **more}


class Upsampled(nn.Module):
    """Halves pictures twice and brings them back, as tutorials on autoencoders do."""

    def __init__(self) -> None:
        super().__init__()
        narrow = [nn.ReLU(), nn.MaxPool2d(2)]
        self.encoder = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), *narrow, nn.Conv2d(8, 8, 3, padding=1), *narrow)
        wide = [nn.ReLU(), nn.Upsample(scale_factor=2)]
        self.decoder = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1), *wide, nn.Conv2d(8, 8, 3, padding=1), *wide, nn.Conv2d(8, 1, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x)).sigmoid()  # type: ignore[no-any-return]


def pictures(model: Callable[[], nn.Module] = Upsampled, **more: Any) -> Fields:
    x = F.interpolate(digits(8)[0].reshape(8, 1, 8, 8), size=(16, 16), mode="bilinear", align_corners=False)
    return {"model": model, "loss": F.mse_loss, "batch": (x, x.clone()), "optimizer": adam(1e-3), **more}


HEALTHY: dict[str, Fields] = {
    "hyperbolic": autoencoder(lambda: nn.Sequential(*[nn.Tanh() if isinstance(each, nn.ReLU) else each for each in
                                                      encoded()]), rows=24),
    "16 units": autoencoder(lambda: encoded(code=16), seed=2),
    "20 units": autoencoder(lambda: encoded(code=20), rows=24, seed=1),
    "convolutions": pictures(seed=1),
    "other convolutions": pictures(),
}  # fmt: skip


class Detached(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach()


class Blurred(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True).expand_as(x)


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class Rolled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + x.roll(1, 0)


def constant(net: nn.Module, value: float) -> nn.Module:
    for each in net.parameters():
        nn.init.constant_(each, value)
    return net


def frozen(net: nn.Module, first: int) -> nn.Module:
    for each in list(net.parameters())[first:]:
        each.requires_grad_(False)
    return net


FAULTY: dict[str, Fields] = {
    "input ignored": autoencoder(lambda: nn.Sequential(Forget(), *encoded())),
    "encoder cut off": autoencoder(lambda: encoded(Detached())),
    "code averaged": autoencoder(lambda: encoded(Blurred())),
    "code with noise": autoencoder(lambda: encoded(Noisy()), rows=24),
    "code dropped": autoencoder(lambda: encoded(nn.Dropout(0.9))),
    "rows mixed": autoencoder(lambda: encoded(Rolled())),
    "one unit": autoencoder(lambda: encoded(code=1)),
    "two units": autoencoder(lambda: encoded(code=2)),
    "decoder frozen": autoencoder(lambda: frozen(encoded(), 4)),
    "a constant start": autoencoder(lambda: constant(encoded(), 0.05)),
    "zeros at the start": autoencoder(lambda: constant(encoded(), 0.0)),
    "a rate too low": autoencoder(optimizer=adam(1e-5)),
    "a rate far too high": autoencoder(optimizer=adam(0.3)),
    "distributions": autoencoder(lambda: encoded(last=nn.Softmax(1))),
    "two sigmoids": autoencoder(lambda: nn.Sequential(*encoded(), nn.Sigmoid())),
    "statistics that never move": autoencoder(lambda: encoded(nn.BatchNorm1d(12, momentum=0.0)), rows=24),
    "a flipped sign": autoencoder(loss=lambda outputs, y: -F.mse_loss(outputs, y)),
    "decay": autoencoder(optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, weight_decay=10.0)),
    "targets out of reach": autoencoder(loss=lambda outputs, y: F.mse_loss(outputs, 255 * y)),
    "inputs out of range": autoencoder(lambda: nn.Sequential(Scaled(255.0), *encoded()), rows=24),
    "an average of columns": autoencoder(loss=lambda outputs, y: F.mse_loss(outputs.mean(1, True).expand_as(y), y)),
}


class Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def warnings(found: Verdict) -> set[str]:
    return {each.name for each in found.findings if each.outcome == "warning"}


def in_the_gate(names: Any, *quick: str) -> list[Any]:
    return [pytest.param(name, marks=[] if name in quick else [pytest.mark.slow]) for name in names]


@pytest.mark.parametrize("name", in_the_gate(HEALTHY, "hyperbolic", "20 units"))
def test_slow_but_sure(name: str) -> None:
    found = verdict(**HEALTHY[name])
    assert found.outcome == "passed", found.summary
    assert found.steps > 1000
    assert warnings(found) & {"lr_too_low", "slow_to_fit"}
    assert [each.fault for each in found.diagnoses] == sorted(warnings(found))


@pytest.mark.parametrize("name", in_the_gate(FAULTY, "encoder cut off", "code averaged", "two units", "a rate too low"))
def test_as_slow_and_faulty(name: str) -> None:
    found = verdict(**FAULTY[name])
    assert found.outcome in ("failed", "inconclusive"), found.summary


def test_raw_features_pass_with_a_name_only() -> None:
    data = load_breast_cancer()
    x, y = torch.tensor(data.data[100:132]).float(), torch.tensor(data.target[100:132, None]).float()
    model = lambda: nn.Sequential(nn.Linear(30, 32), nn.ReLU(), nn.Linear(32, 1))  # noqa: E731
    found = verdict(model=model, loss=F.binary_cross_entropy_with_logits, batch=(x, y), optimizer=adam(6e-5))
    assert found.passed, found.summary
    assert found.steps > 1000
    assert warnings(found) & {"lr_too_low", "slow_to_fit"}
    assert "inputs reach" in found.diagnoses[0].evidence
