"""Several seeds of one torch model at once: the numbers of one after the other, or one after the other."""

from __future__ import annotations

import math
import random as standard_random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from pytest_overfit import Case, run_probes
from pytest_overfit.adapters.dispatch import JointTrainingByFramework, trainer_for
from pytest_overfit.adapters.torch import ensemble
from pytest_overfit.adapters.torch.ensemble import eligible as joining
from pytest_overfit.adapters.torch.ensemble.masks import Masks, Sites
from pytest_overfit.adapters.torch.ensemble.stack import Stack
from pytest_overfit.adapters.torch.ensemble.trace import TracedProgram
from pytest_overfit.adapters.trainer import Trainer
from pytest_overfit.data.splits import open_split
from pytest_overfit.measures.predictions.scores import Scores, scores_of

random = np.random.default_rng(0)
X = random.normal(size=(83, 16)).astype("float32")  # the last batch is smaller than the others
Y = ((X[:, 0] > 0) + 2 * (X[:, 1] > 0)).astype("int64")
VAL = random.normal(size=(40, 16)).astype("float32"), random.integers(0, 4, 40)
SEEDS, EPOCHS = range(4), 9

Factory = Callable[[], nn.Module]


def mlp(*between: Factory) -> Factory:
    return lambda: nn.Sequential(nn.Linear(16, 12), nn.ReLU(), *(each() for each in between), nn.Linear(12, 4))


