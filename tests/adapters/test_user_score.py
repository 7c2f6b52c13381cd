"""What a case's own `score` may return, and what is refused because nothing could be compared with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from pytest_overfit import Case, CaseError, Verdict, run_probes
from pytest_overfit.adapters.user_score import user_score

CASE = Case(name="c", model=object, batch=([1], [1]))

DATA = torch.randn(400, 10, generator=torch.Generator().manual_seed(0))
TRAIN, VAL = ((rows, (rows[:, 0] > 0).long()) for rows in DATA.split(200))


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1.0),
        (True, 1.0),
        (-3.5, -3.5),
        (1.0004, 1.0004),
        (np.float32(0.5), 0.5),
        (np.array([0.5]), 0.5),
        (torch.tensor(0.5, requires_grad=True), 0.5),
        (torch.tensor([[0.5]]), 0.5),
        (-math.inf, -math.inf),
    ],
    ids=repr,
)
def test_one_number_of_any_kind_is_a_score(value: Any, number: float) -> None:
    assert user_score(value, CASE) == number


def test_nan_is_left_to_the_verdict() -> None:
    assert math.isnan(user_score(math.nan, CASE))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (12.0, r"score returned 12, expected at most 1.0.*divide it by 100"),
        (math.inf, "score returned inf, expected at most 1.0"),
        (1797, "score returned 1797, expected at most 1.0"),
        (torch.tensor([True, False]), r"Tensor of shape \(2,\) and dtype bool, expected one number"),
        (np.ones(3) == 1, r"ndarray of shape \(3,\)"),
        ([0.9], "list of 1"),
        ((0.9, 0.8), "tuple of 2"),
        (None, "score returned None"),
        ("0.9", "score returned '0.9'"),
    ],
    ids=repr,
)
def test_what_would_pass_every_limit_or_none_is_refused(value: Any, words: str) -> None:
    with pytest.raises(CaseError, match=f"Case 'c': .*{words}"):
        user_score(value, CASE)


def verdict(probe: str, score: Callable[..., Any]) -> Verdict:
    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 2))

    def adam(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=0.02)

    case = Case(name="c", model=model, loss=functional.cross_entropy, optimizer=adam, train=TRAIN, val=VAL, score=score)
    return run_probes(case, [probe])[0]


def right(model: Any, x: Any, y: Any) -> Any:
    return (model(x).argmax(1) == y).float().mean()


@pytest.mark.parametrize("probe", ["overfit_batch", "early_accuracy", "generalization_gap"])
def test_a_percentage_is_refused_and_a_share_is_not(probe: str) -> None:
    assert verdict(probe, right).outcome == "passed"
    with pytest.raises(CaseError, match="divide it by 100"):
        verdict(probe, lambda *given: 100 * right(*given))


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_score_that_is_no_number_refutes_no_model(value: float) -> None:
    with pytest.raises(CaseError, match=f"score returned {value} for a batch that the loss says is memorised"):
        verdict("overfit_batch", lambda *_: value)
    assert "pipeline fault: score= gives" in verdict("early_accuracy", lambda *_: value).summary
    assert verdict("generalization_gap", lambda *_: value).outcome == "inconclusive"


def test_r2_below_zero_is_a_score_like_any_other() -> None:
    def r2(model: Any, x: Any, y: Any) -> Any:
        wanted = functional.one_hot(y, 2)
        return 1 - 4 * ((torch.softmax(3 * model(x), 1) - wanted) ** 2).mean() * 4

    assert verdict("overfit_batch", r2).outcome == "passed"
