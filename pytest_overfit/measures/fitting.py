"""Train on one batch, chunk by chunk, until the answer is known.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pytest_overfit.core.errors import CaseError
from pytest_overfit.data.batch import missing_values
from pytest_overfit.measures.agreement import Agreement, agreements, inferred_head
from pytest_overfit.measures.closed_form import closed_form, summed
from pytest_overfit.measures.links import simplex_axis
from pytest_overfit.measures.reference import Reference, optimised
from pytest_overfit.measures.ties import prefix_cells, tied_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_overfit.adapters.base import Head, Learner, Reading

    Array = NDArray[Any]

#: short at first, because a small net fits in a few steps; long later, because every reading costs a forward pass
_FIRST_CHUNKS = (5, 5, 10, 10, 20)
_CHUNK = 25

#: a run that goes to its end is read at least this often
_FEWEST_READINGS = 20

#: after a chunk end at which the batch fits, the confirmation needs no long chunk
_CONFIRM = 5

#: a guessed task is believed when outputs that memorise under the loss score at least this
_BELIEVED = 0.9

#: a model this share of the way below the best outputs that were found shows that the search fell short
_BEATEN = 0.01

Stop = Literal["fits", "steps", "non_finite", "no_update", "budget"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """What was read at one chunk end."""

    step: int
    loss: float
    agreements: tuple[Agreement, ...] = ()


@dataclasses.dataclass(kw_only=True)
class Run:
    """One training run on one batch."""

    reference: Reference
    points: list[Point] = dataclasses.field(default_factory=list)
    losses: list[float] = dataclasses.field(default_factory=list)
    stop: Stop = "steps"
    #: steps of each chunk
    chunks: list[int] = dataclasses.field(default_factory=list)
    #: losses at chunk ends of the control run on blinded inputs, where there is one
    control: list[float] = dataclasses.field(default_factory=list)


class Fit:
    """Trains a learner and reads how well it fits."""

    def __init__(self, learner: Learner, task: str | None, where: str = "") -> None:
        self.learner = learner
        self.task = task
        #: how a message about the case begins
        self.where = where
        self.rows = len(learner.inputs[0])
        self.groups = tied_rows(learner.inputs, self.rows)
        self._inferred_is_believed = True
        self.first = learner.read("fit")
        self._check_missing_values()
        self._gradient = self._first_gradient()
        self.cells = self._cells()
        self.reference = self._reference()

    def _check_missing_values(self) -> None:
        """Missing values that come through to the first loss are a mistake in the batch; masked ones are none."""
        missing = missing_values(self.learner.inputs, self.learner.targets)
        if missing is not None and not (self.first.loss is not None and math.isfinite(self.first.loss)):
            raise CaseError(f"{self.where} {missing}".strip())

    def _cells(self) -> tuple[Array | None, ...]:
        return tuple(prefix_cells(head, self.learner.inputs, self.groups) for head in self.first.heads)

    def _first_gradient(self) -> Array | None:
        """The loss's gradient by the model's first output, where a task has to be guessed."""
        if self.first.heads or len(self.first.outputs) != 1:
            return None
        answer = self.learner.loss_and_gradient(self.first.outputs)
        return None if answer is None else answer[1][0]

    def _reference(self) -> Reference:
        heads = self.first.heads
        if self.learner.samples:
            return self._without_floor()
        if heads and all(head.plain for head in heads):
            return summed([closed_form(head, self.groups, tied) for head, tied in zip(heads, self.cells, strict=True)])
        found = optimised(self.learner, self.first, self.groups)
        if found is None:
            return Reference(constant=None, best=None, how="blinded run")
        self._inferred_is_believed = self._believe(found)
        return found

    def _without_floor(self) -> Reference:
        """Latent samples have a price in the loss, which free outputs would not pay."""
        found = optimised(self.learner, self.first, self.groups)
        constant = None if found is None else found.constant
        how = "blinded run" if constant is None else "optimised outputs under the loss itself; the model samples"
        return Reference(constant=constant, best=None, how=how)

    def _believe(self, reference: Reference) -> bool:
        """A task guessed from shapes must be one that memorising this loss solves; embeddings are no classes."""
        if self.first.heads or self.task is not None or not reference.best_outputs:
            return True
        (output, *others), heads = self.first.outputs, self._inferred(reference.best_outputs)
        if not others and simplex_axis(output) is not None:
            return True  # distributions over classes, by design
        scores = agreements(heads, self.groups)
        if heads and heads[0].kind == "binary" and scores and scores[0].value <= 1 - _BELIEVED:
            return True  # memorising turns every single answer round: the task is right, the loss is not
        return all(
            each.value <= 1 - _BELIEVED if each.measure == "worst_column" else each.value >= _BELIEVED * each.best
            for each in scores
        )

    def heads(self, reading: Reading) -> Sequence[Head]:
        """The heads the loss showed, else a guess from shapes and the declared task."""
        if reading.heads:
            return reading.heads
        if not self._inferred_is_believed:
            return ()
        return self._inferred(reading.outputs)

    def _inferred(self, outputs: Sequence[Array]) -> Sequence[Head]:
        head = inferred_head(outputs, self.learner.targets, self.task)
        if head is None:
            return ()
        return (dataclasses.replace(head, mask=self._asked_for(head)),)

    def _asked_for(self, head: Head) -> Array | None:
        """True where the loss looks at a target at all: elsewhere (hand-masked padding) its gradient is zero."""
        import numpy as np

        if self._gradient is None or self._gradient.shape != head.outputs.shape:
            return None
        asked: Array = self._gradient != 0
        if head.kind == "classes":
            found: Array = np.any(asked, axis=head.class_axis)
            return found
        return asked.reshape(head.targets.shape)

    def agreements(self, reading: Reading) -> tuple[Agreement, ...]:
        """Scores of a reading; the case's own score replaces them."""
        score = self.learner.score()
        if score is not None:
            return (Agreement(measure="score", value=score, best=1.0),)
        return tuple(agreements(self.heads(reading), self.groups, self.cells, self.learner.samples))

    def point(self, step: int, reading: Reading) -> Point:
        loss = math.nan if reading.loss is None else reading.loss
        return Point(step=step, loss=loss, agreements=self.agreements(reading))

    def run(self, steps: int, fits: Callable[[Point, Reference], bool], proceed: Callable[[int, float], bool]) -> Run:
        """Train for at most `steps` steps.

        `fits` is asked at chunk ends and must say yes twice running; `proceed(step, loss)` may end the run (budget).
        """
        run = Run(reference=self.reference)
        control = self.learner.blinded() if self.reference.how == "blinded run" else None
        if self.first.loss is not None:
            run.points.append(self.point(0, self.first))
        confirmed = False
        while len(run.losses) < steps:
            size = chunk_size(len(run.chunks), steps, len(run.losses), confirmed)
            self._chunk(run, size, control)
            run.stop = self._broken(run) or "steps"
            if run.stop != "steps":
                break
            run.reference = self._unless_beaten(run.reference, run.points[-1].loss)
            now = fits(run.points[-1], run.reference)
            if (now and confirmed) or len(run.losses) == steps:
                now = fits(self._read_anew(run), run.reference)
            if now and confirmed:
                run.stop = "fits"
                break
            if not proceed(run.points[-1].step, run.points[-1].loss):
                run.stop = "budget"
                self._read_anew(run)
                break
            confirmed = now
        return run

    def _chunk(self, run: Run, size: int, control: Learner | None) -> None:
        """Make the steps of one chunk, also on the control, and read where they led."""
        run.losses += self.learner.train(size)
        run.chunks.append(size)
        if control is not None:
            run.control += control.train(size)[-1:]
            blind = blinded_reference(run.control, run.losses)
            run.reference = dataclasses.replace(blind, best=None) if self.learner.samples else blind
        passed = self.learner.last_pass()
        run.points.append(self.point(len(run.losses), self.learner.read("fit") if passed is None else passed))

    def _read_anew(self, run: Run) -> Point:
        """The end of a run is judged by a reading of its own, after the last update."""
        if self.learner.last_pass() is not None:
            run.points[-1] = self.point(len(run.losses), self.learner.read("fit"))
        return run.points[-1]

    def _broken(self, run: Run) -> Stop | None:
        """Rules that end a run early: nothing that meets them can still fit."""
        numbers = (run.points[-1].loss, *run.losses[-run.chunks[-1] :])
        if not all(math.isfinite(each) for each in numbers):
            return "non_finite"
        return "no_update" if len(run.chunks) == 1 and self._nothing_moved() else None

    def _unless_beaten(self, reference: Reference, loss: float) -> Reference:
        """A model below the best outputs that a search found shows that there is no such floor."""
        if reference.best is None or reference.constant is None or not reference.best_outputs:
            return reference
        between = reference.constant - reference.best
        if between <= 0 or loss >= reference.best - _BEATEN * between:
            return reference
        return dataclasses.replace(
            reference, best=None, how=f"{reference.how}; the model went below the best that was found"
        )

    def _nothing_moved(self) -> bool:
        facts = self.learner.parameters()
        return not self.learner.has_schedule and facts.tensors > 0 and len(facts.unchanged) == facts.tensors


def chunk_size(number: int, steps: int, done: int, confirming: bool) -> int:
    """Steps until the next reading: a few steps in all would leave too few readings to tell a trend by."""
    size = _FIRST_CHUNKS[number] if number < len(_FIRST_CHUNKS) else _CHUNK
    longest = max(1, min(_CHUNK, steps // _FEWEST_READINGS))
    return min(_CONFIRM if confirming else size, longest, steps - done)


def blinded_reference(control: Sequence[float], losses: Sequence[float]) -> Reference:
    """References from the control run: the least loss it came to; what memorising could reach is taken to be 0."""
    finite = [each for each in control if math.isfinite(each)]
    constant = min(finite) if finite else None
    negative = any(each < 0 for each in (*finite, *losses))
    how = "least loss of the same factory trained on blinded inputs"
    return Reference(constant=constant, best=None if negative else 0.0, how=how)
