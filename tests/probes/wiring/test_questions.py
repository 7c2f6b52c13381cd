"""The questions on numbers alone: a model of one line in place of a network, updates that are written down."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_overfit.adapters.base import Head, Reading
from pytest_overfit.adapters.wires import BackwardPass, Descent, Moved, OptimizerStep, Unscaling, Update, Weight
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.limits import Resolved
from pytest_overfit.probes.wiring import (
    PROBE,
    WiringLimits,
    descent,
    gradients,
    inputs,
    losses,
    masks,
    membership,
    outputs,
    rows,
    step,
)
from pytest_overfit.probes.wiring.observation import CALLS, FEWEST, UPDATES, Observation, observe
from pytest_overfit.testing import FakeLearner

BOTH = Moved(outputs=0.1, loss=0.1)
NAMES = ("a.weight", "a.bias", "b.weight", "b.bias")


def weight(name: str, **other: Any) -> Weight:
    module = name.rpartition(".")[0]
    return Weight(name=name, module=module, kind="Linear", trainable=True, main=name.endswith("weight"), **other)


@dataclasses.dataclass
class FakeWires:
    """Weights, and what a call of the step does to them."""

    names: Sequence[str] = NAMES
    #: gradient of each parameter by the call's number; None: it does not come by
    gradient: Callable[[str, int], float | None] = lambda name, call: 1.0
    #: parameters that a call changes
    changes: Callable[[int], Sequence[str]] = lambda call: NAMES
    moved: Moved = dataclasses.field(default_factory=lambda: Moved(outputs=0.0, loss=0.0))
    given: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    model: Callable[..., tuple[Array, ...] | None] = lambda inputs: None
    own: Mapping[str, float | None] | None = None
    of_library: bool = False
    is_silent: bool = False
    rate_at: Callable[[int], float] | None = None
    remarks: tuple[str, ...] = ()
    calls: int = 0

    def weights(self) -> list[Weight]:
        return [weight(each, of_library=self.of_library) for each in self.names]

    def update(self) -> Update:
        self.calls += 1
        changed = frozenset(self.changes(self.calls))
        passed = BackwardPass(gradients={name: self.gradient(name, self.calls) for name in self.names})
        stepped = OptimizerStep(optimizer=0, kind="SGD", groups=(tuple(self.names),), rate=0.1, changed=changed)
        return Update(loss=1.0, events=(passed, stepped), changed=changed)

    def gradients(self) -> Mapping[str, float | None] | None:
        return self.own

    def moved_by(self, names: Sequence[str], share: float) -> Moved:
        return self.moved

    def silent(self, names: Sequence[str]) -> bool:
        return self.is_silent

    def unregistered(self) -> Sequence[str]:
        return ()

    def wrong_functions(self) -> Sequence[str]:
        return ()

    def rates(self, steps: int) -> Sequence[float]:
        return [self.rate_at(number) for number in range(steps)] if self.rate_at else []

    def should_move(self, name: str) -> bool:
        return True

    def shaken(self, share: float, index: int) -> Reading | None:
        return None

    def descent(self, shares: Sequence[float]) -> Descent | None:
        return None

    def inputs(self) -> Mapping[str, Array]:
        return self.given

    def arguments(self) -> frozenset[str]:
        return frozenset(self.given)

    def masks(self) -> Sequence[tuple[str, Array]]:
        return ()

    def answer_repadded(self, mask: str, repadded: Callable[[Array], Array]) -> tuple[Array, ...] | None:
        return None

    def buffers(self) -> Sequence[str]:
        return ()

    def answer(self, inputs: Mapping[str, Array], training: bool = False) -> tuple[Array, ...] | None:
        return self.model(inputs)

    def strides(self) -> bool:
        return False


def seen(wires: FakeWires) -> Observation:
    return observe(wires, 16, frozenset(), lambda call, loss: None)


def found(wires: FakeWires) -> list[str]:
    observed = seen(wires)
    measured = gradients.look(wires, observed)
    return [each.name for each in (*gradients.faults(measured), *membership.faults(membership.look(wires, observed)))]


# ---------------------------------------------------------------- how many updates


def test_a_connected_model_takes_the_fewest_updates() -> None:
    assert len(seen(FakeWires()).updates) == FEWEST


def test_a_chain_that_opens_one_level_an_update_is_waited_for() -> None:
    opening = FakeWires(gradient=lambda name, call: float(call > 2 * NAMES.index(name)))
    assert len(seen(opening).updates) == 2 * 3 + 1
    assert found(opening) == []


def test_what_stays_closed_ends_after_twelve_updates() -> None:
    assert len(seen(FakeWires(gradient=lambda name, call: float(name != "a.weight"))).updates) == UPDATES


def test_calls_without_an_update_do_not_count_as_updates() -> None:
    accumulating = FakeWires(changes=lambda call: NAMES if call % 8 == 0 else ())
    assert len(seen(accumulating).updates) == 8 * FEWEST
    assert found(accumulating) == []


def test_a_step_that_never_updates_is_refused_after_many_calls() -> None:
    idle = FakeWires(changes=lambda call: ())
    assert len(seen(idle).updates) == CALLS
    assert "update_skipped" in found(FakeWires(changes=lambda call: ()))


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("nothing", [None, 0.0])
def test_a_module_without_a_gradient_that_moves_the_loss_is_cut(nothing: float | None) -> None:
    wires = FakeWires(gradient=lambda name, call: nothing if name.startswith("a") else 1.0, moved=BOTH)
    assert found(wires) == ["cut_gradient"]
    (part,) = gradients.look(wires, seen(wires))
    assert part["names"] == ["a.weight", "a.bias"]


def test_what_moves_nothing_is_a_remark() -> None:
    wires = FakeWires(gradient=lambda name, call: None if name.startswith("a") else 1.0)
    measured = gradients.look(wires, seen(wires))
    assert list(gradients.faults(measured)) == []
    assert list(gradients.remarks(measured)) == [
        "a.weight, a.bias got no gradient, and moving them changes nothing on this batch"
    ]


def test_what_is_multiplied_by_zero_is_unused() -> None:
    off = FakeWires(gradient=lambda name, call: 0.0 if name.startswith("a") else 1.0, is_silent=True)
    assert found(off) == ["unused_parameters"]
    never_reached = dataclasses.replace(off, gradient=lambda name, call: None if "a" in name else 1.0, calls=0)
    assert found(never_reached) == []


def test_rounding_is_no_movement() -> None:
    wires = FakeWires(gradient=lambda name, call: None if "a" in name else 1.0, moved=Moved(outputs=1e-6, loss=1e-6))
    assert found(wires) == []


def test_an_output_that_never_enters_the_loss() -> None:
    moved = Moved(outputs=0.1, loss=0.0)
    wires = FakeWires(gradient=lambda name, call: None if name.startswith("b") else 1.0, moved=moved)
    assert found(wires) == ["head_without_loss"]
    assert found(dataclasses.replace(wires, of_library=True, calls=0)) == []


def test_where_the_loss_cannot_be_read_outputs_decide() -> None:
    moved = Moved(outputs=0.1, loss=None)
    assert found(FakeWires(gradient=lambda name, call: None if name == "a.weight" else 1.0, moved=moved)) == [
        "cut_gradient"
    ]


def test_a_bias_alone_may_be_without_a_gradient() -> None:
    """Key biases of attention, biases before a normalisation."""
    wires = FakeWires(gradient=lambda name, call: 0.0 if name == "a.bias" else 1.0, moved=BOTH)
    assert found(wires) == []


def test_a_gradient_in_one_update_of_many_is_one() -> None:
    skipped = FakeWires(
        gradient=lambda name, call: float(call == 5) if name.startswith("a") else 1.0,
        moved=BOTH,
    )
    assert found(skipped) == []


def test_a_gradient_that_nobody_asked_for_is_not_missing_but_outside() -> None:
    class Asked(FakeWires):
        def update(self) -> Update:
            self.calls += 1
            return Update(
                loss=1.0,
                events=(
                    BackwardPass(gradients={"b.weight": 1.0, "b.bias": 1.0}),
                    OptimizerStep(optimizer=0, kind="SGD", groups=(NAMES[2:],), rate=0.1, changed=frozenset(NAMES[2:])),
                ),
                changed=frozenset(NAMES[2:]),
            )

    assert found(Asked(own=dict.fromkeys(NAMES, 1.0), moved=BOTH)) == ["optimizer_wrong_params"]
    # a teacher that the loss looks through and that answers nothing is trained by nobody on purpose
    assert found(Asked(own=dict.fromkeys(NAMES, 1.0), moved=Moved(outputs=0.1, loss=0.1, answers=0.0))) == []


def test_what_neither_step_nor_optimizer_knows_and_answers_move_with_is_trained_by_nobody() -> None:
    class Copy(FakeWires):
        def update(self) -> Update:
            self.calls += 1
            return Update(loss=1.0, events=(BackwardPass(gradients={}),), changed=frozenset(["elsewhere"]))

    assert found(Copy(own=dict.fromkeys(NAMES), moved=BOTH)) == ["optimizer_wrong_params"] * 2
    assert found(Copy(own=dict.fromkeys(NAMES))) == []
    assert found(Copy(own=None, moved=BOTH)) == []


def test_without_gradients_what_stays_is_said_and_its_cause_left_open() -> None:
    class Unwatched(FakeWires):
        def update(self) -> Update:
            return Update(loss=1.0, events=(), changed=frozenset(NAMES[2:]))

    look = membership.look(Unwatched(), seen(Unwatched()))
    assert list(membership.faults(look)) == []
    assert "a.weight, a.bias never changed in 12 updates" in next(membership.remarks(look))
    watched = membership.look(FakeWires(), seen(FakeWires()))
    assert list(membership.remarks(watched)) == []


def test_a_loss_that_a_layer_adds_and_the_step_leaves_out() -> None:
    wires = FakeWires(
        gradient=lambda name, call: None if name.startswith("a") else 1.0,
        changes=lambda call: NAMES[2:],
        moved=Moved(outputs=0.0, loss=0.0, added=0.2),
    )
    assert found(wires) == ["regularizer_not_in_loss"]


# ---------------------------------------------------------------- the step


def calls_of(*events: BackwardPass | OptimizerStep, calls: int = FEWEST) -> Observation:
    changed = frozenset().union(*(each.changed for each in events if isinstance(each, OptimizerStep)))
    update = Update(loss=1.0, events=events, changed=changed)
    return Observation(weights=tuple(map(weight, NAMES)), updates=(update,) * calls)


def a_step(optimizer: int = 0, names: Sequence[str] = NAMES, **other: Any) -> OptimizerStep:
    return OptimizerStep(
        optimizer=optimizer, kind="SGD", groups=(tuple(names),), rate=0.1, changed=frozenset(names), **other
    )


def a_pass(carried: Sequence[str] = ()) -> BackwardPass:
    return BackwardPass(gradients=dict.fromkeys(NAMES, 1.0), carried=frozenset(carried))


@pytest.mark.parametrize(
    ("events", "names"),
    [
        ((a_pass(), a_step()), []),
        ((a_pass(NAMES), a_step()), ["missing_zero_grad"]),
        ((a_pass(["a.bias"]), a_step()), ["missing_zero_grad"]),
        ((a_pass(), a_step(), a_step()), ["updated_twice"]),
        ((a_pass(), a_step(), a_pass(), a_step()), []),  # several epochs over one batch, as in PPO
        ((a_pass(), a_step(1, inside=True), a_step(0)), []),  # an optimizer around another one
        ((a_pass(), a_step(0, NAMES[:2]), a_step(1, NAMES[2:])), []),
    ],
)
def test_the_order_of_events_tells(events: Sequence[Any], names: list[str]) -> None:
    assert [each.name for each in step.faults(step.look(FakeWires(), calls_of(*events), False))] == names


def test_gradients_outside_of_the_optimizer_may_pile_up() -> None:
    observed = calls_of(a_pass(["a.weight"]), a_step(0, NAMES[2:]))
    assert list(step.faults(step.look(FakeWires(), observed, False))) == []


def test_two_optimizers_on_one_parameter() -> None:
    wires = FakeWires()
    twice = membership.look(wires, calls_of(a_pass(), a_step(0), a_step(1, NAMES[:1])))
    assert [(each.name, each.subjects) for each in membership.faults(twice)] == [("parameter_twice", NAMES[:1])]
    around = membership.look(wires, calls_of(a_pass(), a_step(1, inside=True), a_step(0)))
    assert list(membership.faults(around)) == []


@pytest.mark.parametrize(
    ("rate", "names"),
    [
        (lambda number: 0.1 ** (number // 30), ["schedule_kills_rate"]),
        (lambda number: 0.9**number, ["schedule_kills_rate"]),
        (lambda number: 1 + np.cos(np.pi * number / 500), []),
        (lambda number: min(1.0, number / 400), []),
        (lambda number: 0.1 ** (number // 200), []),
        (lambda number: 0.1, []),
    ],
)
def test_a_schedule_may_end_at_nothing_but_not_stay_there(rate: Callable[[int], float], names: list[str]) -> None:
    measured = step.look(FakeWires(rate_at=rate), calls_of(a_pass(), a_step()), False)
    assert [each.name for each in step.faults(measured)] == names


@pytest.mark.parametrize(("kept", "names"), [(1e-7, ["grad_clip_too_small"]), (0.01, []), (1.0, [])])
def test_what_clipping_leaves(kept: float, names: list[str]) -> None:
    measured = step.look(FakeWires(), calls_of(a_pass(), a_step(kept=dict.fromkeys(NAMES, kept))), False)
    assert [each.name for each in step.faults(measured)] == names


@pytest.mark.parametrize(
    ("scaled", "touched", "names"),
    [
        (True, False, []),
        (True, True, ["clipped_before_unscaling"]),
        (False, False, ["loss_not_scaled"]),
    ],
)
def test_a_scaler(scaled: bool, touched: bool, names: list[str]) -> None:
    events = (a_pass(), Unscaling(factor=1024.0, scaled=scaled, touched=touched), a_step())
    measured = step.look(FakeWires(), calls_of(*events), False)
    assert [each.name for each in step.faults(measured)] == names


@pytest.mark.parametrize(("onto", "names"), [((), ["update_skipped"]), (NAMES, [])])
def test_gradients_of_calls_that_change_nothing_are_lost_or_kept(onto: Sequence[str], names: list[str]) -> None:
    waiting = Update(loss=1.0, events=(a_pass(),), changed=frozenset())
    again = BackwardPass(gradients=dict.fromkeys(NAMES, 1.0), onto=frozenset(onto))
    stepping = Update(loss=1.0, events=(again, a_step()), changed=frozenset(NAMES))
    observed = Observation(weights=tuple(map(weight, NAMES)), updates=(waiting, stepping) * 4)
    assert [each.name for each in step.faults(step.look(FakeWires(), observed, False))] == names


@pytest.mark.parametrize(("undone", "names"), [(0.99, ["ema_overwrite"]), (0.3, []), (None, [])])
def test_what_is_taken_back(undone: float | None, names: list[str]) -> None:
    update = Update(loss=1.0, events=(a_pass(), a_step()), changed=frozenset(NAMES), undone=undone)
    observed = Observation(weights=tuple(map(weight, NAMES)), updates=(update,) * 4)
    assert [each.name for each in step.faults(step.look(FakeWires(), observed, False))] == names


# ---------------------------------------------------------------- rows and inputs


def mixing(kind: str) -> FakeWires:
    x = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)
    w = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)

    def model(inputs: Mapping[str, Array]) -> tuple[Array, ...]:
        given = inputs["x"]
        out = given @ w
        if kind == "mean":
            out = out + given.mean(axis=0) @ w
        elif kind == "one pair":
            out = out + np.where(np.arange(16)[:, None] == 3, out[11], 0.0)
        elif kind == "softmax over rows":
            out = np.exp(out) / np.exp(out).sum(axis=0)
        elif kind == "quantised over the batch":
            scale = np.abs(out).max() / 127
            out = np.round(out / scale) * scale
        elif kind == "pairs":
            out = out @ out.T
        return (out.astype(np.float32),)

    return FakeWires(given={"x": x}, model=model)


@pytest.mark.parametrize("kind", ["mean", "one pair", "softmax over rows"])
def test_rows_that_are_mixed_are_found(kind: str) -> None:
    measured = rows.look(mixing(kind), interact=False)
    assert [each.name for each in rows.faults(measured)] == ["batch_mixing"]
    if kind == "one pair":
        assert measured["rows"] == [3]
    assert list(rows.faults(rows.look(mixing(kind), interact=True))) == []


@pytest.mark.parametrize("kind", ["alone", "quantised over the batch", "pairs"])
def test_rows_that_stand_alone_pass(kind: str) -> None:
    assert list(rows.faults(rows.look(mixing(kind), interact=False))) == []


@given(st.integers(3, 40), st.integers(2, 20), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_columns_that_are_read_are_told_from_those_that_are_not(columns: int, count: int, random: Any) -> None:
    unread = sorted(random.sample(range(columns), random.randint(0, columns - 1)))
    x = np.random.default_rng(columns).normal(size=(count, columns))
    weights = np.random.default_rng(count).normal(size=columns)
    weights[unread] = 0.0
    wires = FakeWires(given={"x": x}, model=lambda inputs: ((inputs["x"] @ weights)[:, None],))
    places = [place for each in inputs.look(wires, alone=True) for place in each["unread"]]
    assert places == unread


def test_constant_columns_are_left_out() -> None:
    x = np.random.default_rng(0).normal(size=(8, 5))
    x[:, 2] = 1.0
    wires = FakeWires(given={"x": x}, model=lambda inputs: (inputs["x"][:, [0, 1, 3, 4]],))
    assert inputs.look(wires, alone=True) == []


def test_an_input_that_is_never_used() -> None:
    given = {"x": np.arange(8.0).reshape(8, 1), "mask": np.arange(8).reshape(8, 1) % 2}
    wires = FakeWires(given=given, model=lambda inputs: (inputs["x"],))
    (fault,) = inputs.faults(inputs.look(wires, alone=True))
    assert (fault.name, fault.outcome, fault.subjects) == ("input_unused", "failed", ("mask",))


@pytest.mark.parametrize(("unread", "outcome"), [(3, "warning"), (5, "failed"), (9, "failed")])
def test_half_of_the_features_is_refused_and_less_a_warning(unread: int, outcome: str) -> None:
    x = np.random.default_rng(0).normal(size=(8, 10))
    wires = FakeWires(given={"x": x}, model=lambda inputs: (inputs["x"][:, unread:],))
    (fault,) = inputs.faults(inputs.look(wires, alone=True))
    assert fault.outcome == outcome
    assert f"{unread} of 10 places on axis 1 of input x move no output: 0 to {unread - 1}" in fault.message


def padded(model: Callable[[Array, Array], Array], flip: bool = False) -> FakeWires:
    real = np.arange(6)[None, :] < np.array([6, 4, 3, 5, 2, 6])[:, None]
    tokens = np.random.default_rng(0).normal(size=(6, 6))
    mask = (~real if flip else real).astype(np.int64)
    return FakeWires(given={"tokens": tokens, "mask": mask}, model=lambda given: (model(given["tokens"], real),))


@pytest.mark.parametrize("flip", [False, True])
def test_padding_without_influence_and_with(flip: bool) -> None:
    def careful(tokens: Array, real: Array) -> Array:
        return np.asarray((tokens * real).sum(axis=1, keepdims=True) / real.sum(axis=1, keepdims=True))

    assert list(masks.faults(masks.look(padded(careful, flip)))) == []
    (fault,) = masks.faults(masks.look(padded(lambda tokens, real: tokens.mean(axis=1, keepdims=True), flip)))
    assert (fault.name, fault.outcome, fault.subjects) == ("mask_ignored", "failed", ("mask",))


def test_outputs_at_padded_places_may_move() -> None:
    assert list(masks.faults(masks.look(padded(lambda tokens, real: tokens * 2)))) == []


# ---------------------------------------------------------------- outputs and loss


def classes(values: Array, loss: float = 1.0, **other: Any) -> Reading:
    targets = np.arange(len(values)) % values.shape[1]
    head = Head(kind="classes", outputs=values, targets=targets, loss_name="cross_entropy", **other)
    return Reading(loss=loss, outputs=(values,), heads=(head,))


def squashed(function: Callable[[Array], Array], **other: Any) -> tuple[FakeWires, Reading]:
    """Outputs that are a function of any numbers."""

    class Shaken(FakeWires):
        def shaken(self, share: float, index: int) -> Reading | None:
            drawn = np.random.default_rng(index).normal(size=(16, 5)) * 5 * share
            return classes(function(drawn), **other)

    first = function(np.random.default_rng(99).normal(size=(16, 5)))
    logits = first - np.log(np.exp(first).sum(axis=1, keepdims=True))
    loss = -float(np.take_along_axis(logits, (np.arange(16) % 5)[:, None], axis=1).mean())
    return Shaken(), classes(first, loss, **other)


def softmax(values: Array) -> Array:
    shifted = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (lambda z: z, []),
        (lambda z: 30 * np.tanh(z / 30), []),  # soft-capped
        (softmax, ["double_softmax"]),
        (lambda z: 1 / (1 + np.exp(-z)), ["double_sigmoid"]),
        (np.tanh, ["bounded_logits"]),
        (lambda z: np.maximum(z, 0.0), ["relu_on_logits"]),
    ],
)
def test_what_logits_are_by_construction(function: Callable[[Array], Array], names: list[str]) -> None:
    measured = outputs.look(*squashed(function), classes=False)
    assert [each.name for each in outputs.faults(measured)] == names


@pytest.mark.parametrize(
    ("inside", "names"),
    [
        (lambda z: z, []),
        (softmax, ["double_softmax"]),
        (lambda z: 1 / (1 + np.exp(-z)), ["bounded_logits"]),
        (np.tanh, ["bounded_logits"]),
        (lambda z: 1e-4 * z, []),  # a start with small weights, and no bound
    ],
)
def test_probabilities_of_bounded_numbers(inside: Callable[[Array], Array], names: list[str]) -> None:
    measured = outputs.look(*squashed(lambda z: softmax(inside(z)), domain="probabilities"), classes=False)
    assert [each.name for each in outputs.faults(measured)] == names


@pytest.mark.parametrize(
    ("inside", "names"),
    [
        (lambda z: z, []),
        (lambda z: 1 / (1 + np.exp(-z)), ["double_sigmoid"]),
        (lambda z: np.maximum(z, 0.0), ["relu_on_logits"]),
        (np.tanh, ["bounded_logits"]),
    ],
)
def test_probabilities_of_one_class_of_bounded_numbers(inside: Callable[[Array], Array], names: list[str]) -> None:
    def of(z: Array) -> Array:
        return np.asarray(1 / (1 + np.exp(-inside(z[:, :1]).clip(-500, 500))))

    def reading(z: Array) -> Reading:
        targets = (np.arange(len(z)) % 2)[:, None].astype(float)
        head = Head(kind="binary", outputs=of(z), targets=targets, domain="probabilities", plain="binary_cross_entropy")
        return Reading(loss=0.7, outputs=(of(z),), heads=(head,))

    class Shaken(FakeWires):
        def shaken(self, share: float, index: int) -> Reading | None:
            return reading(np.random.default_rng(index).normal(size=(16, 5)) * 5 * share)

    first = reading(np.random.default_rng(99).normal(size=(16, 5)))
    assert [each.name for each in outputs.faults(outputs.look(Shaken(), first, classes=False))] == names


def test_one_output_for_classes_has_a_loss_of_nothing() -> None:
    class Shaken(FakeWires):
        def shaken(self, share: float, index: int) -> Reading | None:
            return reading(share + index)

    def reading(seed: float) -> Reading:
        given = np.random.default_rng(int(seed)).uniform(size=(16, 1))
        head = Head(kind="classes", outputs=given, targets=np.ones((16, 1)), domain="probabilities", loss_name="ce")
        return Reading(loss=0.0, outputs=(given,), heads=(head,))

    assert [each.name for each in outputs.faults(outputs.look(Shaken(), reading(99), classes=False))] == ["wrong_loss"]


@pytest.mark.parametrize("kind", ["classes", "values"])
@pytest.mark.parametrize(("flipped", "names"), [(False, []), (True, ["gradient_ascent"])])
def test_a_loss_that_prefers_the_wrong_rows(kind: Any, flipped: bool, names: list[str]) -> None:
    learner = FakeLearner(kind=kind, flipped=flipped)
    found = losses.faults(losses.look(learner, learner.read("fit"), None))
    assert [each.name for each in found] == names


class Losing:
    """A learner of one column, by its loss alone."""

    def __init__(self, loss: Callable[[Array, Array], float], outputs: Array, targets: Array) -> None:
        self.loss, self.targets = loss, (targets,)
        self.first = Reading(loss=loss(outputs, targets), outputs=(outputs,))

    def loss_and_gradient(self, outputs: Sequence[Array]) -> tuple[float, list[Array]]:
        return self.loss(outputs[0], self.targets[0]), []

    def faults(self) -> list[str]:
        return [each.name for each in losses.faults(losses.look(cast("Any", self), self.first, None))]


COLUMN, VECTOR = np.random.default_rng(0).normal(size=(12, 1)), np.random.default_rng(1).normal(size=12) + 3


@pytest.mark.parametrize(
    "error", [np.square, np.abs, lambda gap: np.where(np.abs(gap) < 1, gap**2 / 2, np.abs(gap) - 0.5)]
)
def test_a_column_against_a_vector(error: Callable[[Array], Array]) -> None:
    assert Losing(lambda o, y: float(error(o - y).mean()), COLUMN, VECTOR).faults() == ["target_broadcast"]
    assert Losing(lambda o, y: float(error(o[:, 0] - y).mean()), COLUMN, VECTOR).faults() == []
    # targets on another scale inside the loss: the mean may be nearer than the targets as they are given
    assert Losing(lambda o, y: float(error(o[:, 0] - np.log(y + 9)).mean()), COLUMN, VECTOR).faults() == []


def test_distances_are_no_wrong_sign() -> None:
    def entropy(scores: Array, labels: Array) -> float:
        whole = np.log(np.exp(scores - scores.max(1, keepdims=True)).sum(1)) + scores.max(1)
        return float((whole - scores[np.arange(len(labels)), labels]).mean())

    outputs, labels = np.random.default_rng(0).normal(size=(16, 4)), np.arange(16) % 4
    assert Losing(entropy, outputs, labels).faults() == []
    assert Losing(lambda o, y: entropy(-o, y), outputs, labels).faults() == []
    assert Losing(lambda o, y: -entropy(o, y), outputs, labels).faults() == ["gradient_ascent"]


# ---------------------------------------------------------------- along the update


@pytest.mark.parametrize(
    ("promised", "ratio", "smooth", "checked", "names"),
    [
        (-0.1, 1.0, True, True, []),
        (-0.1, 0.87, False, True, []),
        (0.1, 1.0, True, True, ["gradient_ascent:failed"]),
        (0.1, 1.0, False, True, ["gradient_ascent:warning"]),
        (100.0, 1.0, True, True, ["gradient_ascent:failed"]),
        (-0.1, -1.0, True, True, []),  # a target that is held and moves along, as in Q-learning
        (-0.1, -1.0, True, False, ["wrong_backward:warning"]),
        (-0.1, -1.0, False, True, []),  # a reversed gradient, by design
        (-0.1, 1.95, True, False, []),  # one of two views is held
        (-0.1, 4.0, True, False, ["wrong_backward:warning"]),
        (-1e-6, 1.0, True, True, ["lr_too_low:warning"]),
    ],
)
def test_the_loss_along_the_update(
    promised: float, ratio: float, smooth: bool, checked: bool, names: list[str]
) -> None:
    class Followed(FakeWires):
        def descent(self, shares: Sequence[float]) -> Descent | None:
            ways = tuple((promised * each, ratio * promised * each) for each in shares)
            return Descent(
                loss=1.0,
                promised=promised,
                changes=ways,
                whole=promised,
                smooth=smooth,
                scheduled=False,
                checked=checked,
            )

    measured = descent.look(Followed())
    assert [f"{each.name}:{each.outcome}" for each in descent.faults(measured, [1.0, 1.1])] == names
    falling = descent.faults(measured, [1.0, 0.5])  # one update may go up, by momentum or dropout
    assert [each.name for each in falling if each.name == "gradient_ascent"] == []


def test_one_short_way_is_enough_to_say_how_far_off_it_is() -> None:
    class Short(FakeWires):
        def descent(self, shares: Sequence[float]) -> Descent | None:
            ways = ((-0.003, -0.03),)
            return Descent(
                loss=1.0, promised=-0.003, changes=ways, whole=-0.03, smooth=True, scheduled=False, checked=False
            )

    (fault,) = descent.faults(descent.look(Short()), [1.0, 0.9])
    assert "changes by 10 of what the gradient promises" in fault.message


# ---------------------------------------------------------------- the verdict


def measured(**other: Any) -> dict[str, Any]:
    wires = FakeWires()
    observed = seen(wires)
    return {
        "steps": 4,
        "losses": [1.0, 0.9],
        "parameters": 4,
        "not_finite": [],
        "gradients": [],
        "membership": membership.look(wires, observed),
        "step": step.look(FakeWires(), observed, False),
        "rows": {"moved": 0.0, "rows": []},
        "inputs": [],
        "outputs": None,
        "start": None,
        "descent": None,
        "loss": {"prefers_wrong": None, "broadcast": None},
        "masks": [],
        "labels": None,
        "sequences": None,
        "frozen": {},
        "remarks": [],
        **other,
    }


NO_LIMITS = Resolved(WiringLimits(), {})
CUT = [
    {
        "names": ["a.weight", "a.bias"],
        "silent": False,
        "share": 0.1,
        "outputs": 0.1,
        "loss": 0.1,
        "of_library": False,
    }
]


def test_a_fault_is_a_finding_with_its_diagnosis() -> None:
    judged = PROBE.judge(measured(gradients=CUT), NO_LIMITS)
    assert judged.outcome == "failed"
    assert judged.summary.startswith("no gradient reaches a.weight, a.bias, although the loss moves by 0.1")
    assert [(each.fault, each.confidence) for each in judged.diagnoses] == [("cut_gradient", "shown")]
    assert judged.findings[0].message == judged.diagnoses[0].evidence == judged.summary


def test_allow_excuses_by_name_and_says_so() -> None:
    judged = PROBE.judge(measured(gradients=CUT), Resolved(WiringLimits(allow={"a.*": "frozen until spring"}), {}))
    assert judged.outcome == "passed"
    assert [each.message for each in judged.findings] == ["allowed: 2 by 'a.*': frozen until spring"]
    part = PROBE.judge(measured(gradients=CUT), Resolved(WiringLimits(allow={"a.bias": "no"}), {}))
    assert part.diagnoses[0].evidence.startswith("no gradient reaches a.weight,")


def test_allow_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(CaseError, match=r"allow: 'c\.\*' \(why\) matches nothing that wiring found; take it out"):
        PROBE.judge(measured(gradients=CUT), Resolved(WiringLimits(allow={"c.*": "why"}), {}))


def test_what_is_not_finite_comes_first() -> None:
    judged = PROBE.judge(measured(gradients=CUT, not_finite=["parameter 'a.weight' of Linear a is NaN"]), NO_LIMITS)
    assert (judged.outcome, judged.summary) == ("failed", "parameter 'a.weight' of Linear a is NaN after 4 steps")
    assert [each.fault for each in judged.diagnoses] == ["nan_parameter", "cut_gradient"]


def test_a_warning_passes_and_is_named() -> None:
    evaluating = {**step.look(FakeWires(), calls_of(a_pass(), a_step()), False), "evaluating": 4}
    judged = PROBE.judge(measured(step=evaluating), NO_LIMITS)
    assert (judged.outcome, [each.fault for each in judged.diagnoses]) == ("passed", ["step_in_eval_mode"])
    assert judged.findings[0].outcome == "warning"
