"""Run changed programs within a budget of updates."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from pytest_overfit.adapters.programs import Program, UnchangeableError
from pytest_overfit.core.errors import OverfitError
from pytest_overfit.diagnosis.hypotheses import Hypothesis
from pytest_overfit.diagnosis.symptoms import Symptoms, between
from pytest_overfit.measures.memorising.criteria import fits, loss_ratio
from pytest_overfit.measures.memorising.extension import STEPS
from pytest_overfit.measures.memorising.memorise import Fit
from pytest_overfit.measures.memorising.progress import Point
from pytest_overfit.measures.reference_losses.reference import Reference

#: updates of all trials together: so many times those of the run, and never more than this
_TIMES, _MOST = 3, 1_500

#: a trial whose loss is no lower than the run's after so many updates is ended
_PATIENCE = 50

#: the same where the program itself speaks for the cause: a run may come down fast and stop where it cannot go on
_PATIENCE_OF_STATE = 150

#: such a trial goes on for as long again where it has come down to this ratio
_NEARLY = 0.3

#: a run that is still on its way is slow by a cause only if it fits so many times sooner without it
_SOONER = 3

#: beside the run's own
_OTHER_SEED = 1

#: of two causes the one that fits in at most this share of the other's updates is the diagnosis
CLEARLY = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """One change and what came of it."""

    hypothesis: Hypothesis
    #: updates after which the batch was memorised; None: it was not
    fits_at: int | None = None
    #: updates that were made
    steps: int = 0
    #: it could not be tried: why, in words
    refused: str = ""

    @property
    def was_made(self) -> bool:
        """The change was possible, and the program ran."""
        return not self.refused


class Trials:
    """Tries one hypothesis after the other until the budget is spent, or nothing could change the answer."""

    def __init__(self, symptoms: Symptoms, program: Program, limits: Any, task: str | None, open_: bool) -> None:
        self._symptoms, self._program, self._limits, self._task = symptoms, program, limits, task
        # a run that was ended early, because it could not fit any more, had as many as others to come
        run = max(symptoms.steps, STEPS if symptoms.measured["stop"] in ("no_update", "non_finite") else 1)
        self._left = min(_TIMES * run, _MOST)
        self._run, self._open = run, open_
        self.made: list[Trial] = []

    def run(self, hypotheses: Sequence[Hypothesis]) -> list[Trial]:
        """In their order. Where a change that the state itself called for has cured, no common suspects are tried."""
        for hypothesis in hypotheses:
            cured = [each for each in self.made if each.fits_at is not None]
            if any(each.hypothesis.family == hypothesis.family for each in cured):
                continue  # the smaller change of its family did
            if not hypothesis.is_of_state and any(each.hypothesis.is_of_state for each in cured):
                break
            if hypothesis.change is not None and self._left > 0:
                self.made.append(self._confirmed(hypothesis, self._steps_for(hypothesis, cured)))
        return self.made

    def _steps_for(self, hypothesis: Hypothesis, cured: Sequence[Trial]) -> int:
        """What takes more than twice the updates of a cure that is known changes no diagnosis."""
        fastest = min((each.fits_at for each in cured if each.fits_at is not None), default=None)
        run = 2 * self._run if hypothesis.is_of_state else self._run
        most = run if fastest is None else min(run, math.ceil(fastest / CLEARLY))
        if self._open and not hypothesis.is_of_state:
            most = min(most, self._run // _SOONER)
        return max(1, most)

    def _confirmed(self, hypothesis: Hypothesis, steps: int) -> Trial:
        """A healthy run may be slow by its seed, so what makes it faster must do so from another one too."""
        trial = self._trial(self._program, hypothesis, steps)
        if trial.fits_at is None or not self._open or hypothesis.is_of_state:
            return trial
        again = self._trial(self._program.again(_OTHER_SEED), hypothesis, steps)
        return trial if again.fits_at is not None else again

    def _trial(self, program: Program, hypothesis: Hypothesis, steps: int) -> Trial:
        if hypothesis.change is None or self._left <= 0:
            return Trial(hypothesis=hypothesis, refused="the budget of updates was spent")
        steps = min(steps, self._left)
        try:
            fit = Fit(program.changed(hypothesis.change), self._task)
            run = fit.run(steps, self._fits, lambda step, loss: self._goes_on(fit, hypothesis, step, loss))
        except (UnchangeableError, OverfitError) as error:
            return Trial(hypothesis=hypothesis, refused=str(error).splitlines()[0])
        except Exception as error:  # a changed program may fail in any way; the verdict stands without the trial
            return Trial(hypothesis=hypothesis, refused=f"{type(error).__name__}: {str(error).splitlines()[:1]}")
        made = len(run.losses)
        self._left -= made
        return Trial(hypothesis=hypothesis, fits_at=made if run.stop == "fits" else None, steps=made)

    def _fits(self, point: Point, reference: Reference) -> bool:
        return fits(point.loss, point.agreements, reference, self._limits)

    def _goes_on(self, fit: Fit, hypothesis: Hypothesis, step: int, loss: float) -> bool:
        if step < (_PATIENCE_OF_STATE if hypothesis.is_of_state else _PATIENCE):
            return True
        near = step < self._run or loss_ratio(loss, fit.reference) < _NEARLY
        return near and self._is_better(fit, step, loss)

    def _is_better(self, fit: Fit, step: int, loss: float) -> bool:
        """On its way down further than the run was at that step; by shares of the way, where losses are others."""
        before = between(self._symptoms.points, step)
        if not math.isfinite(loss):
            return False
        mine, its = loss_ratio(loss, fit.reference), loss_ratio(before, self._symptoms.reference)
        if math.isfinite(mine):  # a loss below the least it can be is no lower bar than a constant output's
            return mine < (its if 0 <= its <= 1 else 1.0)
        return not its >= 0 or loss < before
