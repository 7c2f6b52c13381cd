"""What a torch model answers may be a record of the user's own: every probe sees the tensors in it."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pytest_overfit import Case, Verdict, properties, run_probes
from pytest_overfit.adapters.torch import records


@dataclasses.dataclass
class Out:
    logits: Tensor
    extra: Any = None


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    logits: Tensor


class Plain:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


class Named(NamedTuple):
    logits: Tensor


@dataclasses.dataclass
class Nested:
    inner: dict[str, Out]

    @property
    def logits(self) -> Tensor:
        return self.inner["out"].logits


RECORDS: dict[str, Callable[[Tensor], Any]] = {
    "dataclass": Out,
    "frozen": Frozen,
    "object": Plain,
    "namespace": lambda logits: types.SimpleNamespace(logits=logits),
    "named_tuple": Named,
    "nested": lambda logits: Nested({"out": Out(logits)}),
}


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_the_tensors_are_found_and_exchanged_and_the_record_stays(record: Callable[[Tensor], Any]) -> None:
    logits = torch.zeros(2)
    given = record(logits)
    assert [each is logits for each in records.tensors([given, 3])] == [True]
    changed = records.mapped(given, lambda each: each + 1 if isinstance(each, Tensor) else each)
    assert type(changed) is type(given)
    assert changed.logits.tolist() == [1, 1]
    assert given.logits is logits
    assert records.structure(given) == records.structure(changed)


def test_a_part_that_is_there_in_one_mode_only_is_another_structure() -> None:
    assert records.structure(Out(torch.zeros(1))) != records.structure(Out(torch.zeros(1), extra=[torch.zeros(1)]))


def test_records_that_hold_each_other_and_what_is_no_answer_are_not_followed_for_ever() -> None:
    first = Plain(torch.zeros(1))
    first.itself = first  # type: ignore[attr-defined]
    assert 1 <= len(records.tensors(first)) <= 5
    assert records.tensors(Out(torch.zeros(1), extra=[nn.Linear(2, 2), nn.Linear, torch.relu])) == [torch.zeros(1)]


class Net(nn.Module):
    """Answers with a record; `change` is a fault of the test's."""

    def __init__(self, record: Callable[[Tensor], Any], change: Callable[[Tensor], Tensor] = lambda each: each) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))
        self.record, self.change = record, change

    def forward(self, x: Tensor) -> Any:
        return self.record(self.change(self.layers(x)))


X, Y = torch.randn(16, 8, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 3


def case(*given: Any, **more: Any) -> Case:
    def adam(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=0.01)

    def loss(out: Any, y: Tensor) -> Tensor:
        return functional.cross_entropy(out.logits, y)

    return Case(name="c", model=lambda: Net(*given), loss=loss, optimizer=adam, batch=(X, Y), **more)


def verdict(of: Case, probe: str) -> Verdict:
    return run_probes(of, [probe])[0]


HOLDS = ("eval_twice", "save_load", "batch_size_invariance", "float64_agrees")


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_every_probe_asks_the_model(record: Callable[[Tensor], Any]) -> None:
    bounds = {**dict.fromkeys(HOLDS, True), "output_mean": (-10, 10)}
    held = verdict(case(record, options={"bounds": bounds}), "bounds")
    assert held.outcome == "passed", held.summary
    properties.right_shape(case(record), (X, Y))
    # one reference for a loss on records and on plain tensors: free outputs, and no blinded run
    fits = verdict(case(record), "overfit_batch")
    assert fits.outcome == "passed"
    assert fits.data["reference"]["how"] == verdict(case(Named), "overfit_batch").data["reference"]["how"]


def test_random_evaluation_shows_in_a_record_too() -> None:
    def noisy(logits: Tensor) -> Tensor:
        return logits + 0.3 * torch.randn_like(logits)

    found = verdict(case(Out, noisy), "overfit_batch")
    assert found.outcome == "failed"
    assert "evaluation is random" in found.summary


def test_a_dropout_whose_result_goes_into_a_record_is_used() -> None:
    drop = nn.Dropout(0.5)

    class Dropping(Net):
        def __init__(self, record: Callable[[Tensor], Any]) -> None:
            super().__init__(record, drop)

    given = dataclasses.replace(case(Out), model=lambda: Dropping(Out))
    assert verdict(given, "inert_regularizer").outcome == "passed"
