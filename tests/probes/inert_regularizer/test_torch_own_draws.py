"""Noise and masks written by hand are found by what they draw, whatever their classes are called."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pytest_overfit import Case, Verdict, run_probes

X = torch.randn(32, 10, generator=torch.Generator().manual_seed(0))
Y = torch.arange(32) % 3

Change = Callable[[nn.Module, Tensor], Tensor]


class Part(nn.Module):
    """Something of the test's where it trains, where it evaluates, in both modes or in none."""

    def __init__(self, change: Change, modes: str = "train", **facts: object) -> None:
        super().__init__()
        self.change, self.modes, self.generator = change, modes, torch.Generator().manual_seed(0)
        for name, fact in facts.items():
            setattr(self, name, fact)

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self, x) if ("train" if self.training else "eval") in self.modes else self.calm(x)

    def calm(self, x: Tensor) -> Tensor:
        return x


class Weighted(Part):
    """A layer with weights of its own."""

    def __init__(self, change: Change, modes: str = "train", **facts: object) -> None:
        super().__init__(change, modes, **facts)
        self.linear = nn.Linear(16, 16)

    def calm(self, x: Tensor) -> Tensor:
        return self.linear(x)


class DropConnect(Weighted):
    """The name says what it should do."""


def masked_weights(self: nn.Module, x: Tensor) -> Tensor:
    return F.linear(x, self.linear.weight * (torch.rand(16, 16) > 0.3) / 0.7, self.linear.bias)


CHANGES: dict[str, Change] = {
    "added": lambda _, x: x + 0.1 * torch.randn_like(x),
    "multiplied": lambda _, x: x * (1 + 0.3 * torch.randn(x.shape)),
    "mask": lambda _, x: x * (torch.rand_like(x) > 0.3) / 0.7,
    "rows": lambda _, x: x * torch.bernoulli(torch.full((len(x), 1), 0.7)) / 0.7,
    "in place": lambda _, x: x + torch.empty_like(x).uniform_(-0.1, 0.1),
    "numpy": lambda _, x: x + torch.tensor(np.random.normal(0, 0.1, x.shape), dtype=x.dtype),
    "standard library": lambda _, x: x * random.uniform(0.8, 1.2),
    "own generator": lambda self, x: x + 0.1 * torch.randn(x.shape, generator=self.generator),
}


def verdict(part: Callable[[], nn.Module], **fields: object) -> Verdict:
    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(10, 16), nn.Tanh(), part(), nn.Linear(16, 3))

    def sgd(parameters: object) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.1)

    given = {"model": model, "loss": F.cross_entropy, "optimizer": sgd, "batch": (X, Y), **fields}
    return run_probes(Case(name="case", **given), ["inert_regularizer"])[0]


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_draws_in_training_is_one(change):
    found = verdict(lambda: Part(change))
    assert (found.outcome, found.diagnoses) == ("passed", ()), found.summary
    assert "works: noise" in found.summary


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_one_that_forgets_the_mode_fails(change):
    found = verdict(lambda: Part(change, "train, eval"))
    assert found.outcome == "failed"
    assert found.summary.startswith("Part 2 changes its input in evaluation too")
    assert found.diagnoses[0].fault == "random_in_eval"


def test_one_with_its_modes_confused_fails():
    found = verdict(lambda: Part(CHANGES["mask"], "eval"))
    assert found.outcome == "failed"
    assert "in evaluation, and not in training: is the condition on its mode the wrong way round?" in found.summary


def test_one_may_be_meant():
    options = {"inert_regularizer": {"always_on": True}}
    assert verdict(lambda: Part(CHANGES["mask"], "train, eval"), options=options).outcome == "passed"


def test_masks_of_weights():
    assert verdict(lambda: Weighted(masked_weights)).outcome == "passed"
    # what it would give without its mask is not known, and its name says nothing
    found = verdict(lambda: Weighted(masked_weights, "train, eval"))
    assert found.outcome == "not_applicable"
    assert any("taken for a sample or a mask that is meant" in each.message for each in found.findings)


