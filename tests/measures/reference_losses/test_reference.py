"""Reference losses: closed forms agree with optimised outputs, and both with pencil and paper."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pytest_overfit import Case
from pytest_overfit.adapters.base import Head
from pytest_overfit.adapters.torch import make_learner
from pytest_overfit.data.telling import batch_of
from pytest_overfit.measures.reference_losses.closed_form import closed_form
from pytest_overfit.measures.reference_losses.lbfgs import minimise
from pytest_overfit.measures.reference_losses.reference import Reference, optimised
from pytest_overfit.measures.reference_losses.ties import prefix_cells, tied_rows


def references(loss: Any, x: np.ndarray, y: np.ndarray, *model: nn.Module) -> tuple[Reference, Reference | None]:
    """The optimised references, and the closed form where there is one."""
    torch.manual_seed(0)
    case = Case(name="case", model=nn.Identity, loss=loss, optimizer=torch.optim.Adam, batch=(x, y))
    net = nn.Sequential(*model)
    learner = make_learner(case, net, batch_of(case), lambda: net)
    reading = learner.read("fit")
    groups = tied_rows(learner.inputs, len(x))
    head = reading.heads[0] if reading.heads else None
    found = optimised(learner, reading, groups)
    assert found is not None
    return found, closed_form(head, groups) if head is not None and head.plain else None


def inputs(rows: int, ties: int = 0) -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(rows, 4))
    x[: ties + 1] = x[0]
    return x


@settings(deadline=None, max_examples=30)
@given(
    labels=st.lists(st.integers(0, 3), min_size=4, max_size=20),
    ties=st.integers(0, 3),
    reduction=st.sampled_from(["mean", "sum"]),
)
def test_cross_entropy(labels: list[int], ties: int, reduction: str) -> None:
    loss = nn.CrossEntropyLoss(reduction=reduction)
    found, closed = references(loss, inputs(len(labels), ties), np.array(labels), nn.Linear(4, 4))
    assert closed is not None
    scale = len(labels) if reduction == "sum" else 1
    assert found.constant == pytest.approx(closed.constant, abs=2e-3 * scale)
    assert found.best == pytest.approx(closed.best, abs=2e-3 * scale)


@settings(deadline=None, max_examples=30)
@given(
    targets=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=4, max_size=16),
    ties=st.integers(0, 3),
)
def test_binary_cross_entropy(targets: list[tuple[int, int]], ties: int) -> None:
    y = np.array(targets, float)
    found, closed = references(F.binary_cross_entropy_with_logits, inputs(len(y), ties), y, nn.Linear(4, 2))
    assert closed is not None
    assert found.constant == pytest.approx(closed.constant, abs=2e-3)
    assert found.best == pytest.approx(closed.best, abs=2e-3)
    squashed, closed_too = references(F.binary_cross_entropy, inputs(len(y), ties), y, nn.Linear(4, 2), nn.Sigmoid())
    assert closed_too == closed or closed_too.constant == closed.constant  # type: ignore[union-attr]
    assert squashed.constant == pytest.approx(closed.constant, abs=2e-3)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), rows=st.integers(3, 20), ties=st.integers(0, 2), offset=st.sampled_from([0.0, 100.0]))
def test_squared_and_absolute_error(seed: int, rows: int, ties: int, offset: float) -> None:
    y = np.random.default_rng(seed).normal(size=(rows, 2)) + offset
    found, closed = references(F.mse_loss, inputs(rows, ties), y, nn.Linear(4, 2))
    assert closed is not None
    assert closed.constant == pytest.approx(float(y.var(axis=0).mean()), rel=1e-3)
    assert found.constant == pytest.approx(closed.constant, rel=2e-2, abs=2e-3)
    assert found.best == pytest.approx(closed.best, rel=2e-2, abs=2e-3)
    _, absolute = references(F.l1_loss, inputs(rows, ties), y, nn.Linear(4, 2))
    assert absolute is not None
    assert absolute.constant == pytest.approx(float(np.abs(y - np.median(y, axis=0)).mean()), rel=1e-3)


def test_label_smoothing_has_a_floor() -> None:
    y = np.arange(12) % 4
    found, closed = references(nn.CrossEntropyLoss(label_smoothing=0.2), inputs(12), y, nn.Linear(4, 4))
    assert closed is None
    floor = -(0.85 * math.log(0.85) + 3 * 0.05 * math.log(0.05))
    assert found.best == pytest.approx(floor, abs=1e-3)
    assert found.constant == pytest.approx(math.log(4), abs=1e-3)


def test_class_weights() -> None:
    y = np.array([0] * 8 + [1] * 4)
    found, _ = references(nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0])), inputs(12), y, nn.Linear(4, 2))
    assert found.constant == pytest.approx(math.log(2), abs=1e-3)
    assert found.best == pytest.approx(0.0, abs=1e-3)


def test_ignored_labels_do_not_count() -> None:
    y = np.array([0, 0, 1, 1, -100, -100])
    _, closed = references(F.cross_entropy, inputs(6), y, nn.Linear(4, 2))
    assert closed is not None
    assert closed.constant == pytest.approx(math.log(2))


def test_a_flipped_sign_is_unbounded() -> None:
    found, _ = references(lambda o, y: -F.cross_entropy(o, y), inputs(8), np.arange(8) % 2, nn.Linear(4, 2))
    assert found.constant is None


def test_a_likelihood_with_a_learnt_variance_has_no_floor() -> None:
    def nll(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        mean, log_variance = outputs[:, :1], outputs[:, 1:]
        return (log_variance + (y - mean) ** 2 / log_variance.exp()).mean() / 2

    y = np.random.default_rng(0).normal(size=(12, 1))
    found, _ = references(nll, inputs(12), y, nn.Linear(4, 2))
    assert found.best is None
    assert found.constant == pytest.approx(0.5 * math.log(y.var()) + 0.5, abs=1e-2)


def test_a_double_softmax_is_held_against_logits() -> None:
    y = np.arange(8) % 2
    found, _ = references(nn.CrossEntropyLoss(label_smoothing=0.1), inputs(8), y, nn.Linear(4, 2), nn.Softmax(1))
    assert found.best < 0.25  # probabilities as logits come down to 0.41 at best


def test_probabilities_in_a_loss_by_hand() -> None:
    y = np.arange(8) % 2
    found, _ = references(
        lambda p, y: -p.gather(1, y[:, None]).clamp(1e-7, 1).log().mean(), inputs(8), y, nn.Linear(4, 2), nn.Softmax(1)
    )
    assert found.constant == pytest.approx(math.log(2), abs=1e-3)
    assert found.best == pytest.approx(0.0, abs=1e-3)


class TestPrefixes:
    tokens = np.array([[1, 2, 3], [1, 2, 4], [1, 5, 6], [7, 8, 9]])

    def head(self, outputs: np.ndarray) -> Head:
        return Head(
            kind="classes", outputs=outputs, targets=np.roll(self.tokens, -1, 1), plain="cross_entropy", loss_name="ce"
        )

    def test_a_causal_model_is_not_asked_for_the_future(self) -> None:
        outputs = np.cumsum(np.eye(10)[self.tokens], axis=1)
        groups = np.arange(4)
        cells = prefix_cells(self.head(outputs), [self.tokens], groups)
        assert cells is not None
        assert cells[0, 0] == cells[1, 0] == cells[2, 0] != cells[3, 0]
        assert cells[0, 1] == cells[1, 1] != cells[2, 1]
        assert closed_form(self.head(outputs), groups, cells).best == pytest.approx(
            (3 * -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3)) + 2 * math.log(2)) / 12
        )

    def test_a_model_that_sees_everything_is(self) -> None:
        outputs = np.cumsum(np.eye(10)[self.tokens], axis=1) + np.eye(10)[self.tokens].sum(1, keepdims=True)
        assert prefix_cells(self.head(outputs), [self.tokens], np.arange(4)) is None


def test_minimise_finds_the_minimum_of_rosenbrock() -> None:
    def rosenbrock(p: np.ndarray) -> tuple[float, np.ndarray]:
        x, y = p
        return (1 - x) ** 2 + 100 * (y - x * x) ** 2, np.array(
            [-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)]
        )

    assert minimise(rosenbrock, np.array([-1.2, 1.0])).point == pytest.approx([1, 1], abs=1e-3)


def test_minimise_tells_the_unbounded() -> None:
    assert not minimise(lambda p: (float(-p.sum()), -np.ones_like(p)), np.zeros(3)).bounded
