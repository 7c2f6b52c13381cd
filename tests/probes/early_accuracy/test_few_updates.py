"""Models that had a few updates only, and tell no more than the largest of their outputs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from pytest_overfit import Case, Verdict, run_probes

Array = np.ndarray


class Softmax:
    """A softmax regression from zeros; `predict` gives classes, `shares` probabilities."""

    def __init__(self, inputs: int, classes: int) -> None:
        self.weights, self.bias = np.zeros((inputs, classes)), np.zeros(classes)

    def shares(self, x: Array) -> Array:
        scores = x @ self.weights + self.bias
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        return scores / scores.sum(axis=1, keepdims=True)

    def predict(self, x: Array) -> Array:
        return self.shares(x).argmax(axis=1)


class SoftmaxThatShows(Softmax):
    def predict(self, x: Array) -> Array:
        return self.shares(x)


def step(rate: float, blind: bool = False) -> Callable[[Any, Array, Array], float]:
    def learn(model: Softmax, x: Array, y: Array) -> float:
        shares = model.shares(x)
        wrong = (shares - np.eye(shares.shape[1])[y]) / len(y)
        if not blind:
            model.weights -= rate * x.T @ wrong
        model.bias -= rate * wrong.sum(axis=0)
        return float(-np.log(shares[np.arange(len(y)), y] + 1e-12).mean())

    return learn


def sizes(seed: int) -> tuple[Array, Array]:
    """Small, medium and large things: all inputs are positive, so one class comes first for all of them."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, 150)
    return (1 + y)[:, None] + random.uniform(-0.3, 0.3, (150, 2)), y


def raised() -> tuple[Array, Array]:
    x, y = load_breast_cancer(return_X_y=True)
    return ((x - x.mean(axis=0)) / x.std(axis=0) + 3)[:200], y[:200]


def run(data: tuple[Array, Array], model: Callable[[int, int], Any], learn: Any, **limits: Any) -> Verdict:
    x, y = data
    cut = len(x) * 3 // 5
    case = Case(name="few", model=partial(model, x.shape[1], int(y.max()) + 1), step=learn, train=(x[:cut], y[:cut]),
                val=(x[cut:], y[cut:]))  # fmt: skip
    return run_probes(case, ["early_accuracy"], **limits)[0]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("model", [Softmax, SoftmaxThatShows])
def test_a_few_updates_are_no_ignored_input(seed: int, model: Any) -> None:
    verdict = run(sizes(seed), model, step(0.3))
    assert verdict.outcome == "passed", verdict.summary


def test_what_more_updates_bring_is_said() -> None:
    verdict = run(raised(), Softmax, step(1e-3))
    assert verdict.outcome == "passed", verdict.summary
    (found,) = [each for each in verdict.findings if each.name == "few_updates"]
    assert "(8 updates)" in str(found.message)
    assert "after 300 updates" in str(found.message)


@pytest.mark.parametrize("data", [sizes(0), sizes(1), raised()], ids=["sizes", "other_sizes", "raised"])
@pytest.mark.parametrize("model", [Softmax, SoftmaxThatShows])
def test_an_input_that_is_ignored_is_named_whatever_the_updates(data: tuple[Array, Array], model: Any) -> None:
    verdict = run(data, model, step(0.1, blind=True))
    assert verdict.outcome == "failed", verdict.summary
    assert "input_ignored" in [each.name for each in verdict.findings if each.outcome == "failed"]
    assert "after 300 updates every row gets the same answer" in verdict.summary
