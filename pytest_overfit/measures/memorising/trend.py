"""Is a curve still falling, and how many steps would it need?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

#: the last share of the steps that is looked at
WINDOW = 0.4

#: a projection beyond this many times the steps already made is not worth a wait: the curve hardly falls
HORIZON = 50.0

#: logarithm of a step that no projection goes beyond
_LATEST = 20.0

#: points that two slopes need
_FEWEST = 6

#: slopes smaller than this many standard errors are noise: of curves that stand still, 1 % seem to fall; of curves that
#: fall by a tenth under noise of 3 %, 4 in 10 seem to stand (benchmarks/error_rates/trends.py)
_SIGNIFICANT = 3.0

#: a fall of the logarithm over the window below which a curve stands still for all purposes: 1 %
TRICKLE = 0.01

#: a slope that keeps this share of itself from one half to the next is taken not to slow down at all
_STEADY = 0.97


@dataclasses.dataclass(frozen=True)
class Trend:
    """Where the last part of a positive curve leads, on a logarithmic scale."""

    #: change of the natural logarithm per step; negative: falling
    slope: float
    #: the slope is not noise
    significant: bool
    #: step at which the curve reaches the goal, as far as it can be projected; None: it does not
    reaches_goal_at: int | None

    #: how much the natural logarithm fell over the part looked at
    fall: float = 0.0

    @property
    def still_falling(self) -> bool:
        """The fall is not noise, and leads to the goal within the horizon, or at least it is more than a trickle.

        A projection can be wrong both ways: networks leave plateaus. So a curve that visibly falls is never called
        flat.
        """
        return self.significant and (self.reaches_goal_at is not None or self.fall > TRICKLE)


NOTHING = Trend(0.0, False, None)


def trend(steps: Sequence[int], values: Sequence[float], goal: float, window: float = WINDOW) -> Trend:
    """Project log(value) from its slopes in the two halves of the last part of the curve.

    A fall that slows down from the first half to the second is taken to keep slowing down by that factor, so
    that a curve on its way to a plateau is not mistaken for one on its way to the goal. Where that would never lead
    there, it is taken for a power of the steps, which falls by the same share each time they double. Of a short curve
    it looks at the last seven points; with fewer than six it can tell no noise from a fall, so any fall counts.
    """
    first = steps[-1] * (1.0 - window) if steps else 0.0
    finite = [(s, math.log(v)) for s, v in zip(steps, values, strict=True) if math.isfinite(v) and v > 0]
    points = [each for each in finite if each[0] >= first]
    if len(points) < _FEWEST:
        points = finite[-_FEWEST - 1 :]
    if len(points) < 2 or goal <= 0:
        return NOTHING
    if len(points) < _FEWEST:
        return _between_ends(points, goal)
    middle = len(points) // 2
    whole, early, late = _line(points), _line(points[: middle + 1]), _line(points[middle:])
    at = points[-1][0]
    significant = whole.slope < -_SIGNIFICANT * whole.error and _may_fall(late, at - points[middle][0])
    if not significant:
        return Trend(whole.slope, False, None)
    distance = late.value_at(at) - math.log(goal)
    slowing = late.slope / min(early.slope, -1e-300)
    needed = at + _steps_to_fall(distance, min(late.slope, 0.0), slowing, points[middle][0], at)
    if needed == math.inf:
        needed = _power_reaches(math.log(goal), points)
    fall = whole.slope * (points[0][0] - at)
    return Trend(whole.slope, True, math.ceil(needed) if needed <= HORIZON * at else None, fall)


def _may_fall(late: _Line, steps: int) -> bool:
    """The last half falls, or its points scatter so much that a fall worth the name cannot be ruled out."""
    return late.slope < 0 or (late.slope - _SIGNIFICANT * late.error) * steps < -TRICKLE / 2


def _between_ends(points: Sequence[tuple[int, float]], goal: float) -> Trend:
    """The trend of a handful of points: a straight line from the first to the last."""
    (start, first), (at, last) = points[0], points[-1]
    fall = first - last
    if fall <= TRICKLE or last > min(value for _, value in points):
        return NOTHING
    needed = at + max(0.0, last - math.log(goal)) * (at - start) / fall
    return Trend(-fall / (at - start), True, math.ceil(needed) if needed <= HORIZON * at else None, fall)


def _steps_to_fall(distance: float, slope: float, factor: float, start: int, end: int) -> float:
    """Steps until the curve has fallen by `distance`, when its slope changes by `factor` in each such stretch."""
    stretch = max(1, end - start)
    if distance <= 0:
        return 0.0
    if slope >= 0:
        return math.inf
    if factor >= _STEADY:
        return distance / -slope
    fall = -slope * stretch  # in the last stretch; the next ones fall by fall * factor, fall * factor ** 2, ...
    still_to_come = fall * factor / (1.0 - factor)
    if still_to_come <= distance:
        return math.inf
    return stretch * math.log(1.0 - distance / still_to_come) / math.log(factor)


def _power_reaches(goal: float, points: Sequence[tuple[float, float]]) -> float:
    """The step at which a power of the steps, straight in log against log, falls to `goal`."""
    line = _line([(math.log(max(step, 1)), value) for step, value in points])
    needed = line.mean_x + (line.mean_y - goal) / max(-line.slope, 1e-300)
    return math.exp(needed) if needed < _LATEST else math.inf


@dataclasses.dataclass(frozen=True)
class _Line:
    slope: float
    error: float
    mean_x: float
    mean_y: float

    def value_at(self, x: float) -> float:
        return self.mean_y + self.slope * (x - self.mean_x)


def _line(points: Sequence[tuple[float, float]]) -> _Line:
    """Least squares, with the standard error of the slope."""
    count = len(points)
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    residual = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in points)
    return _Line(slope, math.sqrt(max(residual / max(1, count - 2), 1e-24) / spread), mean_x, mean_y)
