"""Changed torch programs are what they say, or are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pytest_overfit import Case
from pytest_overfit.adapters.programs import Change, UnchangeableError, program_of
from pytest_overfit.run import learner_of

X = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 3


def changed(model: Callable[[], nn.Module], change: Change, batch: Any = (X, Y), **fields: Any) -> Any:
    usual: dict[str, Any] = {
        "loss": F.cross_entropy,
        "optimizer": lambda parameters: torch.optim.Adam(parameters, 1e-2),
    }
    case = Case(name="case", model=model, batch=batch, **{**usual, **fields})
    program = program_of(learner_of(case, 0))
    assert program is not None
    return program.changed(change)


class Residual(nn.Module):
    """A shortcut around a layer, with a norm of the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.block, self.norm, self.out = nn.Linear(6, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        h = self.first(x)
        return self.out(self.norm(h + torch.relu(self.block(h))))


class Reading(nn.Module):
    """Words, a recurrent layer, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = nn.Embedding(9, 4), nn.Linear(5, 3)
        self.lstm = nn.LSTM(4, 5, batch_first=True)

    def forward(self, ids: Tensor) -> Any:
        return self.out(self.lstm(self.words(ids))[0][:, -1])


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)
    )


WIDER: dict[str, tuple[Callable[[], nn.Module], Any, dict[str, tuple[int, ...]]]] = {
    "residual": (Residual, (X, Y), {"first.weight": (16, 6), "block.weight": (16, 16), "out.weight": (3, 16)}),
    "convolutional": (convolutional, (X, Y), {"1.weight": (8, 1, 3), "2.weight": (8,), "5.weight": (3, 32)}),
    "recurrent": (
        Reading,
        (torch.arange(48).reshape(12, 4) % 9, Y),
        {"words.weight": (9, 16), "lstm.weight_hh_l0": (80, 20), "out.weight": (3, 20)},
    ),
}


@pytest.mark.parametrize("name", WIDER)
def test_hidden_layers_get_wider_and_the_answer_does_not(name: str) -> None:
    model, batch, shapes = WIDER[name]
    learner = changed(model, Change(kind="wider", factor=4), batch)
    found = dict(learner.model.named_parameters())
    assert {each: tuple(found[each].shape) for each in shapes} == shapes
    assert learner.read("fit").outputs[0].shape == (12, 3)
    assert len(learner.train(2)) == 2


def own_weights() -> nn.Module:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.mixing = nn.Linear(6, 4), nn.Parameter(torch.randn(4, 3))

        def forward(self, x: Tensor) -> Any:
            return self.first(x) @ self.mixing

    return Mixed()


@pytest.mark.parametrize("model", [lambda: nn.Linear(6, 3), own_weights])
def test_what_cannot_be_made_wider_is_refused(model: Any) -> None:
    with pytest.raises(UnchangeableError):
        changed(model, Change(kind="wider", factor=4))


class Scaling(nn.Module):
    """Scales its inputs down itself."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))

    def forward(self, x: Tensor) -> Any:
        return self.net(x / 30_000)


def test_what_the_first_layer_is_given_can_be_standardised() -> None:
    learner = changed(Scaling, Change(kind="standardised", value="given"))
    seen = []
    learner.model.net[2].register_forward_pre_hook(lambda module, args: seen.append(args[0].std(0).min()))
    learner.read("fit")
    assert seen[-1] > 0.05


def test_shortcuts_let_the_gradient_through() -> None:
    def deep() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 8), *(each for _ in range(20) for each in (nn.Linear(8, 8), nn.Sigmoid())))

    def first_gradient(learner: Any) -> float:
        learner.train(1)
        return float(learner.model[0].weight.grad.norm())

    plain = first_gradient(changed(deep, Change(kind="rate", factor=1.0)))
    assert first_gradient(changed(deep, Change(kind="shortcuts"))) > 1e4 * plain


def test_a_pooled_recurrent_layer_gives_the_greatest_so_far() -> None:
    learner = changed(Reading, Change(kind="pooled"), (torch.arange(48).reshape(12, 4) % 9, Y))
    outputs, (state, _) = learner.model.lstm(torch.randn(2, 4, 4))
    assert (outputs.diff(dim=1) >= 0).all()
    assert torch.equal(state[-1], outputs[:, -1])


def test_where_nothing_is_recurrent_nothing_is_pooled() -> None:
    with pytest.raises(UnchangeableError, match="recurrent"):
        changed(Residual, Change(kind="pooled"))


def test_a_step_without_its_clipping_moves_as_far_as_one_that_never_clipped() -> None:
    def moved(clip: bool, change: Change) -> float:
        kept: dict[int, torch.optim.Optimizer] = {}

        def step(net: Any, x: Tensor, y: Tensor) -> Tensor:
            optimizer = kept.setdefault(id(net), torch.optim.SGD(net.parameters(), 0.1))
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            if clip:
                nn.utils.clip_grad_value_(net.parameters(), 1e-7)
            optimizer.step()
            return loss

        learner = changed(Residual, change, step=step, loss=None, optimizer=None)
        return float(learner.train(3)[-1])

    unclipped = Change(kind="without", value="clipping")
    assert moved(True, unclipped) == pytest.approx(moved(False, Change(kind="without", value="decay")))


class Listed(nn.Module):
    """Its first layer is in a list, and an offset is a plain tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = [nn.Linear(6, 5)], nn.Linear(5, 3)
        self.offset = torch.zeros(5, requires_grad=True)

    def forward(self, x: Tensor) -> Any:
        return self.out(torch.tanh(self.hidden[0](x)) + self.offset)


def test_what_the_model_does_not_know_is_registered_and_trained() -> None:
    learner = changed(Listed, Change(kind="all_trained"))
    before = learner.model.hidden[0].weight.detach().clone()
    learner.train(2)
    assert not torch.equal(learner.model.hidden[0].weight, before)
    assert dict(learner.model.named_parameters()).keys() >= {"offset", "unregistered_0", "unregistered_1"}
    assert learner.model.offset.abs().max() > 0


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_step_that_climbs_descends_the_other_way(by_hand: bool) -> None:
    kept: dict[int, torch.optim.Optimizer] = {}

    def step(net: Any, x: Tensor, y: Tensor) -> Tensor:
        optimizer = kept.setdefault(id(net), torch.optim.SGD(net.parameters(), 0.1, maximize=True))
        net.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        if by_hand:
            with torch.no_grad():
                for each in net.parameters():
                    each += 0.1 * each.grad
        else:
            optimizer.step()
        return loss

    losses = changed(Residual, Change(kind="reversed"), step=step, loss=None, optimizer=None).train(20)
    assert losses[-1] < losses[0]
