"""What the searches of this package give back: plain values, no arrays."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Answer:
    """Whether these data can be tested, and if not, why not; `info` has what was measured on the way."""

    testable: bool
    why: str = ""
    info: dict[str, Any] = dataclasses.field(default_factory=dict, kw_only=True)


@dataclasses.dataclass(frozen=True)
class NearPair:
    """Row `i` of the small split and row `j` of the large one, too alike for chance.

    `p`: how often a row of clean data would be as close to its nearest neighbour, or closer.
    `likeness`: what was measured: the distance as a share of the distance to the k-th neighbour for numbers (0: equal),
    the Jaccard similarity for text (1: equal).
    """

    i: int
    j: int
    p: float
    view: str
    likeness: float


@dataclasses.dataclass(frozen=True)
class Near(Answer):
    """The pairs, most certain first.

    `expected`: how many pairs the small split would have if its rows were as alike to those of the large split as the
    rows of the large split are among themselves. About as many as found: the data repeat by nature.
    """

    pairs: tuple[NearPair, ...] = ()
    expected: float = 0.0


@dataclasses.dataclass(frozen=True)
class WindowPair:
    """Row `i` of the small split and row `j` of the large one share `overlap` values in a row.

    `offset`: value t of row i is value t + offset of row j.
    """

    i: int
    j: int
    offset: int
    overlap: int


@dataclasses.dataclass(frozen=True)
class Windows(Answer):
    """How many rows of the small split continue rows of the large one."""

    share: float = 0.0
    rows: tuple[int, ...] = ()
    #: each of these rows with its longest overlap that was found, the longest first
    pairs: tuple[WindowPair, ...] = ()
    #: most common distance between neighbouring overlapping rows: how far the window moved; 0: unknown
    stride: int = 0


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


@dataclasses.dataclass(frozen=True)
class Order:
    """Rows of the small split that are too early, the earliest first; times as strings."""

    rows: tuple[int, ...]
    share: float
    last_large: str
    first_small: str
    missing: int
    #: the small split lies wholly before the large one: splits given in the wrong order, or a backward study
    reversed: bool = False
