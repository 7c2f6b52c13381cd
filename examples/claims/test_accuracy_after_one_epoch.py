"""The first program of "Is exceptionally high accuracy after one epoch a cause for concern?".

Its text reports 99.8 % accuracy. The network crashes at the first batch: four poolings leave one pixel of 28 x 28, and
the linear layer was sized for 7 x 7. The failure says which layer got which shape, and what it wanted.
"""

import pytest
import torch
from torch import nn

from pytest_overfit import Case, Overfit, ProgramError


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
    assert "fc1 (Linear), not reached yet, wants 12544 features in the last axis" in message
    assert "x = x.view(-1, 256 * 7 * 7)" in message
