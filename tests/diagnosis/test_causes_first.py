"""Where a few updates show a symptom, the state that explains it stands before it; what has no such state stays."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_overfit import Case, CaseError, run_probes
from pytest_overfit.core.verdict import Verdict
from pytest_overfit.settings import Settings, set_settings

X = torch.randn(24, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(24) % 3


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))


def changed(change: Callable[[Any], object]) -> Callable[[], nn.Module]:
    def model() -> nn.Module:
        made = net()
        with torch.no_grad():
            change(made)
        return made

    return model


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 0.1)


def wired(probe: str = "wiring", diagnose: str = "auto", **fields: Any) -> Verdict:
    usual = {"model": net, "loss": nn.CrossEntropyLoss(), "optimizer": sgd, "batch": (X, Y)}
    reset = set_settings(Settings(diagnose=diagnose))
    try:
        return run_probes(Case(name="case", **{**usual, **fields}), [probe])[0]
    finally:
        reset()


class Rounding(nn.Module):
    """Hidden units are rounded."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(8, 32), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Any:
        return self.out(torch.round(self.first(x)))


HOLES = torch.where(torch.arange(24 * 8).reshape(24, 8) == 5, torch.nan, X)

CAUSES: dict[str, dict[str, Any]] = {
    "zero_init": {"model": changed(lambda made: [each.zero_() for each in made.parameters()])},
    "dead_relu": {"model": changed(lambda made: made[0].bias.fill_(-50))},
    "non_differentiable": {"model": Rounding},
}


@pytest.mark.parametrize("fault", CAUSES)
def test_the_state_that_explains_a_symptom_stands_before_it(fault: str) -> None:
    found = wired(**CAUSES[fault])
    assert found.outcome == "failed"
    assert found.diagnoses[0].fault == fault
    assert len(found.diagnoses) > 1
    assert found.summary == found.diagnoses[0].evidence


@pytest.mark.parametrize("probe", ["wiring", "overfit_batch"])
def test_missing_values_that_nothing_masks_are_named_before_the_first_update(probe: str) -> None:
    with pytest.raises(CaseError, match="1 of 192 numbers are NaN or infinite, the first in row 0") as caught:
        wired(probe, batch=(HOLES, Y))
    assert [each.fault for each in caught.value.diagnoses] == ["nan_in_input"]


@pytest.mark.parametrize("fault", ["zero_init", "dead_relu"])
def test_the_outcome_and_the_findings_are_those_without_a_diagnosis(fault: str) -> None:
    found, plain = wired(**CAUSES[fault]), wired(diagnose="never", **CAUSES[fault])
    assert (found.outcome, found.findings) == (plain.outcome, plain.findings)
    assert [each for each in found.diagnoses if each.fault != fault] == list(plain.diagnoses)


def test_a_symptom_without_such_a_state_stays_as_it_is() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 3))

        def forward(self, x: Tensor) -> Any:
            return self.net(x[:, :2])

    found = wired(model=Half)
    assert [each.fault for each in found.diagnoses] == ["input_unused"]


def test_a_factory_that_fails_when_it_is_called_again_keeps_its_verdict() -> None:
    calls: list[int] = []

    def model() -> nn.Module:
        calls.append(1)
        if len(calls) > 1:
            raise OSError("the file is gone")
        return CAUSES["dead_relu"]["model"]()

    found = wired(model=model)
    assert (found.outcome, found.diagnoses[0].fault) == ("failed", "cut_gradient")


@pytest.mark.parametrize(
    ("batch", "fault"), [((X, torch.zeros_like(Y)), "labels_collapsed"), ((torch.ones_like(X), Y), "constant_input")]
)
def test_a_batch_that_cannot_tell_says_likely_why(batch: Any, fault: str) -> None:
    found = wired("overfit_batch", batch=batch)
    assert found.outcome == "inconclusive"
    assert [(each.fault, each.confidence) for each in found.diagnoses] == [(fault, "likely")]


def test_sorted_data_whose_first_batch_has_one_label_have_no_name() -> None:
    x = torch.randn(300, 8, generator=torch.Generator().manual_seed(1))
    found = wired("overfit_batch", batch=None, train=(x, torch.arange(300) // 100), model=lambda: nn.Sequential(
        nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 3)
    ), optimizer=lambda parameters: torch.optim.Adam(parameters, 1e-2))  # fmt: skip
    assert found.passed
    assert not found.diagnoses
