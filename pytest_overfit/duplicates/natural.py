"""Do rows of one split occur in another no more often than rows of that one occur in it again? Then the data repeat.

Measured: of both splits how many rows have a copy in the earlier one (its own rows: another copy). If a row's chance of
that is the same in both, the number in the later split, given the number in both, is hypergeometric (Fisher's exact
test, one-sided). The same for other labels among such rows. Copies that are repetitions of the data come in groups, so
that these numbers scatter more than independent ones, and `LEVEL` is low for that: of 360 random cuts of six kinds of
data that repeat none was called a leak.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

#: chance below which there are too many copies to be repetitions of the data
LEVEL = 1e-3
#: what adds no more than this share ends the sum
_NEGLIGIBLE = 1e-12


def repeats(found: Mapping[str, Any], within: Mapping[str, Any]) -> bool:
    """Rows of the later split occur in the earlier one as its own do, of which some do."""
    if not found["rows"] or not within["rows"]:
        return False
    return _no_more(found["rows"], found["samples"], within["rows"], within["samples"])


def repeats_with_other_labels(found: Mapping[str, Any], within: Mapping[str, Any]) -> bool:
    """And among those that do, other labels are as frequent; unknown where not all rows of the split were held."""
    if within["sampled"] or not repeats(found, within):
        return False
    return _no_more(found["conflicts"], found["rows"], within["clashing"], within["rows"])


def _no_more(rows: int, samples: int, others: int, of: int) -> bool:
    return rows * of <= others * samples or _tail(rows, samples, rows + others, samples + of) >= LEVEL


def _tail(rows: int, samples: int, marked: int, whole: int) -> float:
    """P(X >= rows) of marked ones among `samples` that are drawn out of the whole."""
    log = _log_choose(samples, rows) + _log_choose(whole - samples, marked - rows) - _log_choose(whole, marked)
    term = total = math.exp(log)
    for k in range(rows, min(samples, marked)):
        term *= (samples - k) * (marked - k) / ((k + 1) * (whole - samples - marked + k + 1))
        total += term
        if term < _NEGLIGIBLE * total:
            break
    return total


def _log_choose(count: int, chosen: int) -> float:
    return math.lgamma(count + 1) - math.lgamma(chosen + 1) - math.lgamma(count - chosen + 1)
