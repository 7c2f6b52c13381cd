"""What refutes stands first: a part of the model that is never trained refutes a run whose loss still falls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pytest_overfit import Case, Verdict, run_probes
from pytest_overfit.report.text import failure_text

RNG = np.random.default_rng(0)
X = torch.as_tensor(RNG.normal(size=(24, 8)), dtype=torch.float32)
Y, VALUES = torch.arange(24) % 3, torch.as_tensor(RNG.normal(size=(24, 1)), dtype=torch.float32)


def slow(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 0.02)


def run(model: Callable[[], nn.Module], y: Any = Y, loss: Any = F.cross_entropy, **more: Any) -> Verdict:
    case = Case(name="net", model=model, loss=loss, batch=(X, y), **{"optimizer": slow, **more})
    (verdict,) = run_probes(case, ["overfit_batch"], diagnose="never", steps=150)
    return verdict


class Net(nn.Module):
    """A hidden layer whose gradient is cut, and layers that are there for nothing."""

    def __init__(self, cuts: bool, idle: bool = False) -> None:
        super().__init__()
        self.first, self.last, self.cuts = nn.Linear(8, 32), nn.Linear(32, 3), cuts
        if idle:
            self.pooler = nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.first(x))
        return self.last(hidden.detach() if self.cuts else hidden)  # type: ignore[no-any-return]


class Heads(nn.Module):
    """Two heads on one trunk, one of which may be cut off."""

    def __init__(self, cuts: bool) -> None:
        super().__init__()
        self.trunk, self.label, self.value, self.cuts = nn.Linear(8, 32), nn.Linear(32, 3), nn.Linear(32, 1), cuts

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.relu(self.trunk(x))
        value = self.value(hidden)
        return self.label(hidden), value.detach() if self.cuts else value


def both(outputs: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(outputs[0], y[0]) + F.mse_loss(outputs[1], y[1])


class Blind(nn.Module):
    """Answers with its biases alone."""

    def __init__(self, blind: bool) -> None:
        super().__init__()
        self.net, self.blind = Net(cuts=False), blind

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x * 0 if self.blind else x)  # type: ignore[no-any-return]


def part(model: nn.Module) -> torch.optim.Optimizer:
    return slow(list(model.parameters())[:2])


NEVER = "trainable parameters never changed"
CASES = {
    "cut": (lambda: Net(cuts=True), {}, f"2 of 4 {NEVER}: first.weight, first.bias", "no gradient reaches them"),
    "left_out": (lambda: Net(cuts=False), {"optimizer": part}, f"2 of 4 {NEVER}: last.weight", "no update uses it"),
    "head": (
        lambda: Heads(cuts=True),
        {"y": (Y, VALUES), "loss": both},
        f"2 of 6 {NEVER}: value.weight",
        "no gradient",
    ),
    "blind": (lambda: Blind(blind=True), {}, "the outputs do not depend on the input", "rows differ by 0"),
}


@pytest.mark.parametrize("name", CASES)
def test_it_refutes_a_run_that_still_falls_and_is_the_first_line(name: str) -> None:
    model, fields, start, why = CASES[name]
    verdict = run(model, **fields)
    assert verdict.outcome == "failed"
    assert verdict.summary.startswith(start)
    assert why in verdict.summary
    assert verdict.diagnoses[0].evidence == verdict.summary
    text = failure_text(verdict.to_dict())
    assert text.startswith(f"net: FAILED: {start}")
    assert text.count(verdict.summary) == 1


HEALTHY = {
    "plain": (lambda: Net(cuts=False), {}),
    "idle_layer": (lambda: Net(cuts=False, idle=True), {}),
    "heads": (lambda: Heads(cuts=False), {"y": (Y, VALUES), "loss": both}),
    "sees": (lambda: Blind(blind=False), {}),
    "declared": (lambda: Net(cuts=False), {"optimizer": part, "frozen": ("last.*",)}),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_slow_and_healthy_is_not_refuted(name: str) -> None:
    model, fields = HEALTHY[name]
    verdict = run(model, **fields)
    assert verdict.outcome == "inconclusive", verdict.summary
    assert "still falling" in verdict.summary
    assert "never changed" not in str(verdict.findings)


def test_outputs_that_are_alike_for_their_size_refute_nothing_while_the_loss_falls() -> None:
    """Targets far from 0, and a bias that starts there: rows hardly differ beside it."""

    def far() -> nn.Module:
        model = Net(cuts=False)
        nn.init.constant_(model.last.bias, 1000.0)
        return model

    verdict = run(far, y=VALUES.repeat(1, 3) + 1000.0, loss=F.mse_loss, optimizer=lambda p: torch.optim.Adam(p, 1e-3))
    assert 1e-6 < verdict.data["row_spread"] < 1e-2
    assert verdict.outcome == "inconclusive", verdict.summary


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_keras() -> None:
    keras = pytest.importorskip("keras")

    def make(cuts: bool) -> Any:
        x = keras.Input((8,))
        hidden = keras.layers.Dense(32, activation="relu", name="first")(x)
        hidden = keras.layers.Lambda(keras.ops.stop_gradient)(hidden) if cuts else hidden
        model = keras.Model(x, keras.layers.Dense(3, name="last")(hidden))
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    def verdict(cuts: bool) -> Verdict:
        case = Case(name="net", model=lambda: make(cuts), batch=(X.numpy(), Y.numpy()))
        return run_probes(case, ["overfit_batch"], diagnose="never", steps=150)[0]

    assert verdict(cuts=True).summary.startswith(f"2 of 4 {NEVER}: first/kernel, first/bias")
    assert verdict(cuts=True).outcome == "failed"
    assert verdict(cuts=False).outcome == "inconclusive"
