"""Quantiles of Student's t distribution for whole degrees of freedom.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import functools
import math


def within(t: float, freedom: int) -> float:
    """Probability of lying within -t and t: the finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    angle = math.atan2(t, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2 == 1
    term = total = cosine if odd else 1.0
    if freedom == 1:
        total = 0.0
    for power in range(3 if odd else 2, freedom - 1, 2):
        term *= cosine * cosine * (power - 1) / power
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


@functools.cache
def two_sided(alpha: float, freedom: int) -> float:
    """The t beyond which, on both sides together, lies the probability `alpha`."""
    low, high = 0.0, 1.0
    while within(high, freedom) < 1 - alpha:
        low, high = high, 2 * high
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle, freedom) < 1 - alpha else (low, middle)
    return (low + high) / 2
