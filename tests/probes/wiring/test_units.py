"""Units that start alike and stay so are named; those that come apart, or were never trained, are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pytest_overfit import Case, Verdict, run_probes

X = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(16) % 3


def verdict(model: Callable[[], nn.Module], rule: str = "Adam") -> Verdict:
    def optimizer(parameters: object) -> torch.optim.Optimizer:
        return getattr(torch.optim, rule)(parameters, lr=1e-2)

    case = Case(name="case", model=model, loss=F.cross_entropy, optimizer=optimizer, batch=(X, Y))
    return run_probes(case, ["wiring"])[0]


def net(*constant: int, value: float = 0.1, frozen: bool = False) -> nn.Module:
    """Two hidden layers; the weights of some start with one value everywhere."""
    made = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    for place in constant:
        nn.init.constant_(made[place].weight, value)
        nn.init.zeros_(made[place].bias)
        made[place].requires_grad_(not frozen)
    return made


def filters() -> nn.Module:
    made = nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    for each in made.parameters():
        nn.init.constant_(each, 0.05)
    return made


@pytest.mark.parametrize("rule", ["Adam", "SGD"])
def test_units_that_cannot_become_different_are_a_warning(rule):
    found = verdict(lambda: net(0, 2, 4), rule)
    assert found.outcome == "passed"
    assert [(each.fault, each.confidence) for each in found.diagnoses] == [("constant_init", "shown")]
    assert "all units of 0.weight, 2.weight start alike and are so after 4 steps" in found.summary
    assert "1.weight" in verdict(filters, rule).diagnoses[0].evidence


@pytest.mark.parametrize(
    "model",
    [
        lambda: net(),
        lambda: net(0),  # the layer behind it tells its units apart
        lambda: net(4, value=0.0),  # so do the targets
        lambda: net(0, 2, frozen=True),
        lambda: net(4),
    ],
)
def test_units_that_come_apart_or_stay_as_they_are_have_no_name(model):
    assert verdict(model).diagnoses == ()


def test_scales_of_one_number_each_may_go_the_same_way():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.heads = nn.Parameter(torch.ones(2, 1, 1)), nn.Linear(6, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (self.heads(x).view(-1, 2, 1, 3) * self.scale).sum((1, 2))

    assert verdict(Scaled).diagnoses == ()
