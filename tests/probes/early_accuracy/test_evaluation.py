"""Evaluation that is not the model that was trained, beside evaluation that only lags."""

from __future__ import annotations

import copy
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from pytest_overfit import Case, Verdict, run_probes
from pytest_overfit.adapters.base import RunningStatistics
from pytest_overfit.core.limits import Resolved
from pytest_overfit.core.verdict import Finding
from pytest_overfit.probes.early_accuracy import EarlyAccuracyLimits
from pytest_overfit.probes.early_accuracy.estimates import shrunk, wilson
from pytest_overfit.probes.early_accuracy.evaluation import measure_evaluation, of_evaluation

if TYPE_CHECKING:
    import numpy as np


class TwoDomains(nn.Module):
    """In training the pictures of another domain go through the same normalisation, and only its statistics notice."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.faulty = faulty
        self.body = nn.Sequential(
            nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU()
        )
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = self.head(self.body(x))
        if self.training and self.faulty:
            for _ in range(3):
                self.body(0.15 * x - 1.5)
        return outputs


class PreparedInTraining(nn.Module):
    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.faulty = faulty
        self.layers = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(4 * (0.3 - x) if self.training or not self.faulty else x)


class Loop:
    """A loop of its owner's, whose `predict` asks a copy that was made before training."""

    def __init__(self, faulty: bool) -> None:
        self.model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        self.shown = copy.deepcopy(self.model) if faulty else self.model
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-2)

    def predict(self, x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return self.shown(torch.as_tensor(x)).numpy()

    def learn(self, x: np.ndarray, y: np.ndarray) -> float:
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(torch.as_tensor(x)), torch.as_tensor(y))
        loss.backward()
        self.optimizer.step()
        return loss.item()


def slow_statistics() -> nn.Module:
    """A momentum as some published networks have it."""
    layers = [each for _ in range(4) for each in (nn.Linear(64, 64), nn.BatchNorm1d(64, momentum=3e-4), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(64, 10))


def still_statistics() -> nn.Module:
    """So many layers that evaluation is far from what was trained, however the processor rounds."""
    layers = [each for _ in range(4) for each in (nn.Linear(64, 64), nn.BatchNorm1d(64, momentum=0.0), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(64, 10))


def splits() -> dict[str, Any]:
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    return {"train": (x[:1200], y[:1200]), "val": (x[1200:], y[1200:])}


def verdict_of(model: Any, seed: int = 0) -> Verdict:
    case = Case(name="evaluated", model=model, loss=nn.functional.cross_entropy, seed=seed,
                optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-3), **splits())  # fmt: skip
    return run_probes(case, ["early_accuracy"])[0]


def findings(verdict: Verdict, outcome: str) -> list[str]:
    return [each.name for each in verdict.findings if each.outcome == outcome]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (partial(TwoDomains, True), "batchnorm_eval_mismatch"),
        (still_statistics, "batchnorm_eval_mismatch"),
        (partial(PreparedInTraining, True), "evaluation_differs"),
    ],
)
def test_evaluation_that_never_comes_fails(model: Any, name: str) -> None:
    verdict = verdict_of(model)
    assert verdict.outcome == "failed", verdict.summary
    assert findings(verdict, "failed") == [name]  # and nothing is blamed on the rate
    by_name = [(each.fault, each.confidence) for each in verdict.diagnoses]
    assert by_name == ([(name, "shown")] if name == "batchnorm_eval_mismatch" else [])


@pytest.mark.parametrize("model", [partial(TwoDomains, False), partial(PreparedInTraining, False), slow_statistics])
def test_its_healthy_twin_passes(model: Any) -> None:
    verdict = verdict_of(model)
    assert verdict.outcome == "passed", verdict.summary
    assert not verdict.diagnoses


def test_statistics_that_lag_by_their_momentum_are_said_with_the_number() -> None:
    verdict = verdict_of(slow_statistics)
    (found,) = [each for each in verdict.findings if each.name == "evaluation_lags"]
    assert found.outcome == "warning"
    assert "98% of their way to go" in str(found.message)  # 0.9997 ** 76


@pytest.mark.parametrize("faulty", [True, False])
def test_answers_of_another_model_than_the_trained_one(faulty: bool) -> None:
    case = Case(name="loop", model=partial(Loop, faulty), step=lambda model, x, y: model.learn(x, y), **splits())
    verdict = run_probes(case, ["early_accuracy"])[0]
    assert verdict.outcome == ("inconclusive" if faulty else "passed"), verdict.summary
    if faulty:
        assert "evaluation gives every row the answer that it gave before training" in verdict.summary


