"""What is no exact copy and leaks all the same: near-copies, overlapping windows, shared groups, broken time order.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.verdict import to_plain
from pytest_overfit.duplicates.alignment import Opened
from pytest_overfit.duplicates.allow_list import Allowed
from pytest_overfit.duplicates.copies import Copies
from pytest_overfit.duplicates.near.inputs import are_images, inputs_of, why_not_comparable

if TYPE_CHECKING:
    from pytest_overfit.duplicates.request import Request


#: the shortest row that is taken for a window of a series without being asked for
_WINDOW = 16
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
            left, right = (inputs_of(request, opened, name, copies.counts[name]) for name in (a, b))
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
    from pytest_overfit.duplicates.near import shared_groups

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
    from pytest_overfit.duplicates.near import out_of_order

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


def _windows(
    found: dict[str, list[Any]], request: Request, touched: Any, a: str, b: str, left: Any, right: Any
) -> None:
    """Rows of a series: where time is given or it is asked for, and by itself for longer rows of floats."""
    if why_not_comparable(a, b, left, right) or isinstance(left, list) or request.features is not None:
        return
    told = request.windows is True or request.time is not None
    series = left.dtype.kind == "f" and left.ndim == 2 and left.shape[1] >= _WINDOW
    if left.ndim not in (2, 3) or left.shape[1:] != right.shape[1:] or not (told or series):
        return
    from pytest_overfit.duplicates.near import find_windows

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
    why = why_not_comparable(a, b, left, right)
    if why:
        found["near"].append({"in": a, "of": b, "testable": False, "why": why, "rows": 0, "rate": 0.0})
        return
    from pytest_overfit.duplicates.near import find_near, find_near_text

    if isinstance(left, list):
        answer = find_near_text(right, left, already=_already(copies, a, b, len(right)), seed=request.seed)
    else:
        kind = "image" if request.features is None and are_images(left.shape) else "vector"
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
    from pytest_overfit.duplicates.request import shown

    return None if label is None else shown(label(int(row)))


def _same(array: Array, like: Array) -> Array:
    """Rows in the shape of the other split's."""
    return array if array.shape[1:] == like.shape[1:] else array.reshape(len(array), *like.shape[1:])


def _already(copies: Copies, a: str, b: str, size: int) -> Array:
    mask = np.zeros(size, bool)
    mask[copies.overlaps[a, b].rows_b] = True
    return mask