class Convolutions(nn.Module):
    def __init__(self, rate: float) -> None:
        super().__init__()
        self.first, self.drop = nn.Conv2d(1, 4, 3, padding=1), nn.Dropout2d(rate)
        self.second, self.head = nn.Conv2d(4, 6, 3, padding=1), nn.Linear(24, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.first(x.reshape(-1, 1, 4, 4)), inplace=True)
        x = self.drop(self.second(x)).relu()
        x = functional.dropout(functional.max_pool2d(x, 2), 0.2, self.training)
        return self.head(x.flatten(1))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """A pre-norm block on four tokens, written with plain operations."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mixed, self.head = nn.LayerNorm(4), nn.Linear(4, 12), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.reshape(-1, 4, 4)
        query, key, value = self.mixed(self.norm(x)).chunk(3, -1)
        weights = functional.dropout((query @ key.transpose(-1, -2) / 2).softmax(-1), 0.1, self.training)
        return self.head((x + weights @ value).flatten(1))  # type: ignore[no-any-return]


def adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.1)


def two_groups(model: nn.Module) -> torch.optim.Optimizer:
    decayed = [each for each in model.parameters() if each.ndim > 1]
    others = [each for each in model.parameters() if each.ndim == 1]
    return torch.optim.Adam([{"params": decayed, "weight_decay": 0.01, "lr": 1e-2}, {"params": others}], lr=1e-3)


def warm_up(optimizer: Any) -> Any:
    rates = torch.optim.lr_scheduler
    return rates.SequentialLR(
        optimizer,
        [rates.LinearLR(optimizer, 0.1, total_iters=5), rates.CosineAnnealingLR(optimizer, 30)],
        milestones=[5],
    )


def case(model: Factory, **more: Any) -> Case:
    given = {"loss": functional.cross_entropy, "optimizer": adamw, "train": (X, Y), "val": VAL, **more}
    return Case(name="c", model=model, **given)


def trainers(of: Case, plain: bool = False) -> list[Trainer]:
    train = open_split(of, "train")
    return [trainer_for(of, train, seed, plain) for seed in SEEDS]


def one_by_one(of: Case, plain: bool = False) -> tuple[list[list[float]], list[Scores]]:
    made, val = trainers(of, plain), open_split(of, "val")
    losses = [each.train(EPOCHS) for each in made]
    return losses, [scores_of(each.read(val), None) for each in made]


def at_once(of: Case, plain: bool = False) -> tuple[list[list[float]], list[Scores]] | None:
    made, val = trainers(of, plain), open_split(of, "val")
    losses = JointTrainingByFramework().train(made, EPOCHS, lambda member: None)
    return None if losses is None else (losses, [scores_of(each.read(val), None) for each in made])


@pytest.fixture(autouse=True)
def few_steps_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "FEWEST_STEPS", 1)


DROPS = mlp(lambda: nn.Dropout(0.4), lambda: nn.Linear(12, 12), lambda: nn.Dropout(0.1))

SAME = {
    "mlp": case(mlp(), optimizer=lambda ps: torch.optim.SGD(ps, lr=0.1)),
    "dropout, AdamW with decay": case(DROPS),
    "dropout, momentum and decay": case(
        DROPS, optimizer=lambda ps: torch.optim.SGD(ps, lr=0.05, momentum=0.9, weight_decay=0.01, nesterov=True)
    ),
    "two groups": case(DROPS, optimizer=two_groups),
    "schedule": case(DROPS, scheduler=warm_up),
    "one cycle, which changes the momentum too": case(
        DROPS, scheduler=lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=60)
    ),
    "RMSprop": case(DROPS, optimizer=lambda ps: torch.optim.RMSprop(ps, lr=1e-3, centered=True)),
    "Adagrad": case(DROPS, optimizer=lambda ps: torch.optim.Adagrad(ps, lr=1e-2)),
    "NAdam": case(DROPS, optimizer=lambda ps: torch.optim.NAdam(ps, lr=1e-3)),
    "convolutions": case(lambda: Convolutions(0.3), fit_kwargs={"batch_size": 8}),
    "attention": case(Attention),
    "class weights and smoothing": case(
        DROPS, loss=nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0, 1.0]), label_smoothing=0.1)
    ),
    "squared error": case(
        lambda: nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1)),
        loss=nn.MSELoss(),
        train=(X, X[:, :1] * 2),
        val=(VAL[0], VAL[0][:, :1] * 2),
    ),
    "named inputs": case(
        lambda: Named(),
        train=({"left": X, "right": X[:, :2]}, Y),
        val=({"left": VAL[0], "right": VAL[0][:, :2]}, VAL[1]),
    ),
    "a frozen layer": case(
        lambda: frozen(DROPS()), optimizer=lambda ps: torch.optim.Adam([p for p in ps if p.requires_grad])
    ),
    "doubles": case(lambda: DROPS().double()),
}


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.drop = nn.Linear(18, 4), nn.Dropout(0.1)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.layer(self.drop(torch.cat([left, right], 1)))  # type: ignore[no-any-return]


def frozen(model: nn.Module) -> nn.Module:
    next(model.children()).requires_grad_(False)
    return model


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("plain", [False, True], ids=["as it is", "without regularisers"])
def test_the_numbers_are_those_of_one_after_the_other(name: str, plain: bool) -> None:
    of = SAME[name]
    assert JointTrainingByFramework().may_join(trainers(of)[0], len(SEEDS), EPOCHS)
    found = at_once(of, plain)
    assert found is not None
    losses, scores = found
    wanted_losses, wanted = one_by_one(of, plain)
    np.testing.assert_allclose(losses, wanted_losses, rtol=0, atol=1e-4)
    assert len({each[-1] for each in losses}) == len(SEEDS)
    for mine, alone in zip(scores, wanted, strict=True):
        assert mine.score == pytest.approx(alone.score, abs=1e-4)
        assert mine.loss == pytest.approx(alone.loss, abs=1e-4)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.77])
@pytest.mark.parametrize("shape", [(3,), (32, 128), (7, 33, 5)])
def test_masks_are_those_of_dropout_to_the_bit(rate: float, shape: tuple[int, ...]) -> None:
    seeds = (5, 99)
    generators = [torch.Generator().manual_seed(each) for each in seeds]
    sites = Sites()
    with sites:
        for each in (torch.ones(shape), torch.ones(2, 3)):
            functional.dropout(each, rate)
    masks = Masks(sites.found, len(seeds))
    drawn = [[each.clone() for each in masks.draw(generators)] for _ in range(2)]
    with torch.random.fork_rng(devices=[]):
        for member, seed in enumerate(seeds):
            torch.manual_seed(seed)
            for step in drawn:
                for mask in step:
                    assert torch.equal(functional.dropout(torch.ones(mask.shape[1:]), rate), mask[member])
            assert torch.equal(torch.get_rng_state(), generators[member].get_state())


def test_masks_of_channels_are_drawn_one_for_a_channel() -> None:
    x = torch.ones(4, 6, 3, 3)
    sites = Sites()
    with sites:
        functional.dropout2d(x, 0.5)
    (mask,) = Masks(sites.found, 1).draw([torch.Generator().manual_seed(1)])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        assert torch.equal(functional.dropout2d(x, 0.5), x * mask[0])


# ------------------------------------------------------------------ one after the other


class Noisy(nn.Module):
    """Adds what `noise` draws."""

    def __init__(self, noise: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.layer, self.noise = nn.Linear(16, 4), noise

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + self.noise(x)  # type: ignore[no-any-return]


class Remembers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = nn.Linear(16, 4), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += self.training
        return self.layer(x) * min(1.0, self.calls / 100)  # type: ignore[no-any-return]


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) if x.mean() > 0 else self.layer(-x)  # type: ignore[no-any-return]


def hooked() -> nn.Module:
    model = mlp()()
    model.register_forward_hook(lambda _module, _given, answer: answer * 2)
    return model


def unused() -> nn.Module:
    model = mlp()()
    model.register_parameter("spare", nn.Parameter(torch.ones(3)))
    return model


class Counting:
    """A loss that changes while training goes on."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return functional.cross_entropy(outputs, y) * (1 + self.calls / 100)