@pytest.mark.parametrize("rate", ["p", "prob", "rate", "drop_prob"])
def test_a_layer_with_weights_that_is_named_after_dropping(rate):
    found = verdict(lambda: DropConnect(masked_weights, **{rate: 0.3}))
    assert (found.outcome, "works: dropout" in found.summary) == ("passed", True), found.summary
    found = verdict(lambda: DropConnect(masked_weights, "none", **{rate: 0.3}))
    assert found.summary.startswith("DropConnect 2 (p = 0.3) is inert: in training it drops nothing"), found.summary
    found = verdict(lambda: DropConnect(masked_weights, "train, eval", **{rate: 0.3}))
    assert found.summary.startswith("DropConnect 2 (p = 0.3) changes its input in evaluation too"), found.summary


def test_a_layer_that_holds_what_drops_is_no_place_itself():
    def held(self: nn.Module, x: Tensor) -> Tensor:
        return self.inside(self.linear(x))

    found = verdict(lambda: DropConnect(held, "train, eval", drop_prob=0.3, inside=nn.Dropout(0.3)))
    assert (found.outcome, len(found.findings)) == ("passed", 1), found.findings


def test_a_step_of_the_users():
    def step(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        model.train()
        loss = F.cross_entropy(model(x), y)
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for each in model.parameters():
                each -= 0.1 * each.grad
        return loss.detach()

    own = {"step": step, "loss": None, "optimizer": None}
    assert verdict(lambda: Part(CHANGES["added"]), **own).outcome == "passed"
    assert verdict(lambda: Part(CHANGES["added"], "train, eval"), **own).outcome == "failed"


# ------------------------------------------------------------------ drawn by design


class Autoencoder(nn.Module):
    """Its sample is drawn in each mode."""

    def __init__(self, sample: nn.Module) -> None:
        super().__init__()
        self.mean, self.spread, self.sample, self.out = nn.Linear(10, 4), nn.Linear(10, 4), sample, nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.sample(self.mean(x), self.spread(x)))


class Sample(nn.Module):
    def forward(self, mean: Tensor, spread: Tensor) -> Tensor:
        return mean + torch.exp(0.5 * spread) * torch.randn_like(mean)


class Chosen(nn.Module):
    """The best of some experts, of noisy marks: nothing differentiable leads back to the noise."""

    def __init__(self) -> None:
        super().__init__()
        self.marks, self.experts = nn.Linear(16, 4), nn.ModuleList(nn.Linear(16, 16) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        marks = self.marks(x)
        best = (marks + torch.randn_like(marks) if self.training else marks).argmax(1)
        return torch.stack([each(x) for each in self.experts], 1)[torch.arange(len(x)), best]


class Shuffled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, torch.randperm(x.shape[1])]


def test_samples_are_meant():
    found = verdict(lambda: nn.Identity(), model=lambda: Autoencoder(Sample()), batch=(X, X), loss=F.mse_loss)
    assert found.outcome == "not_applicable", found.summary


@pytest.mark.parametrize(("part", "outcome"), [(Chosen, "passed"), (Shuffled, "not_applicable")])
def test_what_chooses_or_orders_at_random_is_not_refused(part, outcome):
    assert verdict(part).outcome == outcome


def test_a_model_that_draws_nothing_has_none():
    assert verdict(lambda: nn.LayerNorm(16)).outcome == "not_applicable"


class Skipping(nn.Module):
    """Blocks that are left out at random, each with a dropout."""

    def __init__(self, used: bool) -> None:
        super().__init__()
        self.used = used
        self.blocks = nn.ModuleList(nn.Linear(16, 16) for _ in range(6))
        self.drops = nn.ModuleList(nn.Dropout(0.3) for _ in range(6))

    def forward(self, x: Tensor) -> Tensor:
        for block, drop in zip(self.blocks, self.drops, strict=True):
            if not self.training or torch.rand(()) > 0.5:
                inside = torch.tanh(block(x))
                dropped = drop(inside)
                x = x + (dropped if self.used else inside)
        return x


def test_a_dropout_in_a_block_that_was_left_out_is_not_called_unused():
    for seed in range(5):
        found = verdict(lambda: Skipping(True), seed=seed)
        assert (found.outcome, found.diagnoses) == ("passed", ()), found.summary
    assert "no output of the model depends on its result" in verdict(lambda: Skipping(False)).summary
