"""The user's own training step as a loss of its model's outputs, made on a model of its own.

With other outputs in place of the model's, the step says what these would cost, and which parts of the batch it
compares them with. That holds for a step that calls its model once, or several times with the same, and draws nothing.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils import _pytree as pytree

from pytest_overfit.adapters.arrays import alike
from pytest_overfit.adapters.torch import records
from pytest_overfit.adapters.torch.comparing import equal, first_everywhere, near, same, turned
from pytest_overfit.adapters.torch.facts import given_to_layers
from pytest_overfit.adapters.torch.losses import LossCall, LossCalls
from pytest_overfit.adapters.torch.pass_state import state_of_loss, state_of_model
from pytest_overfit.adapters.torch.scrutiny import Scrutiny
from pytest_overfit.adapters.torch.state import preserved_generators, reseed
from pytest_overfit.adapters.user_step import step_loss
from pytest_overfit.core import state
from pytest_overfit.core.case import Case
from pytest_overfit.data.arrays import copied
from pytest_overfit.data.batch import Batch
from pytest_overfit.data.layout import likely_rows
from pytest_overfit.data.tree import by_place, leaves, map_leaves, rebuilt

Tensor = torch.Tensor

#: how near the slopes over two distances must come to each other, and to the gradient's, to be taken for the same
_STEADY = 0.05


class Arguments(NamedTuple):
    """What the step calls its model with."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclasses.dataclass
class _Made:
    """One step that was made."""

    given: list[Arguments] = dataclasses.field(default_factory=list)
    outputs: list[Any] = dataclasses.field(default_factory=list)
    calls: list[LossCall] = dataclasses.field(default_factory=list)
    value: float = math.nan


