"""The one batch a model has to memorise: checked, and copied."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np

from pytest_overfit.core import foreign
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError
from pytest_overfit.data.arrays import check_leaf, chosen_rows, copied, is_text, settled
from pytest_overfit.data.layout import is_plain, laid_out, likely_rows, marked
from pytest_overfit.data.parts import names_targets
from pytest_overfit.data.tree import (
    Rows,
    along,
    by_place,
    is_array,
    is_leaf,
    leaves,
    length,
    map_leaves,
    parts_of,
    plain,
    rank,
    rebuilt,
    row_values,
    swapped,
    take,
    to_numpy,
)

__all__ = ["Batch", "Rows", "leaves", "map_leaves", "missing_values", "take", "to_numpy"]

#: the places of the rows to take, from how many rows there are
Choose = Callable[[int], Sequence[int]]

#: the option of a probe that says that rows belong together, so that parts of a batch may have lengths of their own
ROWS_INTERACT = "rows_interact"


@dataclasses.dataclass(frozen=True)
class Batch:
    """Inputs and targets as the user's own loop would get them: arrays, tensors, or tuples, lists and dicts of them."""

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

    def map(self, change: Callable[[Any], Any]) -> Batch:
        """The same batch with every leaf changed."""
        x, y, weights = map_leaves((self.x, self.y, self.weights), change)
        return dataclasses.replace(self, x=x, y=y, weights=weights)

    def plain(self) -> Batch:
        """The same batch as the user's code gets it: lists with one entry a row are lists of Python's."""
        if is_array(self.x) and is_array(self.y):
            return self
        return dataclasses.replace(self, x=plain(self.x), y=plain(self.y))

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
            return plain(self.x)
        axis_of = self._axis_of(leaves(self.x))
        if any(axis_of(leaf) is None for leaf in leaves(self.x)):
            return None
        return plain(map_leaves(self.x, lambda leaf: along(leaf, rows, axis_of(leaf) or 0)))

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
        """The leaves of the inputs that are no targets."""
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


def checked(x: Any, y: Any, weights: Any, case: Case, choose: Choose | None = None) -> Batch:
    """Find the rows, check lengths and dtypes and copy, so that nothing a step does can reach the user's data.

    `choose`: which rows are to be taken of what may be all the data, from how many there are.
    """
    x, y, rows = _laid_out(x, y, case)
    weights, whole, places = marked(weights, rows), None, None
    if choose is not None and all(length(leaf) == rows for leaf in leaves([x, y])):
        whole, places = rows, choose(rows)
        x, y, weights = map_leaves((x, y, weights), lambda leaf: chosen_rows(leaf, places))
        rows = len(places)
    x, y, weights = (_texts(map_leaves(each, settled)) for each in (x, y, weights))
    for side, value in (("inputs", x), ("targets", y)):
        for leaf in leaves(value):
            check_leaf(leaf, f"Case {case.name!r}: the batch's {side}", ragged=case.step is not None)
    if rows == 0:
        raise CaseError(
            f"Case {case.name!r}: the batch is empty: inputs and targets have {_sizes(x)} and {_sizes(y)} rows"
        )
    named = parts_of(x) if y is None and case.step is not None else None
    labels = frozenset(key for key, each in (named or {}).items() if names_targets(key) and is_leaf(each))
    x, y, weights = map_leaves((x, y, weights), copied)
    return Batch(x, map_leaves(y, _without_gradient), rows, weights, labels, whole, places)


def _without_gradient(leaf: Any) -> Any:
    return leaf.detach() if foreign.is_torch_tensor(leaf) else leaf


def _laid_out(x: Any, y: Any, case: Case) -> tuple[Any, Any, int]:
    if next(_pieces(x), None) is None:
        raise CaseError(f"Case {case.name!r}: the batch has no inputs; give batch=(x, y) with at least two rows")
    read = laid_out(x, y)
    if read is not None:
        return read
    together = case.step is not None or _rows_interact(case)
    if case.step is None or next(leaves(x), None) is None:
        _check_pieces(x, y, case)
    named = {key: each for key, each in (parts_of(x) or {}).items() if names_targets(key)} if y is None else None
    rows = next((found for each in (y, named, x) if (found := likely_rows(each)) is not None), None)
    if rows is None or not together:
        error = CaseError(
            f"Case {case.name!r}: inputs and targets are of different length: {_sizes(x)} rows of x, {_sizes(y)} of y; "
            "rows come first on both sides (a model that wants another axis first transposes inside; with step= any "
            "lengths are taken); rows that belong together, as in a graph or in bags with offsets, are declared with "
            f"{ROWS_INTERACT!r}: True"
        )
        error.option = ROWS_INTERACT
        raise error
    return marked(x, rows), marked(y, rows), rows


def _rows_interact(case: Case) -> bool:
    """The options of any probe declare it: a batch is the same for all of them."""
    return any(isinstance(given, Mapping) and bool(given.get(ROWS_INTERACT)) for given in case.options.values())


def _check_pieces(x: Any, y: Any, case: Case) -> None:
    """Say which part of a batch is no array, if one is."""
    for side, value in (("inputs", x), ("targets", y)):
        for piece in _pieces(value):
            leaf = settled(piece) if isinstance(piece, Rows) or (is_array(piece) and rank(piece)) else piece
            check_leaf(leaf, f"Case {case.name!r}: the batch's {side}", ragged=False)


def _pieces(value: Any) -> Iterator[Any]:
    """Everything inside the containers, whether it is an array or not."""
    if is_leaf(value):
        yield value
    elif is_plain(value):
        yield Rows(value)
    elif value is not None:
        if parts_of(value) is None and not isinstance(value, (list, tuple)):
            yield value
        for part in by_place(value).values():
            yield from _pieces(part)


def _texts(value: Any) -> Any:
    """Texts that are all of the inputs or targets are an array, as tables and string layers have them."""
    return np.asarray(list(value)) if is_text(value) else value


def _sizes(value: Any) -> str:
    found = [str(length(each)) for each in _pieces(value) if is_leaf(each) and (isinstance(each, Rows) or rank(each))]
    shown = found if len(found) < 7 else [*found[:5], f"so on ({len(found)} in all)"]
    return " and ".join(shown) or "no"


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
