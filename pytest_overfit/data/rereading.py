"""Data that are read again: are they the same, and generators that they carry are put back.

Reading a split to look at it must not change what training draws next.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

from pytest_overfit.core import foreign
from pytest_overfit.core.arrays import Array

#: samples read twice: an augmentation that touches one sample in ten is missed once in a thousand times
TWICE = 32

#: objects looked into, of which a dataset under wrappers, transforms and samplers has some dozens; entries of a list
_MOST, _ENTRIES = 2_000, 64

Restore = Callable[[], None]


def spread(count: int, most: int = TWICE) -> Array:
    """At most so many places, evenly over `count`."""
    return np.unique(np.linspace(0, count - 1, most).astype(int))


def changed_place(
    places: Iterable[int],
    read: Callable[[int, int], Any],
    same: Callable[[Any, Any], bool],
    readings: int = 2,
) -> int | None:
    """The first place where another reading gave another sample; `read(place, number)`: the reading of this number."""
    first = {place: read(place, 0) for place in places}
    again = ((place, number) for number in range(1, readings) for place in first)
    return next((place for place, number in again if not same(first[place], read(place, number))), None)


@contextlib.contextmanager
def kept_generators(source: Any) -> Iterator[None]:
    """Restore the generators that a dataset or loader holds in its attributes (its own, its sampler's, a transform's).

    Those of `random`, numpy and torch are found, by attribute and through lists, tuples and dicts, but not in a
    function's closure.
    """
    restores = [restore for held in _objects_in(source) if (restore := _restore(held)) is not None]
    try:
        yield
    finally:
        for restore in restores:
            restore()


def generators_of(loader: Any) -> list[Any]:
    """What a loader and its sampler draw from (torch's `generator=`)."""
    owners = (loader, getattr(loader, "sampler", None))
    return [found for owner in owners if (found := getattr(owner, "generator", None)) is not None]


@contextlib.contextmanager
def seeded_generators(loader: Any, seed: int) -> Iterator[None]:
    """Seed the generators that a loader and its sampler carry (torch's `generator=`), and put them back."""
    carried = generators_of(loader)
    with kept_generators(carried):
        for generator in carried:
            if hasattr(generator, "manual_seed"):
                generator.manual_seed(seed)
        yield


def torch_generator() -> Any:
    """The generator that torch draws from where none is named; None: torch is not loaded."""
    torch = sys.modules.get("torch")
    return getattr(torch, "default_generator", None)


def _objects_in(source: Any) -> Iterator[Any]:
    waiting: list[Any] = [source]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST:
        held = waiting.pop(0)
        if id(held) in seen or isinstance(held, (str, bytes, int, float, type, ModuleType)):
            continue
        seen.add(id(held))
        yield held
        if isinstance(held, (list, tuple)):
            waiting += held[:_ENTRIES]
        elif isinstance(held, dict):
            waiting += list(held.values())[:_ENTRIES]
        else:
            waiting += list(getattr(held, "__dict__", {}).values())


def _restore(held: Any) -> Restore | None:
    """What puts a generator back to where it is now; None: it is none."""
    if type(held) is random.Random:
        state = held.getstate()
        return lambda: held.setstate(state)
    if foreign.is_instance(held, "numpy.random", "RandomState"):
        legacy = held.get_state()
        return lambda: held.set_state(legacy)
    if foreign.is_instance(held, "numpy.random", "Generator"):
        bits, position = held.bit_generator, held.bit_generator.state
        return lambda: setattr(bits, "state", position)
    if foreign.is_instance(held, "torch", "Generator"):
        tensor = held.get_state()
        return lambda: held.set_state(tensor)
    return None
