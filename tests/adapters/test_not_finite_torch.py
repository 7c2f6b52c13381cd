"""NaN inside a torch model whose loss is finite, and infinities that are data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from pytest_overfit import Case, Verdict, run_probes


def digits() -> tuple[Tensor, Tensor]:
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x[:24] / 16, dtype=torch.float32), torch.tensor(y[:24])


def verdict(model: Callable[[], nn.Module], **fields: Any) -> Verdict:
    given = {"loss": F.cross_entropy, "optimizer": adam, "batch": digits, **fields}
    return run_probes(Case(name="case", model=model, **given), ["overfit_batch"])[0]


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=3e-3)


class Net(nn.Module):
    """Memorises by itself; `other` is what a fault of the rest does."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)  # type: ignore[no-any-return]


class Root(nn.Module):
    def __init__(self, safe: bool) -> None:
        super().__init__()
        self.scale, self.safe = nn.Parameter(torch.ones(64)), safe

    def forward(self, x: Tensor) -> Tensor:
        t = x * self.scale
        inside = torch.where(t > 0, t, torch.ones_like(t)) if self.safe else t
        return torch.where(t > 0, torch.sqrt(inside), torch.zeros_like(t))


class Rooted(Net):
    def __init__(self, safe: bool) -> None:
        super().__init__()
        self.root, self.mix = Root(safe), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.1 * self.mix(self.root(x).nan_to_num())  # type: ignore[no-any-return]


def test_a_parameter_behind_where_fails_with_its_module() -> None:
    found = verdict(lambda: Rooted(safe=False))
    assert found.outcome == "failed"
    assert found.summary.startswith("parameter 'scale' of Root root is NaN")
    assert [(each.fault, each.confidence) for each in found.diagnoses] == [("nan_parameter", "shown")]
    assert found.diagnoses[0].evidence == found.summary
    assert found.findings[0].name == "nan_parameter"


def test_its_healthy_twin_passes() -> None:
    assert verdict(lambda: Rooted(safe=True)).outcome == "passed"


class Counting(Net):
    """Keeps a buffer that each training pass changes."""

    def __init__(self, start: float, update: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.update = update
        self.register_buffer("kept", torch.full((4,), start), persistent=False)
        self.register_buffer("mask", torch.full((4, 4), -math.inf).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.kept.copy_(self.update(self.kept, x))
        return super().forward(x)


@pytest.mark.parametrize(
    ("start", "update", "said"),
    [
        (0.0, lambda kept, _: kept / kept.sum(), "buffer 'kept' of Counting is NaN"),
        (1.0, lambda kept, _: kept * 1e30, "buffer 'kept' of Counting is infinite"),
        (math.inf, lambda kept, x: torch.minimum(kept, x.min()), ""),  # an observer
        (math.inf, lambda kept, _: kept, ""),
    ],
)
def test_buffers(start: float, update: Callable[[Tensor, Tensor], Tensor], said: str) -> None:
    found = verdict(lambda: Counting(start, update))
    assert found.outcome == ("failed" if said else "passed"), found.summary
    assert found.summary.startswith(said)


class Masked(Net):
    """Its mask is a parameter that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.mask = nn.Parameter(torch.full((10,), -math.inf), requires_grad=False)


def test_infinities_of_a_parameter_that_were_there_before_are_data() -> None:
    assert verdict(Masked).outcome == "passed"


class Gated(Net):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.where(self.gate > 0, torch.sqrt(self.gate), 0.0 * self.gate)


def test_a_gradient_that_no_optimizer_uses_fails_too() -> None:
    found = verdict(Gated, optimizer=lambda model: adam(model.body.parameters()))
    assert found.summary.startswith("gradient 'gate' of Gated is NaN"), found.summary


class Scaled(Net):
    """Skips updates whose gradients overflow, from the 20th step on two of three."""

    def __init__(self, scaler: bool) -> None:
        super().__init__()
        self.optimizer, self.made = adam(self.body.parameters()), 0
        self.scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=1) if scaler else None


def step(model: Scaled, x: Tensor, y: Tensor) -> Tensor:
    model.made += 1
    model.optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    overflows = model.made > 20 and model.made % 3 > 0
    used = loss * (math.inf if overflows else 1.0)
    if model.scaler is None:
        used.backward()
        if all(bool(each.grad.isfinite().all()) for each in model.parameters() if each.grad is not None):
            model.optimizer.step()
    else:
        model.scaler.scale(used).backward()
        model.scaler.step(model.optimizer)
        model.scaler.update()
    return loss.detach()


@pytest.mark.parametrize("scaler", [False, True])
def test_gradients_of_a_skipped_update_do_not_count(scaler: bool) -> None:
    found = verdict(lambda: Scaled(scaler), step=step, loss=None, optimizer=None)
    assert found.outcome == "passed", found.summary


class RootedStep(Rooted):
    def __init__(self) -> None:
        super().__init__(safe=False)
        self.optimizer, self.made, self.scaler = adam(self.parameters()), -1000, None


def unguarded(model: RootedStep, x: Tensor, y: Tensor) -> Tensor:
    model.optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    model.optimizer.step()
    return loss.detach()


def test_a_step_of_ones_own_that_uses_them_fails() -> None:
    found = verdict(RootedStep, step=unguarded, loss=None, optimizer=None)
    assert "Root root is NaN" in found.summary
