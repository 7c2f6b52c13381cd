"""What leaks without being an exact copy: near-copies, overlapping windows, shared groups, broken time order."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.verdict import to_plain
from pytest_overfit.duplicates.alignment import Opened
from pytest_overfit.duplicates.allow_list import Allowed
from pytest_overfit.duplicates.copies import Copies
from pytest_overfit.duplicates.exact.in_memory import Repeats
from pytest_overfit.duplicates.near import find_near, find_near_text, find_windows, out_of_order, shared_groups
from pytest_overfit.duplicates.near.inputs import are_images, inputs_of, why_not_comparable
from pytest_overfit.duplicates.near.scales import Rescaled
from pytest_overfit.duplicates.request import Request, shown

#: the shortest row that is taken for a window of a series without being asked for
_WINDOW = 16
#: examples of each kind in the plain values
_SHOWN = 100


@dataclasses.dataclass
class Search:
    """One run of `find_duplicates`: what was opened, and the plain values that each kind of relation adds."""

    request: Request
    opened: Opened
    copies: Copies
    allowed: Allowed
    #: of pairs of splits that are on two scales: how the later one is brought to the earlier one's
    rescaled: Mapping[tuple[str, str], Rescaled]
    #: rows of a split that have something in another one, by split and kind
    touched: dict[str, dict[str, set[int]]] = dataclasses.field(default_factory=dict)
    #: what was found, by kind, an entry for each two splits; of pairs and conflicts an entry for each row
    found: dict[str, list[Any]] = dataclasses.field(
        default_factory=lambda: {
            kind: [] for kind in ("across", "pairs", "conflicts", "near", "windows", "groups", "time")
        }
    )

    def touch(self, split: str, kind: str, rows: Any) -> None:
        self.touched.setdefault(split, {}).setdefault(kind, set()).update(rows)

    def add(self, relation: str, a: str, b: str, **values: Any) -> None:
        """A finding about rows of `b`, the later split, in `a`."""
        self.found[relation].append({"in": a, "of": b, **values})

    def pair(
        self, kind: str, b: str, i: int, a: str, j: int, *,
        copies: int = 1, conflict: bool = False, p: float | None = None, view: str = "",
    ) -> dict[str, Any]:  # fmt: skip
        """Row `i` of the later split and row `j` of the earlier one."""
        return {
            "kind": kind, "split_a": b, "i": i, "split_b": a, "j": j, "label_a": self._label(b, i),
            "label_b": self._label(a, j), "copies": copies, "conflict": conflict, "p": p, "view": view,
            "fingerprint": "",
        }  # fmt: skip

    def _label(self, split: str, row: int) -> Any:
        label = self.copies.labels[split]
        return None if label is None else shown(label(row))


def relate(search: Search, a: str, b: str) -> None:
    """Groups, time, windows and near-copies of two splits, `a` the earlier one."""
    _groups(search, a, b)
    _time(search, a, b)
    request = search.request
    if request.near is False and request.windows is False:
        return
    left, right = (inputs_of(request, search.opened, name, search.copies.counts[name]) for name in (a, b))
    why = why_not_comparable(a, b, left, right)
    if (a, b) in search.rescaled and request.features is None:
        right = search.rescaled[a, b].of(right)
    if request.windows is not False and not why:
        _windows(search, a, b, left, right)
    if request.near is False:
        return
    if why:
        search.add("near", a, b, testable=False, why=why, rows=0, rate=0.0)
    else:
        _near(search, a, b, left, right)


# ----------------------------------------------------------------------------------------------------- groups and time


def _groups(search: Search, a: str, b: str) -> None:
    earlier, later = (search.copies.groups.get(name) for name in (a, b))
    if earlier is None or later is None:
        return
    groups = shared_groups(later, earlier)
    examples = [
        {"group": _plain(group.value), b: list(group.small[:5]), a: list(group.large[:5])}
        for group in groups.shared[:_SHOWN]
    ]
    search.add(
        "groups", a, b, shared=len(groups.shared), groups=groups.small, rows=len(groups.rows), missing=groups.missing,
        samples=len(later), examples=examples,
    )  # fmt: skip


def _plain(value: Any) -> Any:
    try:
        return to_plain(value)
    except TypeError:
        return str(value)


def _time(search: Search, a: str, b: str) -> None:
    earlier, later = (search.copies.times.get(name) for name in (a, b))
    if earlier is None or later is None:
        return
    gap = search.request.gap
    try:
        order = out_of_order(later, earlier, gap)
    except (TypeError, ValueError) as error:
        raise CaseError(f"time= of {b} and {a}: {error}") from None
    search.found["time"].append(
        {"before": a, "after": b, "rows": len(order.rows), "rate": order.share, "last": order.last_large,
         "first": order.first_small, "missing": order.missing, "reversed": order.reversed, "gap": str(gap),
         "examples": list(order.rows[:_SHOWN])}
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------- near and windows


def _windows(search: Search, a: str, b: str, left: Any, right: Any) -> None:
    """Rows of a series: where time is given or it is asked for, and by itself for longer rows of floats."""
    request = search.request
    if isinstance(left, list) or request.features is not None:
        return
    asked = request.windows is True or request.time is not None
    series = left.dtype.kind == "f" and left.ndim == 2 and left.shape[1] >= _WINDOW
    if left.ndim not in (2, 3) or left.shape[1:] != right.shape[1:] or not (asked or series):
        return
    answer = find_windows(right, left)
    if not answer.testable:
        if asked:
            search.add("windows", a, b, testable=False, why=answer.why, rate=0.0, rows=0)
        return
    pairs = [pair for pair in answer.pairs if not search.allowed.takes(b, pair.i, "", a, pair.j)]
    search.touch(b, "window", (pair.i for pair in pairs))
    search.add(
        "windows", a, b, testable=True, why=answer.why, rate=len(pairs) / max(1, len(right)), rows=len(pairs),
        stride=answer.stride, samples=len(right),
        examples=[list(dataclasses.astuple(pair)) for pair in pairs[:_SHOWN]],
    )  # fmt: skip


def _near(search: Search, a: str, b: str, left: Any, right: Any) -> None:
    already = np.zeros(len(right), bool)
    already[search.copies.overlaps[a, b].rows_b] = True
    seed = search.request.seed
    if isinstance(left, list):
        answer = find_near_text(right, left, already=already, seed=seed)
    else:
        kind = "image" if search.request.features is None and are_images(left.shape) else "vector"
        small, large = (np.ascontiguousarray(rows) for rows in (_in_shape_of(left, right), left))
        answer = find_near(small, large, kind=kind, already=already, again=_again(search, a), seed=seed)
    pairs = [
        search.pair("near", b, pair.i, a, pair.j, p=pair.p, view=pair.view)
        for pair in answer.pairs
        if not search.allowed.takes(b, pair.i, "", a, pair.j)
    ]
    rows = {pair["i"] for pair in pairs}
    search.touch(b, "near", rows)
    search.found["pairs"] += pairs
    search.add(
        "near", a, b, testable=answer.testable, why=answer.why, rows=len(rows), rate=len(rows) / max(1, len(right)),
        expected=answer.expected, samples=len(right), info=_plain(dict(answer.info)),
    )  # fmt: skip


def _again(search: Search, name: str) -> Repeats | None:
    """Equal rows of a split, where whole inputs in memory were compared; they need not be looked for again."""
    request = search.request
    known = search.opened.rows is not None and request.executor is None
    return search.copies.repeats[name] if known and request.features is None and request.key is None else None


def _in_shape_of(like: Array, array: Array) -> Array:
    """Rows in the shape of the other split's."""
    return array if array.shape[1:] == like.shape[1:] else array.reshape(len(array), *like.shape[1:])
