"""Where state can be: the attributes of a part of the model; and outside of it, what the code of the model names."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pytest_overfit.core.usercode import is_users_file

#: functions and classes that are looked at, at most
_MOST_CODE = 500


class Owner:
    """Something that holds named values."""

    #: the values belong to no part of the model
    outside = False

    def values(self) -> Mapping[str, Any]:
        """Those that a forward pass may change."""
        raise NotImplementedError

    def assign(self, name: str, value: Any) -> None:
        raise NotImplementedError

    def remove(self, name: str) -> None:
        raise NotImplementedError

    def label(self, name: str) -> str:
        """What a message calls one of them."""
        raise NotImplementedError


class Attributes(Owner):
    """The attributes of an object, but those of its library."""

    def __init__(self, held: dict[str, Any], of: str, without: Iterable[str] = ()) -> None:
        self._held, self._of, self._without = held, of, frozenset(without)

    def values(self) -> Mapping[str, Any]:
        return {name: each for name, each in self._held.items() if name not in self._without}

    def assign(self, name: str, value: Any) -> None:
        self._held[name] = value

    def remove(self, name: str) -> None:
        del self._held[name]

    def label(self, name: str) -> str:
        return f"{self._of}.{name}"


class Globals(Attributes):
    """Those variables of a module that a function names."""

    outside = True

    def __init__(self, held: dict[str, Any], names: Iterable[str]) -> None:
        super().__init__(held, "global")
        self._names = frozenset(names)

    def values(self) -> Mapping[str, Any]:
        return {name: self._held[name] for name in self._names if name in self._held}

    def label(self, name: str) -> str:
        return f"the global {name}"


class Closure(Owner):
    """The variables around a function."""

    outside = True

    def __init__(self, cells: Mapping[str, types.CellType], of: str) -> None:
        self._cells, self._of = cells, of

    def values(self) -> Mapping[str, Any]:
        return {name: cell.cell_contents for name, cell in self._cells.items() if _is_filled(cell)}

    def assign(self, name: str, value: Any) -> None:
        self._cells[name].cell_contents = value

    def remove(self, name: str) -> None:
        del self._cells[name].cell_contents

    def label(self, name: str) -> str:
        return f"the variable {name} around {self._of}"


class OfClass(Owner):
    """The attributes of a class, which all of its objects share."""

    outside = True

    def __init__(self, kind: type) -> None:
        self._kind = kind

    def values(self) -> Mapping[str, Any]:
        return {name: each for name, each in vars(self._kind).items() if not _is_part_of_a_class(name, each)}

    def assign(self, name: str, value: Any) -> None:
        setattr(self._kind, name, value)

    def remove(self, name: str) -> None:
        delattr(self._kind, name)

    def label(self, name: str) -> str:
        return f"{self._kind.__name__}.{name}, which all {self._kind.__name__} share"


class Defaults(Attributes):
    """Default arguments, which stay from call to call; and attributes of a function."""

    outside = True


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - an empty one raises
    except ValueError:
        return False
    return True


def _is_part_of_a_class(name: str, value: Any) -> bool:
    return name.startswith("__") or callable(value) or hasattr(value, "__get__")


def outside_of(start: Iterable[Any]) -> Iterator[Owner]:
    """What these functions and classes of the user's can reach: globals, closures, class attributes, defaults."""
    todo, seen = list(start), set[int]()
    while todo and len(seen) < _MOST_CODE:
        found = inspectable(todo.pop())
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        owners = [OfClass(found)] if isinstance(found, type) else list(_around(found))
        yield from owners
        todo += [each for owner in owners for each in owner.values().values()]
        todo += vars(found).values() if isinstance(found, type) else ()


def inspectable(value: Any) -> Any:
    """The plain function or class of the user's that this is or wraps; None for anything else."""
    if isinstance(value, (staticmethod, classmethod, types.MethodType)):
        value = value.__func__
    elif isinstance(value, property):
        value = value.fget
    elif isinstance(value, functools.partial):
        value = value.func
    if isinstance(value, types.FunctionType):
        return value if is_users_file(value.__code__.co_filename) else None
    if isinstance(value, type):
        return value if _is_users_module(sys.modules.get(value.__module__)) else None
    return None


def _is_users_module(module: types.ModuleType | None) -> bool:
    return (
        module is not None and module.__name__ != "builtins" and is_users_file(getattr(module, "__file__", None) or "")
    )


def _around(function: types.FunctionType) -> Iterator[Owner]:
    code, held = function.__code__, function.__globals__
    if function.__closure__:
        yield Closure(dict(zip(code.co_freevars, function.__closure__, strict=True)), function.__name__)
    names = _names(code)
    yield Globals(held, names)
    for module in (held.get(name) for name in names):
        if isinstance(module, types.ModuleType) and _is_users_module(module):
            yield Globals(vars(module), names)
    yield from _of_function(function)


def _of_function(function: types.FunctionType) -> Iterator[Owner]:
    """Its default arguments and its attributes."""
    code, defaults = function.__code__, function.__defaults__ or ()
    named = dict(zip(code.co_varnames[: code.co_argcount][::-1], defaults[::-1], strict=False))
    if named or function.__kwdefaults__:
        yield Defaults({**named, **(function.__kwdefaults__ or {})}, f"a default of {function.__name__}")
    if vars(function):
        yield Defaults(vars(function), function.__name__)


def _names(code: types.CodeType) -> set[str]:
    """Every name that this code uses, of variables and of attributes."""
    inner = [each for each in code.co_consts if isinstance(each, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner))
