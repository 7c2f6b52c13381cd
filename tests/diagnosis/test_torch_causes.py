"""One fault each, planted in a small torch program: the change that cures it is the diagnosis; its twin has none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from pytest_overfit import Case, run_probes
from pytest_overfit.core.verdict import Verdict
from pytest_overfit.settings import Settings, set_settings

X, Y = (torch.as_tensor(each) for each in load_digits(return_X_y=True))
BATCH = (X[:32].float() / 16, Y[:32])
VALUES = (BATCH[0], BATCH[1].float()[:, None] / 3)


def net(*tail: nn.Module, hidden: int = 32, units: int = 10, act: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, hidden), act(), nn.Linear(hidden, units), *tail)


def filled(model: nn.Module, value: float) -> nn.Module:
    for each in model.parameters():
        nn.init.constant_(each, value)
    return model


def scaled(model: nn.Module, factor: float) -> nn.Module:
    with torch.no_grad():
        for each in model.parameters():
            each.mul_(factor)
    return model


def frozen(model: nn.Sequential) -> nn.Module:
    model[0].requires_grad_(False)
    return model


def deep(act: Callable[[], nn.Module], layers: int = 12) -> nn.Module:
    middle = [part for _ in range(layers) for part in (nn.Linear(32, 32), act())]
    return nn.Sequential(nn.Linear(64, 32), act(), *middle, nn.Linear(32, 10))


def adam(rate: float = 1e-3, **more: Any) -> Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.Adam(parameters, rate, **more)


def case(**fields: Any) -> Case:
    usual = {"model": net, "loss": nn.CrossEntropyLoss(), "optimizer": adam(), "batch": BATCH}
    return Case(name="case", **{**usual, **fields})


FAULTS: dict[str, Case] = {
    "double_softmax": case(model=lambda: net(nn.Softmax(1))),
    "softmax_without_log": case(model=lambda: net(nn.Softmax(1)), loss=nn.NLLLoss()),
    "missing_softmax": case(loss=nn.NLLLoss()),
    "relu_on_logits": case(model=lambda: net(nn.ReLU()), optimizer=adam(1e-2)),
    "bounded_logits": case(model=lambda: net(nn.Tanh()), optimizer=adam(1e-2)),
    "output_range": case(
        model=lambda: net(nn.Sigmoid(), units=1), loss=nn.MSELoss(), batch=VALUES, optimizer=adam(1e-2)
    ),
    "target_broadcast": case(
        model=lambda: net(units=1), loss=nn.MSELoss(), batch=(VALUES[0], VALUES[1][:, 0]), optimizer=adam(1e-2)
    ),
    "lr_too_high": case(optimizer=adam(3.0)),
    "lr_too_low": case(optimizer=adam(1e-6)),
    "lr_zero": case(optimizer=adam(0.0)),
    "bad_adam_epsilon": case(optimizer=adam(1e-3, eps=10.0)),
    "excessive_weight_decay": case(optimizer=adam(1e-3, weight_decay=1.0)),
    "schedule_kills_rate": case(scheduler=lambda made: torch.optim.lr_scheduler.ExponentialLR(made, 0.5)),
    "gradient_ascent": case(loss=lambda outputs, y: -nn.functional.cross_entropy(outputs, y)),
    "zero_init": case(model=lambda: filled(net(), 0.0)),
    "constant_init": case(model=lambda: filled(net(), 0.1)),
    "too_small_init": case(
        model=lambda: scaled(deep(nn.Tanh, 3), 1e-3), optimizer=lambda parameters: torch.optim.SGD(parameters, 0.1)
    ),
    "vanishing_gradient": case(
        model=lambda: deep(nn.Sigmoid, 6), optimizer=lambda parameters: torch.optim.SGD(parameters, 0.1)
    ),
    "frozen_parameters": case(model=lambda: frozen(net(hidden=6)), optimizer=adam(1e-2)),
    "double_normalised": case(
        batch=(BATCH[0] * 1e-4, BATCH[1]), optimizer=lambda parameters: torch.optim.SGD(parameters, 0.1)
    ),
    "unnormalised_target": case(
        model=lambda: net(units=1), loss=nn.MSELoss(), batch=(VALUES[0], VALUES[1] * 1e4 + 3e4)
    ),
}


def verdict(of: Case, diagnose: str = "auto") -> Verdict:
    reset = set_settings(Settings(diagnose=diagnose))
    try:
        return run_probes(of, ["overfit_batch"])[0]
    finally:
        reset()


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("fault", FAULTS)
def test_the_change_that_cures_is_named_first(fault: str) -> None:
    found = verdict(FAULTS[fault])
    assert found.outcome in ("failed", "inconclusive")
    assert found.diagnoses[0].fault == fault
    assert found.diagnoses[0].confidence == "proved"
    assert found.summary == found.diagnoses[0].evidence
    assert "the batch is memorised in" in found.summary


@pytest.mark.parametrize("diagnose", ["auto", "always"])
def test_a_healthy_program_has_none(diagnose: str) -> None:
    found = verdict(case(), diagnose)
    assert found.passed
    assert not found.diagnoses


def test_nothing_is_tried_where_reasons_are_not_asked_for() -> None:
    found = verdict(FAULTS["double_softmax"], "never")
    assert found.outcome == "failed"
    assert not found.diagnoses


def test_a_program_that_nothing_cures_says_what_was_tried() -> None:
    """Every row has the same input but for a digit far behind the point."""
    rows = torch.ones(32, 64) + 1e-9 * torch.arange(32)[:, None]
    noisy = verdict(case(batch=(rows + torch.eye(32, 64) * 1e-6, BATCH[1])))
    assert noisy.outcome != "passed"
    assert all(each.confidence != "proved" or "standardised" in each.evidence for each in noisy.diagnoses)


def test_a_factory_that_fails_at_its_second_call_keeps_its_verdict() -> None:
    calls = []

    def model() -> nn.Module:
        calls.append(1)
        if len(calls) > 2:
            raise OSError("the file is gone")
        return net(nn.Softmax(1))

    found = verdict(case(model=model))
    assert found.outcome == "failed"
    assert "the file is gone" in " ".join(each.message for each in found.findings)
