"""A loss that reads weights: of the model that is made last, of another one, its own, or without a gradient."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pytest_overfit import Case, CaseError, Verdict, run_probes
from pytest_overfit.adapters.torch.outside import leaves_of
from pytest_overfit.core.limits import resolve
from pytest_overfit.core.verdict import Finding
from pytest_overfit.probes.regularization import PROBE, RegularizationLimits

COLUMNS = 30
mse = functional.mse_loss


def rows(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two columns of thirty count, so that an L1 penalty helps a model that is trained on few rows."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(count, COLUMNS, generator=draw)
    return x, x[:, :2].sum(1, keepdim=True) + 0.3 * torch.randn(count, 1, generator=draw)


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05)


#: the model that was made last, as a program keeps it that builds a penalty from a global
live: dict[str, Any] = {}
elsewhere = nn.Linear(COLUMNS, 1)


def linear() -> nn.Module:
    return nn.Linear(COLUMNS, 1)


def kept() -> nn.Module:
    live["m"] = linear()
    return live["m"]  # type: ignore[no-any-return]


def l1(o: Tensor, y: Tensor) -> Tensor:
    return mse(o, y) + 0.1 * live["m"].weight.abs().sum()


def case(loss: Any = l1, **more: Any) -> Case:
    given = {"model": kept, "optimizer": sgd, "unregularized": {"loss": mse}, **more}
    return Case(name="c", loss=loss, train=rows(40, 1), val=rows(200, 2), **given)


def verdict(of: Case, probe: str = "regularization", epochs: int = 2) -> Verdict:
    return run_probes(of, [probe], **({"seeds": 10, "epochs": epochs} if probe == "regularization" else {}))[0]


def named(found: Verdict, name: str) -> Finding:
    return next(each for each in found.findings if each.name == name)


# ------------------------------------------------------------------ of the model that was made last


class Penalised:
    def __call__(self, o: Tensor, y: Tensor) -> Tensor:
        return mse(o, y) + 0.1 * live["m"].weight.abs().sum()


def weighted(factor: float, o: Tensor, y: Tensor) -> Tensor:
    return mse(o, y) + factor * live["m"].weight.abs().sum()


def stepping(penalty: Callable[[Any], Any]) -> Callable[[Any, Any, Any], Tensor]:
    def step(model: Any, x: Tensor, y: Tensor) -> Tensor:
        if not hasattr(model, "optimizer"):
            model.optimizer = sgd(model.parameters())
        model.optimizer.zero_grad()
        loss = mse(model(x), y) + penalty(model)
        loss.backward()
        model.optimizer.step()
        return loss

    return step


def in_a_step(penalty: Callable[[Any], Any]) -> Case:
    plain = {"step": stepping(lambda model: 0.0)}
    return case(None, optimizer=None, step=stepping(penalty), unregularized=plain)


TRUE = {
    "function": lambda: case(),
    "object": lambda: case(Penalised()),
    "partial": lambda: case(functools.partial(weighted, 0.1)),
    "step": lambda: in_a_step(lambda model: 0.1 * live["m"].weight.abs().sum()),
    "step_of_its_model": lambda: in_a_step(lambda model: 0.1 * model.weight.abs().sum()),
}


@pytest.mark.parametrize("of", TRUE.values(), ids=TRUE)
def test_each_arm_is_judged_by_its_own_weights(of: Callable[[], Case]) -> None:
    found = verdict(of(), epochs=30)
    assert found.outcome == "passed"
    assert found.summary.startswith("helps: val R2 0.9"), found.summary


def test_a_penalty_that_is_too_strong_harms() -> None:
    found = verdict(case(functools.partial(weighted, 20.0)), epochs=5)
    assert (found.outcome, found.summary[:5]) == ("failed", "harms")


def test_the_loss_beside_the_score_is_that_of_the_predictions() -> None:
    """Its own loss has the penalty in it, and would disagree with the score."""
    loss = named(verdict(case(), epochs=30), "loss")
    assert loss.outcome == "note"
    assert isinstance(loss.value, float)
    assert loss.value < -0.05
    assert "squared error (without penalties, smoothing and weights)" in loss.message


def test_smoothing_does_not_count_either() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(200, 10, generator=draw)
    split = x, (x[:, 0] + 0.3 * torch.randn(200, generator=draw) > 0).long()
    smoothed = functools.partial(functional.cross_entropy, label_smoothing=0.4)
    of = Case(
        name="c",
        model=lambda: nn.Linear(10, 2),
        loss=smoothed,
        optimizer=sgd,
        train=split,
        val=split,
        unregularized={"loss": functional.cross_entropy},
    )
    found = verdict(of)
    own, plain = (found.data[arm][0]["val"] for arm in ("regularized", "unregularized"))
    assert plain["bare_loss"] == pytest.approx(plain["loss"], rel=1e-4)
    assert own["bare_loss"] < own["loss"] - 0.02
    assert "cross-entropy" in named(found, "loss").message


# ------------------------------------------------------------------ of another model


first: dict[str, Any] = {}


def first_kept() -> nn.Module:
    model = linear()
    first.setdefault("m", model)
    return model


class Unregistered(nn.Module):
    """A list hides layers from `parameters()`."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.last = [nn.Linear(COLUMNS, 8)], nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layers[0](x))  # type: ignore[no-any-return]


