"""What a few forward passes tell of rows: which mixtures of rows each of the two experiments sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_overfit.core.arrays import Array
from pytest_overfit.measures.evaluation import answers_agree, groups_of, others_moved, row_distances

X = np.random.default_rng(0).normal(size=(9, 4))


def moved(model: Callable[[Any], Array]) -> Array:
    def ask(rows: Array) -> Sequence[Array]:
        return (model(X[rows]),)

    return others_moved(ask, (model(X),), len(X))


@pytest.mark.parametrize(
    "mixes",
    [
        pytest.param(lambda x: x - x.mean(0), id="mean of the batch"),
        pytest.param(lambda x: x + np.roll(x, 1, axis=0), id="the row before"),
        pytest.param(lambda x: x.T.reshape(x.shape), id="reshaped"),
    ],
)
def test_rows_that_are_mixed_move_with_others(mixes: Callable[[Any], Array]) -> None:
    assert (moved(mixes) > 0.05).all()


def test_rows_that_stand_alone_stay() -> None:
    assert not moved(lambda x: np.tanh(x)).any()


def test_one_row_that_looks_at_another_is_named() -> None:
    def copies(x: Any) -> Array:
        out = x.copy()
        out[4] += x[7]
        return np.asarray(out)

    assert np.flatnonzero(moved(copies)).tolist() == [4]


@given(st.integers(2, 70))
def test_every_row_stays_once_while_each_other_is_replaced(count: int) -> None:
    groups = list(groups_of(count))
    for first in range(count):
        replaced = np.zeros(count, dtype=bool)
        for group in groups:
            if not group[first]:
                replaced |= group
        assert replaced.sum() == count - 1


def test_a_table_of_all_pairs_is_no_row() -> None:
    table = X @ X.T
    assert not row_distances((table,), (table + 1,), len(X)).any()


def test_answers_agree_but_for_rounding() -> None:
    assert answers_agree((X,), (X + 1e-6,))
    assert answers_agree((X,), (X + 0.1,)) is False
    assert answers_agree(None, None) is None


@pytest.mark.parametrize("huge", [np.inf, -np.inf, 1e308, np.float32(3e38)])
def test_what_is_infinite_moves_no_warning_out_of_numpy(huge: float) -> None:
    """A program that diverges answers so; under `-W error` a warning of ours would end its test before the verdict."""
    base = np.where(np.arange(12).reshape(4, 3) % 2 == 0, huge, -huge)
    moved = base.copy()
    moved[1] = 0.0
    assert (row_distances((base,), (moved,), 4) > 0).tolist() == [False, True, False, False]
    assert not row_distances((base,), (base,), 4).any()
    assert answers_agree((base,), (base,))
    assert not answers_agree((base,), (-base,))
