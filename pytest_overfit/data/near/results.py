"""What the near-duplicate searches give back: plain values, no arrays.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import dataclasses
from typing import Any


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
class Near:
    """The pairs, most certain first; or why nothing can be said.

    `expected`: how many pairs the small split would have if its rows were as alike to those of the large split as the
    rows of the large split are among themselves. About as many as found: the data repeat by nature.
    """

    testable: bool
    why: str = ""
    pairs: tuple[NearPair, ...] = ()
    expected: float = 0.0
    info: dict[str, Any] = dataclasses.field(default_factory=dict)
