"""Do regularisers help: the judgement by the hundred on made-up runs, and whole comparisons on real data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_digits
from torch import nn
from torch.nn import functional

from pytest_overfit import Case, CaseError, run_probes
from pytest_overfit.core.limits import resolve
from pytest_overfit.core.verdict import Finding, Judgement, Verdict
from pytest_overfit.probes.regularization import PROBE, RegularizationLimits
from pytest_overfit.report.pictures import pictures_html

# ------------------------------------------------------------------------------------------------ made-up runs


def run(
    score: float | None, loss: float | None = 0.3, *, train: float = 1.0, rows: int = 400, last: float = 0.1
) -> Any:
    side = {"loss": loss, "metric": "accuracy" if score is not None else "", "chance": 0.1}
    return {
        "seed": 0,
        "losses": [1.0, last],
        "curve": [0.5, score],
        "train": {**side, "score": train, "rows": 1000},
        "val": {**side, "score": score, "rows": rows},
    }


def measured(own: list[Any], plain: list[Any], **more: Any) -> dict[str, Any]:
    given = {
        "split": "val",
        "epochs": 20,
        "removed": ["dropout 0.5 (2)"],
        "same_start": True,
        "remarks": [],
        "stop": "decided",
        "resplit": False,
    }
    return {**given, "regularized": own, "unregularized": plain, **more}


def judge(own: list[Any], plain: list[Any], limits: dict[str, Any] | None = None, **more: Any) -> Judgement:
    return PROBE.judge(measured(own, plain, **more), resolve(RegularizationLimits, [("call", limits or {})]))


def named(judgement: Judgement, name: str) -> Finding:
    return next(each for each in judgement.findings if each.name == name)


def around(mean: float, count: int = 10, spread: float = 0.002) -> list[Any]:
    return [run(mean + spread * (-1) ** number) for number in range(count)]


@pytest.mark.parametrize(
    ("own", "plain", "outcome", "words"),
    [
        (0.95, 0.90, "passed", "helps: val accuracy 0.950 with, 0.905"),
        (0.90, 0.95, "failed", "harms: val accuracy 0.900 with, 0.954"),
        (0.951, 0.950, "passed", "no measurable effect"),
    ],
)
def test_the_score_decides(own: float, plain: float, outcome: str, words: str) -> None:
    odd = [run(plain + 0.001 * number) for number in range(10)]
    found = judge(around(own), odd)
    assert found.outcome == outcome
    assert found.summary.startswith(words)


def test_too_few_or_too_noisy_pairs_are_undecided() -> None:
    found = judge(around(0.93, 10, 0.05), [run(0.9)] * 10, stop="seeds")
    assert found.outcome == "inconclusive"
    assert found.summary.startswith("undecided; about seeds=")
    assert judge(around(0.93, 2), around(0.9, 2), stop="budget").summary.startswith(
        "undecided when the budget was spent"
    )
    assert "(no interval yet)" in judge(around(0.93, 2), around(0.9, 2), stop="budget").summary


def test_both_arms_alike_to_the_bit_are_inert_and_not_without_effect() -> None:
    found = judge(around(0.9), around(0.9))
    assert found.outcome == "failed"
    assert found.summary == "inert: with and without dropout 0.5 (2), both arms do the same to the bit in 10 pairs"
    other = judge(around(0.9), [run(each["val"]["score"], last=0.1001) for each in around(0.9)])
    assert other.outcome == "passed"  # the same scores, but not the same training
    assert other.summary.startswith("no measurable effect")


def test_early_stopping_that_had_no_cause_to_stop_is_not_inert() -> None:
    found = judge(around(0.9), around(0.9), removed=["early stopping (patience 3)"])
    assert found.outcome == "passed"
    assert found.summary == "no measurable effect: early stopping (patience 3) stopped none of the 20-epoch runs"
    both = judge(around(0.9), around(0.9), removed=["early stopping (patience 3)", "dropout 0.5 (2)"])
    assert both.outcome == "failed"


def test_rounding_of_what_is_read_does_not_hide_an_inert_regulariser() -> None:
    """One arm's readings may have been compiled, the other's not."""
    found = judge([run(0.9, loss=0.3 * (1 + 1e-7))] * 10, [run(0.9, loss=0.3)] * 10)
    assert found.outcome == "failed"
    assert found.summary.startswith("inert")
    apart = judge([run(0.9, last=0.1 * (1 + 1e-7))] * 10, [run(0.9, last=0.1)] * 10)
    assert apart.summary.startswith("no measurable effect")
    read_apart = judge([run(0.9, loss=0.301)] * 10, [run(0.9, loss=0.3)] * 10)
    assert read_apart.summary.startswith("no measurable effect")


def test_a_smaller_gap_is_no_help() -> None:
    own, plain = [run(0.80 + 0.001 * k, train=0.82) for k in range(10)], [run(0.90, train=1.0)] * 10
    found = judge(own, plain)
    assert found.outcome == "failed"
    assert named(found, "gap").message.startswith("train minus val accuracy: 0.015 with, 0.100 without")


def test_a_loss_that_disagrees_is_said() -> None:
    own, plain = [run(0.95 + 0.001 * k, loss=0.9) for k in range(10)], [run(0.90, loss=0.3)] * 10
    found = judge(own, plain)
    assert found.outcome == "passed"
    assert named(found, "loss").outcome == "warning"
    assert "loss and accuracy disagree; the accuracy decides" in named(found, "loss").message
    assert named(judge(around(0.95), around(0.9)), "loss").outcome == "note"


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (run(math.nan), "the accuracy of the regularised arm is nan"),
        (run(None), "no score was measured on the predictions: give task= or score="),
        (run(0.9, last=math.inf), "the training loss of the regularised arm is inf in epoch 2"),
    ],
)
def test_numbers_that_cannot_be_compared_are_no_silent_pass(own: Any, words: str) -> None:
    found = judge([own], [run(0.9)], stop="nan")
    assert (found.outcome, found.summary) == ("inconclusive", words)


def test_what_a_reader_must_know_is_said() -> None:
    small = [run(0.9 + 0.02 * (k % 2), rows=12) for k in range(10)]
    found = judge(small, [run(0.9, rows=12)] * 10, same_start=False, remarks=["read through predict"], resplit=True)
    assert named(found, "validation_rows").message == "val has 12 rows: one row is 8% of the accuracy"
    said = [each.message for each in found.findings]
    assert "taken out for the unregularised arm: dropout 0.5 (2)" in said
    assert "the arms' shapes differ, so they start from different weights" in said
    assert "read through predict" in said
    assert any(each.endswith("initial weights, order, masks and the cut") for each in said)


@given(
    scores=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=16),
    stop=st.sampled_from(["seeds", "budget", "decided"]),
)
@settings(deadline=None)
def test_any_runs_give_one_answer_and_harm_of_one_arm_is_help_of_the_other(
    scores: list[tuple[float, float]], stop: str
) -> None:
    own, plain = [run(a) for a, _ in scores], [run(b, last=0.2) for _, b in scores]
    found = judge(own, plain, stop=stop)
    word = found.summary.split(":")[0]
    assert found.outcome == {"helps": "passed", "harms": "failed", "no measurable effect": "passed"}.get(
        word, "inconclusive"
    )
    other = judge(plain, own, stop=stop).summary.split(":")[0]
    if word == "harms":
        assert other == "helps"
    if word == "no measurable effect":
        assert other == word


def test_harm_below_the_margin_is_not_called_harm() -> None:
    small = [run(0.9 - 0.006 + 0.0001 * (number % 2)) for number in range(10)]
    found = judge(small, [run(0.9, last=0.2)] * 10, {"margin": 0.007}, stop="seeds")
    assert found.outcome == "inconclusive"
    assert found.summary.startswith("undecided: worse, but by less than the margin (0.007)")
    assert judge(small, [run(0.9, last=0.2)] * 10, {"margin": 0.004}).summary.startswith("harms")
    assert judge(small, [run(0.9, last=0.2)] * 10, {"margin": 0.05}).summary.startswith("no measurable effect")


def test_less_than_one_row_is_no_effect() -> None:
    """One of 45 rows is 0.022 of the accuracy, more than the margin of 0.01."""
    own = [run(0.9 - 0.015 + 0.0001 * (number % 2), rows=45) for number in range(16)]
    found = judge(own, [run(0.9, last=0.2, rows=45)] * 16)
    assert found.outcome == "passed"
    assert found.summary.startswith("no measurable effect")
    assert found.summary.endswith("; less than one row (0.022) does not count")
    near = [run(0.9 - 0.0215 + 0.0001 * (number % 2), rows=45) for number in range(16)]
    found = judge(near, [run(0.9, last=0.2, rows=45)] * 16, stop="seeds")
    assert found.outcome == "inconclusive"
    assert found.summary.startswith("undecided: worse, but by less than one row (0.0222)")
    large = [run(0.9 - 0.05 + 0.0001 * (number % 2), rows=45) for number in range(16)]
    assert judge(large, [run(0.9, last=0.2, rows=45)] * 16).outcome == "failed"
    many = [run(0.9 - 0.015 + 0.0001 * (number % 2), rows=450) for number in range(16)]
    assert judge(many, [run(0.9, last=0.2, rows=450)] * 16).outcome == "failed"


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"seeds": 9}, r"seeds: expected 10 or more, got 9: fewer pairs cannot give an answer"),
        ({"seeds": 1}, r"seeds: expected 10 or more, got 1: fewer pairs"),
        ({"margin": 0.0}, r"margin: expected .* got 0"),
        ({"epochs": 0}, r"epochs: expected .* got 0"),
        ({"alpha": 0.7}, r"alpha: expected .* got 0.7"),
        ({"seed": 3}, r"seed"),
    ],
)
def test_limits_that_cannot_be_used_are_refused(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(CaseError, match=message):
        resolve(RegularizationLimits, [("call", limits)])


# ------------------------------------------------------------------------------------------------ whole comparisons

CANCER = load_breast_cancer(return_X_y=True)
CANCER_X = ((CANCER[0] - CANCER[0].mean(0)) / CANCER[0].std(0)).astype("float32")
DIGITS_X, DIGITS_Y = load_digits(return_X_y=True)
DIGITS_X = (DIGITS_X / 16).astype("float32")


def digits(*between: Any, decay: float = 0.0, rows: int = 300, **more: Any) -> Case:
    model = lambda: nn.Sequential(nn.Linear(64, 32), nn.ReLU(), *(each() for each in between), nn.Linear(32, 10))  # noqa: E731
    given: dict[str, Any] = {
        "model": model,
        "loss": functional.cross_entropy,
        "optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=3e-3, weight_decay=decay),
        "train": (DIGITS_X[:rows], DIGITS_Y[:rows]),
        "val": (DIGITS_X[1300:], DIGITS_Y[1300:]),
        **more,
    }
    return Case(name="digits", **given)


def verdict(of: Case, **limits: Any) -> Verdict:
    found = run_probes(of, ["regularization"], **{"epochs": 10, **limits})
    return found[0]


def test_a_dropout_that_drops_nearly_everything_harms() -> None:
    found = verdict(digits(lambda: nn.Dropout(0.97)))
    assert found.outcome == "failed"
    assert found.summary.startswith("harms")
    assert found.data["removed"] == ["dropout 0.97 (2)"]
    (picture,) = found.data["pictures"]
    assert [each["name"] for each in picture["series"]] == ["regularised", "unregularised"]
    assert all(len(each["y"]) == 10 for each in picture["series"])
    assert pictures_html([picture]).count("<img") == 1


def test_a_small_decay_has_no_measurable_effect() -> None:
    found = verdict(digits(decay=1e-3))
    assert found.outcome == "passed"
    assert found.summary.startswith("no measurable effect")


def test_a_decay_below_the_last_bit_is_inert() -> None:
    assert verdict(digits(decay=1e-6), epochs=2).summary.startswith("inert: with and without weight decay 1e-06")


def test_dropout_that_is_never_called_is_inert() -> None:
    class Forgets(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.drop, self.last = nn.Linear(64, 32), nn.Dropout(0.5), nn.Linear(32, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(torch.relu(self.first(x)))  # type: ignore[no-any-return]

    found = verdict(digits(model=Forgets), epochs=2)
    assert found.outcome == "failed"
    assert found.summary.startswith("inert: with and without dropout 0.5 (drop)")


def test_augmentation_and_capacity_are_compared_through_unregularized() -> None:
    wide = lambda: nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))  # noqa: E731
    narrow = lambda: nn.Sequential(nn.Linear(64, 1), nn.ReLU(), nn.Linear(1, 10))  # noqa: E731
    found = verdict(digits(model=narrow, unregularized=wide))
    assert found.outcome == "failed"
    assert any("shapes differ" in each.message for each in found.findings)
    noisy = (DIGITS_X[:300] + np.random.default_rng(0).normal(0, 3, (300, 64)).astype("float32"), DIGITS_Y[:300])
    given = {"train": (DIGITS_X[:300], DIGITS_Y[:300])}
    assert verdict(digits(train=noisy, unregularized=given)).outcome == "failed"


def test_batch_normalisation_is_no_regulariser_that_is_taken_out() -> None:
    found = verdict(digits(lambda: nn.BatchNorm1d(32)))
    assert found.outcome == "not_applicable"
    assert "no regulariser found" in found.summary


def test_the_cut_may_be_made_anew_for_each_seed() -> None:
    of = digits(lambda: nn.Dropout(0.97), rows=400)
    one = verdict(of, resplit=True, seeds=10, epochs=2)
    assert one.data["resplit"] is True
    assert [each["val"] for each in one.data["regularized"]] != [
        each["val"] for each in verdict(of, seeds=10, epochs=2).data["regularized"]
    ]


def test_equal_seeds_give_equal_verdicts_and_the_users_generators_stay() -> None:
    state, numbers = torch.get_rng_state(), np.random.get_state()[1].tolist()
    of = digits(lambda: nn.Dropout(0.5))
    first, again = (verdict(of, epochs=2, seeds=10) for _ in range(2))
    assert first.data == again.data
    assert torch.equal(state, torch.get_rng_state())
    assert np.random.get_state()[1].tolist() == numbers


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"val": ()}, r"val="),
        ({"val": (DIGITS_X[:5], DIGITS_Y[:4])}, r"inputs and targets are of different length"),
        ({"unregularized": {"train": (DIGITS_X[:9], DIGITS_Y[:9])}}, r"resplit=True cuts one set of rows again"),
    ],
)
def test_data_that_cannot_be_used_are_named(more: dict[str, Any], message: str) -> None:
    with pytest.raises(CaseError, match=message):
        verdict(digits(lambda: nn.Dropout(0.5), **more), resplit=True)


def test_without_validation_data_there_is_nothing_to_judge_by() -> None:
    found = verdict(digits(lambda: nn.Dropout(0.5), val=None))
    assert found.outcome == "not_applicable"
    assert "no val= data" in found.summary


def test_a_budget_ends_it_without_a_verdict_on_the_model() -> None:
    found = verdict(digits(lambda: nn.Dropout(0.5)), budget=1e-9, epochs=1)
    assert found.outcome == "inconclusive"
    assert found.summary.startswith("undecided when the budget was spent")


def test_breast_cancer_with_a_moderate_dropout_is_not_harmed() -> None:
    model = lambda: nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))  # noqa: E731
    found = verdict(
        Case(
            name="cancer",
            model=model,
            loss=functional.cross_entropy,
            optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
            train=(CANCER_X[:400], CANCER[1][:400]),
            val=(CANCER_X[400:], CANCER[1][400:]),
        ),
        margin=0.02,
    )
    assert not found.summary.startswith(("harms", "inert"))
