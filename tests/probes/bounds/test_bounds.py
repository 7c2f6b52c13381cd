"""Bounds: how they may be written, the judgement on plain values, and every quantity with a fault it must catch."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from pytest_overfit import (
    Case,
    CaseError,
    Overfit,
    ProbeFailed,
    Verdict,
    at_least,
    at_most,
    chance,
    constant_loss,
    run_probes,
    theory,
)
from pytest_overfit.adapters.base import Head, Reading
from pytest_overfit.adapters.trainer import ChunkReading
from pytest_overfit.core.bounds import Bound, bound_of, with_bounds
from pytest_overfit.core.limits import resolve
from pytest_overfit.core.verdict import Judgement
from pytest_overfit.probes.bounds import PROBE, BoundsLimits
from pytest_overfit.probes.bounds.judgement import Series
from pytest_overfit.probes.bounds.quantities.calibration_error import calibration_found
from pytest_overfit.probes.bounds.quantities.registry import QUANTITIES
from pytest_overfit.probes.bounds.quantities.step_time import step_time
from pytest_overfit.probes.bounds.quantities.theory import constant_loss as constant_loss_of
from pytest_overfit.probes.bounds.quantities.theory import untrained_loss
from pytest_overfit.probes.bounds.quantities.yes_no import gradients_add_up

# ------------------------------------------------------------------------------------------------- how they are written

pytestmark = pytest.mark.usefixtures("every_probe")


@pytest.mark.parametrize(
    ("given", "low", "high", "text"),
    [
        ((1, 2), 1.0, 2.0, "1 to 2"),
        ((None, 0.1), None, 0.1, "<= 0.1"),
        (at_most(0.1), None, 0.1, "<= 0.1"),
        (at_least(0.9), 0.9, None, ">= 0.9"),
        (at_least(np.float32(0.5)), 0.5, None, ">= 0.5"),
        (pytest.approx(2.0, abs=0.5), 1.5, 2.5, "1.5 to 2.5"),
        (pytest.approx(2.0, 0.25), 1.5, 2.5, "1.5 to 2.5"),
        (7, 7.0, 7.0, "= 7"),
        (True, 1.0, 1.0, "yes"),
        (False, 0.0, 0.0, "no"),
        (chance + 0.1, chance + 0.1, None, ">= chance + 0.1"),
        ((theory - 0.3, 0.3 + theory), theory - 0.3, theory + 0.3, "theory - 0.3 to theory + 0.3"),
    ],
)
def test_every_form_of_a_bound(given: Any, low: Any, high: Any, text: str) -> None:
    bound = bound_of(given, "here")
    assert (bound.low, bound.high, str(bound)) == (low, high, text)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((3, 2), "here=(3, 2): low is above high; write (2, 3)"),
        ((chance + 0.2, chance + 0.1), "low is above high; write (chance + 0.1, chance + 0.2)"),
        ((None, None), "bounds nothing"),
        ((math.nan, 1), "here: an end of a bound: expected a finite number, or None (open), got nan"),
        ((0, math.inf), "here: an end of a bound: expected a finite number, or None (open), got inf"),
        (chance + math.nan, "here: an end of a bound: expected a finite number, or None (open), got nan"),
        (("a", 1), "an end of a bound: expected a finite number, got 'a'"),
        ((True, 1), "an end of a bound: expected a finite number, got True"),
        ("0.9", "here: expected a bound, got '0.9'; write (low, high)"),
        ((1, 2, 3), "expected a bound, got tuple of 3"),
        (pytest.approx(2.0, abs=-1), "absolute tolerance can't be negative"),
        (pytest.approx(math.nan), "expected a finite number, or None (open), got nan"),
        (pytest.approx([1.0, 2.0]), "expected a finite number, got list of 2"),
    ],
)
def test_what_is_no_bound_is_refused_in_one_line(given: Any, words: str) -> None:
    with pytest.raises(CaseError) as caught:
        bound_of(given, "here")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


# ----------------------------------------------------------------------------------------------------- plain judgements


def series(*values: float, low: float | None = None, high: float | None = None, **more: Any) -> Series:
    ends = {"lows": [] if low is None else [low] * len(values), "highs": [] if high is None else [high] * len(values)}
    given = {"name": "gap", "unit": "score", "once": False, "source": "call", "bound": str(Bound(low, high)), **ends}
    return Series(values=list(values), **{**given, **more})


def judge(*found: Series, **limits: Any) -> Judgement:
    import dataclasses

    measured = {"quantities": [dataclasses.asdict(each) for each in found], "remarks": []}
    return PROBE.judge(measured, resolve(BoundsLimits, [("call", limits)]))


NEAR = (0.09, 0.10, 0.11, 0.10)


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (None, 0.3, "passed"),
        (0.0, 0.3, "passed"),
        (0.3, None, "failed"),
        (0.3, 0.4, "failed"),
        (-0.4, -0.3, "failed"),
        (None, 0.105, "inconclusive"),
        (0.095, 0.105, "inconclusive"),
    ],
)
def test_the_whole_interval_must_lie_on_one_side(low: float | None, high: float | None, outcome: str) -> None:
    found = judge(series(*NEAR, low=low, high=high))
    assert found.outcome == outcome
    finding = found.findings[0]
    assert finding.value == pytest.approx(0.1)
    assert "over 4 seeds, bound" in finding.message
    assert ("too close to call" in finding.message) == (outcome == "inconclusive")


def test_the_worst_outcome_is_the_verdicts() -> None:
    good, near, bad = series(*NEAR, high=0.3), series(*NEAR, high=0.105), series(*NEAR, high=0.01)
    assert judge(good).outcome == "passed"
    assert judge(good).summary == "1 bound held: gap 0.1"
    assert judge(good, near).outcome == "inconclusive"
    assert judge(good, near, bad).outcome == "failed"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_lies_within_no_bound(value: float) -> None:
    found = judge(series(0.1, value, high=math.inf))
    assert found.outcome == "failed"
    assert str(value) in found.summary


def test_what_could_not_be_measured_is_inconclusive_and_never_passes() -> None:
    found = judge(series(high=1.0, why="not measured for this framework"))
    assert found.outcome == "inconclusive"
    assert found.summary == "gap: not measured for this framework; the bound is <= 1"


@pytest.mark.parametrize(("high", "outcome"), [(100.0, "failed"), (500.0, "failed"), (600.0, "inconclusive")])
def test_what_is_known_to_be_above_a_number_fails_below_it(high: float, outcome: str) -> None:
    unfinished = series(above=500.0, why="not memorised within 500 steps", bound=f"<= {high:g}", highs=[high])
    assert judge(unfinished).outcome == outcome


def test_one_seed_tells_what_is_the_same_for_every_seed() -> None:
    assert judge(series(7.0, low=7.0, high=7.0, once=True)).outcome == "passed"
    assert judge(series(8.0, low=7.0, high=7.0, once=True)).outcome == "failed"
    said = judge(series(0.0, low=1.0, high=1.0, once=True, unit="yes or no", name="save_load", bound="yes"))
    assert said.summary == "save_load: no, expected yes"


@given(
    st.lists(st.floats(-10, 10), min_size=4, max_size=8),
    st.floats(-12, 12),
    st.floats(0, 5),
    st.floats(0, 5),
)
@settings(deadline=None, max_examples=200)
def test_a_wider_bound_never_makes_a_pass_a_failure(values: list[float], low: float, wide: float, wider: float) -> None:
    limits = BoundsLimits()
    order = ("failed", "inconclusive", "passed")
    narrow = series(*values, low=low, high=low + wide).answer(limits)
    broad = series(*values, low=low - wider, high=low + wide + wider).answer(limits)
    assert order.index(broad) >= order.index(narrow)


def test_a_mean_on_its_bound_is_failed_no_more_often_than_alpha_says() -> None:
    """Means exactly on the bound, normal spread, looks as the probe makes them: failed in at most alpha / 2."""
    limits, random_ = BoundsLimits(alpha=0.1), random.Random(1)
    failed = 0
    for _ in range(4000):
        found = series(bound="<= 0")
        for _ in range(limits.seeds):
            found.values.append(random_.gauss(0.0, 1.0))
            found.highs.append(0.0)
            if found.decided(limits):
                break
        failed += found.answer(limits) == "failed"
    assert failed / 4000 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)
    assert failed > 0  # the rule does decide


# --------------------------------------------------------------------------------------------------------------- theory


def head(plain: Any, outputs: Any, targets: Any, scale: float = 1.0) -> Head:
    kind = {"cross_entropy": "classes", "binary_cross_entropy": "binary"}.get(plain, "values")
    return Head(kind=kind, outputs=np.asarray(outputs), targets=np.asarray(targets), plain=plain, scale=scale)  # type: ignore[arg-type]


@given(st.integers(2, 50), st.integers(1, 30))
@settings(deadline=None, max_examples=50)
def test_theory_is_what_torch_computes_for_an_answer_of_zero(classes: int, rows: int) -> None:
    rng = np.random.default_rng(classes * 100 + rows)
    labels, values = rng.integers(0, classes, rows), rng.normal(3, 2, (rows, classes))
    zeros = np.zeros((rows, classes))
    pairs: list[tuple[Any, Any, Any]] = [
        ("cross_entropy", functional.cross_entropy, labels),
        ("binary_cross_entropy", functional.binary_cross_entropy_with_logits, (values > 3).astype(float)),
        ("squared_error", functional.mse_loss, values),
        ("absolute_error", functional.l1_loss, values),
    ]
    for plain, loss, targets in pairs:
        found = untrained_loss([head(plain, zeros, targets)])
        assert found is not None
        assert found[0] == pytest.approx(float(loss(torch.tensor(zeros), torch.tensor(targets))), rel=1e-9)


@given(st.integers(2, 8), st.integers(2, 30))
@settings(deadline=None, max_examples=50)
def test_the_constants_loss_is_what_torch_computes_for_the_prior(classes: int, rows: int) -> None:
    rng = np.random.default_rng(classes * 100 + rows)
    labels, values = rng.integers(0, classes, rows), rng.normal(3, 2, (rows, 1))
    ones = (values > 3).astype(float)
    soft = rng.dirichlet(np.ones(classes), rows)
    share = np.clip([ones.mean()], 1e-12, 1 - 1e-12)
    cases: list[tuple[Any, Any, Any, Any]] = [
        (
            "cross_entropy",
            functional.cross_entropy,
            labels,
            np.log(np.bincount(labels, minlength=classes) / rows + 1e-30),
        ),
        ("cross_entropy", functional.cross_entropy, soft, np.log(soft.mean(axis=0))),
        ("binary_cross_entropy", functional.binary_cross_entropy_with_logits, ones, np.log(share / (1 - share))),
        ("squared_error", functional.mse_loss, values, values.mean(axis=0)),
        ("absolute_error", functional.l1_loss, values, np.median(values, axis=0)),
    ]
    for plain, loss, targets, answer in cases:
        outputs = np.tile(answer, (rows, 1))
        found = constant_loss_of([head(plain, outputs, targets, 2.0)])
        assert found[0] == pytest.approx(2 * float(loss(torch.tensor(outputs), torch.tensor(targets))), abs=1e-7)


def test_theory_of_several_heads_adds_up_and_of_an_unknown_loss_is_none() -> None:
    one, two = head("cross_entropy", np.zeros((2, 4)), [0, 1]), head("squared_error", [[0.0]], [[2.0]], 0.5)
    both = untrained_loss([one, two])
    assert both is not None
    assert both[0] == pytest.approx(math.log(4) + 2.0)
    assert "ln 4: equal probabilities for 4 classes + 0.5 x mean squared target" in both[1]
    assert untrained_loss([one, head("", [[0.0]], [[2.0]])]) is None
    assert untrained_loss([]) is None


# ------------------------------------------------------------------------------------------------ every quantity, torch

X, Y = load_digits(return_X_y=True)
X, Y = torch.tensor(X / 16, dtype=torch.float32), torch.tensor(Y)


def mlp(*, first: nn.Module | None = None, last: nn.Module | None = None, act: type[nn.Module] = nn.ReLU) -> nn.Module:
    parts = [first, nn.Linear(64, 32), act(), nn.Linear(32, 10), last]
    return nn.Sequential(*[each for each in parts if each is not None])


def case(model: Any = mlp, name: str = "mlp", **more: Any) -> Case:
    given = {
        "loss": functional.cross_entropy,
        "optimizer": lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
        "train": (X[:600], Y[:600]),
        "val": (X[1500:], Y[1500:]),
    }
    return Case(name=name, model=model, **{**given, **more})


def found(of: Case, bounds: dict[str, Any], **limits: Any) -> Verdict:
    verdict = run_probes(with_bounds(of, "bounds", bounds, "call"), ["bounds"], **{"epochs": 2, **limits})[0]
    assert [each.name for each in verdict.findings][: len(bounds)] == list(bounds)
    return verdict


class Scaled(nn.Module):
    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.by


class Forgetful(nn.Module):
    """Its running mean is no buffer, so that no state holds it."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.zeros(64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.mean = (0.5 * self.mean + 0.5 * x.mean(dim=0)).detach()
        return x - self.mean