# ------------------------------------------------------------------------------------------------------------ judgement


def said(score: float, rows: int = 1000) -> dict[str, Any]:
    low, high = wilson(score, rows)
    centre, error = shrunk(score, rows)
    p = 0.001 if score > 0.2 else 0.5
    return {"score": score, "centre": centre, "error": error, "low": low, "high": high, "rows": rows, "varies": True,
            "related": p, "signal": p}  # fmt: skip


def judged(here: float, scores: list[float] | None, **changes: Any) -> list[Finding]:
    """Two epochs, then, where scores are given, as many more as there are of them."""
    later = None if scores is None else {"curve": [0.1, here, here, *scores], "train": said(scores[-1]), "steps": 300}
    found = {"modes": {"eval": said(here), "fit": said(0.98), "train": said(0.9)}, "layers": ["BatchNorm1d 1"],
             "stands": False, "remaining": 0.0, "later": later, **changes}  # fmt: skip
    measured = {"evaluation": found, "losses": [2.0, 1.0], "steps": 80, "chance": {"train": 0.1}}
    return list(of_evaluation(measured, Resolved(EarlyAccuracyLimits(), {})))


@pytest.mark.parametrize(
    ("here", "scores", "changes", "outcome"),
    [
        (0.33, [0.3, 0.17, 0.1, 0.1], {}, "failed"),
        (0.33, [0.3, 0.6, 0.2, 0.1], {}, "failed"),  # wandering, once over half of the way
        (0.33, [0.4, 0.42, 0.43, 0.45], {}, "inconclusive"),  # on its way
        (0.33, [0.7, 0.9, 0.95, 0.97], {}, "warning"),
        (0.33, [0.7, 0.9, 0.3, 0.97], {}, "warning"),
        (0.33, None, {"remaining": 0.9}, "warning"),
        (0.33, None, {"stands": True}, "failed"),
    ],
)
def test_what_becomes_of_evaluation_decides(
    here: float, scores: list[float] | None, changes: dict[str, Any], outcome: str
) -> None:
    (found,) = judged(here, scores, **changes)
    assert found.outcome == outcome


@pytest.mark.parametrize(
    ("losses", "train", "moved", "metric", "outcomes"),
    [
        ([1.0, 0.3], 0.5, True, "accuracy", []),
        ([1.0, 0.3], 0.5, False, "accuracy", ["inconclusive"]),
        ([1.0, 0.95], 0.5, False, "accuracy", []),  # the noise of a loss that stands
        ([1.0, 0.05], 0.1, True, "accuracy", ["inconclusive"]),
        ([1.0, 0.05], 0.1, True, "R2", []),  # the mean of large targets is learnt first
        ([1.0], 0.1, True, "accuracy", []),
    ],
)
def test_a_loss_that_falls_beside_answers_that_cannot_be(
    losses: list[float], train: float, moved: bool, metric: str, outcomes: list[str]
) -> None:
    measured = {"evaluation": None, "losses": losses, "after": {"train": said(train)}, "moved": moved, "metric": metric}
    assert [each.outcome for each in of_evaluation(measured, Resolved(EarlyAccuracyLimits(), {}))] == outcomes


@pytest.mark.parametrize("stands", [True, False])
def test_statistics_that_never_move_are_looked_at_however_good_evaluation_is(stands: bool) -> None:
    """As good as a simple model, and not what was trained: whether it is so must not hang on a few rows."""
    layer = RunningStatistics(name="BatchNorm1d 1", momentum=0.0 if stands else 0.1, remaining=1.0 if stands else 0.0)
    modes = {"eval": said(0.84), "fit": said(0.99), "train": said(0.99)}
    run: Any = SimpleNamespace(trainer=SimpleNamespace(statistics=lambda: [layer]), in_modes=lambda: modes)
    measured = {"baselines": {}, "after": {"train": said(0.84)}, "steps": 76, "chance": {"train": 0.1}}
    control: Any = None  # nothing is trained again
    found = measure_evaluation(run, measured, control, 0.01)
    assert (found is not None) == stands
    if found is not None:
        (finding,) = of_evaluation({**measured, "evaluation": found}, Resolved(EarlyAccuracyLimits(), {}))
        assert finding.outcome == "failed"
        assert "running statistics of BatchNorm1d 1 never move" in str(finding.message)
