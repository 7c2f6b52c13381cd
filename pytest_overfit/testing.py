"""For authors of probes and adapters: a learner made of numbers, planted faults, and the adapter contract."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from pytest_overfit.adapters.base import AtRest, Drawn, Head, Learner, Mode, ParameterFacts, Reading, RunningStatistics
from pytest_overfit.core.arrays import Array


def memorising(step: int) -> float:
    """The way of a healthy model from a constant output (0.0) to the targets (1.0)."""
    return 1.0 - math.exp2(-step / 10)


@dataclasses.dataclass(kw_only=True)
class FakeLearner:
    """A learner without a model: its outputs are the targets, mixed with what a constant gives.

    `way(step)` is the share of the targets in the outputs, 0.0 for a constant and 1.0 for a memorised batch, and
    everything else follows from real losses on those outputs. Costs microseconds, so judgements can be tested by the
    hundred.
    """

    kind: Literal["classes", "values"] = "classes"
    rows: int = 16
    classes: int = 4
    seed: int = 0
    way: Callable[[int], float] = memorising
    #: another way in one mode, e.g. {"eval": lambda step: 0.0}
    modes: Mapping[str, Callable[[int], float]] = dataclasses.field(default_factory=dict)
    #: targets instead of the made-up ones
    given_targets: Array | None = None
    #: inputs instead of the made-up ones
    given_inputs: Array | None = None
    #: the loss is not a number from this step on
    nan_from: int | None = None
    #: eval-mode outputs come with noise
    restless: bool = False
    #: eval-mode outputs of row i are those of row i + 1
    mixes_rows: bool = False
    #: what a floor under the loss adds (label smoothing, noise), unknown to closed forms
    floor: float = 0.0
    #: the sign of the loss is wrong
    flipped: bool = False
    #: the loss cannot be computed on other outputs than the model's
    opaque: bool = False
    unchanged: tuple[str, ...] = ()
    without_gradient: tuple[str, ...] = ()
    not_finite: tuple[str, ...] = ()
    running: tuple[RunningStatistics, ...] = ()
    has_schedule: bool = False
    #: its learning rate can be set
    obeys_rate: bool = True
    framework: str = "fake"
    remarks: tuple[str, ...] = ()
    #: samples by design: `read` and `outputs_for` then draw each time
    samples: bool = False
    #: what the loss draws by design
    draws: Drawn = ""
    #: the last training pass is offered as a reading
    watched: bool = False

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)
        x = random.normal(size=(self.rows, 3)) if self.given_inputs is None else self.given_inputs
        if self.given_targets is not None:
            y = self.given_targets
        elif self.kind == "classes":
            y = random.permutation(np.arange(self.rows) % self.classes)
        else:
            y = random.normal(size=(self.rows, 2))
        self.inputs: tuple[Array, ...] = (x,)
        self.targets: tuple[Array, ...] = (y,)
        self.step = 0
        self._reads = 0

    def train(self, steps: int) -> list[float]:
        losses = []
        for _ in range(steps):
            losses.append(self._loss_at("train"))
            self.step += 1
        return losses

    def _loss_at(self, mode: str) -> float:
        if self.nan_from is not None and self.step >= self.nan_from:
            return math.nan
        return self._loss(self._outputs(mode))[0]

    def schedule_is_declared(self) -> bool:
        return self.has_schedule

    def last_pass(self) -> Reading | None:
        if not self.watched:
            return None
        now, self.step = self.step, max(0, self.step - 1)
        try:
            return self.read("fit")
        finally:
            self.step = now

    def read(self, mode: Mode) -> Reading:
        return self._reading(mode)

    def _reading(self, mode: str) -> Reading:
        outputs = self._outputs(mode)
        if self.opaque:
            return Reading(loss=self._loss_at(mode), outputs=(outputs,))
        exact = not (self.floor or self.flipped)
        plain: Any = ("cross_entropy" if self.kind == "classes" else "squared_error") if exact else ""
        head = Head(
            kind=self.kind, outputs=outputs, targets=self.targets[0], plain=plain, minimum=0.0, loss_name="fake loss"
        )
        return Reading(loss=self._loss_at(mode), outputs=(outputs,), heads=(head,))

    def _outputs(self, mode: str) -> Array:
        share = self.modes.get(mode, self.way)(self.step)
        if self.kind == "classes":
            certain = np.eye(int(self.targets[0].max()) + 1)[self.targets[0]]
            return 12.0 * share * certain
        mean = self.targets[0].mean(axis=0, keepdims=True)
        return np.asarray(mean + share * (self.targets[0] - mean))

    def _loss(self, outputs: Array) -> tuple[float, Array]:
        y = self.targets[0]
        if self.kind == "classes":
            shifted = outputs - outputs.max(axis=1, keepdims=True)
            total = np.exp(shifted).sum(axis=1, keepdims=True)
            share, certain = np.exp(shifted) / total, np.eye(outputs.shape[1])[y]
            loss = float((np.log(total[:, 0]) - (shifted * certain).sum(axis=1)).mean())
            gradient = (share - certain) / len(y)
        else:
            loss, gradient = float(((outputs - y) ** 2).mean()), 2 * (outputs - y) / y.size
        sign = -1.0 if self.flipped else 1.0
        return sign * loss + self.floor, sign * gradient

    def outputs_for(self, rows: Sequence[int]) -> tuple[Array, ...] | None:
        index = (
            [(row + 1) % self.rows for row in rows] if self.mixes_rows and list(rows) != sorted(rows) else list(rows)
        )
        outputs = self._outputs("eval")[index]
        if self.restless:
            self._reads += 1
            outputs = outputs + np.random.default_rng(self._reads).normal(size=outputs.shape)
        return (outputs,)

    def drawn(self) -> Drawn:
        return self.draws

    def draws_in_evaluation(self) -> bool | None:
        return self.restless

    def outputs_along(self, axis: int, order: Sequence[int]) -> tuple[Array, ...] | None:
        del axis, order
        return None

    def loss_and_gradient(self, outputs: Sequence[Array]) -> tuple[float, list[Array]] | None:
        if self.opaque:
            return None
        loss, gradient = self._loss(outputs[0])
        return loss, [gradient]

    def heads_for(self, outputs: Sequence[Array]) -> tuple[Head, ...]:
        del outputs
        return ()

    def shared_outputs(self) -> Sequence[int]:
        return (0,)

    def loss_needs_targets(self) -> bool:
        return True

    def blinded(self) -> FakeLearner:
        return dataclasses.replace(self, way=lambda step: 0.0, modes={})

    def score(self) -> float | None:
        return None

    def scale_rate(self, factor: float) -> bool:
        """As if ten times the rate made ten steps of one."""
        way = self.way
        self.way = lambda step: way(round(factor * step))
        return self.obeys_rate

    def equal_units(self) -> Sequence[str]:
        return ()

    def parameters(self) -> ParameterFacts:
        return ParameterFacts(
            trainable=10,
            frozen=0,
            tensors=2,
            unchanged=self.unchanged,
            without_gradient=self.without_gradient,
            not_finite=self.not_finite,
        )

    def statistics(self) -> list[RunningStatistics]:
        return list(self.running)

    def at_rest(self) -> AtRest | None:
        """Where there is a way for the mode "at_rest": what `running` says of it."""
        if "at_rest" not in self.modes:
            return None
        off = {each.name: each.off for each in self.running if each.off is not None}
        return AtRest(off=off, reading=self._reading("at_rest"))

    def differing_module(self, first: Mode, second: Mode) -> str | None:
        differs = (
            self.restless
            if first == second
            else self.modes.get(first, self.way) is not self.modes.get(second, self.way)
        )
        return "Fake layer" if differs else None


def standing(step: int) -> float:
    """A model whose outputs never leave the constant."""
    del step
    return 0.0


def stuck_half_way(step: int) -> float:
    """A model that starts to fit and then stands still."""
    return min(memorising(step), 0.1)


#: fault -> how a `FakeLearner` shows it; none of them may pass
FAULTS: Mapping[str, Mapping[str, Any]] = {
    "input_ignored": {"way": standing},
    "insufficient_capacity": {"way": stuck_half_way},
    "lr_zero": {"way": standing, "unchanged": ("weight", "bias")},
    "log_of_zero": {"nan_from": 7},
    "nan_parameter": {"not_finite": ("parameter 'scale' of Fake net is NaN",)},
    "gradient_ascent": {"flipped": True, "way": lambda step: -memorising(step)},
    "excessive_dropout": {"restless": True},
    "wrong_reshape": {"mixes_rows": True},
    "batchnorm_eval_mismatch": {
        "modes": {"eval": standing},
        "running": (RunningStatistics(name="Fake norm", momentum=0.0, remaining=1.0),),
    },
}


def check_learner(learner: Learner) -> list[str]:
    """The adapter contract: what an adapter's learner does wrong, in sentences; an empty list when it is all right.

    Trains some 20 steps. Checks shapes and types, that reading leaves no trace, that substituted outputs give the
    loss that was read, and that a blinded learner is a new one.
    """
    wrong = []
    rows = len(learner.inputs[0])
    if any(len(each) != rows for each in (*learner.inputs, *learner.targets)):
        wrong.append("inputs and targets must have the same number of rows")
    first, passed = learner.read("fit"), learner.last_pass()
    if passed is not None and not all(map(_alike, passed.outputs, first.outputs)):
        wrong.append("last_pass() must be None where training answers otherwise than read('fit') does")
    losses = learner.train(5)
    if len(losses) != 5 or not all(isinstance(each, float) for each in losses):
        wrong.append("train(5) must return five floats")
    before = learner.read("fit")
    for mode in ("eval", "train", "reestimated"):
        learner.read(mode)
    learner.statistics(), learner.parameters(), learner.differing_module("eval", "eval")
    after = learner.read("fit")
    if before.loss != after.loss or not all(map(np.array_equal, before.outputs, after.outputs)):
        wrong.append("a reading, or asking for facts, changed what is read next")
    if first.loss is not None and before.loss == first.loss and losses[0] != losses[-1]:
        wrong.append("five steps did not change the loss that is read")
    answer = learner.loss_and_gradient(before.outputs)
    if answer is not None:
        wrong += _check_substitution(answer, before)
    chosen = learner.outputs_for([0, 0, rows - 1])
    if chosen is not None and any(len(each) != 3 for each in chosen if each.shape[:1] == (rows,)):
        wrong.append("outputs_for must return one output a row asked for")
    if learner.blinded() is learner:
        wrong.append("blinded() must return a new learner")
    return wrong


def _alike(first: Array, second: Array) -> bool:
    return bool(np.allclose(first, second, rtol=1e-3, atol=1e-3 * float(np.std(second))))


def _check_substitution(answer: tuple[float, list[Array]], reading: Reading) -> list[str]:
    loss, gradients = answer
    wrong = []
    if reading.loss is not None and not math.isclose(loss, reading.loss, rel_tol=1e-3, abs_tol=1e-5):
        wrong.append(f"the model's own outputs, substituted, give loss {loss:.6g}, but {reading.loss:.6g} was read")
    if [each.shape for each in gradients] != [each.shape for each in reading.outputs]:
        wrong.append("loss_and_gradient must return one gradient of the shape of each output")
    return wrong
