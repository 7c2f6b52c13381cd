"""Groups that occur in two splits: the same patient, speaker or user before and after the cut.

Exact: values are compared by equality, 1 == 1.0, and strings as they are written. Missing ids (None, NaN, NaT, "")
belong to no group; they are counted. Cost: one set of the ids of each split.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pytest_overfit.duplicates.near.results import Groups, SharedGroup


def shared_groups(groups_small: Iterable[Any], groups_large: Iterable[Any]) -> Groups:
    """The groups that occur in both splits."""
    small, few = _by_value(groups_small)
    large, more = _by_value(groups_large)
    shared = [SharedGroup(value, tuple(small[value]), tuple(large[value])) for value in small if value in large]
    shared.sort(key=lambda group: (-len(group.small), group.small))
    return Groups(tuple(shared), len(small), len(large), few + more)


def is_missing(value: Any) -> bool:
    """None, NaN, NaT or an empty text."""
    return value is None or value == "" or value != value  # noqa: PLR0124 - NaN is not itself


def _by_value(groups: Iterable[Any]) -> tuple[dict[Any, list[int]], int]:
    rows: dict[Any, list[int]] = {}
    missing = 0
    values = groups.tolist() if hasattr(groups, "tolist") else list(groups)
    for row, value in enumerate(values):
        value = tuple(value) if isinstance(value, list) else value  # several columns: one group for each combination
        if is_missing(value):
            missing += 1
        else:
            rows.setdefault(value, []).append(row)
    return rows, missing
