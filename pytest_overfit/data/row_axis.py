"""Rows that lie along another axis than the first: turned round at the door, so that inside they always come first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pytest_overfit.core import foreign
from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError, did_you_mean
from pytest_overfit.data.containers import called
from pytest_overfit.data.layout import marked
from pytest_overfit.data.tree import Rows, by_place, is_array, is_leaf, leaves, map_leaves, rank, to_numpy

#: what a declaration by name calls all inputs, and all targets
_SIDES = ("x", "y")


class RowAxes(NamedTuple):
    """The axis along which the user's code has the rows of each leaf, in the order of the leaves."""

    x: tuple[int, ...] = ()
    y: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return any(self.x) or any(self.y)

    def back(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Inputs and targets as the user's code has them."""
        return _each(x, self.x, moved_back), _each(y, self.y, moved_back)


FIRST_EVERYWHERE = RowAxes()


class RowsFirst(NamedTuple):
    """A batch with its rows first."""

    x: Any
    y: Any
    rows: int
    axes: RowAxes


def rows_first(x: Any, y: Any, case: Case) -> RowsFirst | None:
    """The batch turned as `row_axis` declares; None: its rows come first anyway.

    Raises `CaseError` where no array has that axis, where names do not fit, and where declared rows differ in number.
    """
    if case.row_axis in (None, 0):
        return None
    found = _Declared(x, y, case)
    x, y = marked(x, found.rows), marked(y, found.rows)
    axes = RowAxes(found.axes("x", x), found.axes("y", y))
    return RowsFirst(_each(x, axes.x, moved_first), _each(y, axes.y, moved_first), found.rows, axes)


def samples_first(source: Any, case: Case, name: str) -> Any:
    """What holds a split, as code that reads it sample by sample wants it: arrays of all rows turned as declared."""
    if case.row_axis in (None, 0):
        return source
    given = called(source, name)
    if not isinstance(given, (tuple, list)) or len(given) != 2 or not all(map(is_array, given)):
        return given
    turned = rows_first(given[0], given[1], case)
    return given if turned is None else (turned.x, turned.y)


class _Declared:
    """What the case says, held against the batch."""

    def __init__(self, x: Any, y: Any, case: Case) -> None:
        self._given, self._where = case.row_axis, f"Case {case.name!r}: row_axis={foreign.brief(case.row_axis)}"
        sides = {"x": list(_named(x)), "y": list(_named(y))}
        if isinstance(self._given, Mapping):
            self._check_names([str(name) for parts in sides.values() for name, _ in parts if name is not None])
        arrays = [(side, *each) for side, parts in sides.items() for each in parts]
        lengths = [
            leaf.shape[axis] for side, name, leaf in arrays if (axis := self._asked(side, name, leaf)) is not None
        ]
        if not lengths:
            shapes = ", ".join(str(tuple(leaf.shape)) for _, _, leaf in arrays if not isinstance(leaf, Rows))
            raise CaseError(f"{self._where}: no array of the batch has that axis, got shapes {shapes or 'of none'}")
        self.rows = int(lengths[0])
        if isinstance(self._given, Mapping) and len(set(lengths)) > 1:
            raise CaseError(
                f"{self._where}: expected as many rows in every part, got {' and '.join(map(str, lengths))}"
            )

    def _check_names(self, names: Sequence[str]) -> None:
        for name in self._given if isinstance(self._given, Mapping) else ():
            if str(name) not in (*_SIDES, *names):
                meant = did_you_mean(name, [*_SIDES, *names])
                raise CaseError(f"{self._where}: the batch has no part {foreign.brief(name)}{meant}")

    def _asked(self, side: str, name: Any, leaf: Any) -> int | None:
        """The axis that is declared for a leaf, counted from the front; None: none is, or it has no such axis."""
        given = self._given
        if isinstance(given, Mapping):
            given = next((given[key] for key in (name, side) if key in given), None)
        if given is None or isinstance(leaf, Rows) or not -rank(leaf) <= given < rank(leaf):
            if isinstance(self._given, Mapping) and given is not None and not isinstance(leaf, Rows):
                raise CaseError(f"{self._where}: {name or side} has no axis {given}, got shape {tuple(leaf.shape)}")
            return None
        return int(given) % rank(leaf)

    def axes(self, side: str, value: Any) -> tuple[int, ...]:
        """Where the rows of each leaf lie: where it is declared and as long as others, else first."""
        asked = ((leaf, self._asked(side, name, leaf)) for name, leaf in _named(value))
        return tuple(0 if axis is None or leaf.shape[axis] != self.rows else axis for leaf, axis in asked)


def _named(value: Any) -> Iterator[tuple[Any, Any]]:
    """The leaves in order, each with the key or place of the part that it is in; None: it is all there is."""
    if is_leaf(value):
        yield None, value
        return
    for name, part in by_place(value).items():
        yield from ((name, leaf) for leaf in leaves(part))


def _each(value: Any, axes: Sequence[int], change: Callable[[Any, int], Any]) -> Any:
    if not any(axes):
        return value
    found = iter(axes)
    return map_leaves(value, lambda leaf: change(leaf, axis) if (axis := next(found)) else leaf)


def moved_first(leaf: Any, axis: int) -> Any:
    """The leaf with this axis first and the others in their order."""
    return _moved(leaf, axis, 0)


def moved_back(leaf: Any, axis: int) -> Any:
    """The leaf with its first axis here; it lies in memory in order, as code that asks for a view of it wants."""
    return _moved(leaf, 0, axis)


def _moved(leaf: Any, source: int, to: int) -> Any:
    if not foreign.is_torch_tensor(leaf):
        return np.ascontiguousarray(np.moveaxis(to_numpy(leaf), source, to))
    moved = leaf.detach().movedim(source, to).contiguous()
    return moved.requires_grad_() if leaf.requires_grad else moved


def axis_in(leaf: Any, known: Sequence[tuple[Any, int]], rows: int) -> int | None:
    """Where the rows lie in what a step made of a batch; None: not known.

    `known`: leaves of the batch with their rows first, and where they had them. It is one of these, or each of its rows
    holds the numbers of one, or only one of its axes is as long.
    """
    places = [axis for axis, size in enumerate(leaf.shape) if size == rows]
    if len(places) < 2:
        return places[0] if places else None
    array = to_numpy(leaf)
    for other, axis in known:
        if array.shape == np.moveaxis(to_numpy(other), 0, axis).shape and np.array_equal(
            array, np.moveaxis(to_numpy(other), 0, axis)
        ):
            return axis
    fitting = [axis for axis in places if any(_same_rows(np.moveaxis(array, axis, 0), to_numpy(o)) for o, _ in known)]
    return fitting[0] if len(fitting) == 1 else None


def _same_rows(one: Any, other: Any) -> bool:
    if len(one) != len(other) or one.size != other.size:
        return False
    first, second = (np.sort(each.reshape(len(each), -1), axis=1) for each in (one, other))
    return bool(np.array_equal(first, second))
