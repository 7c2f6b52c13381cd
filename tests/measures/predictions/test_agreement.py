"""Scores of predictions, with what contradictions, padding and masks leave."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_overfit.adapters.base import Head
from pytest_overfit.measures.predictions.agreement import agreements
from pytest_overfit.measures.predictions.inferred_heads import inferred_heads
from pytest_overfit.measures.predictions.read import padding

ROWS = np.arange(6)


def classes(outputs: np.ndarray, targets: np.ndarray, **fields: object) -> Head:
    return Head(kind="classes", outputs=outputs, targets=targets, **fields)  # type: ignore[arg-type]


def values(outputs: np.ndarray, targets: np.ndarray) -> Head:
    return Head(kind="values", outputs=outputs, targets=targets)


def test_accuracy_counts_rows() -> None:
    y = np.array([0, 1, 2, 0, 1, 2])
    outputs = np.eye(3)[y]
    outputs[0] = [0, 1, 0]
    (found,) = agreements([classes(outputs, y)], ROWS)
    assert (found.measure, found.value, found.best) == ("accuracy", pytest.approx(5 / 6), 1.0)


def test_contradictions_are_taken_off() -> None:
    y = np.array([0, 1, 1, 0, 1, 2])
    (found,) = agreements([classes(np.eye(3)[y], y)], np.array([0, 0, 0, 1, 2, 3]))
    assert found.best == pytest.approx(5 / 6)


def test_soft_targets_take_any_class_that_is_nearly_the_largest() -> None:
    soft = np.array([[0.5, 0.45, 0.05]] * 6)
    near = np.tile([0.0, 1.0, 0.0], (6, 1))
    far = np.tile([0.0, 0.0, 1.0], (6, 1))
    assert agreements([classes(near, soft)], ROWS)[0].value == 1.0
    assert agreements([classes(far, soft)], ROWS)[0].value == 0.0


def test_a_single_unit_answers_yes_to_everything() -> None:
    y = np.array([[1.0], [0.0], [1.0], [0.0], [1.0], [0.0]])
    assert agreements([classes(np.ones((6, 1)), y)], ROWS)[0].value == 0.5


def test_masked_tokens_do_not_count() -> None:
    y = np.arange(24).reshape(6, 4) % 5
    outputs = np.eye(5)[y]
    mask = np.ones(y.shape, bool)
    outputs[:, 0] = 0
    mask[:, 0] = False
    (found,) = agreements([classes(outputs, y, mask=mask)], ROWS)
    assert (found.measure, found.value) == ("token_accuracy", 1.0)


def test_padding_is_a_trailing_run_of_one_token() -> None:
    tokens = np.array([[1, 2, 3, 0, 0], [4, 5, 0, 0, 0], [6, 7, 8, 9, 0]])
    assert padding(tokens).tolist() == (tokens == 0).tolist()


@pytest.mark.parametrize(
    "tokens",
    [
        np.array([[1, 2, 3], [4, 5, 6]]),  # nothing repeats
        np.array([[1, 2, 0], [4, 5, 0]]),  # an end token: every row has just one
        np.array([[0, 2, 0, 0], [4, 5, 6, 0]]),  # 0 is a word as well
    ],
)
def test_what_is_no_padding(tokens: np.ndarray) -> None:
    assert not padding(tokens).any()


def test_the_worst_column_of_a_multilabel_target_counts() -> None:
    y = np.random.default_rng(0).integers(0, 2, size=(6, 3)).astype(float)
    outputs = np.where(y > 0.5, 2.0, -2.0)
    outputs[:, 1] = -2.0
    found = agreements([Head(kind="binary", outputs=outputs, targets=y)], ROWS)[0]
    assert found.value == pytest.approx(1 - y[:, 1].mean())
    assert "column 1" in found.detail


def test_the_worst_column_of_a_regression_counts() -> None:
    y = np.random.default_rng(0).normal(size=(6, 2))
    outputs = y.copy()
    outputs[:, 1] = y[:, 1].mean()
    worst, near = agreements([values(outputs, y)], ROWS)
    assert worst.value == pytest.approx(1.0)
    assert "column 1" in worst.detail
    assert 0 <= near.value <= 1


@given(seed=st.integers(0, 1000), offset=st.floats(-1e4, 1e4), scale=st.floats(1e-3, 1e3))
@settings(deadline=None)
def test_1_minus_r2_does_not_depend_on_unit_or_offset(seed: int, offset: float, scale: float) -> None:
    random = np.random.default_rng(seed)
    y, noise = random.normal(size=(6, 2)), 0.1 * random.normal(size=(6, 2))
    plain = agreements([values(y + noise, y)], ROWS)[0].value
    moved = agreements([values((y + noise) * scale + offset, y * scale + offset)], ROWS)[0].value
    assert moved == pytest.approx(plain, rel=1e-2)


def test_a_quiet_border_pixel_of_a_picture_does_not_decide() -> None:
    random = np.random.default_rng(0)
    y = random.normal(size=(6, 30))
    y[:, 0] *= 1e-3
    outputs = y + 0.1 * random.normal(size=y.shape)
    worst = agreements([values(outputs, y)], ROWS)[0]
    assert worst.value < 0.05


def test_a_tenth_of_dead_columns_of_a_picture_does() -> None:
    y = np.random.default_rng(0).normal(size=(6, 30))
    outputs = y.copy()
    outputs[:, :4] = 0
    assert agreements([values(outputs, y)], ROWS)[0].value > 0.4


def test_missing_targets_are_left_out() -> None:
    y = np.random.default_rng(0).normal(size=(6, 2))
    holes = y.copy()
    holes[2, 0] = np.nan
    assert agreements([values(y, holes)], ROWS)[0].value == pytest.approx(0.0)


class TestGuessing:
    def test_integer_targets_and_one_more_axis_are_classes(self) -> None:
        (head,) = inferred_heads([np.zeros((6, 3))], [np.zeros(6, int)], None)
        assert head is not None
        assert head.kind == "classes"

    def test_predicted_labels_are_compared_as_they_are(self) -> None:
        y = np.array([3, 1, 4, 1, 5, 9])
        (head,) = inferred_heads([y], [y], None)
        assert head is not None
        assert agreements([head], ROWS)[0].value == 1.0

    def test_floats_of_one_shape_are_values(self) -> None:
        (head,) = inferred_heads([np.zeros((6, 1))], [np.linspace(0, 1, 6)], None)
        assert head is not None
        assert head.kind == "values"

    def test_zeros_and_ones_are_binary(self) -> None:
        (head,) = inferred_heads([np.full((6, 1), 0.4)], [np.array([0.0, 1, 0, 1, 1, 1])], None)
        assert head is not None
        assert (head.kind, head.domain) == ("binary", "probabilities")

    def test_other_shapes_are_no_guess(self) -> None:
        assert inferred_heads([np.zeros((6, 3))], [np.zeros((6, 2))], None) == []
        assert inferred_heads([np.zeros((6, 3)), np.zeros(6)], [np.zeros(6)], None) == []