class Own(torch.optim.SGD):
    """Another class than those that are known."""


class Tempered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(()))

    def forward(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(outputs * self.temperature, y)


def plateau(optimizer: Any) -> Any:
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)


def own_step(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    return float(functional.cross_entropy(model(x), y))


NOT_TRIED = {
    "a step of one's own": case(mlp(), step=own_step, loss=None, optimizer=None),
    "batch normalisation": case(mlp(lambda: nn.BatchNorm1d(12))),
    "a hook": case(hooked),
    "L-BFGS": case(mlp(), optimizer=lambda ps: torch.optim.LBFGS(ps)),
    "Adafactor": case(mlp(), optimizer=lambda ps: torch.optim.Adafactor(ps)),
    "an optimizer of one's own": case(mlp(), optimizer=lambda ps: Own(ps, lr=0.1)),
    "a schedule that watches the loss": case(mlp(), scheduler=plateau),
    "batches of its own": case(mlp(), train=[(X[:20], Y[:20]), (X[20:40], Y[20:40]), (X[40:], Y[40:])]),
    "a large model": case(lambda: nn.Sequential(nn.Linear(16, 6000), nn.ReLU(), nn.Linear(6000, 4))),
    "autocast": case(mlp(), autocast="bfloat16"),
    "a loss that learns": case(mlp(), loss=Tempered()),
}


@pytest.mark.parametrize("name", NOT_TRIED)
def test_what_cannot_be_stacked_is_not_tried(name: str) -> None:
    assert not JointTrainingByFramework().may_join(trainers(NOT_TRIED[name])[0], len(SEEDS), EPOCHS)


GIVEN_UP = {
    "noise": case(lambda: Noisy(lambda x: torch.randn(4))),
    "noise of the standard library": case(lambda: Noisy(lambda x: standard_random.random())),
    "noise of numpy": case(lambda: Noisy(lambda x: float(np.random.random()))),
    "a count of the calls": case(Remembers),
    "a branch on the data": case(Branches),
    "a parameter without gradient": case(unused, optimizer=adamw),
    "alpha dropout": case(mlp(lambda: nn.AlphaDropout(0.2))),
    "a recurrent net with dropout": case(lambda: Recurrent()),
    "a loss that changes": case(mlp(), loss=Counting()),
}


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells, self.head = nn.LSTM(4, 6, num_layers=2, dropout=0.3, batch_first=True), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.cells(x.reshape(-1, 4, 4))[0][:, -1])  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", GIVEN_UP)
def test_what_turns_out_not_to_be_the_same_is_given_up(name: str) -> None:
    assert at_once(GIVEN_UP[name]) is None


