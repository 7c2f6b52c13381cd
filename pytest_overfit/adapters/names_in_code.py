"""What a function of the user's reads from around it, each with the name it has there, as `live['m'].weight`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from pytest_overfit.core.usercode import is_users_class

#: objects that are looked at, and entries of each container, at most
_OBJECTS, _MANY = 1_000, 100

#: what is in an object of a framework's own: names and parts, or None for all other objects
Inside = Callable[[Any, str], "Iterator[tuple[str, Any]] | None"]


def objects_of(root: Any, path: str, inside: Inside) -> Iterator[tuple[str, Any]]:
    """An object and all that it holds or reads, nearest first; a function goes by the names of what it reads."""
    seen: dict[int, Any] = {}
    waiting = [(path, root)]
    while waiting and len(seen) < _OBJECTS:
        following = []
        for name, value in waiting:
            if id(value) not in seen:
                seen[id(value)] = value
                yield name, value
                following += [(inner.lstrip("."), part) for inner, part in _parts(value, name, inside)]
        waiting = following


def _parts(value: Any, path: str, inside: Inside) -> Iterator[tuple[str, Any]]:
    known = inside(value, path)
    if known is not None:
        yield from known
    elif isinstance(value, dict):
        yield from ((f"{path}[{key!r}]", part) for key, part in list(value.items())[:_MANY])
    elif isinstance(value, (list, tuple)):
        yield from ((f"{path}[{number}]", part) for number, part in enumerate(value[:_MANY]))
    elif isinstance(value, functools.partial):
        yield from ((path, part) for part in (value.func, *value.args, *value.keywords.values()))
    elif inspect.ismethod(value):
        yield from (("self", value.__self__), (path, value.__func__))
    elif inspect.isfunction(value):
        yield from _variables(value)
    elif hasattr(value, "__dict__") and not isinstance(value, type) and is_users_class(type(value)):
        yield from _attributes(value, path)
        yield from objects_called(value)


def _attributes(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield from ((f"{path}.{name}", part) for name, part in list(vars(value).items())[:_MANY])


def objects_called(value: Any) -> Iterator[tuple[str, Any]]:
    """What the methods by which an object of the user's is called as a loss read."""
    for name in ("__call__", "forward", "call", "compute_loss"):
        method = getattr(type(value), name, None)
        if inspect.isfunction(method) and is_users_class(type(value)):
            yield from _variables(method)


def _variables(function: Any) -> Iterator[tuple[str, Any]]:
    """Variables of the functions around it, global ones, and defaults of its arguments."""
    try:
        found = inspect.getclosurevars(function)
    except (TypeError, ValueError):  # a cell that is still empty
        return
    given = [each.name for each in inspect.signature(function).parameters.values() if each.default is not each.empty]
    yield from (*found.nonlocals.items(), *found.globals.items())
    yield from zip(given, function.__defaults__ or (), strict=False)
