"""What shrinks weights, measured: weight decay of an optimizer, or a penalty in the loss.

The user's own optimizer makes a few steps twice from the same start, once as it is and once without the decay or the
penalty. What the first run takes away from the weights beyond the second is the effect.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, TypeVar

from pytest_overfit.core.arrays import Array

T = TypeVar("T")

#: steps of a run; the second half counts, when momentum and running squares have settled
STEPS = 16

#: entries of the weights that are stepped, about; the smaller tensors stand for the others
ENTRIES = 300_000


class Stepping(NamedTuple):
    """A run of the user's optimizer on some weights.

    A step gets the batch's gradients, every entry with a sign drawn at random, the same ones in every run: the gradient
    itself moves weights nowhere on average, and adaptive optimizers meet sizes as in training.
    """

    step: Callable[[], None]
    #: the weights as they are now
    weights: Callable[[], Sequence[Array]]


def share_of_a_step(start: Sequence[Array], run: Callable[[bool], AbstractContextManager[Stepping]]) -> float | None:
    """Share of the weights' length that a step takes away, beyond what it does in a bare run; None: not measured.

    `run(False)` steps from `start` as the user's program does, `run(True)` without the decay or penalty in question.
    """
    weights = [each.astype(float) for each in start]
    size = sum(float((each**2).sum()) for each in weights)
    if not weights or not size:
        return None if weights else 0.0
    try:
        full, bare = (_way_in_second_half(weights, size, run(without)) for without in (False, True))
    except Exception:  # a step that wants a closure, a state that cannot be copied, an optimizer that takes all or none
        return None
    return (full - bare) / (STEPS - STEPS // 2)


def _way_in_second_half(start: Sequence[Array], size: float, run: AbstractContextManager[Stepping]) -> float:
    """How far the weights come towards zero, as a share of their length."""
    ways = []
    with run as stepping:
        for number in range(1, STEPS + 1):
            stepping.step()
            if number in (STEPS // 2, STEPS):
                pairs = zip(start, stepping.weights(), strict=True)
                ways.append(sum(float(((old - now) * old).sum()) for old, now in pairs) / size)
    return ways[1] - ways[0]


def smaller_of(
    weights: Iterable[T], size: Callable[[T], int], enough: Callable[[list[T]], bool], entries: int = ENTRIES
) -> list[T]:
    """The smaller ones, as many as make up so many entries, and then more until they are `enough`."""
    taken: list[T] = []
    for weight in sorted(weights, key=size):
        if size(weight) > entries and enough(taken):
            break
        taken.append(weight)
        entries -= size(weight)
    return taken


def default_decay(optimizer: object) -> float | None:
    """The weight decay of this class where its user does not choose one."""
    try:
        given = inspect.signature(type(optimizer)).parameters["weight_decay"].default
    except (KeyError, TypeError, ValueError):
        return None
    return float(given) if isinstance(given, (int, float)) else None
