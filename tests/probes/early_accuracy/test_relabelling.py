"""Classes that have other numbers in validation than in train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from torch import nn

from pytest_overfit import Case, run_probes
from pytest_overfit.probes.early_accuracy.estimates import Predictions
from pytest_overfit.probes.early_accuracy.relabelling import better, relabelling

Array = np.ndarray
Change = Callable[[Array, Array], tuple[Array, Array]]


def swapped(x: Array, y: Array) -> tuple[Array, Array]:
    return x, np.where(y == 0, 1, np.where(y == 1, 0, y))


def numbered_anew(x: Array, y: Array) -> tuple[Array, Array]:
    """By an encoder that was fitted to rows without the first class."""
    return x[y > 0], y[y > 0] - 1


def turned(x: Array, y: Array) -> tuple[Array, Array]:
    return x, (y - 1) % (y.max() + 1)


def as_they_are(x: Array, y: Array) -> tuple[Array, Array]:
    return x, y


def program(load: Any, change: Change) -> Case:
    x, y = load(return_X_y=True)
    spread = x.std(axis=0)
    x = ((x - x.mean(axis=0)) / np.where(spread > 0, spread, 1.0)).astype("float32")
    order = np.random.default_rng(0).permutation(len(x))
    first, last = order[: len(x) * 3 // 4], order[len(x) * 3 // 4 :]
    inputs, classes = x.shape[1], int(y.max()) + 1
    return Case(
        name="numbers",
        model=lambda: nn.Sequential(nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, classes)),
        loss=nn.functional.cross_entropy,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
        train=(x[first], y[first]),
        val=change(x[last], y[last]),
    )


@pytest.mark.parametrize(
    ("load", "change"),
    [
        *((load, change) for load in (load_iris, load_digits) for change in (swapped, numbered_anew, turned)),
        (load_breast_cancer, swapped),
    ],
)
def test_other_numbers_are_named(load: Any, change: Change) -> None:
    """After two epochs with a low rate the model itself knows little yet; what is measured is a simple model."""
    (verdict,) = run_probes(program(load, change), ["early_accuracy"])
    assert verdict.outcome == "failed", verdict.summary
    assert [each.name for each in verdict.findings if each.outcome == "failed"] == ["classes_renumbered"]
    assert "0 is 1" in verdict.summary


@pytest.mark.parametrize("load", [load_iris, load_breast_cancer, load_digits])
def test_the_same_numbers_pass(load: Any) -> None:
    (verdict,) = run_probes(program(load, as_they_are), ["early_accuracy"])
    assert verdict.outcome == "passed", verdict.summary


def answers(target: Array, predicted: Array) -> Predictions:
    return Predictions(kind="classes", predicted=predicted[:, None], target=target[:, None], raw=None,
                       counted=np.ones((len(target), 1), bool))  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 8), st.floats(0.0, 0.4))
def test_any_other_numbering_is_found(seed: int, classes: int, wrong: float) -> None:
    random = np.random.default_rng(seed)
    true = random.integers(0, classes, 400)
    predicted = np.where(random.random(400) < wrong, random.integers(0, classes, 400), true)
    numbers = np.roll(np.arange(classes), 1)
    found = relabelling(answers(numbers[true], predicted))
    assert found is not None
    assert better(found, 0.001)
    assert {(int(numbers[each]), each) for each in range(classes)} == set(found["pairs"])


def test_answers_that_know_nothing_or_are_right_need_no_other_numbers() -> None:
    random = np.random.default_rng(0)
    found = 0
    for _ in range(500):
        target = random.integers(0, 4, 80)
        right = np.where(random.random(80) < 0.7, target, random.integers(0, 4, 80))
        found += better(relabelling(answers(target, random.integers(0, 4, 80))), 0.001)
        found += better(relabelling(answers(target, right)), 0.001)
    assert found <= 6  # at most 1 of 1,000 is due; 7 have p < 1e-4


def test_one_answer_for_all_rows_has_no_other_number() -> None:
    target = np.array([0, 1, 2, 2] * 20)
    assert not better(relabelling(answers(target, np.full(80, 1))), 0.001)
