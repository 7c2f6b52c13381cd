"""Numbers as people read them: few digits, and more only where they tell a number from what it is held against."""

from __future__ import annotations

import math
import re

#: significant digits of a number that needs no more
_MOST = 6

#: significant digits that tell any two floats apart
_ALL = 17

_USUAL = ".4g"


def legible(value: float, limit: float | None = None, usual: str = _USUAL) -> str:
    """A number as usual, in six significant digits at most; in more only where they tell it from its limit."""
    return _bounded(value, usual) if limit is None else apart(value, limit, usual)[0]


def apart(value: float, limit: float, usual: str = _USUAL) -> tuple[str, str]:
    """A number and its limit in as few digits as show which of them is larger."""
    texts = _bounded(value, usual), _bounded(limit, usual if usual.endswith("g") else _USUAL)
    if _stand_alike(texts, value, limit):
        return texts
    longer = ((f"{value:.{digits}g}", f"{limit:.{digits}g}") for digits in range(4, _ALL + 1))
    return next((each for each in longer if _stand_alike(each, value, limit)), texts)


def _stand_alike(texts: tuple[str, str], value: float, limit: float) -> bool:
    shown, bound = map(float, texts)
    if value == limit or not (math.isfinite(value) and math.isfinite(limit)):
        return True
    return shown != limit and (shown < bound) == (value < limit) and shown != bound


def _bounded(value: float, usual: str) -> str:
    text = f"{value:{usual}}"
    if "e" in text or _significant(text) <= _MOST:
        return text
    sign, percent = "+" if usual.startswith("+") else "", usual.endswith("%")
    return f"{100 * value if percent else value:{sign}.{_MOST}g}{'%' if percent else ''}"


def _significant(text: str) -> int:
    return len(re.sub(r"\D", "", text).lstrip("0"))


def hundredths(value: float) -> str:
    """A score in two decimals."""
    return legible(value, usual=".2f")


def thousandths(value: float) -> str:
    """A score in three decimals."""
    return legible(value, usual=".3f")


def signed(difference: float) -> str:
    """A difference of scores in three decimals, with its sign."""
    return legible(difference, usual="+.3f")
