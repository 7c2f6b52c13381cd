"""A batch as it was given, checked and copied: where its rows are, and whether they are as many on both sides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pytest_overfit.core import foreign
from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError
from pytest_overfit.data.arrays import check_leaf, chosen_rows, copied, is_text, settled
from pytest_overfit.data.batch import Batch
from pytest_overfit.data.layout import is_plain, laid_out, likely_rows, marked
from pytest_overfit.data.parts import names_targets
from pytest_overfit.data.row_axis import FIRST_EVERYWHERE, RowsFirst, rows_first
from pytest_overfit.data.tree import (
    Rows,
    by_place,
    is_array,
    is_leaf,
    leaves,
    length,
    map_leaves,
    parts_of,
    rank,
    tensor_trouble,
)

#: the places of the rows to take, from how many rows there are
Choose = Callable[[int], Sequence[int]]

#: the option of a probe that says that rows belong together, so that parts of a batch may have lengths of their own
ROWS_INTERACT = "rows_interact"


def checked(x: Any, y: Any, weights: Any, case: Case, choose: Choose | None = None) -> Batch:
    """Find the rows, check lengths and dtypes and copy, so that nothing a step does can reach the user's data.

    `choose`: which rows are to be taken of what may be all the data, from how many there are.
    """
    for side, value in (("inputs", x), ("targets", y)):
        for leaf in leaves(value):
            if trouble := tensor_trouble(leaf):
                raise CaseError(f"Case {case.name!r}: the batch's {side}: {trouble}")
    turned = rows_first(x, y, case)
    x, y, rows = _laid_out(x, y, case) if turned is None else _of_one_length(turned, case)
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
    axes = FIRST_EVERYWHERE if turned is None else turned.axes
    return Batch(x, map_leaves(y, _without_gradient), rows, weights, labels, whole, places, axes=axes)


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
        raise _of_different_length(x, y, case)
    return marked(x, rows), marked(y, rows), rows


def _of_one_length(turned: RowsFirst, case: Case) -> tuple[Any, Any, int]:
    """What was turned round; only a step, or rows that belong together, may have other lengths beside."""
    same = all(length(leaf) == turned.rows for leaf in leaves([turned.x, turned.y]))
    if not same and case.step is None and not _rows_interact(case):
        raise _of_different_length(turned.x, turned.y, case)
    return turned.x, turned.y, turned.rows


def _of_different_length(x: Any, y: Any, case: Case) -> CaseError:
    error = CaseError(
        f"Case {case.name!r}: inputs and targets are of different length: {_sizes(x)} rows of x, {_sizes(y)} of y; "
        "rows come first on both sides, or along the axis that row_axis= declares (time first: row_axis=1; with step= "
        "any lengths are taken); rows that belong together, as in a graph or in bags with offsets, are declared with "
        f"{ROWS_INTERACT!r}: True"
    )
    error.option = ROWS_INTERACT
    return error


def _rows_interact(case: Case) -> bool:
    """The options of any probe declare it: a batch is the same for all of them."""
    return any(isinstance(given, Mapping) and bool(given.get(ROWS_INTERACT)) for given in case.options.values())


def _check_pieces(x: Any, y: Any, case: Case) -> None:
    """Say which part of a batch is not an array, if one is."""
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