class Restless(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0.5 * torch.randn_like(x)


class BatchMean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(dim=0)


class Cancelling(nn.Module):
    """E[x^2] - E[x]^2 far from zero: all digits of float32 cancel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        far = x + 3000.0
        return x * ((far * far).mean(dim=1, keepdim=True) - far.mean(dim=1, keepdim=True) ** 2)


class Tempered(nn.Module):
    """A temperature of 100 that was left in evaluation: right as often, and sure of nothing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.training else x / 100.0


class AllPairs(nn.Module):
    """Goes by way of all pairs of rows, where the rows would do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + (x[:, None] - x[None, :]).square().mean(dim=1)


class Wasteful(nn.Module):
    """Computes a product of matrices 64 times as large as those of the reference kernel, for nothing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.ones(1024, 1024) @ torch.ones(1024, 1024)
        return x


class Undetermined(nn.Linear):
    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.weight.copy_(torch.tensor(np.random.default_rng().normal(0, 0.1, self.weight.shape)))
            self.bias.zero_()


def dying() -> nn.Module:
    model = mlp()
    with torch.no_grad():
        model[0].bias.fill_(-100.0)
    return model


def frozen() -> nn.Module:
    model = mlp()
    model[0].requires_grad_(False)
    return model


def mlp_on(first: nn.Module) -> Any:
    return lambda: mlp(first=first() if not isinstance(first, nn.Module) else first)


def random_labels() -> dict[str, Any]:
    return {"train": (X[:600], Y[torch.randperm(600, generator=torch.Generator().manual_seed(0))])}


#: quantity -> a bound, limits, and the case that breaks it
PLANTED: dict[str, tuple[Any, dict[str, Any], Case]] = {
    "initial_loss": ((theory - 0.4, theory + 0.4), {}, case(lambda: mlp(last=Scaled(200.0)))),
    "loss_after_k_steps": ((None, 0.5), {}, case(lambda: mlp(last=nn.Softmax(dim=1)))),
    "steps_to_memorise": ((None, 200), {"steps": 250}, case(optimizer=lambda p: torch.optim.SGD(p, lr=1e-4))),
    "train_loss": ((None, 1.0), {}, case(optimizer=lambda p: torch.optim.SGD(p, lr=1e-5))),
    "val_loss": ((None, 1.5), {}, case(**random_labels())),
    "train_score": (at_least(0.8), {}, case(optimizer=lambda p: torch.optim.SGD(p, lr=1e-5))),
    "val_score": (at_least(chance + 0.4), {}, case(**random_labels())),
    "best_train_loss": ((None, 1.0), {}, case(optimizer=lambda p: torch.optim.SGD(p, lr=1e-5))),
    "best_val_loss": ((None, 1.5), {}, case(**random_labels())),
    "best_train_score": (at_least(0.8), {}, case(optimizer=lambda p: torch.optim.SGD(p, lr=1e-5))),
    "best_val_score": (chance + 0.4, {}, case(**random_labels())),
    "gap": ((None, 0.2), {"epochs": 40}, case(train=(X[:100], random_labels()["train"][1][:100]))),
    "calibration_error": ((None, 0.3), {"epochs": 6}, case(lambda: mlp(last=Tempered()))),
    "memory_peak": ((None, 0.2), {}, case(mlp_on(AllPairs))),
    "step_time_ratio": ((None, 10), {}, case(mlp_on(Wasteful))),
    "accumulation": (True, {}, case(loss=lambda outputs, y: functional.cross_entropy(outputs, y, reduction="sum"))),
    "gradient_norm": ((1e-3, 100), {}, case(lambda: mlp(last=Scaled(1e-6)))),
    "gradient_norm[0]": ((1e-3, 100), {}, case(dying)),
    "update_to_weight": ((1e-4, 0.5), {}, case(optimizer=lambda p: torch.optim.SGD(p, lr=1e-7))),
    "dead_units": ((None, 0.6), {}, case(dying)),
    "output_mean": ((-1, 1), {}, case(lambda: mlp(last=nn.Threshold(1e9, 40.0)))),
    "output_std": ((0.01, 1), {}, case(lambda: mlp(last=Scaled(0.0)))),
    "output_range": ((None, 5), {}, case(lambda: mlp(last=Scaled(200.0)))),
    "parameters_trainable": (2410, {}, case(frozen)),
    "parameters_frozen": (0, {}, case(frozen)),
    "samples_per_parameter": (at_least(0.2), {}, case(train=(X[:60], Y[:60]))),
    "determinism": (True, {}, case(lambda: nn.Sequential(Undetermined(64, 10)))),
    "eval_twice": (True, {}, case(mlp_on(Restless))),
    "save_load": (True, {}, case(mlp_on(Forgetful))),
    "batch_size_invariance": (True, {}, case(mlp_on(BatchMean))),
    "float64_agrees": (True, {}, case(mlp_on(Cancelling))),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_violation_is_failed_and_its_healthy_twin_passes(name: str) -> None:
    bound, limits, broken = PLANTED[name]
    bad = found(broken, {name: bound}, **limits)
    assert bad.outcome == "failed", bad.summary
    assert bad.summary.startswith(name)
    good = found(case(), {name: bound}, **limits)
    assert good.outcome == "passed", good.summary


def test_the_best_epoch_is_not_the_last() -> None:
    """A rate that ruins the model in its later epochs: only what is read at the end shows it."""
    ruined = case(
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 if step < 60 else 1e3),
    )
    bounds = {"best_val_loss": (None, 2.0), "best_train_loss": (None, 2.0), "best_train_score": at_least(0.4)}
    assert found(ruined, bounds, epochs=5).outcome == "passed"
    assert found(ruined, {"val_loss": (None, 2.0)}, epochs=5).outcome == "failed"


def test_saturated_units_of_hidden_layers_count_and_those_of_the_output_do_not() -> None:
    def sigmoid(*, by: float) -> Any:
        return lambda: nn.Sequential(nn.Linear(64, 32), Scaled(by), nn.Sigmoid(), nn.Linear(32, 10))

    slow = {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=1e-3)}
    assert found(case(sigmoid(by=1.0), **slow), {"saturated_units": (None, 0.2)}).outcome == "passed"
    assert found(case(sigmoid(by=1e5), **slow), {"saturated_units": (None, 0.2)}).outcome == "failed"
    certain = lambda: nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10), Scaled(1e6), nn.Sigmoid())  # noqa: E731
    bce = lambda outputs, y: functional.binary_cross_entropy(outputs, functional.one_hot(y, 10).float())  # noqa: E731
    assert found(case(certain, loss=bce, **slow), {"saturated_units": (None, 0.2)}).outcome == "passed"


