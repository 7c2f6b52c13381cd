"""A PyTorch CNN on scikit-learn's digits: can it learn, is its test set unseen? In the three styles of a test."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from pytest_overfit import Case, Overfit, parametrize_with_probes


def digits() -> TensorDataset:
    """1,797 grey images of 8 x 8 pixels, scaled to 0..1, channels first."""
    x, y = load_digits(return_X_y=True)
    return TensorDataset(torch.tensor(x.reshape(-1, 1, 8, 8) / 16, dtype=torch.float32), torch.tensor(y))


def load_train() -> DataLoader:
    return DataLoader(Subset(digits(), range(1400)), batch_size=32)


def load_test() -> Dataset:
    return Subset(digits(), range(1400, 1797))


def load_leaky_test() -> Dataset:
    """Five training images were put into the test set."""
    return ConcatDataset([load_test(), Subset(digits(), range(5))])


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


def case(name: str = "cnn", model=make_cnn, test=load_test) -> Case:
    return Case(
        name=name,
        model=model,
        loss=nn.functional.cross_entropy,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
        train=load_train,
        test=test,
    )


# 1. the fixture: one line, one answer
def test_it_can_learn(overfit: Overfit) -> None:
    verdict = overfit.batch(case(), max_loss_ratio=0.02)
    assert verdict.steps < 300


def test_its_test_set_is_unseen(overfit: Overfit) -> None:
    overfit.split_duplicates(case())


# 2. the marker: the test returns its case, and each probe becomes a test of its own
@pytest.mark.overfit("overfit_batch", steps=300)
def test_cnn() -> Case:
    return case()


# 3. a matrix of cases and probes; what is known to fail is written down with its reason
@parametrize_with_probes(
    [case(), case("cnn_with_softmax", make_cnn_with_softmax), case("cnn_on_a_leak", test=load_leaky_test)],
    ["overfit_batch", "split_duplicates"],
    expected_failures={
        "cnn_with_softmax-overfit_batch": "softmax in the model and again inside the loss",
        "cnn_on_a_leak-split_duplicates": "five training images were put into the test set",
    },
)
def test_models(case: Case, probe) -> None:
    probe(case)
