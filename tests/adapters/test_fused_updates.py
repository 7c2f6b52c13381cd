"""The one liberty taken with the user's optimizer: Adam's update in one call. It must be the same update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pytest_overfit import Case
from pytest_overfit.adapters.dispatch import learner_for
from pytest_overfit.adapters.torch.fused_update import as_written
from pytest_overfit.data.telling import batch_of

X, Y = torch.randn(16, 6, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 3
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "decayed": {"weight_decay": 0.1},
    "amsgrad": {"amsgrad": True, "betas": (0.8, 0.95)},
    "upwards": {"maximize": True, "lr": 1e-4},
}


def make_model(dtype: torch.dtype = torch.float32) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Linear(12, 3)).to(dtype)


def learner_of(optimizer: Callable[..., Any], dtype: torch.dtype = torch.float32, **more: Any) -> Any:
    given = {"model": lambda: make_model(dtype), "loss": nn.functional.cross_entropy, "optimizer": optimizer, **more}
    case = Case(name="case", batch=(X.to(dtype), Y), **given)
    return learner_for(case, batch_of(case), seed=3)


def is_fused(learner: Any) -> bool:
    return any(group.get("fused") is True for group in learner.optimizer.param_groups)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_steps_are_those_of_the_loop_by_hand(kind: Any, dtype: torch.dtype, settings: dict[str, Any]) -> None:
    learner = learner_of(lambda parameters: kind(parameters, **{"lr": 1e-2, **settings}), dtype)
    assert is_fused(learner)
    by_hand = make_model(dtype)
    by_hand.load_state_dict(learner.model.state_dict())
    optimizer = kind(by_hand.parameters(), **{"lr": 1e-2, **settings})
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(by_hand(X.to(dtype)), Y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert learner.train(60) == pytest.approx(losses, rel=1e-4 if dtype is torch.float32 else 1e-9)


class OwnAdam(torch.optim.Adam):
    """Half of the rate, as a subclass may decide."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["lr"] = 5e-4
        return super().step(closure)


@pytest.mark.parametrize(
    "optimizer",
    [
        OwnAdam,
        torch.optim.SparseAdam,
        lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        lambda parameters: torch.optim.Adam(parameters, fused=False),
        lambda parameters: torch.optim.Adam(parameters, foreach=True),
        lambda parameters: torch.optim.AdamW(parameters, foreach=False),
        lambda parameters: torch.optim.Adam(parameters, differentiable=True),
    ],
    ids=["subclass", "SparseAdam", "SGD", "fused=False", "foreach=True", "foreach=False", "differentiable"],
)
def test_what_the_user_chose_stays(optimizer: Callable[..., Any]) -> None:
    assert not is_fused(learner_of(optimizer))


def test_half_precision_keeps_its_rounding() -> None:
    """The fused update computes in float32 there, and would hide an update that bfloat16 loses."""
    assert not is_fused(learner_of(torch.optim.Adam, torch.bfloat16))


class Gaps(nn.Module):
    """Its weight is every second column of a larger matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 6)[:, ::2])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


def hooked() -> nn.Module:
    model = make_model()

    def turn(parameter: torch.Tensor) -> None:
        if parameter.ndim == 2:
            parameter.grad = parameter.grad.t().contiguous().t()

    for each in model.parameters():
        each.register_post_accumulate_grad_hook(turn)
    return model


def watched_adam(parameters: Any) -> torch.optim.Optimizer:
    optimizer = torch.optim.Adam(parameters)
    optimizer.register_step_pre_hook(lambda *_: None)
    return optimizer


@pytest.mark.parametrize(
    ("model", "optimizer"),
    [(Gaps, torch.optim.Adam), (hooked, torch.optim.Adam), (make_model, watched_adam)],
    ids=["gaps", "hooks on parameters", "hook on the optimizer"],
)
def test_where_gradients_may_lie_otherwise_than_weights_nothing_is_chosen(model: Any, optimizer: Any) -> None:
    """Torch's fused update takes both in the order of memory, and is wrong where these differ."""
    assert not is_fused(learner_of(optimizer, model=model))


def test_channels_last_is_an_order_of_both() -> None:
    def make() -> nn.Module:
        parts = [nn.Unflatten(1, (3, 2, 1)), nn.Conv2d(3, 8, 2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)]
        return nn.Sequential(*parts).to(memory_format=torch.channels_last)

    learner = learner_of(lambda parameters: torch.optim.Adam(parameters, lr=1e-2), model=make)
    assert is_fused(learner)
    by_hand = make()
    by_hand.load_state_dict(learner.model.state_dict())
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(by_hand(X), Y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert learner.train(20) == pytest.approx(losses, rel=1e-4)


def test_beside_a_step_of_the_users_it_stays_as_it_was_made() -> None:
    """The step may do more with it, as scaling its gradients."""
    assert not is_fused(learner_of(torch.optim.Adam, step=lambda net, x, y: nn.functional.cross_entropy(net(x), y)))


def test_what_an_update_takes_is_measured_as_the_user_wrote_it() -> None:
    ours, chosen = learner_of(torch.optim.Adam), learner_of(lambda parameters: torch.optim.Adam(parameters, fused=True))
    with as_written(ours.optimizer), as_written(chosen.optimizer):
        assert not is_fused(ours)
        assert is_fused(chosen)
    assert is_fused(ours)
