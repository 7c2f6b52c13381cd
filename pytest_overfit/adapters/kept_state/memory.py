"""A copy of a value that can be put back into the value itself: containers refilled, arrays overwritten."""

from __future__ import annotations

import dataclasses
import random
import types
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

#: how deep containers and objects are looked into, and the most entries of one that is: a vocabulary is not state
_DEEPEST, _MOST_ENTRIES = 5, 1000

#: entries of an array that is watched, at most: larger ones are data
_MOST_NUMBERS = 2**24

#: what holds its state in ways that are not for others to change, or is not state
_CLOSED = (type, types.ModuleType, types.FunctionType, types.MethodType, types.BuiltinFunctionType)

#: values that are the same when they are equal
_ATOMS = (int, float, complex, str, bytes, type(None), np.generic)

#: objects of these libraries are their own business
_LIBRARIES = frozenset({"torch", "numpy", "keras", "tensorflow", "logging", "threading", "random"})


@dataclasses.dataclass(frozen=True)
class ArrayKind:
    """How one kind of array, tensor or variable is copied and put back."""

    fits: Callable[[Any], bool]
    copied: Callable[[Any], Any]
    same: Callable[[Any, Any], bool]
    put_back: Callable[[Any, Any], None]
    #: a random generator: that it moves is not state, and it is never put back
    draws: bool = False


class Memory:
    """A value as it was; this one cannot change inside."""

    parts: Sequence[Memory] = ()

    def __init__(self, value: Any) -> None:
        self.value = value

    def changed(self) -> bool:
        """Something inside is no longer what it was."""
        return any(each.changed() for each in self.parts)

    def drew(self) -> bool:
        """A random generator inside moved."""
        return any(each.drew() for each in self.parts)

    def put_back(self) -> None:
        for each in self.parts:
            each.put_back()

    def sizes(self) -> Iterator[int]:
        """The lengths of everything inside, along every axis."""
        for each in self.parts:
            yield from each.sizes()


class ArrayMemory(Memory):
    """An array, with a copy of its numbers; or a generator, with where it stood."""

    def __init__(self, value: Any, kind: ArrayKind) -> None:
        super().__init__(value)
        self._kind, self._copy = kind, kind.copied(value)

    def _moved(self) -> bool:
        return not self._kind.same(self.value, self._copy)

    def changed(self) -> bool:
        return not self._kind.draws and self._moved()

    def drew(self) -> bool:
        return self._kind.draws and self._moved()

    def put_back(self) -> None:
        if self.changed():
            self._kind.put_back(self.value, self._copy)

    def sizes(self) -> Iterator[int]:
        yield from map(int, getattr(self.value, "shape", ()))


class ContainerMemory(Memory):
    """A list, a dict, or the attributes of an object."""

    def __init__(self, value: Any, held: Any, parts: Sequence[Memory]) -> None:
        super().__init__(value)
        self._held, self._contents, self.parts = held, _entries(held), parts

    def changed(self) -> bool:
        return not self._same_entries() or super().changed()

    def _same_entries(self) -> bool:
        now = _entries(self._held)
        return now.keys() == self._contents.keys() and all(same(each, now[key]) for key, each in self._contents.items())

    def put_back(self) -> None:
        if not self._same_entries():
            self._refill()
        super().put_back()

    def _refill(self) -> None:
        if isinstance(self._held, (list, deque)):
            self._held.clear()
            self._held.extend(self._contents.values())
        elif isinstance(self._held, (dict, set)):
            self._held.clear()
            self._held.update(self._contents)

    def sizes(self) -> Iterator[int]:
        yield len(self._contents)
        yield from super().sizes()


def _entries(held: Any) -> dict[Any, Any]:
    if isinstance(held, dict):
        return dict(held)
    return {each: each for each in held} if isinstance(held, set) else dict(enumerate(held))


def same(first: Any, second: Any) -> bool:
    """One object, or two equal numbers or texts."""
    if first is second:
        return True
    return type(first) is type(second) and isinstance(first, _ATOMS) and bool(first == second)


class Memories:
    """Remembers values, each object once, however many names it has."""

    def __init__(self, kinds: Sequence[ArrayKind]) -> None:
        self._kinds = (*kinds, NUMPY, *GENERATORS)
        self._seen: dict[int, Memory] = {}

    def of(self, value: Any, depth: int = 0) -> Memory:
        """A copy of what can change inside this value."""
        if isinstance(value, (*_ATOMS, *_CLOSED)) or id(value) in self._seen:
            return Memory(value)
        found = self._seen[id(value)] = Memory(value)  # for objects that hold themselves
        found = self._seen[id(value)] = self._looked_into(value, depth)
        return found

    def _looked_into(self, value: Any, depth: int) -> Memory:
        kind = next((each for each in self._kinds if each.fits(value)), None)
        if kind is not None:
            return ArrayMemory(value, kind)
        held = _held_by(value)
        if held is None or depth >= _DEEPEST or len(held) > _MOST_ENTRIES:
            return Memory(value)
        return ContainerMemory(value, held, [self.of(each, depth + 1) for each in _entries(held).values()])


def _held_by(value: Any) -> Any:
    """The container itself, or an object's attributes; None for what is not looked into."""
    if isinstance(value, (list, deque, dict, set, tuple)):
        return value
    library = type(value).__module__.partition(".")[0]
    return None if library in _LIBRARIES or is_part_of_a_model(value) else getattr(value, "__dict__", None)


def is_part_of_a_model(value: Any) -> bool:
    """A module or layer: the parts of the model under test are looked into by themselves, others are not its state."""
    return any(each.__module__.partition(".")[0] in ("torch", "keras") for each in type(value).__mro__)


def _put_numbers_back(value: Any, copy: Any) -> None:
    value[...] = copy


NUMPY = ArrayKind(
    fits=lambda value: isinstance(value, np.ndarray) and value.dtype.kind != "O" and value.size <= _MOST_NUMBERS,
    copied=np.copy,
    same=lambda value, copy: np.array_equal(value, copy, equal_nan=value.dtype.kind in "fc"),
    put_back=_put_numbers_back,
)


def small(size: int) -> bool:
    """An array with so many entries is watched."""
    return size <= _MOST_NUMBERS


def generator(fits: Callable[[Any], bool], place: Callable[[Any], Any]) -> ArrayKind:
    """The kind of a random generator whose place can be asked for."""
    return ArrayKind(
        fits, place, lambda value, before: bool(place(value) == before), lambda value, before: None, draws=True
    )


GENERATORS = (
    generator(lambda value: isinstance(value, random.Random), lambda value: value.getstate()),
    generator(lambda value: isinstance(value, np.random.Generator), lambda value: repr(value.bit_generator.state)),
    generator(lambda value: isinstance(value, np.random.RandomState), lambda value: str(_legacy(value))),
)


def _legacy(value: np.random.RandomState) -> Any:
    name, key, *rest = value.get_state()
    return name, key.tobytes() if isinstance(key, np.ndarray) else key, rest
