"""A tutorial explains why a Keras classifier reaches 100 % accuracy after the second epoch. Its three programs.

It claims that a large model reaches 100 % very quickly on ten random rows, that L2 reduces this, and that early
stopping prevents it. The first two programs have no validation data, so overfitting cannot be judged at all, and the
probe reports that. With 200 further rows, drawn as theirs are, the result is that the labels do not depend on the
inputs: not for the model, not for a linear model, not for the nearest neighbour. That verdict is `inconclusive`, not
`failed`, because a later epoch might still find something. The third program validates on 20 of its 100 random rows
and gets the same verdict. Nothing here is too good too soon: there is nothing to learn. Trained for long enough, the
first network does know its ten rows by heart, and the comparison with permuted labels shows that this is all it can
do.

The programs are Keras; the same networks are written in torch here. Early stopping and L2 are for other probes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pytest_overfit import Case, run_probes

Rows = tuple[np.ndarray, np.ndarray]


def random_rows(rows: int, seed: int) -> Rows:
    generator = np.random.default_rng(seed)
    return generator.random((rows, 10)).astype("float32"), generator.integers(0, 2, (rows, 1)).astype("float32")


def dense(*units: int) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        layers: list[nn.Module] = []
        for before, after in zip((10, *units), (*units, 1), strict=True):
            layers += [nn.Linear(before, after), nn.ReLU()]
        return nn.Sequential(*layers[:-1], nn.Sigmoid())

    return build


def case(name: str, units: tuple[int, ...], train: Rows, decay: float = 0.0, **splits: Any) -> Case:
    return Case(
        name=name,
        model=dense(*units),
        loss=nn.functional.binary_cross_entropy,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.001, weight_decay=decay),
        train=train,
        **splits,
    )


PROGRAMS = {
    "ten_rows": lambda **splits: case("ten_rows", (100, 100), random_rows(10, 0), **splits),
    "ten_rows_l2": lambda **splits: case("ten_rows_l2", (100, 100), random_rows(10, 0), decay=0.02, **splits),
    "early_stopping": lambda **splits: case("early_stopping", (50, 50), random_rows(80, 0), **splits),
}


@pytest.mark.parametrize("name", ["ten_rows", "ten_rows_l2"])
def test_without_validation_data_nothing_can_be_said(name: str) -> None:
    (verdict,) = run_probes(PROGRAMS[name](), ["early_accuracy"], epochs=10)
    assert verdict.outcome == "not_applicable"
    assert "val= or test=" in verdict.summary


@pytest.mark.parametrize(("name", "rows"), [("ten_rows", 200), ("ten_rows_l2", 200), ("early_stopping", 20)])
def test_random_labels_cannot_be_learnt(name: str, rows: int) -> None:
    (verdict,) = run_probes(PROGRAMS[name](val=random_rows(rows, 1)), ["early_accuracy"], epochs=10)
    assert verdict.outcome == "inconclusive"
    assert "labels do not depend on inputs as far as" in verdict.summary


def test_trained_for_long_enough_it_memorises() -> None:
    fast = case("memorises", (100, 100), random_rows(40, 0), val=random_rows(200, 1))
    (verdict,) = run_probes(fast, ["early_accuracy"], epochs=300)
    assert verdict.outcome == "failed"
    assert "memorising" in verdict.summary