class Learnt(nn.Module):
    """The uncertainty of Kendall and others (2018), with the penalty that keeps it from growing."""

    def __init__(self) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(1))

    def forward(self, o: Tensor, y: Tensor) -> Tensor:
        return (mse(o, y) * torch.exp(-self.log_variance) + self.log_variance).sum()


OTHERS: dict[str, tuple[str, Callable[[], Case]]] = {
    "global": ("elsewhere.weight", lambda: case(lambda o, y: mse(o, y) + elsewhere.weight.abs().sum(), model=linear)),
    "first": ("first['m'].weight", lambda: case(lambda o, y: mse(o, y) + first["m"].weight.norm(), model=first_kept)),
    "arm": ("live['m'].weight", lambda: case(unregularized=linear)),
    "teacher": ("elsewhere.bias", lambda: case(lambda o, y: mse(o, elsewhere(y.expand(-1, 30))), model=linear)),
    "unregistered": ("model.layers[0].weight", lambda: case(mse, model=Unregistered)),
    "forgotten": ("loss.log_variance", lambda: case(Learnt(), model=linear)),
    "step": ("elsewhere.weight", lambda: in_a_step(lambda model: elsewhere.weight.norm())),
}  # fmt: skip


@pytest.mark.parametrize(("name", "of"), OTHERS.values(), ids=OTHERS)
def test_weights_that_are_not_the_models_are_named_and_nothing_is_judged(name: str, of: Callable[[], Case]) -> None:
    before = elsewhere.weight.detach().clone()
    found = verdict(of())
    assert found.outcome == "inconclusive"
    assert "the loss depends on trainable weights outside the model" in found.summary
    assert name in found.summary
    assert torch.equal(before, elsewhere.weight)


def test_other_probes_note_it_and_judge_as_ever() -> None:
    for of in (OTHERS["global"][1], OTHERS["step"][1]):
        found = verdict(of(), "overfit_batch")
        assert any("outside the model: elsewhere.weight" in each.message for each in found.findings)
        assert not any("outside the model" in each.message for each in verdict(case(), "overfit_batch").findings)


def test_a_frozen_teacher_and_an_input_that_is_differentiated_by_are_none_of_them() -> None:
    teacher = nn.Linear(COLUMNS, 1).requires_grad_(False)

    def distilled(o: Tensor, y: Tensor) -> Tensor:
        probe = torch.ones(1, requires_grad=True)
        return mse(o, y) + mse(o, teacher(y.expand(-1, COLUMNS))) + 0 * probe.sum()

    assert "outside" not in verdict(case(distilled, model=linear)).summary


# ------------------------------------------------------------------ of its own