class StepAsLoss:
    """A step that has been made once on a model of its own."""

    def __init__(self, case: Case, model: nn.Module, batch: Batch) -> None:
        self.case, self.model, self.batch = case, model, batch
        self._made = 0
        self._scale = 1.0
        self._start = copy.deepcopy(model.state_dict())
        self._state, self._around = state_of_model(model), state_of_loss(case.step)
        self._first = self._make(batch)
        self._example: Any = None
        self._free: list[int] = []
        #: it calls its model with the same again and again
        self.calls_alike = False
        #: its loss can be had of any outputs
        self.can_be_read = False
        self.scrutiny = Scrutiny()
        with contextlib.suppress(Exception):  # a step that refuses other outputs
            self._put_outputs_in()

    def _put_outputs_in(self) -> None:
        if not self._first.outputs:  # it calls a part of its model
            return
        flat = records.leaves(self._first.outputs[0])
        self._free = [place for place, each in enumerate(flat) if _carries(each)]
        self._example = records.mapped(self._first.outputs[0], _cut_off)
        again = self._make(self.batch, self._example)
        self.calls_alike = all(same(self._first.given[0], each) for each in (*self._first.given, *again.given))
        self.can_be_read = self.calls_alike and bool(self._free) and self._is_a_loss_of_outputs(again)
        self.scrutiny = self._scrutiny() if self.can_be_read else Scrutiny()

    def call_on(self, outputs: Any) -> LossCall | None:
        """Of a step that does other things with its model as well: the call that its loss is, if these go into it.

        Its target is the batch's.
        """
        y = [*leaves(self.batch.y)]
        if self.can_be_read or len(y) != 1 or not isinstance(outputs, Tensor):
            return None
        for call in self._first.calls:
            whole = call.result.numel() == 1 and float(call.result.detach()) == self._first.value
            if whole and call.input.numel() == outputs.numel() and equal(y[0], call.target):
                return call
        return None

    @property
    def arguments(self) -> Arguments | None:
        """What it calls its model with; None: with something else each time."""
        return self._first.given[0] if self.calls_alike else None

    @property
    def remark(self) -> str:
        """How its loss is read, for the verdict."""
        name = next((f"{self._first.calls[number].name}, " for number in self.scrutiny.weights), "")
        return f"step: its loss is {name}read apart from the steps" if self.can_be_read else ""

    def labelled(self, batch: Batch) -> Batch:
        """The batch with its targets known, and its rows by them: where the loss was asked, no name counts."""
        found: frozenset[Any] = frozenset()
        with contextlib.suppress(Exception):  # a step that refuses what it is given
            found = self.targets()
        if not found:
            return batch
        rows = likely_rows([by_place(batch.x)[key] for key in found])
        labels = found if self.can_be_read else found | batch.labels
        return dataclasses.replace(batch, labels=labels, rows=rows or batch.rows)

    def loss(self, outputs: Any) -> Tensor:
        """What the step returns where its model answers these outputs; with a gradient by them."""
        flat = records.leaves(outputs)

        def answer(*values: Tensor) -> tuple[float, list[Tensor | None]]:
            free = [value.detach().clone().requires_grad_() for value in values]
            made = self._make(self.batch, self._with(free, outputs))
            return made.value, [None if each.grad is None else each.grad * self._scale for each in free]

        return _Costs.apply(answer, *(flat[place] for place in self._free))  # type: ignore[no-any-return,no-untyped-call]

    def targets(self) -> frozenset[Any]:
        """Parts of the inputs that the loss asks for while the outputs are held, and that the model is not given.

        Where outputs cannot be put in: the part that a loss function gets as its target.
        """
        parts = by_place(self.batch.x) if self.batch.y is None else {}
        candidates = [key for key, part in parts.items() if next(leaves(part), None) is not None]
        if not candidates:
            return frozenset()
        if not self.can_be_read:
            return frozenset(filter(self._is_a_target, candidates)) or self._unseen_by_layers(candidates)
        outputs = self._varied()
        value = self._make(self.batch, outputs).value
        found = {key: self._made_with(key, turned, outputs) for key in candidates}
        return frozenset(
            key
            for key, made in found.items()
            if made is not None and not near(made.value, value) and same(self._first.given[0], made.given[0])
        )

    def _varied(self) -> Any:
        """Outputs that differ from row to row, as those of a model that ignores its input do not."""
        noise = torch.Generator().manual_seed(0)
        flat = records.leaves(self._example)
        point = [flat[place].detach() for place in self._free]
        drawn = [torch.randn(each.shape, generator=noise).to(each) for each in point]
        there = (each + 0.1 * (1 + each.abs()) * way for each, way in zip(point, drawn, strict=True))
        moved = self._with([each.requires_grad_() for each in there])
        return moved if math.isfinite(self._make(self.batch, moved).value) else self._example

    def _made_with(self, key: Any, change: Callable[[Any], Any], instead: Any = None) -> _Made | None:
        parts = by_place(self.batch.x)
        moved = rebuilt(self.batch.x, {**parts, key: map_leaves(parts[key], change)})
        try:
            return self._make(dataclasses.replace(self.batch, x=moved), instead)
        except Exception:  # a part that cannot be changed so, such as the places of others
            return None

    def _unseen_by_layers(self, candidates: list[Any]) -> frozenset[Any]:
        """Of a model that makes its loss: what changes the loss and nothing that its layers are given."""

        def made(key: Any) -> tuple[float, list[Tensor]]:
            given: list[Tensor] = []
            self.model.load_state_dict(self._start)
            with given_to_layers(self.model, given):
                found = self._make(self.batch) if key is None else self._made_with(key, first_everywhere)
            return math.nan if found is None else found.value, given

        value, given = made(None)
        others = {key: made(key) for key in candidates} if given else {}
        return frozenset(
            key
            for key, (other, seen) in others.items()
            if math.isfinite(other) and not near(other, value) and alike(given, seen)
        )

    def _is_a_target(self, key: Any) -> bool:
        part = [*leaves(by_place(self.batch.x)[key])]
        targets = [call.target for call in self._first.calls]
        return len(part) == 1 and any(equal(part[0], each) for each in targets)

    def _make(self, batch: Batch, instead: Any = None) -> _Made:
        """Make a step; `instead`: what the model is to answer."""
        made, step, given = _Made(), self.case.step, batch.map(copied).plain()
        self._made += 1
        with state.preserved_generators(), preserved_generators(), torch.enable_grad():
            state.seed_standard_library(self._made)  # other numbers each time: what is random must show
            reseed(self._made)
            with self._state.undone(), self._around.undone(), _watching(self.model, made, instead), LossCalls() as seen:
                value = step(self.model, given.x, given.y) if step is not None else None
        made.value = step_loss(value.detach().mean() if isinstance(value, Tensor) else value, self.case)
        made.calls = seen.calls
        return made

    def _is_a_loss_of_outputs(self, again: _Made) -> bool:
        """The same outputs cost the same whatever the weights are by now, and the slope is that of the gradient."""
        flat = records.leaves(self._example)
        point = [flat[place].detach() for place in self._free]
        if any(each.ndim == 0 for each in point) or not near(self._first.value, again.value):
            return False
        start = [each.clone().requires_grad_() for each in point]
        value = self.loss(self._with(start))
        slopes = torch.autograd.grad(value, start, allow_unused=True, materialize_grads=True)
        steep = math.sqrt(sum(float(each.double().square().sum()) for each in slopes))
        size = math.sqrt(sum(float(each.double().square().sum()) for each in point))
        if not near(self._first.value, float(value.detach())) or not steep > 0 or not math.isfinite(steep):
            return False
        far, close = (self._slope(point, slopes, share * max(size, 1.0) / steep) / steep**2 for share in (1e-2, 5e-3))
        if not abs(far - close) <= _STEADY * abs(close) or not close > 0:
            return False
        self._scale = 1.0 if abs(close - 1.0) <= _STEADY else close
        return True

    def _slope(self, point: list[Tensor], along: tuple[Tensor, ...], step: float) -> float:
        ends = []
        for sign in (step, -step):
            moved = [at + sign * way for at, way in zip(point, along, strict=True)]
            ends.append(float(self.loss(self._with(moved)).detach()))
        return (ends[0] - ends[1]) / (2 * step)

    def _with(self, free: list[Tensor], outputs: Any = None) -> Any:
        """The outputs, by default those of the first step, with these in their places."""
        numbers, values = itertools.count(), dict(zip(self._free, free, strict=True))
        return records.mapped(
            self._example if outputs is None else outputs, lambda leaf: values.get(next(numbers), leaf)
        )

    def _scrutiny(self) -> Scrutiny:
        """One call of a loss function that got an output as it is, and whose result the step returned.

        Others say nothing: the step may mask or weigh them by hand.
        """
        count = len(self._first.calls)
        flat = records.leaves(self._example)
        for number, call in enumerate(self._first.calls):
            whole = call.result.numel() == 1 and float(call.result.detach()) == self._first.value
            if whole and any(equal(call.input, flat[place]) for place in self._free):
                return Scrutiny(count=count, weights={number: 1.0})
        return Scrutiny(count=count, own_targets=set(range(count)))


