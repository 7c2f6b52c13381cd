"""The inputs of a split as one array or a list of texts, for the searches that compare every row with every other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pytest_overfit.core.errors import CaseError
from pytest_overfit.data.tree import to_numpy
from pytest_overfit.duplicates.alignment import Opened
from pytest_overfit.duplicates.reading.split import Samples
from pytest_overfit.duplicates.request import Request
from pytest_overfit.duplicates.values.fingerprints import as_leaf

#: bytes of samples that are gathered for the near search where they are not in memory already
_GATHERED = 1 << 29


#: pixels of the shortest side of what is taken for an image
_LEAST_SIDE = 4


def inputs_of(request: Request, opened: Opened, name: str, count: int) -> Any:
    """All `count` inputs of a split as one array or a list of texts; a string: why not."""
    if request.features is not None:
        return _features(request, opened, name)
    split = opened.splits[name]
    if split.memory is None:
        return _gathered(split, count)
    leaves = split.memory.leaves
    if len(leaves) == 1:
        return _single(next(iter(leaves.values())))
    return _table(leaves)


def _features(request: Request, opened: Opened, name: str) -> Any:
    if name not in request.features:
        return f"features= has nothing for {name}"
    array = to_numpy(request.features[name])
    size = opened.splits[name].length
    if array.ndim < 2 or (size is not None and len(array) != size):
        raise CaseError(f"features[{name!r}] has shape {array.shape}; expected one row for each of the {size} samples")
    return array


def _single(column: Any) -> Any:
    if isinstance(column, np.ndarray):
        if column.dtype.kind not in "biuf":
            return "its samples are not numbers"
        return column if column.ndim > 1 else "its samples are single numbers"
    items = list(column)
    if all(isinstance(each, str) for each in items):
        return items
    return _stacked([as_leaf(each) for each in items])


def _stacked(leaves: list[Any]) -> Any:
    if not leaves or any(not isinstance(each, np.ndarray) for each in leaves):
        return "its samples are not arrays of numbers"
    if len({each.shape for each in leaves}) > 1:
        return "its samples have different shapes; give features="
    return np.stack(leaves) if leaves[0].ndim else "its samples are single numbers"


def _table(leaves: Mapping[str, Any]) -> Any:
    """The columns of numbers of a table, side by side."""
    numbers = [each for each in leaves.values() if isinstance(each, np.ndarray) and each.dtype.kind in "biuf"]
    if len(numbers) < len(leaves):
        return "it has columns that are not numbers; give features="
    if sum(math.prod(each.shape[1:]) for each in numbers) < 2:
        return "its samples are single numbers"
    return np.concatenate([each.reshape(len(each), -1).astype(np.float64) for each in numbers], axis=1)


def _gathered(split: Samples, count: int) -> Any:
    """Samples that are read one by one, if they fit into the room for them; a stream may go on, or start again."""
    parts: list[Any] = []
    size = 0
    if split.length is None and (not split.again or not split.keeps_order):
        return "it cannot be read a second time in the same order"
    for chunk in split.chunks():
        if len(chunk.leaves) != 1:
            return "its samples have several parts; give features="
        column = next(iter(chunk.leaves.values()))
        leaves = list(column) if not isinstance(column, list) else column
        parts += leaves if all(isinstance(each, str) for each in leaves) else [as_leaf(each) for each in leaves]
        size += sum(getattr(each, "nbytes", 100) for each in parts[len(parts) - len(leaves) :])
        if size > _GATHERED:
            return f"it is larger than {_GATHERED >> 20} MB; give features="
        if split.length is None and len(parts) >= count:
            break
    if len(parts) != (split.length or len(parts)):
        return "some of its samples could not be read"
    parts = parts[:count]
    return parts if all(isinstance(each, str) for each in parts) else _stacked(parts)


def are_images(shape: Sequence[int]) -> bool:
    """Height and width of four pixels or more, with the channels last or, as torch has them, first."""
    last = len(shape) in (3, 4) and min(shape[1:3]) >= _LEAST_SIDE
    return last or (len(shape) == 4 and min(shape[2:]) >= _LEAST_SIDE)


def why_not_comparable(a: str, b: str, left: Any, right: Any) -> str:
    for name, each in ((a, left), (b, right)):
        if isinstance(each, str):
            return f"{name}: {each}"
    if isinstance(left, list) != isinstance(right, list):
        return f"{a} and {b} are of different kinds"
    if not isinstance(left, list) and math.prod(left.shape[1:]) != math.prod(right.shape[1:]):
        return f"{a} and {b} have samples of different shapes"
    return ""
