"""A PyTorch CNN on scikit-learn's digits, in the three styles that a test can be written in."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from pytest_overfit import Case, Overfit, parametrize_with_probes


def load_train() -> tuple[np.ndarray, np.ndarray]:
    """1,797 grey images of 8 x 8 pixels, scaled to 0..1, channels first."""
    x, y = load_digits(return_X_y=True)
    return x.reshape(-1, 1, 8, 8) / 16, y


def make_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(16 * 4 * 4, 10),
    )


def make_cnn_with_softmax() -> nn.Module:
    """The classic mistake: cross_entropy takes the softmax itself."""
    return nn.Sequential(make_cnn(), nn.Softmax(dim=1))


def case(name: str = "cnn", model=make_cnn) -> Case:
    return Case(
        name=name,
        model=model,
        loss=nn.functional.cross_entropy,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
        train=load_train,
    )


# 1. the fixture: one line, one answer
def test_it_can_learn(overfit: Overfit) -> None:
    verdict = overfit.batch(case(), max_loss_ratio=0.02)
    assert verdict.steps < 300


# 2. the marker: the test returns its case, and each probe becomes a test of its own
@pytest.mark.overfit("overfit_batch", steps=300)
def test_cnn() -> Case:
    return case()


# 3. a matrix of cases and probes; what is known to fail is written down with its reason
@parametrize_with_probes(
    [case(), case("cnn_with_softmax", make_cnn_with_softmax)],
    expected_failures={"cnn_with_softmax": "softmax in the model and again inside the loss"},
)
def test_models(case: Case, probe) -> None:
    probe(case)
