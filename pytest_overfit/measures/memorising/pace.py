"""When is a run read? Often enough to find the step at which it fits; each reading may cost a forward pass."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pytest_overfit.measures.memorising.criteria import loss_ratio
from pytest_overfit.measures.memorising.progress import Point
from pytest_overfit.measures.reference_losses.reference import Reference

#: the first reading comes early, because a small net fits in a few steps; then the loss's own rate says when to look
_FIRST = 5

#: there is also a reading at every so many steps; more would cost forward passes
_CHUNK = 25

#: a run that goes to its end is read at least this often
_FEWEST_READINGS = 20

#: the loss ratio that the spacing of readings aims at; only when to look depends on it
_AIM = 0.05

#: a projection beyond so many steps is none: the loss has hardly moved
_FAR = 10_000


def chunk_size(steps: int, done: int, apart: int, to_go: int | None = None) -> int:
    """Steps until the next reading: a few steps in all would leave too few readings to see a trend.

    `to_go`: after so many steps the loss is expected to be where it should, so a reading is due there, but no sooner
    than `apart` after the last.
    """
    size = _FIRST if done < _FIRST else _CHUNK - done % _CHUNK
    if to_go is not None:
        size = max(apart, min(size, to_go))
    longest = max(1, min(_CHUNK, steps // _FEWEST_READINGS))
    return min(size, longest, steps - done)


def steps_to_go(points: Sequence[Point], reference: Reference) -> int | None:
    """How many steps the loss ratio needs at its last rate; None: it does not fall, or there is no ratio.

    A network leaves the constant's loss slowly, then faster, and ends at an even rate: along a logistic curve, on
    which the logit of the ratio falls evenly. That asks somewhat early, which costs a reading; the logarithm alone
    would ask late, which costs steps.
    """
    if len(points) < 2 or reference.best is None:
        return None
    before, now = (loss_ratio(each.loss, reference) for each in points[-2:])
    done, last = points[-1].step, points[-2].step
    if 0 < now <= _AIM:  # the loss is there, so the predictions are about to be
        return done // 10
    if not 0 < now < min(before, 1.0):
        return None
    if before >= 1:  # no rate yet
        return done
    fallen = _logit(before) - _logit(now)
    needed = (_logit(now) - _logit(_AIM)) * (done - last)
    return math.ceil(needed / fallen) if fallen * _FAR > needed else None


def _logit(share: float) -> float:
    return math.log(share / (1 - share))