def test_what_the_loss_learns_itself_begins_anew_and_is_given_back() -> None:
    loss = Learnt()
    loss.log_variance.data.fill_(0.5)
    own = loss.log_variance
    ways = {
        "module": case(loss, optimizer=lambda parameters: sgd([*parameters, *loss.parameters()]), unregularized=linear),
        "closure": case(
            lambda o, y: loss(o, y), optimizer=lambda parameters: sgd([*parameters, own]), unregularized=linear
        ),
    }
    for of in ways.values():
        found = verdict(of)
        # two arms that differ in nothing: the second one must not begin with what the first has learnt
        assert found.summary.startswith("inert"), found.summary
        assert own.item() == 0.5
        assert own.grad is None


def test_an_optimizer_of_another_model_is_still_refused() -> None:
    stranger = nn.Linear(COLUMNS, 1)
    with pytest.raises(CaseError, match=r"holds 2 parameters of another model"):
        verdict(case(mse, optimizer=lambda _: sgd(stranger.parameters())))
    with pytest.raises(CaseError, match=r"holds 1 parameter of another model"):
        verdict(case(mse, optimizer=lambda parameters: sgd([*parameters, stranger.bias])))


# ------------------------------------------------------------------ without a gradient


CUT: dict[str, Callable[[Tensor], Any]] = {
    "detach": lambda weight: weight.detach().abs().sum(),
    "data": lambda weight: weight.data.abs().sum(),
    "item": lambda weight: weight.abs().sum().item(),
}


@pytest.mark.parametrize("cut", CUT.values(), ids=CUT)
def test_a_penalty_without_a_gradient_is_inert(cut: Callable[[Tensor], Any]) -> None:
    found = verdict(case(lambda o, y: mse(o, y) + 0.1 * cut(live["m"].weight)))
    assert found.outcome == "failed"
    assert found.summary.startswith("inert")
    own, plain = (found.data[arm][0] for arm in ("regularized", "unregularized"))
    assert own["losses"] != plain["losses"]
    assert own["ended_as"] == plain["ended_as"]


def test_where_nothing_is_trained_nothing_is_compared() -> None:
    still = case(mse, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0), unregularized=linear)
    found = verdict(still)
    assert found.outcome == "inconclusive"
    assert "nothing was trained" in found.summary


# ------------------------------------------------------------------ the parts


def run(ended_as: str = "b", started_as: str = "a", last: float = 0.1) -> dict[str, Any]:
    side = {"loss": 0.3, "metric": "accuracy", "chance": 0.1, "rows": 400, "score": 0.9}
    digests = {"started_as": started_as, "ended_as": ended_as}
    return {"seed": 0, "losses": [last], "curve": [0.9], "train": side, "val": side, **digests}


@pytest.mark.parametrize(
    ("own", "plain", "words"),
    [
        (run(last=0.2), run(), "inert"),
        (run(), run(ended_as="c"), "no measurable effect"),
        (run(ended_as="", last=0.2), run(ended_as=""), "no measurable effect"),
        (run(ended_as=""), run(ended_as=""), "inert"),
        (run(ended_as="a"), run(ended_as="a"), "no weight changed"),
        (run(), run(ended_as="a"), "no measurable effect"),
    ],
)
def test_weights_tell_whether_training_did_the_same(own: Any, plain: Any, words: str) -> None:
    given = {"split": "val", "epochs": 20, "removed": ["dropout 0.5 (2)"], "same_start": True, "remarks": []}
    runs = {"regularized": [own] * 10, "unregularized": [plain] * 10}
    measured = {**given, **runs, "stop": "decided", "resplit": False, "outside": []}
    assert PROBE.judge(measured, resolve(RegularizationLimits, [])).summary.startswith(words)


def test_the_leaves_of_a_loss_are_found_after_it_was_differentiated() -> None:
    model, other = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1)), nn.Linear(3, 1)
    loss = model(torch.ones(2, 3)).sum() * other.weight.sum() + other.weight.norm()
    loss.backward()
    found = leaves_of(loss)
    assert {id(each) for each in found} == {id(each) for each in (*model.parameters(), other.weight)}
    assert leaves_of(torch.ones(1)) == []