def test_every_quantity_has_its_planted_violation() -> None:
    assert {each.partition("[")[0] for each in PLANTED} | {"saturated_units"} == set(QUANTITIES)


# --------------------------------------------------------------------------------------------------------- calibration


def class_head(outputs: Any, targets: Any, **more: Any) -> Head:
    given = {"kind": "classes", "loss_name": "cross_entropy", **more}
    return Head(outputs=np.asarray(outputs, "float32"), targets=np.asarray(targets), **given)


def calibration(*heads: Head, task: str | None = None) -> Any:
    chunks = [
        ChunkReading(
            rows=len(each.targets), reading=Reading(loss=1.0, outputs=(each.outputs,), heads=(each,)), targets=()
        )
        for each in heads
    ]
    return calibration_found(chunks, task)


def test_calibration_error_by_hand() -> None:
    """Two answers of 0.9, one right; two of 0.6, both right: (2 |0.5 - 0.9| + 2 |1 - 0.6|) / 4."""
    shares = [[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]]
    one = class_head(shares, [0, 1, 0, 0], domain="probabilities")
    assert calibration(one).value == pytest.approx(0.4)
    assert calibration(class_head(np.log(shares), [0, 1, 0, 0])).value == pytest.approx(0.4)
    assert calibration(class_head(np.log(shares), [0, 1, 0, 0], domain="log_probabilities")).value == pytest.approx(0.4)
    soft = class_head(shares, np.eye(2)[[0, 1, 0, 0]], domain="probabilities")
    assert calibration(soft).value == pytest.approx(0.4)
    binary = class_head(
        [[0.1], [0.1], [0.4], [0.4]], [[0.0], [1.0], [0.0], [0.0]], kind="binary", domain="probabilities"
    )
    assert calibration(binary).value == pytest.approx(0.4)
    padded = class_head(
        [shares], [[0, 1, -100, 0]], domain="probabilities", mask=np.array([[True, True, False, False]])
    )
    assert calibration(padded).value == pytest.approx(0.4)