def test_different_settings_or_sizes_are_given_up() -> None:
    rates = iter([1e-3, 2e-3, 1e-3, 1e-3])
    assert at_once(case(mlp(), optimizer=lambda ps: torch.optim.Adam(ps, lr=next(rates)))) is None
    of = case(mlp())
    made = [
        trainer_for(of, open_split(case(mlp(), train=(X[:rows], Y[:rows])), "train"), 0, False) for rows in (83, 82)
    ]
    assert JointTrainingByFramework().train(made, 1, lambda member: None) is None


def test_masks_of_another_seed_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = Masks.draw

    def swapped(self: Masks, generators: Any) -> list[torch.Tensor]:
        return [each.roll(1, 0) for each in draw(self, generators)]

    assert at_once(case(DROPS)) is not None
    monkeypatch.setattr(Masks, "draw", swapped)
    assert at_once(case(DROPS)) is None


def test_masks_that_go_wrong_later_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    draw, calls = Masks.draw, iter(range(10_000))

    def stale(self: Masks, generators: Any) -> list[torch.Tensor]:
        masks = draw(self, generators)
        return [torch.ones_like(each) for each in masks] if next(calls) > 12 else masks

    monkeypatch.setattr(Masks, "draw", stale)
    assert at_once(case(DROPS)) is None


def test_an_optimizer_that_does_otherwise_on_a_stack_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    clipped = type("Clipped", (torch.optim.SGD,), {"step": lambda self: _clipped_step(self)})
    monkeypatch.setattr(joining, "_ENTRYWISE", (clipped,))
    of = case(mlp(), optimizer=lambda ps: clipped(ps, lr=0.1))
    assert JointTrainingByFramework().may_join(trainers(of)[0], len(SEEDS), EPOCHS)
    assert at_once(of) is None


def _clipped_step(optimizer: Any) -> None:
    for group in optimizer.param_groups:
        nn.utils.clip_grad_norm_(group["params"], 0.01)
    torch.optim.SGD.step(optimizer)


def test_programs_refuse_what_they_could_not_repeat() -> None:
    x = torch.ones(3)
    with pytest.raises(joining.CannotJoinError, match="random"):
        TracedProgram(lambda x: [x * torch.rand(3)], [x])
    with pytest.raises(joining.CannotJoinError, match="goes back to python"):
        TracedProgram(lambda x: [x * float(x.sum())], [x])
    with pytest.raises(joining.CannotJoinError, match="changes what it was given"):
        TracedProgram(lambda x: [x.mul_(2)], [x])
    held = torch.full((3,), 5.0)
    program = TracedProgram(lambda x: [(x * held).exp_() + 1], [x])
    assert torch.equal(program.run(x * 2)[0], (x * 10).exp() + 1)


@pytest.mark.parametrize(("chosen", "fused"), [({}, True), ({"fused": False}, False), ({"foreach": True}, None)])
def test_a_form_of_the_update_that_the_user_chose_stays(chosen: dict[str, Any], fused: bool | None) -> None:
    models = [nn.Linear(2, 2) for _ in range(3)]
    stack = Stack(models, [torch.optim.Adam(each.parameters(), **chosen) for each in models])
    assert stack.optimizer.param_groups[0]["fused"] is fused


def test_small_work_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainers(case(mlp()))[0]
    monkeypatch.setattr(joining, "FEWEST_STEPS", len(SEEDS) * EPOCHS * 3)
    assert JointTrainingByFramework().may_join(made, len(SEEDS), EPOCHS)
    assert not JointTrainingByFramework().may_join(made, len(SEEDS), EPOCHS - 1)
    assert not JointTrainingByFramework().may_join(made, 1, 10_000)


def test_more_arithmetic_than_weights_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    of = case(lambda: Convolutions(0.3))  # a weight is used at each place of a picture
    assert at_once(of) is not None
    weights = sum(each.numel() for each in Convolutions(0.3).parameters())
    monkeypatch.setattr(joining, "MOST_PRODUCTS", 32 * weights // len(SEEDS) + 1)
    assert JointTrainingByFramework().may_join(trainers(of)[0], len(SEEDS), EPOCHS)
    assert at_once(of) is None


# ------------------------------------------------------------------ in the probe


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int | None]]:
    """How many trained at once, each time it was tried; None where it was given up."""
    found: list[int | None] = []
    train = ensemble.train

    def note(made: Any, epochs: int, after_epoch: Any) -> Any:
        losses = train(made, epochs, after_epoch)
        found.append(None if losses is None else len(made))
        return losses

    with monkeypatch.context() as patched:
        patched.setattr(ensemble, "train", note)
        yield found


