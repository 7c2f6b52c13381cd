"""What is no exact copy and leaks all the same: near-copies, overlapping windows, shared groups, broken time order.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.verdict import to_plain
from pytest_overfit.data.allowing import Allowed
from pytest_overfit.data.batch import to_numpy
from pytest_overfit.data.copies import Copies
from pytest_overfit.data.fingerprints import as_leaf
from pytest_overfit.data.opening import Opened
from pytest_overfit.data.splits import Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_overfit.data.measuring import Request

    Array = NDArray[Any]

#: bytes of samples that are gathered for the near search where they are not in memory already
_GATHERED = 1 << 29
#: the shortest row that is taken for a window of a series without being told
_WINDOW = 16
#: pixels of the shortest side of what is taken for an image
_LEAST_SIDE = 4
#: examples of each kind in the plain values
_SHOWN = 100


def measure_relations(
    request: Request, opened: Opened, copies: Copies, touched: dict[str, dict[str, list[int]]], allowed: Allowed
) -> dict[str, Any]:
    """Near-copies, windows, groups and time of every pair of splits, as plain values; `touched` is added to."""
    found: dict[str, list[Any]] = {"near": [], "near_pairs": [], "windows": [], "groups": [], "time": []}
    for a, b in itertools.combinations(opened.splits, 2):
        _groups(found, copies, a, b)
        _time(found, copies, a, b, request.gap)
        if request.near is not False or request.windows is not False:
            left, right = (_inputs(request, opened, name, copies.counts[name]) for name in (a, b))
            if request.windows is not False:
                _windows(found, request, touched, a, b, left, right)
            if request.near is not False:
                _near(found, request, copies, touched, allowed, a, b, left, right)
    return found


# ----------------------------------------------------------------------------------------------------- groups and time


def _groups(found: dict[str, list[Any]], copies: Copies, a: str, b: str) -> None:
    one, other = copies.groups.get(a), copies.groups.get(b)
    if one is None or other is None:
        return
    from pytest_overfit.data.near import shared_groups

    groups = shared_groups(other, one)
    examples = [
        {"group": _plain(each.value), b: list(each.small[:5]), a: list(each.large[:5])}
        for each in groups.shared[:_SHOWN]
    ]
    found["groups"].append(
        {"in": a, "of": b, "shared": len(groups.shared), "groups": groups.small, "rows": len(groups.rows),
         "missing": groups.missing, "samples": len(other), "examples": examples}
    )  # fmt: skip


def _plain(value: Any) -> Any:
    try:
        return to_plain(value)
    except TypeError:
        return str(value)


def _time(found: dict[str, list[Any]], copies: Copies, a: str, b: str, gap: Any) -> None:
    one, other = copies.times.get(a), copies.times.get(b)
    if one is None or other is None:
        return
    from pytest_overfit.data.near import out_of_order

    try:
        order = out_of_order(other, one, gap)
    except (TypeError, ValueError) as error:
        raise CaseError(f"time= of {b} and {a}: {error}") from None
    found["time"].append(
        {"before": a, "after": b, "rows": len(order.rows), "rate": order.share, "last": order.last_large,
         "first": order.first_small, "missing": order.missing, "reversed": order.reversed, "gap": str(gap),
         "examples": list(order.rows[:_SHOWN])}
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------- near and windows


def _inputs(request: Request, opened: Opened, name: str, count: int) -> Any:
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
        raise CaseError(
            f"features[{name!r}] has shape {array.shape}, but one row for each of the {size} samples is wanted"
        )
    return array


def _single(column: Any) -> Any:
    import numpy as np

    if isinstance(column, np.ndarray):
        if column.dtype.kind not in "biuf":
            return "its samples are no numbers"
        return column if column.ndim > 1 else "its samples are single numbers"
    items = list(column)
    if all(isinstance(each, str) for each in items):
        return items
    return _stacked([as_leaf(each) for each in items])


def _stacked(leaves: list[Any]) -> Any:
    import numpy as np

    if not leaves or any(not isinstance(each, np.ndarray) for each in leaves):
        return "its samples are no arrays of numbers"
    if len({each.shape for each in leaves}) > 1:
        return "its samples have different shapes; give features="
    return np.stack(leaves) if leaves[0].ndim else "its samples are single numbers"


def _table(leaves: Mapping[str, Any]) -> Any:
    """The columns of numbers of a table, side by side."""
    import numpy as np

    numbers = [each for each in leaves.values() if isinstance(each, np.ndarray) and each.dtype.kind in "biuf"]
    if len(numbers) < len(leaves):
        return "it has columns that are no numbers; give features="
    if sum(math.prod(each.shape[1:]) for each in numbers) < 2:
        return "its samples are single numbers"
    return np.concatenate([each.reshape(len(each), -1).astype(np.float64) for each in numbers], axis=1)


def _gathered(split: Split, count: int) -> Any:
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


def _are_images(shape: Sequence[int]) -> bool:
    """Height and width of four pixels or more, with the channels last or, as torch has them, first."""
    last = len(shape) in (3, 4) and min(shape[1:3]) >= _LEAST_SIDE
    return last or (len(shape) == 4 and min(shape[2:]) >= _LEAST_SIDE)


def _why_not(a: str, b: str, left: Any, right: Any) -> str:
    for name, each in ((a, left), (b, right)):
        if isinstance(each, str):
            return f"{name}: {each}"
    if isinstance(left, list) != isinstance(right, list):
        return f"{a} and {b} are of different kinds"
    if not isinstance(left, list) and math.prod(left.shape[1:]) != math.prod(right.shape[1:]):
        return f"{a} and {b} have samples of different shapes"
    return ""


def _windows(
    found: dict[str, list[Any]], request: Request, touched: Any, a: str, b: str, left: Any, right: Any
) -> None:
    """Rows of a series: where time is given or it is asked for, and by itself for longer rows of floats."""
    if _why_not(a, b, left, right) or isinstance(left, list) or request.features is not None:
        return
    told = request.windows is True or request.time is not None
    series = left.dtype.kind == "f" and left.ndim == 2 and left.shape[1] >= _WINDOW
    if left.ndim not in (2, 3) or left.shape[1:] != right.shape[1:] or not (told or series):
        return
    from pytest_overfit.data.near import find_windows

    answer = find_windows(right, left)
    if not answer.testable:
        if told:
            found["windows"].append({"in": a, "of": b, "testable": False, "why": answer.why, "rate": 0.0, "rows": 0})
        return
    touched[b]["window"] = sorted({*touched[b].get("window", ()), *map(int, answer.rows)})
    found["windows"].append(
        {"in": a, "of": b, "testable": True, "why": answer.why, "rate": float(answer.share), "rows": len(answer.rows),
         "stride": int(answer.stride), "samples": len(right),
         "examples": [
             [int(each.i), int(each.j), int(each.offset), int(each.overlap)] for each in answer.pairs[:_SHOWN]
         ]}
    )  # fmt: skip


def _near(
    found: dict[str, list[Any]], request: Request, copies: Copies,
    touched: Any, allowed: Allowed, a: str, b: str, left: Any, right: Any,
) -> None:  # fmt: skip
    why = _why_not(a, b, left, right)
    if why:
        found["near"].append({"in": a, "of": b, "testable": False, "why": why, "rows": 0, "rate": 0.0})
        return
    import numpy as np

    from pytest_overfit.data.near import find_near, find_near_text

    if isinstance(left, list):
        answer = find_near_text(right, left, already=_already(copies, a, b, len(right)), seed=request.seed)
    else:
        kind = "image" if request.features is None and _are_images(left.shape) else "vector"
        small, large = (np.ascontiguousarray(each) for each in (_same(right, left), left))
        answer = find_near(small, large, kind=kind, already=_already(copies, a, b, len(right)), seed=request.seed)
    label_a, label_b = copies.labels[a], copies.labels[b]
    pairs = [
        {"kind": "near", "split_a": b, "i": int(each.i), "split_b": a, "j": int(each.j),
         "label_a": _label(label_b, each.i), "label_b": _label(label_a, each.j), "copies": 1,
         "conflict": False, "p": float(each.p), "view": each.view, "fingerprint": ""}
        for each in answer.pairs if not allowed.takes(b, int(each.i), "", a, int(each.j))
    ]  # fmt: skip
    rows = sorted({each["i"] for each in pairs})
    touched[b]["near"] = sorted({*touched[b].get("near", ()), *rows})
    found["near_pairs"] += pairs
    found["near"].append(
        {"in": a, "of": b, "testable": bool(answer.testable), "why": answer.why, "rows": len(rows),
         "rate": len(rows) / max(1, len(right)), "expected": float(answer.expected), "samples": len(right),
         "info": _plain(dict(answer.info))}
    )  # fmt: skip


def _label(label: Any, row: int) -> Any:
    from pytest_overfit.data.measuring import shown

    return None if label is None else shown(label(int(row)))


def _same(array: Array, like: Array) -> Array:
    """Rows in the shape of the other split's."""
    return array if array.shape[1:] == like.shape[1:] else array.reshape(len(array), *like.shape[1:])


def _already(copies: Copies, a: str, b: str, size: int) -> Array:
    import numpy as np

    mask = np.zeros(size, bool)
    mask[copies.overlaps[a, b].rows_b] = True
    return mask