@given(st.lists(st.tuples(st.floats(-8, 8), st.booleans()), min_size=2, max_size=40), st.integers(1, 39))
@settings(deadline=None, max_examples=100)
def test_calibration_is_the_same_however_a_split_is_chunked(rows: list[tuple[float, bool]], cut: int) -> None:
    outputs, labels = [[0.0, logit] for logit, _ in rows], [int(label) for _, label in rows]
    whole = calibration(class_head(outputs, labels)).value
    assert 0 <= whole <= 1
    cut = min(cut, len(rows) - 1)
    parts = [class_head(outputs[part], labels[part]) for part in (slice(cut), slice(cut, None))]
    assert calibration(*parts).value == pytest.approx(whole, abs=1e-6)


def test_labels_drawn_from_the_probabilities_are_calibrated_and_sharpened_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (20_000, 4))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (shares.cumsum(axis=1) > rng.random((20_000, 1))).argmax(axis=1)
    assert calibration(class_head(logits, labels)).value < 0.02
    assert calibration(class_head(4 * logits, labels)).value > 0.15


def test_what_has_no_probabilities_has_no_calibration() -> None:
    values = Head(kind="values", outputs=np.ones((2, 1)), targets=np.ones((2, 1)), loss_name="mse_loss")
    assert "values, not classes" in calibration(values).why
    assert "not a cross-entropy" in calibration(class_head([[3.0, 1.0]], [0], loss_name="multi_margin_loss")).why
    labels = ChunkReading(rows=2, reading=Reading(loss=None, outputs=(np.array([0, 1]),)), targets=(np.array([0, 1]),))
    assert "not a cross-entropy" in calibration_found([labels], "multiclass").why
    assert math.isnan(calibration(class_head([[math.nan, 1.0]], [0])).value)
    regression = case(
        lambda: nn.Linear(64, 1), loss=functional.mse_loss, train=(X[:99], X[:99, :1]), val=(X[99:200], X[99:200, :1])
    )
    verdict = found(regression, {"calibration_error": (None, 0.1)})
    assert verdict.outcome == "inconclusive"
    assert "values, not classes" in verdict.summary


