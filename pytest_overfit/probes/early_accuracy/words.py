"""Numbers in words, for the verdicts on the first epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_overfit.core.figures import thousandths


def interval(estimate: Mapping[str, Any]) -> str:
    """A score with its 95 % interval."""
    return f"{thousandths(estimate['score'])} [{thousandths(estimate['low'])}, {thousandths(estimate['high'])}]"


def counted(count: int, what: str) -> str:
    """`1 epoch`, `2 epochs`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def listed(columns: Sequence[int], most: int = 3) -> str:
    """`column 3`, `columns 3, 4, 5 and 7 more`."""
    shown = ", ".join(map(str, columns[:most]))
    more = f" and {len(columns) - most} more" if len(columns) > most else ""
    return f"column{'s' * (len(columns) > 1)} {shown}{more}"
