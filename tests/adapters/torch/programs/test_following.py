"""What cuts a gradient is found on the way to what is differentiated, and what is cut off it on purpose is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pytest_overfit import Case, ProgramError, run_probes
from pytest_overfit.adapters.programs import Anatomy, program_of
from pytest_overfit.adapters.torch.programs import open_program
from pytest_overfit.run import learner_of

X = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))
Y = X[:, :1] * X[:, 1:2]

Middle = Callable[[Tensor], Any]


class Net(nn.Module):
    """Two layers with something between them."""

    def __init__(self, middle: Middle) -> None:
        super().__init__()
        self.first, self.last, self.middle = nn.Linear(6, 8), nn.Linear(8, 1), middle

    def forward(self, x: Tensor) -> Any:
        return self.last(self.middle(self.first(x)))


def anatomy(middle: Middle = torch.tanh, **fields: Any) -> Anatomy:
    usual: dict[str, Any] = {
        "model": lambda: Net(middle),
        "loss": F.mse_loss,
        "optimizer": lambda parameters: torch.optim.Adam(parameters, 1e-2),
        "batch": (X, Y),
    }
    case = Case(name="case", **{**usual, **fields})
    program = program_of(learner_of(case, 0))
    assert program is not None
    return program.anatomy()


def no_grad(h: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.tanh(h)


CUTS: dict[str, tuple[Middle, bool]] = {
    "detach": (lambda h: h.detach(), True),
    ".data": (lambda h: h.data, True),
    "no_grad": (no_grad, True),
    "round": (torch.round, False),
    "sign": (torch.sign, False),
    "gt": (lambda h: (h > 0).float(), False),
    "argmax": (lambda h: F.one_hot(h.argmax(1), 8).float(), False),
    "long": (lambda h: h.long().float(), False),
}


@pytest.mark.parametrize("operation", CUTS)
def test_what_cuts_the_gradient_is_found_with_what_is_behind_it(operation: str) -> None:
    middle, smooth = CUTS[operation]
    (cut,) = anatomy(middle).cuts
    assert (cut.operation, cut.smooth, cut.behind) == (operation, smooth, ("first.bias", "first.weight"))


HEALTHY: dict[str, Middle] = {
    "nothing": torch.tanh,
    "a gate that is looked at": lambda h: h * (h.detach() > 0),
    "straight through": lambda h: h + (torch.sign(h) - h).detach(),
    "a number for a log": lambda h: torch.relu(h) if h.mean().item() < 1e9 else h,
    "the largest": lambda h: h.max(dim=1, keepdim=True).values + h,
}


@pytest.mark.parametrize("name", HEALTHY)
def test_where_every_layer_gets_its_gradient_nothing_is_looked_for(name: str) -> None:
    found = anatomy(HEALTHY[name])
    assert (found.cuts, found.depends, found.taken_out) == ((), None, ())


def stepping(loss_of: Callable[[Any, Any, Any], Any], after: Callable[[Any], Any] = lambda net: None) -> dict[str, Any]:
    """A loop of one's own that differentiates what `loss_of` gives."""
    kept: dict[int, torch.optim.Optimizer] = {}

    def step(net: Any, x: Tensor, y: Tensor) -> Tensor:
        optimizer = kept.setdefault(id(net), torch.optim.Adam(net.parameters(), 1e-2))
        optimizer.zero_grad()
        loss = F.mse_loss(net(x), y)
        loss_of(net, loss, y).backward()
        after(net)
        optimizer.step()
        return loss

    return {"step": step, "loss": None, "optimizer": None}


def test_a_number_that_is_taken_out_is_named() -> None:
    found = anatomy(**stepping(lambda net, loss, y: torch.tensor(loss.item(), requires_grad=True)))
    assert (found.depends, found.taken_out) == (False, ("item",))


def squares(net: nn.Module) -> Any:
    return sum((each**2).sum() for each in net.parameters())


def test_a_penalty_that_outweighs_the_loss_is_seen_with_both_numbers() -> None:
    assert (
        "a penalty on the weights of" in anatomy(**stepping(lambda net, loss, y: loss + 10 * squares(net))).penalties[0]
    )


@pytest.mark.parametrize("factor", [1e-4, 1e-2])
def test_a_penalty_of_usual_size_is_none(factor: float) -> None:
    assert not anatomy(**stepping(lambda net, loss, y: loss + factor * squares(net))).penalties


def test_a_gradient_that_clipping_leaves_nothing_of_is_measured() -> None:
    clip = lambda net: nn.utils.clip_grad_norm_(net.parameters(), 1e-6)  # noqa: E731
    kept = anatomy(**stepping(lambda net, loss, y: loss, clip)).kept
    assert kept is not None
    assert kept < 1e-3


def test_a_gradient_that_is_not_clipped_is_whole() -> None:
    assert anatomy(**stepping(lambda net, loss, y: loss)).kept == pytest.approx(1.0)


def test_a_loss_without_a_gradient_names_the_operation_that_has_no_slope() -> None:
    case = Case(
        name="case",
        model=lambda: nn.Linear(6, 3),
        loss=lambda outputs, y: (outputs.argmax(1) - y[:, 0]).abs().mean(),
        optimizer=lambda parameters: torch.optim.Adam(parameters, 1e-2),
        batch=(X, Y),
    )
    with pytest.raises(ProgramError, match="argmax has no slope") as raised:
        run_probes(case, ["overfit_batch"])
    assert [each.fault for each in raised.value.diagnoses] == ["non_differentiable"]


def test_a_first_layer_says_what_it_is_given() -> None:
    class Scaling(Net):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x / 1000)

    (given,) = anatomy(model=lambda: Scaling(torch.tanh)).given
    assert given.where == "Linear 'first'"
    assert given.size == pytest.approx(float(X.square().mean().sqrt()) / 1000, rel=1e-3)


def test_a_sequence_whose_beginning_teaches_nothing_has_faded() -> None:
    class Last(nn.Module):
        def __init__(self, pooled: bool) -> None:
            super().__init__()
            self.rnn, self.out, self.pooled = nn.RNN(1, 8, batch_first=True), nn.Linear(8, 1), pooled

        def forward(self, x: Tensor) -> Any:
            h = self.rnn(x)[0]
            return self.out(h.mean(1) if self.pooled else h[:, -1])

    batch = (torch.randn(8, 50, 1), torch.randn(8, 1))
    far, near = (anatomy(model=lambda pooled=pooled: Last(pooled), batch=batch).faded for pooled in (False, True))
    assert far is not None
    assert near is not None
    assert far < 1e-6
    assert near > 1e-2


def test_the_package_opens_programs() -> None:
    assert callable(open_program)


@pytest.mark.parametrize("used", [True, False])
def test_layers_in_a_list_are_named_where_a_pass_uses_them(used: bool) -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spare, self.out = [nn.Linear(6, 6)], nn.Linear(6, 1)

        def forward(self, x: Tensor) -> Any:
            return self.out(self.spare[0](x) if used else x)

    expected = ("spare.0.weight", "spare.0.bias") if used else ()
    assert anatomy(model=Listed).unregistered == expected
