"""Generators that data carry with them are put back: to be looked at must not change what training draws next.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from pytest_overfit.core import foreign

#: objects looked into, of which a dataset under wrappers, transforms and samplers has some dozens; entries of a list
_MOST, _ENTRIES = 2_000, 64

Restore = Callable[[], None]


@contextlib.contextmanager
def kept_generators(source: Any) -> Iterator[None]:
    """Restore the generators that a dataset or loader holds in its attributes (its own, its sampler's, a transform's).

    Those of `random`, numpy and torch are found, by attribute and through lists, tuples and dicts, but not in a
    function's closure.
    """
    restores = [restore for each in _objects_in(source) if (restore := _restore(each)) is not None]
    try:
        yield
    finally:
        for restore in restores:
            restore()


def torch_generator() -> Any:
    """The generator that torch draws from where none is named; None: torch is not loaded."""
    torch = sys.modules.get("torch")
    return getattr(torch, "default_generator", None)


def _objects_in(source: Any) -> Iterator[Any]:
    waiting: list[Any] = [source]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST:
        each = waiting.pop(0)
        if id(each) in seen or isinstance(each, (str, bytes, int, float, type, ModuleType)):
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, (list, tuple)):
            waiting += each[:_ENTRIES]
        elif isinstance(each, dict):
            waiting += list(each.values())[:_ENTRIES]
        else:
            waiting += list(getattr(each, "__dict__", {}).values())


def _restore(each: Any) -> Restore | None:
    """What puts a generator back to where it is now; None: it is none."""
    if type(each) is random.Random:
        state = each.getstate()
        return lambda: each.setstate(state)
    if foreign.is_instance(each, "numpy.random", "RandomState"):
        legacy = each.get_state()
        return lambda: each.set_state(legacy)
    if foreign.is_instance(each, "numpy.random", "Generator"):
        bits, position = each.bit_generator, each.bit_generator.state
        return lambda: setattr(bits, "state", position)
    if foreign.is_instance(each, "torch", "Generator"):
        tensor = each.get_state()
        return lambda: each.set_state(tensor)
    return None
