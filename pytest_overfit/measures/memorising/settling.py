"""Does evaluation come, once running statistics had the steps that their momentum asks for?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from pytest_overfit.adapters.base import RunningStatistics
from pytest_overfit.core.errors import ProgramError
from pytest_overfit.measures.memorising.memorise import BatchRun, Fit
from pytest_overfit.measures.memorising.progress import Point
from pytest_overfit.measures.memorising.trend import trend

#: running statistics that have no more than this share of their way to go have settled
SETTLED = 0.01

#: how much further than momentum and steps explain a share may be, because the weights, and so the goal, moved on
_DRIFT = 0.15

#: how much more than explained a movement may be
_HURRY = 1.35

#: means that go aside by more than this share of their movement are drawn elsewhere: in healthy models up to 0.38 in
#: the first steps, and next to none later; 0.5 to 0.8 where a second domain passes the same layer
_ASIDE = 0.45

#: steps between two looks, and how many at most a run may be given
_CHUNK, _MOST = 25, 500

#: steps for running averages whose momentum is not known
_USUAL = 50


def expected_remaining(statistics: RunningStatistics, steps: int) -> float | None:
    """The share of the way that is left after so many updates; None: an average over all steps, which leaves none."""
    momentum = statistics.momentum
    return None if momentum is None else (1.0 - momentum) ** (steps * statistics.calls)


def follows(statistics: RunningStatistics, steps: int) -> bool:
    """Running statistics are where their momentum and the steps made bring them, but for the weights' own movement."""
    expected = expected_remaining(statistics, steps) or 0.0
    return statistics.remaining <= expected + _DRIFT and statistics.stray <= _ASIDE


def hurries(statistics: RunningStatistics, steps: int) -> bool:
    """They moved so much further than this that something beside the batch may have moved them."""
    expected = expected_remaining(statistics, steps)
    return expected is not None and 1 - statistics.remaining > _HURRY * (1 - expected) + _DRIFT / 3


def steps_to_settle(momentum: float | None, left: float = SETTLED) -> int:
    """Updates after which no more than this share of the way is left."""
    if momentum is None or not 0 < momentum < 1:
        return _USUAL
    return math.ceil(math.log(left) / math.log1p(-momentum))


def settle(
    fit: Fit, run: BatchRun, statistics: Sequence[RunningStatistics], most: int, fits: Callable[[Point], bool]
) -> bool:
    """Train on until evaluation fits as well, or statistics had their steps; False: they had not, at step `most`.

    Where they follow this batch, but evaluation with settled ones would not fit (each call of a siamese net's layer
    has statistics of its own), it goes on while the loss in evaluation falls. The run's last point then fits, if any.
    """
    start = len(run.losses)
    asked = min(_MOST, max((steps_to_settle(each.momentum) for each in statistics), default=_USUAL))
    patient = all(follows(each, start) for each in statistics)
    losses: list[tuple[int, float]] = []
    while len(run.losses) < min(most, start + _MOST):
        to_go = start + asked - len(run.losses)
        if not _advance(fit, run, min(_CHUNK, most - len(run.losses), to_go if to_go > 0 else _CHUNK)):
            break
        evaluated = fit.read(len(run.losses), "eval")
        losses.append((evaluated.step, evaluated.loss))
        if patient and fits(run.points[-1]) and fits(evaluated):
            break
        if to_go <= _CHUNK and not (patient and _falls(losses)):
            break
    had_them = len(run.losses) - start >= asked
    while not fits(run.points[-1]) and len(run.losses) < most + _CHUNK and _advance(fit, run, 1):
        pass
    return had_them


def _falls(losses: Sequence[tuple[int, float]]) -> bool:
    steps, values = zip(*losses, strict=True)
    return trend(steps, values, SETTLED).still_falling


def _advance(fit: Fit, run: BatchRun, size: int) -> bool:
    try:
        run.losses += fit.learner.train(size)
    except ProgramError:  # the end of a schedule inside a step of the user's
        return False
    run.points.append(fit.read(len(run.losses), "fit"))
    return True
