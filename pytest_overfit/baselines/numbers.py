"""The numbers of a verdict that another machine would get as well, and which way they are better."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable
from typing import Any

from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.verdict import BaselineNumber, Better

#: what of a number is kept: further digits differ between processors; whole numbers are kept whole
_DIGITS = 6


def kept(numbers: Iterable[BaselineNumber]) -> dict[str, dict[str, Any]]:
    """`quantities`, name -> finite number, and `better`, name -> which way it is better, where that is known."""
    values: dict[str, float] = {}
    ways: dict[str, Better] = {}
    for number in numbers:
        if number.name not in values and isinstance(number.value, (int, float)) and math.isfinite(number.value):
            values[number.name] = _rounded(number.value)
            if number.better:
                ways[number.name] = number.better
    return {"quantities": values, "better": ways}


def _rounded(value: float) -> float:
    return int(value) if value == int(value) and abs(value) < 1e15 else float(f"{value:.{_DIGITS}g}")


@dataclasses.dataclass(frozen=True)
class Rule:
    """How much worse a quantity may be than its baseline."""

    quantity: str
    amount: float
    relative: bool

    def names(self, probe: str, quantity: str) -> bool:
        """The rule is about this quantity, of any probe or of the one that it names."""
        return self.quantity in (quantity, f"{probe}.{quantity}")

    def broken_by(self, before: float, now: float, better: Better) -> bool:
        """True where the number is worse than allowed; rounding to the digits that are kept is not a change."""
        worse = {"lower": now - before, "higher": before - now, "": abs(now - before)}[better]
        allowed = self.amount * abs(before) if self.relative else self.amount
        rounded = not (float(before).is_integer() and float(now).is_integer())
        return worse > allowed + (10.0 ** (1 - _DIGITS) * abs(before) if rounded else 0.0)

    def __str__(self) -> str:
        return f"{self.quantity}:{100 * self.amount:g}%" if self.relative else f"{self.quantity}:{self.amount:g}"


def rule_of(text: str) -> Rule:
    """A rule out of `steps_to_memorise:50%` or `val_score:0.02`; `CaseError` for anything else."""
    parts = re.fullmatch(r"([\w.\[\] ]+):(\d+(?:\.\d*)?|\.\d+)(%?)", text.strip())
    if parts is None:
        raise CaseError(
            f"--overfit-compare-fail={text}: expected a quantity and how much worse it may be; write "
            "steps_to_memorise:50% or val_score:0.02"
        )
    amount, relative = float(parts[2]), bool(parts[3])
    return Rule(parts[1], amount / 100 if relative else amount, relative)
