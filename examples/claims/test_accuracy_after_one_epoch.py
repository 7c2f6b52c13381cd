"""A tutorial asks whether exceptionally high accuracy after one epoch is a cause for concern. Its three programs.

The first reports 99.8 % accuracy. Its network crashes at the first batch: four poolings leave one pixel of 28 x 28, and
the linear layer was sized for 7 x 7. The failure names the layer, the shape it got and the one it expects. With its
layer sizes put right it is a network on random pixels from 0 to 255, which has nothing to learn.

The second is claimed to show a learning rate that is too high: validation is at chance after its epoch. So it is at any
rate, because its labels are random: a linear model and the nearest neighbour find nothing in its inputs either, and the
probe does not blame the rate.

The third validates on the first half of its training rows. The tutorial expects a high validation accuracy to give that
away; it is 0.50, chance, after the epoch. The rows themselves give it away: 50 of 50 occur in both splits, and both
`early_accuracy` and `find_duplicates` fail it for these copies.
"""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pytest_overfit import Case, Duplicates, Overfit, ProgramError, Verdict, find_duplicates, run_probes

Rows = tuple[torch.Tensor, torch.Tensor]


def random_rows(seed: int, rows: int, *shape: int, classes: int = 2, scale: float = 1.0) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(rows, *shape, generator=generator) * scale
    return inputs, torch.randint(0, classes, (rows,), generator=generator)


def after_one_epoch(name: str, model: object, train: Rows, val: Rows, **adam: float) -> Verdict:
    case = Case(name=name, model=model, loss=nn.CrossEntropyLoss(), train=train, val=val,
                optimizer=lambda parameters: torch.optim.Adam(parameters, **adam),
                fit_kwargs={"batch_size": 16})  # fmt: skip
    return run_probes(case, ["early_accuracy"], epochs=1)[0]


# --------------------------------------------------------------------------------------------------- 1. 99.8 % accuracy


class OverlyComplexCNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3, padding=1)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv3 = nn.Conv2d(64, 128, kernel_size=3, padding=1)
        self.conv4 = nn.Conv2d(128, 256, kernel_size=3, padding=1)
        self.fc1 = nn.Linear(256 * 7 * 7, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.relu(self.conv1(x)))
        x = self.pool(torch.relu(self.conv2(x)))
        x = self.pool(torch.relu(self.conv3(x)))
        x = self.pool(torch.relu(self.conv4(x)))
        x = x.view(-1, 256 * 7 * 7)
        x = torch.relu(self.fc1(x))
        return self.fc2(x)


def load_batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(16, 1, 28, 28) * 255, torch.randint(0, 10, (16,))


def test_the_crash_is_explained(overfit: Overfit) -> None:
    case = Case(
        name="overly_complex_cnn",
        model=OverlyComplexCNN,
        loss=nn.CrossEntropyLoss(),
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.001),
        batch=load_batch,
    )
    with pytest.raises(ProgramError) as crash:
        overfit.batch(case)
    print(crash.value)  # noqa: T201 - shown by `pytest -s`
    message = str(crash.value)
    assert "pool (MaxPool2d) gave (16, 256, 1, 1)" in message
    assert "fc1 (Linear), not reached yet, expects 12544 features in the last axis" in message
    assert "x = x.view(-1, 256 * 7 * 7)" in message


def small_cnn() -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in ((1, 32), (32, 64), (64, 128), (128, 256)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))


def test_random_pixels_have_nothing_to_learn() -> None:
    train, val = (random_rows(seed, rows, 1, 28, 28, classes=10, scale=255) for seed, rows in ((0, 100), (1, 50)))
    verdict = after_one_epoch("complex_cnn", small_cnn, train, val, lr=0.001)
    assert verdict.outcome == "inconclusive"
    assert "labels do not depend on inputs as far as" in verdict.summary


# ------------------------------------------------------------------------------------------- 2. a rate that is too high


class SimpleRNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(10, 32, batch_first=True)
        self.fc = nn.Linear(32, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out, _ = self.rnn(x)
        return self.fc(out[:, -1, :])


def test_no_rate_learns_random_labels() -> None:
    train, val = random_rows(0, 100, 50, 10), random_rows(1, 50, 50, 10)
    verdict = after_one_epoch("rnn", SimpleRNN, train, val, lr=0.1, weight_decay=0.01)
    assert verdict.outcome == "inconclusive"
    assert "labels do not depend on inputs as far as" in verdict.summary


# -------------------------------------------------------------------------- 3. validation rows out of the training rows


def simple_classifier() -> nn.Module:
    return nn.Sequential(nn.Linear(50, 32), nn.ReLU(), nn.Linear(32, 2))


def test_the_copied_rows_fail_at_an_accuracy_of_chance() -> None:
    inputs, labels = random_rows(0, 100, 50)
    verdict = after_one_epoch("leaky", simple_classifier, (inputs, labels), (inputs[:50], labels[:50]), lr=0.001)
    assert verdict.outcome == "failed"
    assert "leak: 50 of 50 rows of val have a copy in train" in verdict.summary
    score = next(each.value for each in verdict.findings if each.name == "val_score")
    assert isinstance(score, float)
    assert 0.3 < score < 0.7


def copies(leak: bool) -> Duplicates:
    torch.manual_seed(0)
    x_train, y_train = torch.rand(100, 50), torch.randint(0, 2, (100,))
    x_val, y_val = (x_train[:50], y_train[:50]) if leak else (torch.rand(50, 50), torch.randint(0, 2, (50,)))
    train = DataLoader(TensorDataset(x_train, y_train), batch_size=16, shuffle=True)
    return find_duplicates(train=train, val=DataLoader(TensorDataset(x_val, y_val), batch_size=16))


def test_the_leak_is_found() -> None:
    found = copies(leak=True)
    assert found.outcome == "failed"
    assert "50 of 50 rows of val (100.00%) have an exact copy in train, a leak" in found.judgement.summary
    assert [(each["i"], each["j"]) for each in found.pairs] == [(row, row) for row in range(50)]
    assert found.clean("val") == []


def test_a_validation_split_of_its_own_passes() -> None:
    assert copies(leak=False).ok
