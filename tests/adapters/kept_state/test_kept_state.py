"""What a pass leaves behind is found and put back: contents of containers, objects, arrays, and what code names."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest

from pytest_overfit.adapters.kept_state import KeptState
from pytest_overfit.adapters.kept_state.places import Attributes, outside_of

COUNTS = {"calls": 0}
LOG: list[int] = []


class Plain:
    """A model without a framework."""

    shared: ClassVar[dict[str, int]] = {}

    def __init__(self) -> None:
        self.number = 0
        self.array = np.zeros(3)
        self.inside: Any = {"past": deque([1], maxlen=2), "both": ([1, 2], {3})}
        self.holder = Holder()

    def count(self) -> None:
        COUNTS["calls"] += 1

    def log(self) -> None:
        LOG.append(1)

    def of_class(self) -> None:
        Plain.shared["calls"] = Plain.shared.get("calls", 0) + 1

    def default(self, kept: list[int] = []) -> None:  # noqa: B006 - what people write
        kept.append(1)


class Holder:
    def __init__(self) -> None:
        self.state: Any = None


def state_of(model: Plain, *code: Any) -> KeptState:
    return KeptState([Attributes(vars(model), "model"), *outside_of(code)])


def rebound(model: Plain) -> None:
    model.number += 1


def made(model: Plain) -> None:
    model.new = np.ones(2)  # type: ignore[attr-defined]


def overwritten(model: Plain) -> None:
    model.array += 1


def refilled(model: Plain) -> None:
    model.inside["past"].append(7)
    model.inside["both"][1].add(9)


def in_an_object(model: Plain) -> None:
    model.holder.state = [model.holder]


def gone(model: Plain) -> None:
    del model.number


@pytest.mark.parametrize("change", [rebound, made, overwritten, refilled, in_an_object, gone])
def test_put_back_in_the_first_passes_and_later(change: Callable[[Plain], None]) -> None:
    model = Plain()
    state = state_of(model)
    for _ in range(2):
        with state.kept():
            change(model)
        assert sorted(vars(model)) == ["array", "holder", "inside", "number"]
        assert model.number == 0
        assert not model.array.any()
        assert model.holder.state is None
        assert list(model.inside["past"]) == [1]
        assert model.inside["both"] == ([1, 2], {3})
        state.settled(lambda: None)


def test_put_back_after_an_exception() -> None:
    model = Plain()
    with pytest.raises(ZeroDivisionError), state_of(model).kept():
        model.number = 1 // 0 if overwritten(model) is None else 0
    assert not model.array.any()


def test_what_nothing_changes_is_not_looked_at_again() -> None:
    model = Plain()
    state = state_of(model)
    with state.kept():
        pass
    state.settled(lambda: None)
    with state.kept():
        rebound(model)
    assert model.number == 1


def test_generators_go_on() -> None:
    """Put back, a model that is random in evaluation would look steady."""
    model = Plain()
    model.holder.state = [random.Random(0), np.random.default_rng(0), np.random.RandomState(0)]
    state = state_of(model)
    first = []
    for _ in range(2):
        with state.kept():
            first.append([each.random() for each in model.holder.state])
    assert state.draws
    assert not set(first[0]) & set(first[1])


def test_state_of_rows_starts_anew() -> None:
    model = Plain()
    model.array = np.zeros(4)
    state = state_of(model)
    with state.kept(evaluating=True):
        overwritten(model)
        rebound(model)
    state.settled(lambda: None)
    overwritten(model)
    rebound(model)
    with state.kept(fresh=True, rows=5):
        assert model.array.all()
        assert model.number == 1
    with state.kept(fresh=True, rows=4):
        assert not model.array.any()
        assert model.number == 0
    assert model.array.all()
    assert model.number == 1


def around() -> tuple[Callable[[], None], dict[str, int]]:
    kept = {"calls": 0}

    def function() -> None:
        kept["calls"] += 1

    return function, kept


@pytest.mark.parametrize("name", ["count", "of_class", "default"])
def test_outside_is_named_and_each_model_has_its_own(name: str) -> None:
    first, second = Plain(), Plain()
    answers = iter([1, 2, 1, 2])
    states = []
    for model in (first, second):
        state = state_of(model, Plain)
        with state.kept():
            getattr(model, name)()
        names = state.settled(lambda: next(answers))
        states.append(state)
        expected = {"count": "the global COUNTS", "of_class": "Plain.shared", "default": "kept"}[name]
        assert len(names) == 1
        assert expected in names[0]
    before = COUNTS["calls"], dict(Plain.shared), list(Plain.default.__defaults__[0])  # type: ignore[index]
    for _ in range(3):
        with states[0].entered():
            getattr(first, name)()
    with states[1].entered():
        assert (COUNTS["calls"], dict(Plain.shared), list(Plain.default.__defaults__[0])) == before  # type: ignore[index]
    assert (COUNTS["calls"], dict(Plain.shared), list(Plain.default.__defaults__[0])) == before  # type: ignore[index]
    with states[0].entered(), states[0].kept():
        assert (COUNTS["calls"], dict(Plain.shared), list(Plain.default.__defaults__[0])) != before  # type: ignore[index]


def test_a_variable_around_a_function_is_found() -> None:
    function, kept = around()
    state = state_of(Plain(), function)
    with state.kept():
        function()
    answers = iter([1, 2])
    assert state.settled(lambda: next(answers)) == ("the variable kept around function",)
    assert kept == {"calls": 0}


def test_a_log_stays_a_log() -> None:
    """What changes no answer is none of our business."""
    model, before = Plain(), len(LOG)
    state = state_of(model, Plain)
    for _ in range(2):
        with state.kept():
            model.log()
        assert state.settled(lambda: 0) == ()
    assert len(LOG) == before + 2
