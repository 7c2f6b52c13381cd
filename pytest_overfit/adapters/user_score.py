"""The number that a case's own `score` returned, or a `CaseError` where it is none that can be compared with 1.0."""

from __future__ import annotations

import math
from typing import Any

from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.foreign import describe

#: the largest score is 1.0; a mean taken in half precision may come out a thousandth above it
_LARGEST = 1.001


def user_score(value: Any, case: Case) -> float:
    """One number, 1.0 when all is right. Below 0 (R2) is fine; NaN and -inf are for the verdict to count as not right.

    Whatever is above 1.0 would pass every limit, so it is refused: a percentage, a count, infinity.
    """
    number = _one_number(value, case)
    if number > _LARGEST:
        share = " (a percentage? divide it by 100)" if 1 < number <= 100 else ""
        raise CaseError(
            f"Case {case.name!r}: score returned {number:g}, expected at most 1.0, which is a score when all is "
            f"right{share}; return a share of what can be reached, such as (predicted == y).mean()"
        )
    return number


def _one_number(value: Any, case: Case) -> float:
    value = value.detach() if hasattr(value, "detach") else value
    try:
        one = math.prod(getattr(value, "shape", ())) == 1 and not isinstance(value, (str, bytes))
        return float(value.item() if hasattr(value, "item") else value) if one else _refuse(value, case)
    except (TypeError, ValueError):
        return _refuse(value, case)


def _refuse(value: Any, case: Case) -> float:
    raise CaseError(
        f"Case {case.name!r}: score returned {describe(value)}, expected one number, 1.0 when all is right; end it "
        "with `return (predicted == y).mean()` or the like"
    )
