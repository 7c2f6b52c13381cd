"""What a model learns beyond its batch, on digits: four probes on one case, and a model that fails each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from pytest_overfit import Case, Overfit, ProbeFailed

PIXELS, LABELS = load_digits(return_X_y=True)
PIXELS = (PIXELS / 16).astype("float32")


class Net(nn.Module):
    def __init__(self, forgets_training: bool = False) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 64), nn.Linear(64, 10)
        self.forgets_training = forgets_training

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        drops = True if self.forgets_training else self.training
        return self.last(functional.dropout(torch.relu(self.first(x)), 0.2, drops))  # type: ignore[no-any-return]


def digits(name: str = "mlp", **more: Any) -> Case:
    given: dict[str, Any] = {
        "model": Net,
        "loss": functional.cross_entropy,
        "optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=3e-3),
        "train": (PIXELS[:1000], LABELS[:1000]),
        "val": (PIXELS[1000:], LABELS[1000:]),
        **more,
    }
    return Case(name=name, **given)


def test_it_carries_over(overfit: Overfit) -> None:
    verdict = overfit.generalization_gap(digits(), epochs=10, min_score=0.85, max_gap=0.15)
    assert verdict.data["pictures"]  # the curves of the runs, drawn in pytest-html


def test_the_first_epochs_are_believable(overfit: Overfit) -> None:
    overfit.early_accuracy(digits())


def test_dropout_and_decay_do_something(overfit: Overfit) -> None:
    overfit.inert_regularizer(digits())


def test_dropout_and_decay_do_no_harm(overfit: Overfit) -> None:
    overfit.regularization(digits(), epochs=10, margin=0.02)


def test_labels_of_other_rows_carry_nothing_over(overfit: Overfit) -> None:
    labels = np.random.default_rng(0).permutation(LABELS[:1000])
    with pytest.raises(ProbeFailed, match="val accuracy"):
        overfit.generalization_gap(digits("shuffled", train=(PIXELS[:1000], labels)), epochs=3, controls=True)


def test_a_label_left_among_the_pixels_is_too_good(overfit: Overfit) -> None:
    marked = PIXELS.copy()
    marked[:, 0] = LABELS
    case = digits("marked", train=(marked[:1000], LABELS[:1000]), val=(marked[1000:], LABELS[1000:]))
    with pytest.raises(ProbeFailed, match="label"):
        overfit.early_accuracy(case, epochs=3)


def test_dropout_that_forgets_training_is_found(overfit: Overfit) -> None:
    with pytest.raises(ProbeFailed, match=r"write training=self\.training"):
        overfit.inert_regularizer(digits("forgets", model=lambda: Net(forgets_training=True)))


def test_too_much_dropout_harms(overfit: Overfit) -> None:
    def drops_nearly_all() -> nn.Module:
        return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.97), nn.Linear(64, 10))

    with pytest.raises(ProbeFailed, match="harms: val accuracy"):
        overfit.regularization(digits("drops", model=drops_nearly_all), epochs=5)
