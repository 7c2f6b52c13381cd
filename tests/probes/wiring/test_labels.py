"""Labels from 1 beside an unused output: counted over all of train, not over a batch that lacks a class by chance."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pytest_overfit import Case, Verdict, run_probes

CLASSES = 10


def verdict(train: Any, batch: Any = None) -> Verdict:
    case = Case(
        name="labels",
        model=lambda: nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, CLASSES)),
        loss=F.cross_entropy,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
        train=train,
        batch=batch,
    )
    return run_probes(case, ["wiring"])[0]


def rows(labels: Tensor) -> tuple[Tensor, Tensor]:
    return torch.randn(len(labels), 6, generator=torch.Generator().manual_seed(0)), labels


def from_one(count: int) -> Tensor:
    return 1 + torch.arange(count) % (CLASSES - 1)


def message(found: Verdict) -> str:
    return " ".join(each.message for each in found.findings if each.name == "label_off_by_one")


class Sorted(Dataset[tuple[Tensor, Tensor]]):
    """One row at a time, all rows of a class together."""

    def __init__(self, labels: Tensor) -> None:
        self.x, self.y = rows(labels.sort().values)

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.x[row], self.y[row]


FEW = rows(from_one(6))


def test_a_batch_that_lacks_classes_is_no_excuse() -> None:
    found = verdict(rows(from_one(300)), FEW)
    assert found.passed
    assert "labels go from 1 to 9 in all 300 rows of train" in message(found)


def test_one_row_with_the_lowest_label_is_enough() -> None:
    labels = from_one(3000)
    labels[1234] = 0
    assert not message(verdict(rows(labels), FEW))


def test_a_batch_without_the_lowest_label_is_no_fault() -> None:
    whole = rows(from_one(18))
    assert message(verdict(whole, whole))
    assert not message(verdict(rows(torch.arange(60) % CLASSES), whole))


def test_of_a_long_dataset_rows_are_read_that_are_spread_over_it() -> None:
    assert "in 2,000 of 5,000 rows of train" in message(verdict(Sorted(from_one(5000)), FEW))
    assert not message(verdict(Sorted(torch.arange(5000) % CLASSES), FEW))


@pytest.mark.parametrize("lowest", [0, 1])
def test_a_loader_is_read_from_its_beginning(lowest: int) -> None:
    labels = from_one(90)
    labels[-1] = lowest
    assert bool(message(verdict(DataLoader(Sorted(labels), batch_size=8), FEW))) is bool(lowest)


def test_data_that_cannot_be_read_leave_the_batch() -> None:
    class Gone(Sorted):
        def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
            raise OSError("the disk is gone")

    assert "in the batch" in message(verdict(Gone(from_one(50)), rows(from_one(18))))
    assert not message(verdict(Gone(from_one(50)), FEW))
