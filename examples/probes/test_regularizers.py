"""Regularisers in torch, each compared with the same network without it: what is derived, and what has to be declared.

Dropout and the weight decay of the optimizer are found and taken out. A penalty inside the loss, an augmentation inside
the data, fewer units and batch normalisation are not: `unregularized=` names what differs without them. The data are
scikit-learn's digits and breast cancer. A verdict is about this network, these rows and 10 epochs, no more.
"""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from pytest_overfit import Case, Verdict, run_probes

Rows = tuple[np.ndarray, np.ndarray]


def digits(rows: slice) -> Rows:
    x, y = load_digits(return_X_y=True)
    return (x[rows] / 16).astype("float32"), y[rows]


def cancer(rows: slice) -> Rows:
    x, y = load_breast_cancer(return_X_y=True)
    return ((x - x[:400].mean(0)) / x[:400].std(0))[rows].astype("float32"), y[rows]


def network(inputs: int, *between: nn.Module, units: int = 32, classes: int = 10) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, units), *between, nn.ReLU(), nn.Linear(units, classes))


class WithItsNorm(nn.Module):
    """Gives its answers and the sum of its absolute weights, for a loss that penalises them."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = network(64)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.answers(x), torch.stack([each.abs().sum() for each in self.parameters()]).sum()


class Shifted(torch.utils.data.Dataset):
    """Digits, moved by up to one pixel in both directions, differently each time one is read."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = np.pad(images.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1))), labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
        down, right = np.random.randint(0, 3, 2)  # each run seeds this generator
        return self.images[row, down : down + 8, right : right + 8].reshape(64), int(self.labels[row])


TRAIN, VAL = digits(slice(300)), digits(slice(1400, None))


def verdict(name: str, *, decay: float = 0.0, **given: Any) -> Verdict:
    fields: dict[str, Any] = {"model": lambda: network(64), "loss": cross_entropy, "train": TRAIN, "val": VAL, **given}
    adam = lambda parameters: torch.optim.AdamW(parameters, lr=3e-3, weight_decay=decay)  # noqa: E731
    (found,) = run_probes(Case(name=name, optimizer=adam, **fields), ["regularization"], epochs=10)
    return found


def test_a_strong_l1_penalty_harms() -> None:
    """A penalty is a part of the loss, so the loss without it is named."""
    found = verdict(
        "l1",
        model=WithItsNorm,
        loss=lambda outputs, y: cross_entropy(outputs[0], y) + 0.01 * outputs[1],
        unregularized={"loss": lambda outputs, y: cross_entropy(outputs[0], y)},
    )
    assert found.outcome == "failed"
    assert found.summary.startswith("harms")


@pytest.mark.parametrize(("decay", "words"), [(0.01, "no measurable effect"), (10.0, "harms")])
def test_the_usual_weight_decay_does_nothing_in_so_short_a_training(decay: float, words: str) -> None:
    """AdamW shrinks weights by rate times decay a step: by 0.3 % in 100 steps at the usual 0.01."""
    found = verdict("weight_decay", decay=decay)
    assert found.data["removed"] == [f"weight decay {decay:g}"]
    assert found.summary.startswith(words)


def test_a_moderate_dropout_leaves_breast_cancer_alone() -> None:
    given = {"train": cancer(slice(400)), "val": cancer(slice(400, None))}
    found = verdict("dropout", model=lambda: network(30, nn.Dropout(0.2), classes=2), **given)
    assert found.outcome == "passed"
    assert found.summary.startswith("no measurable effect")


def test_moving_small_images_harms_a_network_that_looks_at_single_pixels() -> None:
    """One pixel is an eighth of the image, and ten epochs are too few to learn every place."""
    found = verdict("augmentation", train=Shifted(*TRAIN), unregularized={"train": TRAIN})
    assert found.outcome == "failed"
    assert found.summary.startswith("harms")


def test_too_small_a_capacity_harms() -> None:
    found = verdict("capacity", model=lambda: network(64, units=4), unregularized=lambda: network(64))
    assert found.outcome == "failed"
    assert any("shapes differ" in each.message for each in found.findings)


def test_batch_normalisation_helps() -> None:
    """It makes so short a training faster; that is not regularising, but the score cannot tell the two apart."""
    normalised = lambda: network(64, nn.BatchNorm1d(32))  # noqa: E731
    found = verdict("batch_normalisation", model=normalised, unregularized=lambda: network(64))
    assert found.outcome == "passed"
    assert found.summary.startswith("helps")
