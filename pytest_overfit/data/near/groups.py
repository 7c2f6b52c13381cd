"""Groups that stand in two splits: the same patient, speaker or user before and after the cut.

Exact: values are compared by equality, 1 == 1.0, and strings as they are written. Missing ids (None, NaN, NaT, "")
belong to no group; their number is told. Cost: one set of the ids of each split.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any


@dataclasses.dataclass(frozen=True)
class SharedGroup:
    """One value of the group column, and the rows that have it in the small and in the large split."""

    value: Any
    small: tuple[int, ...]
    large: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Groups:
    """The groups in both splits, those with most rows of the small split first."""

    shared: tuple[SharedGroup, ...]
    #: distinct groups of each split, and rows without one
    small: int
    large: int
    missing: int

    @property
    def rows(self) -> tuple[int, ...]:
        """The rows of the small split whose group the large one knows."""
        return tuple(sorted(row for group in self.shared for row in group.small))


def shared_groups(groups_small: Iterable[Any], groups_large: Iterable[Any]) -> Groups:
    """The groups that stand in both splits."""
    small, few = _by_value(groups_small)
    large, more = _by_value(groups_large)
    shared = [SharedGroup(value, tuple(small[value]), tuple(large[value])) for value in small if value in large]
    shared.sort(key=lambda group: (-len(group.small), group.small))
    return Groups(tuple(shared), len(small), len(large), few + more)


def _by_value(groups: Iterable[Any]) -> tuple[dict[Any, list[int]], int]:
    rows: dict[Any, list[int]] = {}
    missing = 0
    values = groups.tolist() if hasattr(groups, "tolist") else list(groups)
    for row, value in enumerate(values):
        value = tuple(value) if isinstance(value, list) else value  # several columns: one group for each combination
        if value is None or value == "" or value != value:  # noqa: PLR0124 - NaN and NaT are not themselves
            missing += 1
        else:
            rows.setdefault(value, []).append(row)
    return rows, missing