# --------------------------------------------------------------------------------------------------------------- costs


@given(st.floats(1e-5, 0.1), st.floats(1e-5, 0.1), st.lists(st.floats(1, 100), min_size=66, max_size=66))
@settings(deadline=None, max_examples=60)
def test_the_ratio_is_that_of_the_two_whatever_comes_between(step: float, call: float, held_up: list[float]) -> None:
    """A clock that steps and calls push on, each interval by as much more as something else holds it up."""
    now, readings = [0.0], [0]
    held_up[20:22] = 1.0, 1.0  # one quiet turn is enough

    def clock() -> float:
        readings[0] += 1
        return now[0]

    def push(seconds: float) -> None:
        now[0] += seconds * held_up[min(readings[0] // 2, 65)]  # two readings an interval

    found = step_time(lambda steps: push(step * steps), lambda: push(call), clock)
    assert found == pytest.approx(step / call, rel=1e-6)


def test_memory_is_what_the_tensors_of_a_step_take() -> None:
    """Plain SGD on a linear model: weights, their gradients, batch, outputs and what the loss makes of them."""
    weights, rows = 64 * 10 + 10, 32
    of = case(lambda: nn.Linear(64, 10), optimizer=lambda p: torch.optim.SGD(p, lr=0.1), batch=(X[:rows], Y[:rows]))
    plain = found(of, {"memory_peak": (0, None)}).findings[0].value
    known = 4 * (2 * weights + rows * 64 + rows * 10) + 8 * rows
    assert isinstance(plain, float)
    assert known <= plain * 1e6 <= known + 4 * (4 * rows * 10 + weights)
    momentum = dataclasses.replace(of, optimizer=lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9))
    with_state = found(momentum, {"memory_peak": (0, None)}).findings[0].value
    assert isinstance(with_state, float)
    assert with_state - plain == pytest.approx(4 * weights / 1e6)


def test_memory_of_a_step_of_ones_own_counts_the_state_of_its_optimizer() -> None:
    def step(model: Any, x: Any, y: Any) -> float:
        if not hasattr(model, "own"):
            model.own = torch.optim.Adam(model.parameters())
        model.own.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        loss.backward()
        model.own.step()
        return loss.item()

    ours = found(case(), {"memory_peak": (0, None)}).findings[0].value
    own = found(case(optimizer=None, loss=None, step=step), {"memory_peak": (0, None)}).findings[0].value
    assert own == pytest.approx(ours, rel=0.02)


def test_time_of_a_loop_of_ones_own_is_measured_and_its_memory_is_not() -> None:
    alone = Case(name="numbers", model=dict, step=lambda model, x, y: float(x.sum()), batch=(np.eye(4), np.arange(4)))
    verdict = found(alone, {"step_time_ratio": (None, 1e6), "memory_peak": (0, 1), "accumulation": True})
    said = {each.name: each for each in verdict.findings}
    assert said["step_time_ratio"].outcome == "passed"
    assert said["memory_peak"].message.startswith("memory_peak: not measured for this framework")
    assert said["accumulation"].message.startswith(
        "accumulation: the gradients of parts of the batch cannot be read here"
    )
    assert verdict.outcome == "inconclusive"


# -------------------------------------------------------------------------------------------------------- accumulation


def tokens(*, mean_over_all: bool) -> Case:
    """Sequences of unequal length; the loss is the mean over the tokens that count, or over all places."""
    lengths = torch.arange(16) % 7 + 1
    y = torch.where(torch.arange(8) < lengths[:, None], torch.arange(8) % 3, -100)

    def loss(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        lost = functional.cross_entropy(outputs.mT, y, reduction="none")
        return lost.mean() if mean_over_all else lost.sum() / (y != -100).sum()

    x = torch.randn(16, 8, 5, generator=torch.Generator().manual_seed(0))
    return case(lambda: nn.Linear(5, 3), loss=loss, train=(x, y), batch=(x, y), val=None)


def bags() -> Case:
    """An embedding whose gradient is sparse."""
    words = torch.arange(32 * 5).reshape(32, 5) % 50
    model = lambda: nn.Sequential(nn.EmbeddingBag(50, 8, sparse=True), nn.Linear(8, 10))  # noqa: E731
    return case(model, optimizer=lambda p: torch.optim.SGD(p, lr=0.1), train=(words, Y[:32]), val=None)


class Drawn(nn.Module):
    """A sample in training and in evaluation, as of a latent code."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn_like(x)


@pytest.mark.parametrize(
    ("of", "outcome"),
    [
        (case(), "passed"),
        (case(mlp_on(nn.Dropout)), "passed"),
        (case(mlp_on(lambda: nn.LayerNorm(64))), "passed"),
        (case(autocast="bfloat16"), "passed"),
        (
            case(autocast="bfloat16", loss=lambda outputs, y: functional.cross_entropy(outputs, y, reduction="sum")),
            "failed",
        ),
        (case(mlp_on(lambda: nn.BatchNorm1d(64)), autocast="bfloat16"), "failed"),
        (bags(), "passed"),
        (tokens(mean_over_all=True), "passed"),
        (tokens(mean_over_all=False), "failed"),
        (case(mlp_on(lambda: nn.BatchNorm1d(64))), "failed"),
        (case(mlp_on(Drawn)), "inconclusive"),
        (case(batch=(X[:1], Y[:1])), "inconclusive"),
        (case(batch=(X[:7], Y[:7])), "passed"),
    ],
    ids=[
        "mlp",
        "dropout",
        "layer norm",
        "half",
        "half sum",
        "half batch norm",
        "sparse",
        "mean",
        "mean of what counts",
        "batch norm",
        "drawn",
        "one row",
        "odd",
    ],
)
def test_accumulated_gradients(of: Case, outcome: str) -> None:
    verdict = found(of, {"accumulation": True})
    assert verdict.outcome == outcome, verdict.summary


def test_gradients_add_up_by_their_rows() -> None:
    one, two = np.array([1.0, 0.0]), np.array([0.0, 3.0])
    whole = (one + 2 * two) / 3
    assert gradients_add_up(whole, whole, [(1, one), (2, two)]).value == 1.0
    assert gradients_add_up(whole, whole, [(1, one), (1, two)]).value == 0.0
    assert gradients_add_up(3 * whole, 3 * whole, [(1, one), (2, two)]).value == 0.0
    assert gradients_add_up(whole * math.nan, whole, [(1, one), (2, two)]).value == 0.0
    assert "from pass to pass" in gradients_add_up(whole, 2 * whole, [(1, one), (2, two)]).why


# ------------------------------------------------------------------------------------- limits of the other probe


def test_a_batch_is_memorised_by_the_limits_that_the_case_has_for_overfit_batch() -> None:
    bounds = {"steps_to_memorise": (None, 1000)}
    strict, loose = (
        found(case(limits={"overfit_batch": limits}), bounds).findings[0].value
        for limits in ({}, {"max_loss_ratio": 0.9, "min_accuracy": 0.2})
    )
    assert isinstance(strict, float)
    assert isinstance(loose, float)
    assert loose < strict / 2
    slow = case(optimizer=lambda p: torch.optim.SGD(p, lr=1e-4), limits={"overfit_batch": {"steps": 40}})
    assert found(slow, bounds).summary.startswith("steps_to_memorise: not memorised within 40 steps")
    assert found(slow, bounds, steps=30).summary.startswith("steps_to_memorise: not memorised within 30 steps")


def test_a_run_that_is_projected_to_fit_goes_on_as_it_does_in_overfit_batch() -> None:
    slow = case(optimizer=lambda p: torch.optim.SGD(p, lr=0.035))
    assert run_probes(slow, ["overfit_batch"])[0].steps > 500
    longer = found(slow, {"steps_to_memorise": (501, 1000)})
    assert longer.outcome == "passed", longer.summary
    assert found(slow, {"steps_to_memorise": (501, 1000)}, steps=500).outcome == "inconclusive"


def test_a_batch_that_cannot_tell_is_inconclusive() -> None:
    verdict = found(case(batch=(X[:8], torch.zeros(8, dtype=torch.long))), {"steps_to_memorise": (None, 100)})
    assert verdict.outcome == "inconclusive"
    assert "all 8 targets of the batch are equal" in verdict.summary


def test_units_of_convolutions_are_channels_and_functions_are_seen() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4 * 36, 10)
            with torch.no_grad():
                self.conv.bias[:3], self.conv.bias[3] = -100.0, 100.0  # whatever the weights are

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(functional.relu(self.conv(x.reshape(-1, 1, 8, 8))).flatten(1))

    verdict = found(case(Net), {"dead_units": (None, 0.9)}, k=0)
    assert verdict.findings[0].value == 0.75


def regression(forget: Any, rows: int = 16, columns: int = 1, **bounds: bool) -> Case:
    """A model of one output column, or of two."""
    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(columns, 8), nn.ReLU(), nn.Linear(8, columns))

        def forward(self, x: Any) -> Any:
            return forget(self.layers(x))

    y = forget(x.clone())
    return case(
        Net, "regression", batch=(x, y), train=None, val=None, loss=functional.mse_loss, options={"bounds": bounds}
    )


@pytest.mark.parametrize(("rows", "columns"), [(16, 1), (2, 1), (3, 1), (16, 2)])
def test_a_row_alone_that_loses_its_axis_is_no_error_of_ours(rows: int, columns: int) -> None:
    """`squeeze()` without an axis: right for every batch but one of one row."""
    failed = run_probes(regression(torch.squeeze, rows, columns, batch_size_invariance=True), ["bounds"])[0]
    assert failed.outcome == "failed"
    shape = "(), expected (1,)" if columns == 1 else "(2,), expected (1, 2)"
    assert f"row 0 alone gets an output of shape {shape}" in failed.summary
    whole = run_probes(regression(lambda each: each, rows, columns, batch_size_invariance=True), ["bounds"])[0]
    assert whole.outcome == "passed"


def test_a_batch_of_one_row_is_inconclusive() -> None:
    found = run_probes(regression(lambda each: each, rows=1, batch_size_invariance=True), ["bounds"])[0]
    assert "the batch has one row only" in found.summary


def test_what_this_model_cannot_be_asked_is_not_blamed_on_the_framework() -> None:
    class Two(nn.Linear):
        def forward(self, x: Any, again: Any) -> Any:  # type: ignore[override]
            return super().forward(x + again)

    def step(model: Any, x: Any, y: Any) -> Any:
        loss = functional.cross_entropy(model(x, x) + model(x, -x), y)
        loss.backward()
        return loss

    bounds: dict[str, Any] = {"save_load": True, "float64_agrees": True, "gradient_norm": (0, 9)}
    batch = (torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2)
    of = Case(name="two", model=lambda: Two(3, 2), step=step, batch=batch, options={"bounds": bounds})
    found = run_probes(of, ["bounds"])[0]
    assert found.outcome == "inconclusive"
    assert not [each for each in found.findings if "for this framework" in each.message]


def test_a_function_is_a_bound() -> None:
    assert found(case(), {"initial_loss": lambda value: value < 3}).outcome == "passed"
    assert found(case(), {"initial_loss": lambda value: value > 3}).outcome == "failed"
    edge = found(case(), {"initial_loss": (2.0, 3.0)}).findings[0].value
    assert found(case(), {"initial_loss": lambda value: value < edge}).outcome == "inconclusive"


def test_a_clear_result_takes_four_seeds_and_a_near_one_all() -> None:
    clear = found(case(), {"initial_loss": (None, 5)})
    assert "over 4 seeds" in clear.findings[0].message
    mean = clear.findings[0].value
    assert isinstance(mean, float)
    near = found(case(), {"initial_loss": (None, mean)})
    assert "over 8 seeds" in near.findings[0].message


def test_a_bound_that_cannot_be_measured_is_inconclusive_with_words() -> None:
    alone = Case(name="numbers", model=dict, step=lambda model, x, y: 1.0, batch=(np.eye(4), np.arange(4)))
    bounds = {
        "gradient_norm": (0, 1),
        "dead_units": (0, 1),
        "save_load": True,
        "val_score": (0, 1),
        "output_std": (0, 1),
    }
    verdict = found(alone, bounds)
    assert verdict.outcome == "inconclusive"
    said = {each.name: each.message for each in verdict.findings}
    assert said["gradient_norm"].startswith("gradient_norm: not measured for this framework")
    assert said["val_score"].startswith("val_score: the case has no val= data")
    unknown = found(case(loss=functional.multi_margin_loss), {"initial_loss": (theory - 1, theory + 1)})
    assert unknown.outcome == "inconclusive"
    assert "theory is not known here" in unknown.summary
    own = found(case(score=lambda model, x, y: 0.5), {"val_score": chance + 0.1})
    assert own.outcome == "inconclusive"
    assert "chance is not known here: the score is the case's own" in own.summary


def test_theory_stands_beside_the_initial_loss() -> None:
    verdict = found(case(), {"initial_loss": (2, 3)})
    expected = next(each for each in verdict.findings if each.name == "expected_by_theory")
    assert expected.value == pytest.approx(math.log(10))
    assert "ln 10: equal probabilities for 10 classes; of the best constant: 2." in expected.message
    assert expected.message.endswith("the entropy of the class frequencies")


def test_a_bias_that_starts_at_the_prior_starts_at_the_constants_loss() -> None:
    """Nine rows in ten of one class: the loss of equal probabilities is ln 2, the entropy is 0.33."""
    labels = (torch.arange(600) % 10 == 0).long()

    def model(*, prior: bool) -> nn.Module:
        last = nn.Linear(64, 2)
        with torch.no_grad():
            last.weight.mul_(0.01)
            last.bias.copy_(torch.tensor([0.9, 0.1]).log() if prior else torch.zeros(2))
        return last

    bounds = {"initial_loss": (constant_loss - 0.05, constant_loss + 0.05)}
    data = {"train": (X[:600], labels), "batch": (X[:600], labels)}
    assert found(case(lambda: model(prior=True), **data), bounds).outcome == "passed"
    failed = found(case(lambda: model(prior=False), **data), bounds)
    assert failed.outcome == "failed"
    assert "bound constant_loss - 0.05 to constant_loss + 0.05 = 0.2751, 0.3751" in failed.summary


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({"inital_loss": (1, 2)}, "nothing measures 'inital_loss'; did you mean 'initial_loss'?"),
        ({"gap": (2, 1)}, "gap=(2, 1): low is above high"),
        ({"gap": True}, "gap is a number, so True or False is not a bound"),
        ({"gap[fc]": (0, 1)}, "gap is not measured by layer; write gap"),
        ({"gap": (chance, None)}, "gap: there is no chance for gap"),
        ({"determinism": (0, 1)}, "determinism holds or does not, so 0 to 1 is not a bound; write determinism=True"),
        ({"initial_loss": 2.3}, "no two seeds give exactly the same initial_loss; write pytest.approx(2.3, abs=0.1)"),
        ({"gradient_norm[fc9]": (0, 1)}, "no layer 'fc9' has parameters; known: 0, 2"),
        ({"output_std": lambda value: None}, "output_std: expected the function to return True or False, got None"),
        ({}, "within() was given no bound"),
    ],
)
def test_mistakes_are_named(bounds: dict[str, Any], words: str) -> None:
    with pytest.raises(CaseError) as caught:
        Overfit().within(case(), **bounds)
    assert words in str(caught.value)


def test_a_model_is_left_as_it_was() -> None:
    made: list[nn.Module] = []

    def model() -> nn.Module:
        made.append(mlp())
        return made[-1]

    dtype, state = torch.get_default_dtype(), torch.get_rng_state()
    bounds = {"float64_agrees": True, "save_load": True, "gradient_norm": (0, 100), "dead_units": (0, 1)}
    assert found(case(model), bounds).outcome == "passed"
    assert torch.get_default_dtype() == dtype
    assert torch.equal(torch.get_rng_state(), state)
    assert all(next(each.parameters()).dtype == torch.float32 for each in made)


# ------------------------------------------------------------------------------------------------------- through pytest


def test_the_fixture_and_the_call_wins_over_the_case(project: Any) -> None:
    result = project.run(
        """
        from pytest import approx

        def bounded(**more):
            return Case(name="good", model=object, batch=(X, Y), options={"bounds": {"initial_loss": (0, 1)}}, **more)

        def test_held(overfit):
            overfit.within(good(), initial_loss=(theory - 0.1, theory + 0.1), steps_to_memorise=(1, 100))

        def test_approx(overfit):
            overfit.within(good(), initial_loss=approx(1.386, abs=0.01))

        def test_broken(overfit):
            overfit.within(good(), initial_loss=(2, 3))

        def test_of_the_case(overfit):
            overfit.within(bounded())

        def test_of_the_call(overfit):
            overfit.within(bounded(), initial_loss=(0, 2))
        """
    )
    result.assert_outcomes(passed=3, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*good: FAILED: initial_loss 1.386 *1.386, 1.386* over 4 seeds, bound 2 to 3",
            "*initial_loss *1.386 *2 to 3 *(call)*see above",
            "*expected_by_theory*ln 4: equal probabilities for 4 classes; of the best constant: 1.386, the entropy*",
            "*good: FAILED: initial_loss*bound 0 to 1",
            "*0 to 1 *(case)*",
        ]
    )


def test_marker_and_matrix_take_the_bounds_of_the_case(project: Any) -> None:
    result = project.run(
        """
        def bounded(name="good", bound=(0, 2)):
            return Case(name=name, model=object, batch=(X, Y), options={"bounds": {"initial_loss": bound}})

        @pytest.mark.overfit("bounds", seeds=4)
        def test_marked():
            return bounded()

        CASES = [bounded(), bounded("bad", (2, 3))]

        @parametrize_with_probes(CASES, ["bounds"], expected_failures={"bad": "the loss is 1.39"})
        def test_matrix(case, probe):
            probe(case)

        def test_without_bounds(overfit):
            assert run_probes(good(), ["bounds"])[0].outcome == "not_applicable"
        """
    )
    result.assert_outcomes(passed=3, xfailed=1)


def test_a_bound_judged_outside_pytest_raises_as_well() -> None:
    with pytest.raises(ProbeFailed, match="parameters_trainable 2410 parameters, bound = 7"):
        Overfit().within(case(), parameters_trainable=7)


def test_the_list_of_quantities(project: Any) -> None:
    result = project.again("--overfit-quantities")
    assert result.ret == 0
    result.stdout.fnmatch_lines([f"{name} * Cost: *" for name in QUANTITIES])
    result.stdout.fnmatch_lines(["initial_loss *[[]loss[]]*"])
    result.stdout.no_fnmatch_line("*collected*")
