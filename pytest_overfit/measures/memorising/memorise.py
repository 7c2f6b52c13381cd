"""Train on one batch, chunk by chunk, until the answer is known."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from pytest_overfit.adapters.base import Learner, Mode, Reading
from pytest_overfit.core.errors import ProgramError
from pytest_overfit.measures.memorising.criteria import FitLimits, fits
from pytest_overfit.measures.memorising.extension import STEPS, Extension
from pytest_overfit.measures.memorising.pace import chunk_size, steps_to_go
from pytest_overfit.measures.memorising.progress import FitProgress, Point
from pytest_overfit.measures.missing_values import refuse_missing_values
from pytest_overfit.measures.predictions.on_batch import BatchPredictions, is_memorised
from pytest_overfit.measures.reference_losses.closed_form import closed_form, summed
from pytest_overfit.measures.reference_losses.reference import (
    BEATEN,
    BLINDED,
    CONTROL,
    FLOORLESS_CONTROL,
    SCORE_ALONE,
    Reference,
    optimised,
)
from pytest_overfit.measures.reference_losses.ties import tied_rows

#: steps between a reading at which the batch fits and its confirmation, and the fewest between any two: where a
#: reading costs a forward pass, and where the training pass itself is one (`last_pass`)
_APART, _APART_FREE = 5, 1

#: latent draws that a reading of a model that samples is the mean of
_DRAWS = 8

#: a model this share of the way below the best outputs that were found shows that the search fell short
_BEATEN = 0.01

#: a control run whose loss came down to this share of the first has learnt more than a constant
_LOW = 0.05

Stop = Literal["fits", "steps", "non_finite", "no_update", "budget"]


class MemoriseLimits(FitLimits, Protocol):
    """When a batch counts as memorised, and how many steps it may take."""

    @property
    def steps(self) -> int | None: ...


@dataclasses.dataclass(kw_only=True)
class BatchRun:
    """One training run on one batch."""

    reference: Reference
    points: list[Point] = dataclasses.field(default_factory=list)
    losses: list[float] = dataclasses.field(default_factory=list)
    stop: Stop = "steps"
    #: it was given more steps although it was not projected to fit in as many as healthy runs need
    is_slow: bool = False
    #: why it went no further than it did, where that needs a word
    remark: str = ""
    #: steps of each chunk
    chunks: list[int] = dataclasses.field(default_factory=list)
    #: losses, one a reading, of the control run on blinded inputs, where there is one
    control: list[float] = dataclasses.field(default_factory=list)
    #: the control run came to fit the batch as well, so what it was blinded for is not what tells rows apart
    control_fits: bool = False


class Fit:
    """Trains a learner and reads how well it fits."""

    def __init__(self, learner: Learner, task: str | None, where: str = "") -> None:
        self.learner = learner
        self.task = task
        #: how a message about the case begins
        self.where = where
        self.rows = len(learner.inputs[0])
        self.groups = tied_rows(learner.inputs, self.rows)
        self.first = learner.last_pass() or learner.read("fit")
        refuse_missing_values(learner, self.first, where)
        self.predictions = BatchPredictions(learner, self.first, self.groups, task)
        self.reference = self._reference()
        self.predictions.compare_with(self.reference)
        self._last_loss = math.nan

    def _reference(self) -> Reference:
        heads, ties = self.first.heads, self.predictions.cells
        if heads and all(head.plain for head in heads) and not self.learner.samples:
            return summed([closed_form(head, self.groups, tied) for head, tied in zip(heads, ties, strict=True)])
        found = optimised(self.learner, self.first, self.groups)
        if self.learner.samples and found is not None and found.constant is not None:
            # latent samples have a price in the loss, which free outputs would not pay
            return dataclasses.replace(found, best=None, how=f"{found.how}; the model samples")
        if found is None or self.learner.samples:
            how = BLINDED if self.learner.loss_needs_targets() else SCORE_ALONE
            return Reference(constant=None, best=None, how=how)
        return found

    def point(self, step: int, reading: Reading) -> Point:
        """A reading as plain values; where the loss cannot be read apart, that of the last step stands for it."""
        loss = self._last_loss if reading.loss is None else reading.loss
        return Point(step=step, loss=loss, agreements=self.predictions.agreements(reading))

    def read(self, step: int, mode: Mode) -> Point:
        """A new reading; of a model that samples, the mean of several."""
        draws = [self.learner.read(mode) for _ in range(_DRAWS if self.learner.samples else 1)]
        return self.point(step, draws[0] if len(draws) == 1 else _mean(draws))

    def run(
        self,
        steps: int,
        fits: Callable[[Point, Reference], bool],
        proceed: Callable[[int, float], bool],
        longer: Callable[[BatchRun, bool], int] = lambda run, fits: 0,
    ) -> BatchRun:
        """Train for at most `steps` steps.

        `fits` must say yes at two consecutive readings, the second made after the last update; `proceed(step, loss)`
        may end the run (budget); `longer(run, whether the last reading fits)` is asked at the end for how many more
        steps the run may have.
        """
        run = BatchRun(reference=self.reference)
        control = self.learner.blinded() if self.reference.how == BLINDED else None
        if self.first.loss is not None:
            run.points.append(self.point(0, self.first))
        confirmed, asked = False, steps
        while len(run.losses) < steps:
            apart = _APART if self.learner.last_pass() is None else _APART_FREE
            size = chunk_size(
                steps, len(run.losses), apart, apart if confirmed else steps_to_go(run.points, run.reference)
            )
            if not self._chunk(run, size, control, asked):
                break
            run.stop = self._broken(run) or "steps"
            if run.stop != "steps":
                break
            run.reference = self._unless_beaten(run.reference, run.points[-1].loss)
            now = fits(run.points[-1], run.reference)
            if (now and confirmed) or len(run.losses) == steps:
                now = fits(self._read_at_end(run), run.reference)
            if now and confirmed:
                run.stop = "fits"
                break
            if len(run.losses) == steps:
                steps += longer(run, now)
            if not proceed(run.points[-1].step, run.points[-1].loss):
                run.stop = "budget"
                self._read_at_end(run)
                break
            confirmed = now
        run.control_fits = control is not None and run.stop == "steps" and self._fits_too(control, run)
        return run

    def _fits_too(self, control: Learner, run: BatchRun) -> bool:
        """The control memorised as well: by its predictions, or where these are not known, by how far its loss fell."""
        scores = self.predictions.agreements(control.read("fit"))
        return is_memorised(scores) if scores else 0 <= run.control[-1] <= _LOW * run.losses[0]

    def _chunk(self, run: BatchRun, size: int, control: Learner | None, asked: int) -> bool:
        """Make the steps of one chunk, also on the control, and read where they led.

        False: beyond the steps that were asked for, a step of the user's may have come to the end of a schedule.
        """
        try:
            run.losses += self.learner.train(size)
        except ProgramError as error:
            if len(run.losses) < asked:
                raise
            run.remark = f"no step was made beyond {len(run.losses)}: {str(error).splitlines()[0]}"
            return False
        run.chunks.append(size)
        self._last_loss = run.losses[-1]
        if control is not None:
            run.control += control.train(size)[-1:]
            blind = blinded_reference(run.control, run.losses)
            run.reference = dataclasses.replace(blind, best=None) if self.learner.samples else blind
        passed = self.learner.last_pass()
        step = len(run.losses)
        run.points.append(self.read(step, "fit") if passed is None else self.point(step, passed))
        return True

    def _read_at_end(self, run: BatchRun) -> Point:
        """The end of a run is judged by a separate reading, after the last update."""
        if self.learner.last_pass() is not None:
            run.points[-1] = self.read(len(run.losses), "fit")
        return run.points[-1]

    def _broken(self, run: BatchRun) -> Stop | None:
        """Rules that end a run early: nothing that meets them can still fit."""
        numbers = (run.points[-1].loss, *run.losses[-run.chunks[-1] :])
        if not all(math.isfinite(each) for each in numbers):
            return "non_finite"
        return "no_update" if len(run.chunks) == 1 and self._nothing_moved() else None

    def _unless_beaten(self, reference: Reference, loss: float) -> Reference:
        """A model below the best outputs that a search found shows a better start for it, or that there is no floor."""
        if reference.best is None or reference.constant is None or not reference.best_outputs:
            return reference
        if not _beats(loss, reference):
            return reference
        again = optimised(self.learner, self.learner.read("fit"), self.groups)
        if again is not None and (again.constant is None or not _beats(loss, again)):
            return again
        return dataclasses.replace(reference, best=None, how=f"{reference.how}; {BEATEN}")

    def _nothing_moved(self) -> bool:
        facts = self.learner.parameters()
        return not self.learner.has_schedule and facts.tensors > 0 and len(facts.unchanged) == facts.tensors


def memorise(
    fit: Fit, limits: MemoriseLimits, proceed: Callable[[int, float], bool] = lambda step, loss: True
) -> BatchRun:
    """Train until the batch is memorised by these limits, or their steps are made.

    Where the limits leave the number open, a run that is on its way may go on; a schedule ends where it was planned to
    end. One that fits at its last reading for the first time makes the few steps that confirm it.
    """
    extension = Extension()

    def longer(run: BatchRun, fits_now: bool) -> int:
        if fit.learner.schedule_is_declared():
            return 0
        if fits_now:
            return _APART
        if limits.steps is not None or (run.reference.how == FLOORLESS_CONTROL and not run.points[-1].agreements):
            return 0
        more = extension.steps(lambda window: FitProgress(run.points, run.reference, limits, window))
        run.is_slow = extension.is_slow
        return more

    def fitting(point: Point, reference: Reference) -> bool:
        return fits(point.loss, point.agreements, reference, limits)

    return fit.run(limits.steps or STEPS, fitting, proceed, longer)


def _beats(loss: float, reference: Reference) -> bool:
    if reference.best is None or reference.constant is None:
        return False
    between = reference.constant - reference.best
    return between > 0 and loss < reference.best - _BEATEN * between


def _mean(draws: Sequence[Reading]) -> Reading:
    """The average answer; a draw in which a loss or a head is missing leaves it out of all."""
    losses = [each.loss for each in draws if each.loss is not None]
    heads = [
        dataclasses.replace(same[0], outputs=sum(each.outputs for each in same) / len(same))
        for same in zip(*(each.heads for each in draws), strict=False)
    ]
    outputs = [sum(same) / len(same) for same in zip(*(each.outputs for each in draws), strict=False)]
    loss = sum(losses) / len(losses) if len(losses) == len(draws) else None
    return Reading(loss=loss, outputs=tuple(outputs), heads=tuple(heads))


def blinded_reference(control: Sequence[float], losses: Sequence[float]) -> Reference:
    """References from the control run: the least loss it came to; what memorising could reach is taken to be 0."""
    finite = [each for each in control if math.isfinite(each)]
    constant = min(finite) if finite else None
    negative = any(each < 0 for each in (*finite, *losses))
    how = FLOORLESS_CONTROL if negative else CONTROL
    return Reference(constant=constant, best=None if negative else 0.0, how=how)
