"""Loops of one's own: NumPy and scikit-learn through `step`, and torch models with a step of the user's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss
from torch import nn

from pytest_overfit import Case, Verdict, run_probes
from pytest_overfit.adapters import step as step_adapter
from pytest_overfit.adapters import torch as torch_adapter
from pytest_overfit.data.telling import batch_of
from pytest_overfit.testing import check_learner

X, Y = load_digits(return_X_y=True)
X, Y = X[:24] / 16, Y[:24]


class Softmax:
    def __init__(self) -> None:
        self.weights = np.zeros((64, 10))

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.asarray((x @ self.weights).argmax(axis=1))


def numpy_step(rate: float, smoothing: float = 0.0) -> Any:
    def step(model: Softmax, x: np.ndarray, y: np.ndarray) -> float:
        scores = np.exp(x @ model.weights)
        share = scores / scores.sum(axis=1, keepdims=True)
        target = (1 - smoothing) * np.eye(10)[y] + smoothing / 10
        model.weights -= rate * x.T @ (share - target) / len(y)
        return float(-(target * np.log(share)).sum(axis=1).mean())

    return step


def verdict(**fields: Any) -> Verdict:
    return run_probes(Case(**{"name": "loop", "batch": (X, Y), **fields}), ["overfit_batch"])[0]


def test_a_numpy_loop_passes_on_its_predictions() -> None:
    found = verdict(model=Softmax, step=numpy_step(0.5))
    assert found.outcome == "passed", found.summary
    assert "accuracy 1" in found.summary
    assert any("blinded inputs" in each.source for each in found.findings)


def test_a_loop_that_does_not_learn_fails() -> None:
    assert verdict(model=Softmax, step=numpy_step(0.0)).outcome == "failed"
    assert verdict(model=Softmax, step=numpy_step(-0.01)).outcome == "failed"


def test_smoothing_inside_the_step_is_no_fault() -> None:
    found = verdict(model=Softmax, step=numpy_step(0.5, smoothing=0.1))
    assert found.outcome == "passed", found.summary


def test_partial_fit() -> None:
    def step(model: SGDClassifier, x: np.ndarray, y: np.ndarray) -> float:
        model.partial_fit(x, y, classes=np.arange(10))
        return float(log_loss(y, model.predict_proba(x), labels=np.arange(10)))

    found = verdict(model=lambda: SGDClassifier(loss="log_loss", random_state=0), step=step)
    assert found.outcome == "passed", found.summary


def test_the_cases_own_score_is_the_agreement() -> None:
    right = lambda model, x, y: float((model.predict(x) == y).mean())  # noqa: E731
    assert "score 1" in verdict(model=Softmax, step=numpy_step(0.5), score=right).summary
    assert verdict(model=Softmax, step=numpy_step(0.5), score=lambda model, x, y: 0.5).outcome == "failed"


def make_net() -> nn.Module:
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    net.optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    return net


def clipped(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    net.optimizer.zero_grad()
    loss = F.cross_entropy(net(x), y)
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    net.optimizer.step()
    return loss


def test_a_torch_step_shows_its_loss() -> None:
    found = verdict(model=make_net, step=clipped)
    assert found.outcome == "passed", found.summary
    assert any("its loss is cross_entropy" in each.message for each in found.findings)


def test_a_torch_step_that_updates_every_eighth_time() -> None:
    def accumulated(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        net.calls = getattr(net, "calls", 0) + 1
        loss = F.cross_entropy(net(x), y)
        (loss / 8).backward()
        if net.calls % 8 == 0:
            net.optimizer.step()
            net.optimizer.zero_grad()
        return loss

    found = verdict(model=make_net, step=accumulated, limits={"steps": 2000})
    assert found.outcome == "passed", found.summary


def test_a_torch_step_that_forgets_to_step_fails() -> None:
    def forgetful(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(net(x), y)

    assert verdict(model=make_net, step=forgetful).outcome == "failed"


@pytest.mark.parametrize(
    ("adapter", "case"),
    [
        (step_adapter, Case(name="numpy", model=Softmax, step=numpy_step(0.5), batch=(X, Y))),
        (torch_adapter, Case(name="clipped", model=make_net, step=clipped, batch=(X, Y))),
        (
            torch_adapter,
            Case(name="net", model=make_net, loss=F.cross_entropy, optimizer=torch.optim.Adam, batch=(X, Y)),
        ),
        (
            torch_adapter,
            Case(
                name="normed",
                model=lambda: nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Dropout(), nn.Linear(32, 10)),
                loss=nn.CrossEntropyLoss(label_smoothing=0.1),
                optimizer=torch.optim.Adam,
                batch=(X, Y),
            ),
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Case) else "",
)
def test_adapters_keep_the_contract(adapter: Any, case: Case) -> None:
    torch.manual_seed(0)
    learner = adapter.make_learner(case, case.model(), batch_of(case), case.model)
    assert check_learner(learner) == []
