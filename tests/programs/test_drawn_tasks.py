"""Losses that draw what they ask for (noise, masks, views, negatives): by design no fault, and no proof either."""

from __future__ import annotations

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
VALUES = X @ torch.randn(12, 12, generator=RNG)
KEPT = torch.cumprod(1 - torch.linspace(1e-4, 0.2, 50), 0)


def adam(rate: float = 3e-3) -> Callable[..., torch.optim.Optimizer]:
    return lambda parameters: torch.optim.Adam(parameters, lr=rate)


def verdict(model: Callable[[], nn.Module], batch: Any, **fields: Any) -> Verdict:
    given = fields if "step" in fields else {"optimizer": adam(), **fields}
    case = Case(name="drawn", model=model, batch=lambda: batch, limits={"steps": 150}, **given)
    return run_probes(case, ["overfit_batch"])[0]


def net(inputs: int = 12, outputs: int = 12) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 64), nn.SiLU(), nn.Linear(64, outputs))


class Denoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = net(13)

    def forward(self, x: Tensor) -> Any:
        return self.noise_and_guess(x)

    def noise_and_guess(self, x: Tensor) -> tuple[Tensor, Tensor]:
        times, noise = torch.randint(0, 50, (len(x), 1)), torch.randn_like(x)
        kept = KEPT[times]
        guess = self.net(torch.cat([kept.sqrt() * x + (1 - kept).sqrt() * noise, times / 50], 1))
        return guess, noise


class OwnLoss(Denoiser):
    def forward(self, x: Tensor) -> Any:
        return F.mse_loss(*self.noise_and_guess(x))


class OwnHandMadeLoss(Denoiser):
    def forward(self, x: Tensor) -> Any:
        guess, noise = self.noise_and_guess(x)
        return {"loss": ((guess - noise) ** 2).mean(), "guess": guess}


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.rand_like(x) < 0.5
        return self.net(x.masked_fill(hidden, 0)), hidden


def where_masked(outputs: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
    return (((outputs[0] - y) ** 2) * outputs[1]).sum() / outputs[1].sum()


class Views(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = (self.net(x + 0.1 * torch.randn_like(x)) for _ in range(2))
        return first, second


def contrast(first: Tensor, second: Tensor) -> Tensor:
    similar = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T
    return F.cross_entropy(similar / 0.2, torch.arange(len(first)))


def step_of(loss: Callable[[Any, Tensor], Tensor], rate: float = 3e-3) -> Callable[[Any, Any, Any], Tensor]:
    def step(model: Any, x: Any, y: Any) -> Tensor:
        if not hasattr(model, "optimizer"):
            model.optimizer = torch.optim.Adam(model.parameters(), lr=rate)
        model.optimizer.zero_grad()
        value = loss(model, x)
        value.backward()  # type: ignore[no-untyped-call]
        model.optimizer.step()
        return value.detach()

    return step


def denoise(model: Denoiser, x: Tensor) -> Tensor:
    return F.mse_loss(*model.noise_and_guess(x))


def views(model: nn.Module, x: Tensor) -> Tensor:
    return contrast(*(model(x + 0.1 * torch.randn_like(x)) for _ in range(2)))


def noisy_values(outputs: Tensor, y: Tensor) -> Tensor:
    return F.mse_loss(outputs, y + 3 * torch.randn_like(y))


OPEN: dict[str, tuple[Callable[[], nn.Module], Any, dict[str, Any]]] = {
    "noise_and_guess": (Denoiser, (X, X), {"loss": lambda outputs, y: F.mse_loss(*outputs)}),
    "own_loss": (OwnLoss, {"x": X}, {}),
    "own_hand_made_loss": (OwnHandMadeLoss, {"x": X}, {}),
    "masked": (Masked, (X, X), {"loss": where_masked}),
    "views": (Views, (X, X), {"loss": lambda outputs, y: contrast(*outputs)}),
    "denoise_in_step": (Denoiser, (X, LABELS), {"step": step_of(denoise)}),
    "views_in_step": (net, (X, LABELS), {"step": step_of(views)}),
    "noisy_targets": (net, (X, VALUES), {"loss": noisy_values}),
}


@pytest.mark.parametrize("name", OPEN)
def test_a_loss_that_draws_what_it_asks_for_is_left_open(name: str) -> None:
    model, batch, fields = OPEN[name]
    found = verdict(model, batch, **fields)
    assert found.outcome == "inconclusive", found.summary
    assert "give score=" in " ".join(each.message for each in found.findings)


def denoised(model: Denoiser, x: Tensor, y: Tensor) -> float:
    """Stands for a score of the user's own, such as the error of samples over many draws."""
    return 1.0


@pytest.mark.parametrize("name", ["noise_and_guess", "own_loss", "own_hand_made_loss", "denoise_in_step"])
def test_the_cases_own_score_decides(name: str) -> None:
    model, batch, fields = OPEN[name]
    right = verdict(model, batch, score=lambda model, x, y=None: 1.0, **fields)
    assert right.outcome != "failed", right.summary
    assert not any("evaluation is random" in each.message for each in right.findings)
    if name != "noise_and_guess":  # there the loss has a say as well
        assert right.outcome == "passed", right.summary
    wrong = verdict(model, batch, score=lambda model, x, y=None: 0.2, **fields)
    assert wrong.outcome == "failed", wrong.summary


def negatives(outputs: Tensor, y: Tensor) -> Tensor:
    """Sampled softmax: the target's score against those of two classes that are drawn."""
    drawn = torch.randint(0, 4, (len(y), 2))
    against = outputs.gather(1, drawn).masked_fill(drawn == y[:, None], -1e9)
    scores = torch.cat([outputs.gather(1, y[:, None]), against], 1)
    return F.cross_entropy(scores, torch.zeros(len(y), dtype=torch.long))


class Forget(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 0


def test_draws_of_a_loss_do_not_hide_a_fault() -> None:
    assert verdict(lambda: net(12, 4), (X, LABELS), loss=negatives).outcome == "passed"
    assert verdict(lambda: nn.Sequential(Forget(), net(12, 4)), (X, LABELS), loss=negatives).outcome == "failed"


class AlwaysDrops(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, x: Tensor) -> Any:
        rebuilt = F.dropout(self.net(x), 0.3)
        return {"loss": F.mse_loss(rebuilt, x), "rebuilt": rebuilt}


def test_dropout_that_is_always_on_is_no_drawn_task() -> None:
    found = verdict(AlwaysDrops, {"x": X})
    assert found.outcome == "failed", found.summary


@pytest.mark.reasons
@pytest.mark.parametrize("name", ["denoise_in_step", "own_loss"])
def test_a_rate_of_zero_is_known(name: str) -> None:
    model, batch, fields = OPEN[name]
    still = {"step": step_of(denoise, 0.0)} if "step" in fields else {**fields, "optimizer": adam(0.0)}
    found = verdict(model, batch, **still)
    assert found.outcome == "failed"
    assert any("no parameter changed" in str(each.message) for each in found.findings)
    if "optimizer" in still:  # a step of the user's own holds its rate where nobody can look
        assert [each.fault for each in found.diagnoses] == ["lr_zero"]
