"""A loss without a floor, in a step of the user's, proves nothing by falling; and facts say what was measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pytest_overfit import Case, Verdict, run_probes

ROWS = 16
RNG = torch.Generator().manual_seed(0)
X = torch.randn(ROWS, 12, generator=RNG)
LABELS = torch.arange(ROWS)[torch.randperm(ROWS, generator=RNG)] % 4
VALUES = X[:, :2] + 0.1 * torch.randn(ROWS, 2, generator=RNG)


def verdict(model: Callable[[], nn.Module], batch: Any = (X, LABELS), **fields: Any) -> Verdict:
    return run_probes(Case(name="floor", model=model, batch=lambda: batch, **fields), ["overfit_batch"])[0]


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 4))


class Gaussian(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, width = self.net(x).chunk(2, 1)
        return mean, width


def step_of(loss: Callable[[Any, Tensor, Tensor], Tensor]) -> Callable[[Any, Any, Any], float]:
    def step(model: Any, x: Any, y: Any = None) -> float:
        if not hasattr(model, "optimizer"):
            model.optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        model.optimizer.zero_grad()
        value = loss(model, x, y)
        value.backward()  # type: ignore[no-untyped-call]
        model.optimizer.step()
        return value.item()

    return step


def likelihood(sign: float) -> Callable[[Any, Tensor, Tensor], Tensor]:
    """Of quantities, with widths that have a least value, so that means are learnt too."""

    def loss(model: Gaussian, x: Tensor, y: Tensor) -> Tensor:
        mean, width = model(x)
        width = F.softplus(width) + 0.05
        return sign * (0.5 * ((y - mean) / width) ** 2 + width.log()).mean()

    return loss


def test_a_likelihood_in_a_step_is_proved_by_its_means() -> None:
    found = verdict(Gaussian, (X, VALUES), step=step_of(likelihood(1.0)))
    assert found.outcome == "passed", found.summary
    assert "agreement: not measured" not in found.summary


def test_a_wrong_sign_is_no_memory() -> None:
    found = verdict(Gaussian, (X, VALUES), step=step_of(likelihood(-1.0)))
    assert found.outcome == "inconclusive", found.summary
    assert "fall without limit" in found.summary
    assert "give score=" in found.summary


def test_a_wrong_sign_of_classes_is_not_passed() -> None:
    log_likelihood = lambda model, x, y: F.log_softmax(model(x), 1).gather(1, y[:, None]).mean()  # noqa: E731
    found = verdict(net, step=step_of(log_likelihood))
    assert found.outcome != "passed"


def facts(found: Verdict) -> dict[str, str]:
    return {each.name: each.message for each in found.findings if each.outcome == "note"}


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3)


def halving(optimizer: Any) -> Any:
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)


def test_a_rate_that_decays_to_nothing_is_not_an_ignored_input() -> None:
    found = verdict(net, loss=F.cross_entropy, optimizer=adam, scheduler=halving)
    assert found.outcome == "failed"
    assert "do not depend on the input" not in " ".join(each.message for each in found.findings)


class Forget(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 0


def test_an_ignored_input_is_said_with_its_measure() -> None:
    found = verdict(lambda: nn.Sequential(Forget(), net()), loss=F.cross_entropy, optimizer=adam)
    said = "do not depend on the input (rows differ by 0 of their size"
    assert any(said in each.message for each in found.findings)


@pytest.mark.parametrize("added", [math.inf, math.nan])
def test_a_loss_that_is_no_number_is_not_called_one_without_a_floor(added: float) -> None:
    found = verdict(net, loss=lambda outputs, y: F.cross_entropy(outputs, y) + added, optimizer=adam)
    assert found.outcome == "failed"
    assert facts(found)["best_loss"] == facts(found)["constant_loss"] == "not known: the loss is not a number"


def test_a_model_without_dropout_is_not_said_to_have_some() -> None:
    found = verdict(net, loss=F.cross_entropy, optimizer=adam)
    assert not any("dropout" in each.message for each in found.findings)
