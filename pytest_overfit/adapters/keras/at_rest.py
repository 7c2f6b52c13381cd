"""Where moving statistics come to rest: training steps are repeated while the weights stand still."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pytest_overfit.adapters.base import AtRest, Reading
from pytest_overfit.adapters.keras.facts import moving
from pytest_overfit.adapters.keras.reader import Reader
from pytest_overfit.adapters.keras.state import held, restorer
from pytest_overfit.adapters.running_statistics import Moments, batch_alone, mean_of, off_by, resting_place

#: steps between two looks at moving statistics, of which there are three
_APART = 16

#: passes of the batch alone, of which each draws dropout masks of its own
_DRAWS = 8


def found(reader: Reader, step: Callable[[], object], read: Callable[[], Reading]) -> AtRest | None:
    """`step`: what training does for one update; `read`: a reading in evaluation. None: a step refuses to go on."""
    try:
        return _found(reader, step, read)
    except Exception:  # the end of a schedule of the user's, say
        return None


def _found(reader: Reader, step: Callable[[], object], read: Callable[[], Reading]) -> AtRest:
    quiet, passes = reader.moments_of_calls("eval"), [reader.moments_of_calls("train") for _ in range(_DRAWS)]
    layers = [each for each in reader.normalising() if quiet.get(id(each))]
    draws = [batch_alone(quiet[id(e)], [call for each in passes for call in each[id(e)]], _DRAWS) for e in layers]
    with held(reader.model, weights=True):
        start, calls = [mean_of(each) for each in draws], [len(quiet[id(each)]) for each in layers]
        places = _resting_places(reader.model, layers, start, step, calls)
        for layer, place in zip(layers, places, strict=True):
            _set(layer, place)
        off = {
            layer.name: off_by(place, found, layer.epsilon)
            for layer, place, found in zip(layers, places, draws, strict=True)
        }
        return AtRest(off=off, reading=read())


def _resting_places(
    model: Any, layers: list[Any], start: list[Moments], step: Callable[[], object], calls: list[int]
) -> list[Moments]:
    """Begin with the batch's own statistics: a way from far off would be lost to rounding where momentum is small."""
    put_back = restorer(model.trainable_variables)

    def look(steps: int) -> list[Moments]:
        for _ in range(steps):
            step()
            put_back()
        return [moving(each) for each in layers]

    there, moved = look(0), look(1)
    for layer, moments in zip(layers, start, strict=True):
        _set(layer, moments)
    looks, places = [start, look(_APART), look(_APART)], []
    for number, layer in enumerate(layers):
        seen = [each[number] for each in looks]
        left = _left(seen, float(layer.momentum) ** (_APART * calls[number]))
        stands = all(np.array_equal(*pair) for pair in zip(there[number], moved[number], strict=True))
        places.append(there[number] if stands else resting_place(seen[0], seen[2], left))
    return places


def _set(layer: Any, place: Moments) -> None:
    layer.moving_mean.assign(place[0])
    layer.moving_variance.assign(place[1])


def _left(seen: list[Moments], most: float) -> float:
    """The share of the way that is left after the last look.

    A step may call a layer more often than a pass of the batch does, which no layer counts; but where the goal stands,
    the ways made in equal numbers of steps shrink by one ratio. `most`: by the momentum and the batch's own calls.
    """
    first, second, third = (np.concatenate([np.ravel(part).astype(np.float64) for part in each]) for each in seen)
    way, rest = float(np.linalg.norm(second - first)), float(np.linalg.norm(third - second))
    return min(rest / way if way > 0 else most, most) ** 2
