"""Score and gap against bounds: the judgement on made-up runs, and whole runs on real data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from pytest_overfit import Case, CaseError, run_probes
from pytest_overfit.core.limits import resolve
from pytest_overfit.core.verdict import Finding, Judgement, Verdict
from pytest_overfit.data.splits import open_split
from pytest_overfit.measures.sequential.mean import looks, mean_over_seeds
from pytest_overfit.probes.generalization_gap import PROBE, GeneralizationGapLimits
from pytest_overfit.probes.generalization_gap.controls import blank_inputs, permuted_targets


def run(score: float | None, train: float = 1.0, *, chance: float | None = 0.1, rows: int = 400) -> dict[str, Any]:
    metric = "" if score is None else "accuracy"
    side = {"loss": 0.3, "metric": metric, "chance": chance}
    return {
        "seed": 0,
        "losses": [1.0, 0.1],
        "curve": [score],
        "train": {**side, "score": train, "rows": 900},
        "val": {**side, "score": score, "rows": rows},
    }


def judge(runs: list[Any], limits: dict[str, Any] | None = None, **controls: Any) -> Judgement:
    measured = {"split": "val", "epochs": 20, "runs": runs, "controls": controls, "remarks": []}
    return PROBE.judge(measured, resolve(GeneralizationGapLimits, [("call", limits or {})]))


def named(judgement: Judgement, name: str) -> Finding:
    return next(each for each in judgement.findings if each.name == name)


def around(mean: float, count: int = 8, spread: float = 0.002, **more: Any) -> list[Any]:
    return [run(mean + spread * (-1) ** number, **more) for number in range(count)]


@pytest.mark.parametrize(
    ("limits", "outcome", "name"),
    [
        ({}, "passed", "above_chance"),
        ({"min_score": 0.85}, "passed", "validation_score"),
        ({"min_score": 0.95}, "failed", "validation_score"),
        ({"min_score": 0.9005}, "inconclusive", "validation_score"),
        ({"max_gap": 0.2}, "passed", "gap"),
        ({"max_gap": 0.05}, "failed", "gap"),
        ({"max_gap": 0.0995}, "inconclusive", "gap"),
        ({"above_chance": 0.85}, "failed", "above_chance"),
    ],
)
def test_the_whole_interval_must_lie_on_one_side(limits: dict[str, Any], outcome: str, name: str) -> None:
    found = judge(around(0.9), limits)
    assert found.outcome == outcome
    assert named(found, name).outcome == outcome
    if outcome == "inconclusive":
        assert "too close to" in found.summary


def test_a_model_that_learnt_nothing_is_within_chance() -> None:
    found = judge(around(0.11))
    assert found.outcome == "failed"
    assert found.summary.endswith("the best constant answer has 0.100")


def test_too_few_seeds_have_no_interval() -> None:
    assert judge(around(0.9, 2)).outcome == "inconclusive"
    assert "(no interval yet)" in judge(around(0.9, 2)).summary


def test_without_a_known_chance_only_bounds_that_were_asked_for_count() -> None:
    runs = around(0.9, chance=None)
    assert judge(runs).outcome == "passed"
    assert judge(runs, {"min_score": 0.95}).outcome == "failed"


@pytest.mark.parametrize(
    ("score", "words"), [(None, "give task= or score="), (math.nan, "the accuracy of the model is nan")]
)
def test_scores_that_cannot_be_judged_are_no_silent_pass(score: float | None, words: str) -> None:
    found = judge([run(score)])
    assert found.outcome == "inconclusive"
    assert words in found.summary


def test_controls_must_end_at_chance() -> None:
    permuted = [run(each) for each in (0.05, 0.2, 0.11, 0.08)]
    good = judge(around(0.9), **{"permuted labels": permuted, "blank inputs": [run(0.1)]})
    assert good.outcome == "passed"
    leaking = judge(around(0.9), **{"permuted labels": around(0.9, 4), "blank inputs": [run(0.1)]})
    assert leaking.outcome == "failed"
    assert leaking.summary.startswith(
        "trained on permuted labels, val accuracy is 0.900, chance 0.100: the score does not"
    )
    blind = judge(around(0.9), **{"permuted labels": permuted, "blank inputs": [run(0.6)]})
    assert blind.outcome == "failed"
    assert "does not come from the inputs" in blind.summary


def test_a_score_that_permuted_labels_reach_by_luck_is_no_pass() -> None:
    permuted = [run(each) for each in (0.05, 0.2, 0.11, 0.08)]
    found = judge(around(0.2), **{"permuted labels": permuted})
    assert found.outcome == "inconclusive"
    assert "by luck up to 0.2" in found.summary
    assert judge(around(0.5), **{"permuted labels": permuted}).outcome == "passed"


def test_a_small_split_is_said() -> None:
    assert (
        named(judge(around(0.9, rows=12)), "validation_rows").message
        == "val has 12 rows: one row is 8% of the accuracy"
    )


def test_intervals_over_all_looks_hold_together() -> None:
    random = np.random.default_rng(0)
    missed = 0
    for _ in range(2000):
        values = random.normal(size=8).tolist()
        made = [mean_over_seeds(values[:count], 0.05, 8) for count in looks(8)]
        missed += any(not each.low <= 0 <= each.high for each in made)
    assert missed <= 0.065 * 2000  # 5 %, and 3 standard errors


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"seeds": 2}, "seeds: expected 3 or more, got 2: fewer have no spread"),
        ({"min_score": 1.2}, r"min_score: expected a score of at most 1, got 1.2"),
        ({"epochs": 0}, "epochs: expected 1 or more, got 0"),
        ({"controls": 1}, "controls: expected True or False, got 1"),
    ],
)
def test_limits_that_cannot_be_used_are_refused(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(CaseError, match=message):
        resolve(GeneralizationGapLimits, [("call", limits)])


# -------------------------------------------------------------------------------------------------- whole runs

X, Y = load_digits(return_X_y=True)
X = (X / 16).astype("float32")


def digits(**more: Any) -> Case:
    given: dict[str, Any] = {
        "model": lambda: nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)),
        "loss": functional.cross_entropy,
        "optimizer": lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
        "train": (X[:400], Y[:400]),
        "val": (X[1300:], Y[1300:]),
        **more,
    }
    return Case(name="digits", **given)


def verdict(of: Case, **limits: Any) -> Verdict:
    return run_probes(of, ["generalization_gap"], **{"epochs": 10, **limits})[0]


def test_digits_carry_over_and_their_controls_end_at_chance() -> None:
    found = verdict(digits(), min_score=0.7, max_gap=0.3, controls=True)
    assert found.outcome == "passed", found.summary
    assert {each.name for each in found.findings if each.outcome == "passed"} == {
        "above_chance", "validation_score", "gap", "control[permuted labels]", "control[blank inputs]",
        "above_control[permuted labels]",
    }  # fmt: skip
    assert found.data["pictures"][0]["y_label"] == "validation accuracy"


def test_shuffled_labels_do_not_carry_over() -> None:
    shuffled = np.random.default_rng(0).permutation(Y[:400])
    found = verdict(digits(train=(X[:400], shuffled)), controls=True)
    assert found.outcome in ("failed", "inconclusive")  # by luck some clusters of digits get their own label
    assert found.summary.startswith("val accuracy")


def test_a_score_that_ignores_the_model_is_found_by_the_controls() -> None:
    class Cheats(nn.Module):
        """Reads the label, which was left in the first pixel of every split."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.one_hot(x[:, 0].long(), 10).float() * self.scale * 10

    def marked(part: slice) -> tuple[Any, Any]:
        x = X[part].copy()
        x[:, 0] = Y[part]
        return x, Y[part]

    found = verdict(digits(model=Cheats, train=marked(slice(400)), val=marked(slice(1300, None))), controls=True)
    assert found.outcome == "failed"
    assert "the score does not come from the labels" in found.summary


def test_permuted_targets_are_the_same_in_every_epoch_and_inputs_stay() -> None:
    train = open_split(digits(), "train")
    spoilt = permuted_targets(train, 1)
    first, again = next(spoilt.chunks()), next(spoilt.chunks())
    assert (first.y == again.y).all()
    assert (first.y != next(train.chunks()).y).any()
    assert sorted(first.y.tolist()) == sorted(Y[:400].tolist())
    assert (first.x == X[:400]).all()
    blank = next(blank_inputs(train).chunks())
    assert not blank.x.any()
    assert (blank.y == Y[:400]).all()


def test_targets_among_named_inputs_are_permuted_too() -> None:
    train = {"pixels": X[:50], "labels": Y[:50]}
    case = Case(name="own", model=list, step=lambda model, x, y: 0.0, train=train)
    batch = next(permuted_targets(open_split(case, "train"), 1).chunks())
    assert (batch.x["pixels"] == X[:50]).all()
    assert (batch.x["labels"] != Y[:50]).any()
    assert not next(blank_inputs(open_split(case, "train")).chunks()).x["pixels"].any()


def test_without_validation_data_there_is_nothing_to_generalise_to() -> None:
    assert verdict(digits(val=None)).outcome == "not_applicable"
