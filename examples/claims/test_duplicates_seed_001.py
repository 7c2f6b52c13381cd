"""The third program of "Is exceptionally high accuracy after one epoch a cause for concern?".

Its validation data are the first half of its training data. The text expects a high accuracy to show that; it is 0.50,
chance, after the epoch. The rows themselves show it: 50 of 50 stand in both splits.
"""

import torch
from torch.utils.data import DataLoader, TensorDataset

from pytest_overfit import Duplicates, find_duplicates


def answer(leak: bool) -> Duplicates:
    torch.manual_seed(0)
    x_train, y_train = torch.rand(100, 50), torch.randint(0, 2, (100,))
    x_val, y_val = (x_train[:50], y_train[:50]) if leak else (torch.rand(50, 50), torch.randint(0, 2, (50,)))
    train = DataLoader(TensorDataset(x_train, y_train), batch_size=16, shuffle=True)
    return find_duplicates(train=train, val=DataLoader(TensorDataset(x_val, y_val), batch_size=16))


def test_the_leak_is_found() -> None:
    found = answer(leak=True)
    assert found.outcome == "failed"
    assert "50 of 50 rows of val (100.00%) have an exact copy in train, a leak" in found.judgement.summary
    assert [(each["i"], each["j"]) for each in found.pairs] == [(row, row) for row in range(50)]
    assert found.clean("val") == []


def test_a_validation_split_of_its_own_passes() -> None:
    assert answer(leak=False).ok