def verdict(of: Case, **limits: Any) -> Any:
    (found,) = run_probes(of, ["regularization"], epochs=EPOCHS, **limits)
    return found


def alone(monkeypatch: pytest.MonkeyPatch, of: Case, **limits: Any) -> Any:
    with monkeypatch.context() as patched:
        patched.setattr(joining, "MOST_PRODUCTS", 0)
        return verdict(of, **limits)


IN_THE_PROBE: dict[str, tuple[Case, dict[str, Any]]] = {
    "dropout": (case(DROPS), {}),
    "a dropout that harms": (case(mlp(lambda: nn.Dropout(0.95)), val=(X, Y)), {}),
    "no effect": (case(mlp(), optimizer=lambda ps: torch.optim.AdamW(ps, lr=1e-3, weight_decay=1e-4)), {"margin": 0.2}),
    "inert": (case(mlp(), optimizer=lambda ps: torch.optim.AdamW(ps, lr=1e-3, weight_decay=1e-12)), {}),
    "resplit": (case(DROPS), {"resplit": True}),
    "more looks": (case(DROPS), {"seeds": 14, "margin": 0.005}),
    "other fields": (case(DROPS, unregularized=mlp()), {}),
}


@pytest.mark.parametrize("name", IN_THE_PROBE)
def test_the_verdict_is_the_one_of_one_after_the_other(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    of, limits = IN_THE_PROBE[name]
    wanted = alone(monkeypatch, of, **limits)
    with counted(monkeypatch) as batches:
        found = verdict(of, **limits)
    assert batches
    assert None not in batches
    assert batches[:2] == [10, 10]
    assert (found.outcome, found.summary) == (wanted.outcome, wanted.summary)
    for arm in ("regularized", "unregularized"):
        assert len(found.data[arm]) == len(wanted.data[arm]) == sum(each for each in batches[::2] if each)
        for mine, other in zip(found.data[arm], wanted.data[arm], strict=True):
            assert mine["seed"] == other["seed"]
            np.testing.assert_allclose(mine["losses"], other["losses"], atol=1e-4)
            np.testing.assert_allclose(mine["curve"], other["curve"], atol=1e-4)
            assert mine["train"]["score"] == pytest.approx(other["train"]["score"], abs=1e-4)


def test_what_is_given_up_is_trained_one_after_the_other_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    of = case(lambda: nn.Sequential(nn.Linear(16, 8), nn.AlphaDropout(0.3), nn.Linear(8, 4)))
    wanted = alone(monkeypatch, of)
    with counted(monkeypatch) as batches:
        found = verdict(of)
    assert batches == [None]
    assert found.data == wanted.data
    assert (found.outcome, found.summary) == (wanted.outcome, wanted.summary)


def test_a_budget_is_kept_after_each_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    with counted(monkeypatch) as batches:
        found = verdict(case(DROPS), budget=1e-9)
    assert batches == []
    assert len(found.data["regularized"]) == 1
    assert found.outcome == "inconclusive"


def test_it_stops_at_the_first_pair_that_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    of = case(DROPS, score=lambda model, x, y: math.nan)
    with counted(monkeypatch) as batches:
        found = verdict(of)
    assert batches == [10, 10]
    assert len(found.data["regularized"]) == 1


def test_an_error_while_reading_passes_through_and_the_users_generators_stay() -> None:
    def score(model: nn.Module, x: Any, y: Any) -> float:
        raise ZeroDivisionError("mine")

    torch.manual_seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].tobytes(), standard_random.getstate()  # type: ignore[index]
    with pytest.raises(Exception, match="mine"):
        verdict(case(DROPS, score=score))
    verdict(case(DROPS))
    assert torch.equal(before[0], torch.get_rng_state())
    assert (np.random.get_state()[1].tobytes(), standard_random.getstate()) == before[1:]  # type: ignore[index]
