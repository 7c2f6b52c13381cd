"""What `overfit_batch` names by itself, without a changed program: rows, evaluation, labels and shapes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pytest_overfit import Case, Verdict, run_probes

RNG = np.random.default_rng(0)
X, Y = torch.as_tensor(RNG.normal(size=(24, 6)), dtype=torch.float32), torch.arange(24) % 3


def run(model: Callable[[], nn.Module], x: Any = X, y: Any = Y, steps: int = 500, **more: Any) -> Verdict:
    fields = {"loss": F.cross_entropy, "optimizer": lambda p: torch.optim.Adam(p, 0.02), "batch": (x, y), **more}
    case = Case(name="net", model=model, **fields)
    (verdict,) = run_probes(case, ["overfit_batch"], diagnose="never", steps=steps)
    return verdict


def faults(verdict: Verdict) -> list[tuple[str, str]]:
    assert all(each.cure and each.evidence for each in verdict.diagnoses)
    return [(each.fault, each.confidence) for each in verdict.diagnoses]


def mlp(outputs: int = 3, *first: nn.Module) -> nn.Module:
    return nn.Sequential(*first, nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, outputs))


class Always(nn.Module):
    """Dropout that does not ask whether the model trains."""

    def __init__(self, asks: bool) -> None:
        super().__init__()
        self.asks = asks

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.2, training=self.training if self.asks else True)


class Counting(nn.Module):
    """Answers hang on how often it was called, which is kept where nobody can put it back."""

    def __init__(self, keeps: bool) -> None:
        super().__init__()
        self.net, self.keeps = mlp(), keeps

    def forward(self, x: Tensor) -> Tensor:
        count = next(CALLS) if self.keeps and not self.training else 0
        return torch.as_tensor(self.net(x) * (1 + 0.1 * (count % 7)))


CALLS = itertools.count()


class Centred(nn.Module):
    """Rows less their mean, or less that of the neighbour."""

    def __init__(self, mixes: bool) -> None:
        super().__init__()
        self.mixes = mixes

    def forward(self, x: Tensor) -> Tensor:
        return x - 0.5 * x.roll(1, 0) if self.mixes else x


class Pooled(nn.Module):
    """The mean over what was normalised to a mean of 0."""

    def __init__(self, features: bool) -> None:
        super().__init__()
        self.into, self.norm, self.out = nn.Linear(6, 16), nn.LayerNorm(16, elementwise_affine=False), nn.Linear(1, 3)
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.into(x))
        pooled = hidden if self.features else hidden * torch.linspace(-1, 1, 16)
        return torch.as_tensor(self.out(8 * pooled.mean(1, keepdim=True)))


@pytest.mark.parametrize("broken", [True, False])
@pytest.mark.parametrize(
    ("model", "fault"),
    [
        (lambda broken: mlp(3, Always(not broken)), "random_in_eval"),
        (lambda broken: mlp(3, Centred(broken)), "batch_mixing"),
    ],
)
def test_rows_and_evaluation(model: Callable[[bool], nn.Module], fault: str, broken: bool) -> None:
    verdict = run(lambda: model(broken))
    assert (verdict.outcome, faults(verdict)) == (("failed", [(fault, "shown")]) if broken else ("passed", []))


@pytest.mark.parametrize(("keeps", "names"), [(True, [("state_carried", "shown")]), (False, [])])
def test_state_that_is_carried_from_call_to_call(keeps: bool, names: list[tuple[str, str]]) -> None:
    verdict = run(lambda: Counting(keeps))
    assert (verdict.outcome, faults(verdict)) == ("inconclusive" if keeps else "passed", names), verdict.summary


def test_outputs_that_do_not_depend_on_the_input() -> None:
    verdict = run(lambda: Pooled(True), steps=60)
    assert faults(verdict) == [("input_ignored", "shown")]
    assert "the outputs do not depend on the input" in verdict.summary
    assert not faults(run(lambda: Pooled(False), steps=60))


@pytest.mark.parametrize(("other", "named"), [(2 - Y, True), (Y, False)])
def test_rows_that_conflict(other: Tensor, named: bool) -> None:
    verdict = run(mlp, torch.cat([X, X]), torch.cat([Y, other]))
    assert (verdict.outcome, faults(verdict)) == ("passed", [("conflicting_labels", "shown")] if named else [])


def test_quantities_that_conflict_and_repeated_measurements() -> None:
    values = X[:, :1].sin()
    for spread, named in ((1.0, True), (0.05, False)):
        again = values + spread * torch.as_tensor(RNG.normal(size=(24, 1)), dtype=torch.float32)
        verdict = run(lambda: mlp(1), torch.cat([X, X]), torch.cat([values, again]), loss=F.mse_loss)
        assert ("conflicting_labels" in [each.fault for each in verdict.diagnoses]) is named


def test_rows_that_interact_may_look_alike() -> None:
    verdict = run(
        mlp,
        torch.cat([X, X]),
        torch.cat([Y, 2 - Y]),
        options={"overfit_batch": {"rows_interact": True}},
    )
    assert not faults(verdict)


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_shapes_that_broadcast() -> None:
    three = torch.stack([X[:, 0].sin(), X[:, 1].cos(), X[:, 2]], 1)
    verdict = run(lambda: mlp(1), X, three, loss=F.mse_loss)
    assert (verdict.outcome, faults(verdict)[0]) == ("failed", ("wrong_output_units", "shown"))
    assert verdict.summary.startswith("outputs (24, 1) and targets (24, 3) broadcast")
    assert not faults(run(lambda: mlp(3), X, three, loss=F.mse_loss))
    assert faults(run(lambda: mlp(1), X, X[:, 0], loss=F.mse_loss))[0] == ("target_broadcast", "shown")
