"""Is a run on its way to a fit, and how many steps would it need?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_overfit.measures.memorising.criteria import FitLimits, agrees, clears_margin, loss_ratio, margin
from pytest_overfit.measures.memorising.trend import NOTHING, WINDOW, Trend, trend
from pytest_overfit.measures.predictions.agreement import Agreement
from pytest_overfit.measures.reference_losses.reference import Reference


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

    def __init__(self, points: Sequence[Point], reference: Reference, limits: FitLimits) -> None:
        self.points, self.reference, self.limits = points, reference, limits
        self.last = points[-1]
        self.ratio = loss_ratio(self.last.loss, reference)

    def trends(self) -> list[Trend]:
        """One for each criterion that is not met."""
        names = [each.name for each in self.last.agreements if not agrees(each, self.limits)]
        if not math.isfinite(self.ratio) or self.ratio > self.limits.max_loss_ratio:
            names.append("loss_ratio")
        return [self._trend(name) for name in names]

    def fits_by(self) -> int | None:
        """The step at which the projection says that everything is met; None: it does not."""
        goals = [each.reaches_goal_at for each in self.trends()]
        found = [each for each in goals if each is not None]
        return max(found) if found and len(found) == len(goals) else None

    def _trend(self, criterion: str) -> Trend:
        """Trend of one unmet criterion; shares move in jumps, so the loss is projected instead."""
        steps = [each.step for each in self.points]
        goal = self.limits.max_loss_ratio
        if criterion.startswith("worst_column"):
            return trend(steps, [each.value_of(criterion) for each in self.points], goal)
        if self.reference.best is None:
            return self._trend_to_margin(criterion, steps)
        if criterion != "loss_ratio" and self.ratio <= goal:
            return self._jumps(criterion)
        return trend(steps, [loss_ratio(each.loss, self.reference) for each in self.points], goal)

    def _trend_to_margin(self, criterion: str, steps: Sequence[int]) -> Trend:
        """Where the loss has no lower bound: on a scale on which the constant's is 2 and the margin below it is 1."""
        scores = self.last.agreements
        unit = margin(scores, self.reference)
        if not unit > 0 or self.reference.constant is None:
            return NOTHING
        if criterion != "loss_ratio" and clears_margin(self.last.loss, scores, self.reference):
            return self._jumps(criterion)
        return trend(steps, [2.0 + (each.loss - self.reference.constant) / unit for each in self.points], 1.0)

    def _jumps(self, criterion: str) -> Trend:
        """A score that lags behind a loss that is where it should be: it counts as moving if it still improves."""
        window = [each for each in self.points if each.step >= self.last.step * (1 - WINDOW)]
        first, last = window[0].value_of(criterion), window[-1].value_of(criterion)
        return Trend(0.0, True, None, fall=1.0) if last > first else NOTHING
