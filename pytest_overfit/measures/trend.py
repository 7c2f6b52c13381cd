"""Is a curve still falling, and how many steps would it need?

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

#: the last share of the steps that the slope is read from
WINDOW = 0.4

#: a projection beyond this many times the steps already made is not worth a user's wait: the curve stands still
HORIZON = 20.0


@dataclasses.dataclass(frozen=True)
class Trend:
    """Slope of the logarithm of a positive curve over its last part."""

    #: change of the natural logarithm per step; negative: falling
    slope: float
    #: slope in units of its standard error
    significance: float
    #: step at which the line reaches the goal; None: it does not
    reaches_goal_at: int | None

    @property
    def still_falling(self) -> bool:
        """The fall is no noise, and it reaches the goal within the horizon."""
        return self.reaches_goal_at is not None and self.significance < -4.0


def trend(steps: Sequence[int], values: Sequence[float], goal: float) -> Trend:
    """Fit a straight line to log(value) over the last part of the curve by least squares.

    Needs at least four finite positive points there; with fewer it says that nothing falls.
    """
    first = steps[-1] * (1.0 - WINDOW) if steps else 0.0
    points = [
        (step, math.log(value))
        for step, value in zip(steps, values, strict=True)
        if step >= first and math.isfinite(value) and value > 0
    ]
    if len(points) < 4 or goal <= 0:
        return Trend(0.0, 0.0, None)
    count = len(points)
    mean_step = sum(step for step, _ in points) / count
    mean_log = sum(log for _, log in points) / count
    spread = sum((step - mean_step) ** 2 for step, _ in points)
    slope = sum((step - mean_step) * (log - mean_log) for step, log in points) / spread
    residual = sum((log - mean_log - slope * (step - mean_step)) ** 2 for step, log in points)
    error = math.sqrt(max(residual / (count - 2), 1e-24) / spread)
    now, at = mean_log + slope * (points[-1][0] - mean_step), points[-1][0]
    needed = at + (now - math.log(goal)) / -slope if slope < 0 else math.inf
    reaches = math.ceil(needed) if needed <= HORIZON * at else None
    return Trend(slope, slope / error, reaches)
