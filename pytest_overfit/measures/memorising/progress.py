"""Is a run on its way to a fit, and how many steps would it need?"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_overfit.measures.memorising.criteria import FitLimits, agrees, allowed, clears_margin, loss_ratio, margin
from pytest_overfit.measures.memorising.trend import NOTHING, WINDOW, Trend, trend
from pytest_overfit.measures.predictions.agreement import Agreement
from pytest_overfit.measures.reference_losses.reference import SCORE_ALONE, Reference

#: a loss ratio this many times below its limit has nothing left to gain from the rows that are still wrong
_NOTHING_LEFT = 10.0

#: shares that differ by less are the same
_SMALL = 1e-9

#: where everything must be right, a score that lacks no more than this share is near
_NEAR = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """What was read after so many steps."""

    step: int
    loss: float
    agreements: tuple[Agreement, ...] = ()

    def value_of(self, score: str) -> float:
        """The value of one score; NaN where it was not measured."""
        return next((each.value for each in self.agreements if each.name == score), math.nan)


def point_of(form: Mapping[str, Any]) -> Point:
    """A point out of its plain form."""
    scores = tuple(Agreement(**each) for each in form.get("agreements", ()))
    return Point(step=form["step"], loss=form["loss"], agreements=scores)


class FitProgress:
    """The trends of everything that the last point does not meet yet."""

    def __init__(
        self, points: Sequence[Point], reference: Reference, limits: FitLimits, window: float = WINDOW
    ) -> None:
        self.points, self.reference, self.limits, self.window = points, reference, limits, window
        self.steps = [each.step for each in points]
        self.last = points[-1]
        self.ratio = loss_ratio(self.last.loss, reference)
        self.unmet = [each for each in self.last.agreements if not agrees(each, limits)]
        self.loss_is_met = self._loss_is_met()

    def _loss_is_met(self) -> bool:
        if self.reference.how == SCORE_ALONE:
            return True
        if self.reference.best is None:
            return clears_margin(self.last.loss, self.last.agreements, self.reference)
        return self.ratio <= self.limits.max_loss_ratio

    def trends(self) -> list[Trend]:
        """One for each criterion that is not met."""
        return [*map(self._score_trend, self.unmet), *([] if self.loss_is_met else [self._loss_trend()])]

    def fits_by(self) -> int | None:
        """The step at which the projection says that everything is met; None: it does not."""
        goals = [each.reaches_goal_at for each in self.trends()]
        found = [each for each in goals if each is not None]
        return max(found) if found and len(found) == len(goals) else None

    def below_constant(self) -> bool:
        """The loss is below that of an output that ignores the input, as far as that is known."""
        return self.reference.constant is None or self.last.loss < self.reference.constant

    def is_near(self) -> bool:
        """Everything that is not met is missed by no more than its limit allows: one row or token may be what lacks."""
        loss_is_near = self.loss_is_met or self.ratio <= 2 * self.limits.max_loss_ratio
        return loss_is_near and all(_is_near(each, allowed(each, self.limits)) for each in self.unmet)

    def _loss_trend(self) -> Trend:
        if self.reference.best is not None:
            return self._trend([loss_ratio(each.loss, self.reference) for each in self.points])
        # where the loss has no lower bound: on a scale on which the constant's is 2 and the margin below it is 1
        unit = margin(self.last.agreements, self.reference)
        if not unit > 0 or self.reference.constant is None:
            return NOTHING
        return self._trend([2.0 + (each.loss - self.reference.constant) / unit for each in self.points], 1.0)

    def _trend(self, values: Sequence[float], goal: float | None = None) -> Trend:
        return trend(self.steps, values, self.limits.max_loss_ratio if goal is None else goal, self.window)

    def _score_trend(self, score: Agreement) -> Trend:
        """Trend of one unmet score; most are shares that move in jumps, so a loss that is not met stands for them."""
        values = [each.value_of(score.name) for each in self.points]
        if score.measure == "worst_column":
            return self._trend(values)
        if not self.loss_is_met:
            return self._loss_trend()
        own = self._way_to_limit(score, values)
        loss_may_help = self.ratio > self.limits.max_loss_ratio / _NOTHING_LEFT
        if own.still_falling or not (loss_may_help and _is_near(score, allowed(score, self.limits))):
            return own
        return dataclasses.replace(self._loss_trend(), reaches_goal_at=None)

    def _way_to_limit(self, score: Agreement, values: Sequence[float]) -> Trend:
        """How what the score lacks shrinks: to what its limit leaves, or to half of the least that was missing."""
        missing = [score.best - each for each in values]
        goal = score.best - allowed(score, self.limits)
        if goal < _SMALL:
            goal = min(each for each in missing if not each < _SMALL) / 2
        found = self._trend([max(each, goal / 2) for each in missing], goal)
        since = self.last.step * (1 - self.window)
        window = [value for step, value in zip(self.steps, values, strict=True) if step >= since]
        climbs = all(one <= other for one, other in itertools.pairwise(window)) and window[-1] > window[0]
        return found if found.still_falling or not climbs else Trend(0.0, True, None, fall=1.0)


def _is_near(score: Agreement, limit: float) -> bool:
    if score.measure == "worst_column":
        return score.value - score.best <= 2 * (limit - score.best)
    return score.best - score.value <= max(2 * (score.best - limit), _NEAR * score.best)
