"""The one batch a model has to memorise: checked, and copied."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.data.parts import names_targets
from pytest_overfit.data.row_axis import FIRST_EVERYWHERE, RowAxes, axis_in, moved_first
from pytest_overfit.data.tree import (
    Rows,
    along,
    by_place,
    is_array,
    leaves,
    length,
    map_leaves,
    plain,
    rank,
    rebuilt,
    row_values,
    swapped,
    take,
    to_numpy,
)

__all__ = ["Batch", "Rows", "leaves", "map_leaves", "missing_values", "take", "to_numpy"]


@dataclasses.dataclass(frozen=True)
class Batch:
    """Inputs and targets of the user's own loop: arrays, tensors, or tuples, lists and dicts of them.

    Rows come first inside; where they are declared to lie elsewhere, `plain` turns them back.
    """

    x: Any
    y: Any
    rows: int
    #: a weight a row, the third part of a Keras batch; None: there are none
    weights: Any = None
    #: parts of `x` that are targets by their name, where a step is given the whole batch as `x`
    labels: frozenset[Any] = frozenset()
    #: of how many rows it was taken, where that is all the data, and which they are
    whole: int | None = None
    places: Sequence[int] | None = None
    #: why these rows were taken, for the verdict; "" where there is nothing to say
    remark: str = ""
    #: where the user's code has the rows
    axes: RowAxes = FIRST_EVERYWHERE

    def map(self, change: Callable[[Any], Any]) -> Batch:
        """The same batch with every leaf changed."""
        x, y, weights = map_leaves((self.x, self.y, self.weights), change)
        return dataclasses.replace(self, x=x, y=y, weights=weights)

    def plain(self) -> Batch:
        """The same batch as the user's code gets it: rows where it has them, and lists of rows as lists of Python's."""
        if is_array(self.x) and is_array(self.y) and not self.axes:
            return self
        x, y = self.axes.back(self.x, self.y)
        return dataclasses.replace(self, x=plain(x), y=plain(y), axes=FIRST_EVERYWHERE)

    def with_rows_first(self) -> Batch:
        """The same with lists of Python's, and its rows first wherever the user's code has them."""
        return dataclasses.replace(self, axes=FIRST_EVERYWHERE).plain()

    def turned_leaves(self) -> list[tuple[Any, int]]:
        """The leaves whose rows the user's code has elsewhere, here with their rows first, and where it has them."""
        pairs = zip(leaves([self.x, self.y]), (*self.axes.x, *self.axes.y), strict=True) if self.axes else ()
        return [(leaf, axis) for leaf, axis in pairs if axis]

    def with_prepared_inputs(self, x: Any) -> Batch:
        """The same batch with what a step made of it for its model in place of its inputs."""
        if not self.axes:
            return dataclasses.replace(self, x=x)
        known = [(leaf, axis) for leaf, axis in zip(leaves(self.x), self.axes.x, strict=True)]
        axes = tuple(0 if isinstance(leaf, Rows) else axis_in(leaf, known, self.rows) or 0 for leaf in leaves(x))
        found = iter(axes)
        turned = map_leaves(x, lambda leaf: moved_first(leaf, axis) if (axis := next(found)) else leaf)
        return dataclasses.replace(self, x=turned, axes=self.axes._replace(x=axes))

    def sides(self, labels: AbstractSet[Any] = frozenset()) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """Inputs and targets as arrays that show which rows are equal; `labels`: keys or places of `x` that are.

        Where inputs have other lengths than the batch has rows (the edges of a graph), no row is known to equal
        another: row numbers come first, in place of what is not known.
        """
        inputs, targets = self._parted(labels)
        axis_of = self._axis_of(leaves(inputs))
        arrays = tuple(row_values(leaf if not (at := axis_of(leaf)) else swapped(leaf, at)) for leaf in leaves(inputs))
        if not arrays or any(array.shape[:1] != (self.rows,) for array in arrays):
            arrays = (np.arange(self.rows), *arrays)
        return arrays, tuple(row_values(leaf) for leaf in leaves([targets, self.y]))

    def _parted(self, labels: AbstractSet[Any]) -> tuple[Any, dict[Any, Any]]:
        """`x` without its targets, and these, by key or place."""
        labels = {*labels, *self.labels}
        parts = by_place(self.x) if labels else {}
        targets = {key: part for key, part in parts.items() if key in labels}
        return {key: part for key, part in parts.items() if key not in labels} if targets else self.x, targets

    def _joined(self, inputs: Any, targets: dict[Any, Any]) -> Any:
        """`x` again, of what `_parted` gave."""
        if not targets:
            return inputs
        parts = {**inputs, **targets}
        return rebuilt(self.x, {key: parts[key] for key in by_place(self.x)})

    def _with_inputs(self, change: Callable[[Any], Any], labels: AbstractSet[Any]) -> Batch:
        """Every leaf of the inputs changed; targets, and `labels` among the inputs, as they are."""
        inputs, targets = self._parted(labels)
        return dataclasses.replace(self, x=self._joined(map_leaves(inputs, change), targets))

    def inputs_of(self, rows: Sequence[int]) -> Any | None:
        """The inputs of these rows, plain; None where inputs have other lengths, and no part of them is one row's."""
        if list(rows) == list(range(self.rows)):
            return plain(self.axes.back(self.x, None)[0])
        axis_of = self._axis_of(leaves(self.x))
        if any(axis_of(leaf) is None for leaf in leaves(self.x)):
            return None
        taken = map_leaves(self.x, lambda leaf: along(leaf, rows, axis_of(leaf) or 0))
        return plain(self.axes.back(taken, None)[0])

    def inputs_along(self, axis: int, order: Sequence[int]) -> Any:
        """The inputs with this axis in another order, wherever it is as long."""

        def ordered(leaf: Any) -> Any:
            has = not isinstance(leaf, Rows) and rank(leaf) > axis and leaf.shape[axis] == len(order)
            return along(leaf, order, axis) if has else leaf

        return plain(map_leaves(self.x, ordered))

    def _axis_of(self, parts: Iterator[Any]) -> Callable[[Any], int | None]:
        """Where the rows of a leaf lie: along its first axis, or along its second where nothing has them first.

        Time comes first in what many recurrent layers take. Numbers of no other length than the rows have tell which.
        """
        first = any(length(leaf) == self.rows and (isinstance(leaf, Rows) or rank(leaf) > 1) for leaf in parts)

        def axis(leaf: Any) -> int | None:
            if length(leaf) == self.rows:
                return 0
            second = not first and not isinstance(leaf, Rows) and rank(leaf) > 1 and leaf.shape[1] == self.rows
            return 1 if second else None

        return axis

    def blinded(self, labels: AbstractSet[Any] = frozenset()) -> Batch:
        """Row 0 of the inputs in every row; targets as they are, `labels` among the inputs too.

        Whole numbers of other lengths (edges, offsets) only say which rows belong together, so they stay.
        """
        axis_of = self._axis_of(leaves(self._parted(labels)[0]))

        def blind(leaf: Any) -> Any:
            size = length(leaf)
            if axis_of(leaf):
                return along(leaf, [0] * self.rows, 1)
            if size != self.rows and (isinstance(leaf, Rows) or to_numpy(leaf).dtype.kind not in "fc"):
                return leaf
            return take(leaf, [0] * size)

        return self._with_inputs(blind, labels)

    def with_equal_targets(self) -> Batch | None:
        """The first row's targets in every row, inputs as they are; None: there are no targets.

        The loss of a model that ignores its input changes with them too, which it would not with rows permuted.
        """
        return self.with_targets_of([0] * self.rows)

    def with_targets_of(self, rows: Sequence[int], keep_others: bool = False) -> Batch | None:
        """The targets of these rows, one for each row, and inputs as they are; None: there are no targets.

        `keep_others`: targets of other lengths than the batch has rows stay, else they become their first entry.
        """
        inputs, targets = self._parted(self.named_targets())
        if not targets and self.y is None:
            return None

        def chosen(leaf: Any) -> Any:
            if length(leaf) == self.rows:
                return take(leaf, rows)
            return leaf if keep_others else take(leaf, [0] * length(leaf))

        y, targets = map_leaves((self.y, targets), chosen)
        return dataclasses.replace(self, x=self._joined(inputs, targets), y=y)

    def input_leaves(self) -> Iterator[Any]:
        """The leaves of the inputs that are not targets."""
        return leaves(self._parted(self.named_targets())[0])

    def named_targets(self) -> frozenset[Any]:
        """Parts of the inputs that are targets by their name, where the model computes its own loss: without a `y`."""
        names = by_place(self.x) if self.y is None else {}
        return frozenset(key for key in names if isinstance(key, str) and names_targets(key))

    def without_inputs(self) -> Batch:
        """Zeros, empty texts, in place of every input that is a number or a text; targets as they are."""

        def blank(leaf: Any) -> Any:
            if isinstance(leaf, Rows):
                return Rows("" if isinstance(each, str) else each for each in leaf)
            kind = to_numpy(leaf).dtype.kind
            return leaf & False if kind == "b" else leaf * 0 if kind in "iufc" else leaf

        return self._with_inputs(blank, self.named_targets())


def missing_values(inputs: Sequence[Array], targets: Sequence[Array]) -> str | None:
    """Where the batch has NaN or infinite numbers, in words; None: nowhere.

    They are a mistake only where the model or the loss does not mask them, which its first loss tells.
    """
    for side, found in (("inputs", inputs), ("targets", targets)):
        for array in found:
            if array.dtype.kind in "fc" and not np.isfinite(array).all():
                holes = ~np.isfinite(array)
                return (
                    f"the batch's {side}: {int(holes.sum())} of {array.size} numbers are NaN or infinite, the first in "
                    f"row {int(np.argwhere(holes)[0][0])}, and neither model nor loss masks them; impute or drop them "
                    "before the batch is made"
                )
    return None
