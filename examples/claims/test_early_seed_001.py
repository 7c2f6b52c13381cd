"""The second and third program of "Is exceptionally high accuracy after one epoch a cause for concern?".

The second is said to show a learning rate that is too high: validation is at chance after its epoch. So it is at any
rate, because its labels are random: a linear model and the nearest neighbour find nothing in its inputs either, and the
probe blames no rate for that. The third validates on the first half of its training rows. Its text expects a high
validation accuracy to give that away; it is at chance after one epoch, and the probe fails it all the same, for the
copies themselves. (The first program crashes, see `test_seed_001.py`; with its layer sizes put right it is a network
on random pixels from 0 to 255, which has nothing to learn either.)
"""

import torch
from torch import nn

from pytest_overfit import Case, Verdict, run_probes

Rows = tuple[torch.Tensor, torch.Tensor]


def random_rows(seed: int, rows: int, *shape: int, classes: int = 2, scale: float = 1.0) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(rows, *shape, generator=generator) * scale
    return inputs, torch.randint(0, classes, (rows,), generator=generator)


class SimpleRNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(10, 32, batch_first=True)
        self.fc = nn.Linear(32, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out, _ = self.rnn(x)
        return self.fc(out[:, -1, :])


def small_cnn() -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in ((1, 32), (32, 64), (64, 128), (128, 256)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))


def simple_classifier() -> nn.Module:
    return nn.Sequential(nn.Linear(50, 32), nn.ReLU(), nn.Linear(32, 2))


def after_one_epoch(name: str, model: object, train: Rows, val: Rows, **adam: float) -> Verdict:
    case = Case(name=name, model=model, loss=nn.CrossEntropyLoss(), train=train, val=val,
                optimizer=lambda parameters: torch.optim.Adam(parameters, **adam),
                fit_kwargs={"batch_size": 16})  # fmt: skip
    return run_probes(case, ["early_accuracy"], epochs=1)[0]


def test_random_pixels_have_nothing_to_learn() -> None:
    train, val = (random_rows(seed, rows, 1, 28, 28, classes=10, scale=255) for seed, rows in ((0, 100), (1, 50)))
    verdict = after_one_epoch("complex_cnn", small_cnn, train, val, lr=0.001)
    assert verdict.outcome == "inconclusive"
    assert "labels do not depend on inputs as far as" in verdict.summary


def test_no_rate_learns_random_labels() -> None:
    train, val = random_rows(0, 100, 50, 10), random_rows(1, 50, 50, 10)
    verdict = after_one_epoch("rnn", SimpleRNN, train, val, lr=0.1, weight_decay=0.01)
    assert verdict.outcome == "inconclusive"
    assert "labels do not depend on inputs as far as" in verdict.summary


def test_the_copied_rows_fail_at_an_accuracy_of_chance() -> None:
    inputs, labels = random_rows(0, 100, 50)
    verdict = after_one_epoch("leaky", simple_classifier, (inputs, labels), (inputs[:50], labels[:50]), lr=0.001)
    assert verdict.outcome == "failed"
    assert "leak: 50 of 50 rows of val have a copy in train" in verdict.summary
    score = next(each.value for each in verdict.findings if each.name == "val_score")
    assert isinstance(score, float)
    assert 0.3 < score < 0.7