class _Costs(torch.autograd.Function):
    """A loss whose gradient comes with it."""

    @staticmethod
    def forward(ctx: Any, answer: Callable[..., tuple[float, list[Tensor | None]]], *free: Tensor) -> Tensor:
        value, ctx.slopes = answer(*free)
        return free[0].new_tensor(value)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        return (None, *(None if each is None else each * slopes[0] for each in ctx.slopes))


def step_as_loss(case: Case, model: nn.Module, rebuild: Callable[[], Any], batch: Batch) -> StepAsLoss | None:
    """None where there is no such step, or none that can be made on another model."""
    if case.step is None or case.loss is not None:
        return None
    with state.preserved_generators(), preserved_generators():
        other = rebuild()
        if other is model or not isinstance(other, nn.Module) or isinstance(other, torch.jit.ScriptModule):
            return None
        try:
            return StepAsLoss(case, other, batch)
        except Exception:  # whatever is wrong with it, its first step shows
            return None


@contextlib.contextmanager
def _watching(model: nn.Module, made: _Made, instead: Any) -> Iterator[None]:
    """Note each call of the model that may be differentiated, or answer it with something else."""
    own, held = model.forward, vars(model).get("forward")

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return own(*args, **kwargs)
        made.given.append(Arguments(*pytree.tree_map_only(Tensor, copied, (args, kwargs))))
        made.outputs.append(own(*args, **kwargs) if instead is None else instead)
        return made.outputs[-1]

    model.forward = forward
    try:
        yield
    finally:
        del model.forward
        if held is not None:
            model.forward = held


def _carries(each: Any) -> bool:
    return isinstance(each, Tensor) and each.is_floating_point() and each.requires_grad


def _cut_off(each: Any) -> Any:
    return each.detach().requires_grad_(_carries(each)) if isinstance(each, Tensor) else each
