"""Where a loss stands still: losses that mean something, by what they are the loss of."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pytest_overfit.diagnosis.symptoms import Symptoms

#: a loss this near to a level stands at it: as a share of it, and of its way from the constant's
_AT, _OF_THE_WAY = 0.01, 0.05

#: scores between 0 and 1 differ by one at most
_BINARY_FLOORS = {1: math.log1p(math.exp(-1.0)), 0: math.log(2.0)}


def level(symptoms: Symptoms) -> str:
    """The end of a curve in words that say what its height means; "" where there is none."""
    if not symptoms.points:
        return ""
    loss = symptoms.last_loss
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    constant = symptoms.reference.constant
    meant = (words for height, words in levels(symptoms) if abs(loss - height) <= _near(height, constant))
    words = next(meant, "")
    return f"the loss stops at {loss:.4g}{f', {words}' if words else ''}"


def _near(height: float, constant: float | None) -> float:
    return max(_AT * abs(height), _OF_THE_WAY * abs((constant or height) - height))


def levels(symptoms: Symptoms) -> Iterator[tuple[float, str]]:
    """Heights with their meaning, the most telling first."""
    head = symptoms.head
    if head is not None and head.kind == "classes" and symptoms.classes > 1 and head.plain == "cross_entropy":
        count = symptoms.classes
        # all on one class: e to it, and 1 to each of the others
        least = head.scale * (math.log(math.e + count - 1) - 1)
        yield least, f"the least that probabilities can have as scores of {count} classes"
    if head is not None and head.kind == "binary" and head.plain == "binary_cross_entropy" and head.targets.size:
        share = float(head.targets.mean())
        least = head.scale * (share * _BINARY_FLOORS[1] + (1 - share) * _BINARY_FLOORS[0])
        yield least, "the least that probabilities can have as scores"
    constant = symptoms.reference.constant
    if constant is not None:
        yield constant, f"that of {_constant_words(head.plain if head is not None else '')}"
    if head is not None and head.kind == "classes" and symptoms.classes > 1:
        count = symptoms.classes
        yield head.scale * math.log(count), f"ln {count}: a guess among {count} classes"
    if head is not None and head.kind == "binary":
        yield head.scale * math.log(2.0), "ln 2: a guess between two"


def _constant_words(plain: str) -> str:
    return {
        "cross_entropy": "the classes' shares alone",
        "binary_cross_entropy": "the labels' shares alone",
        "squared_error": "the mean of the targets alone (their variance)",
        "absolute_error": "the median of the targets alone",
    }.get(plain, "the best output that ignores the input")
