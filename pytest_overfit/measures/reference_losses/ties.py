"""Which rows, and which positions of rows, no model could distinguish."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pytest_overfit.adapters.base import Head
from pytest_overfit.core.arrays import Array


def tied_rows(inputs: Sequence[Array], rows: int) -> Array:
    """Number the distinct inputs: rows with the same number have identical inputs."""
    numbers: dict[bytes, int] = {}
    arrays = [np.ascontiguousarray(each) for each in inputs if each.shape[:1] == (rows,)]
    keys = [b"|".join(each[row].tobytes() for each in arrays) for row in range(rows)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def prefix_cells(head: Head, inputs: Sequence[Array], groups: Array) -> Array | None:
    """Ties at single positions: (rows, positions) numbers of what a causal model can tell apart; None: not needed.

    A model that reads from left to right cannot know how rows with a common beginning go on, so its outputs on that
    beginning are the same. Whether it reads so is measured: only if all its outputs on common beginnings agree.
    """
    rows = len(groups)
    if head.kind != "classes" or head.targets.ndim != 2 or head.outputs.ndim != 3:
        return None
    positions = head.targets.shape[1]
    sequences, others = _split(inputs, head.targets)
    if not sequences:
        return None
    outputs = np.moveaxis(head.outputs, head.class_axis, -1)
    slack = 1e-3 * (float(outputs.std()) or 1.0)
    # rows that differ in what is read as a whole (the source of a translation, a picture) are never tied
    known = tied_rows(others, rows) if others else np.zeros(rows, np.int64)
    cells, shared = np.zeros((rows, positions), np.int64), False
    for position in range(positions):
        keys = [(int(known[row]), *(each[row, position].tobytes() for each in sequences)) for row in range(rows)]
        numbers: dict[Any, int] = {}
        known = np.array([numbers.setdefault(key, len(numbers)) for key in keys])
        for number in range(len(numbers)):
            same = known == number
            if len(set(groups[same].tolist())) > 1:
                shared = True
                if float(np.ptp(outputs[same, position], axis=0).max()) > slack:
                    return None
        cells[:, position] = known * positions + position
    return cells if shared else None


def _split(inputs: Sequence[Array], targets: Array) -> tuple[list[Array], list[Array]]:
    """The inputs that may be read from left to right along with the targets, and all others.

    Of several that hold tokens the one most like the targets, shifted or not, is read so; masks and positions go with
    it. The others are sources.
    """
    rows, positions = targets.shape
    by_row = [each for each in inputs if each.ndim > 1 and len(each) == rows]
    long = [each for each in by_row if positions <= each.shape[1] <= positions + 1]
    tokens = [each for each in long if _varied(each)]
    if len(tokens) > 1:
        causal = max(tokens, key=lambda each: _likeness(each, targets))
        long = [each for each in long if each is causal or not _varied(each)]
    known = {id(each) for each in long}
    others = [each for each in inputs if id(each) not in known and each.shape[:1] == (rows,)]
    return [each.reshape(rows, each.shape[1], -1) for each in long], others


def _varied(sequence: Array) -> bool:
    """More than two values, and rows that differ: neither a mask nor positions."""
    return bool((sequence != sequence[:1]).any()) and len(np.unique(sequence)) > 2


def _likeness(sequence: Array, targets: Array) -> float:
    """The best share of equal tokens, at the same place or one further on."""
    if sequence.ndim != 2:
        return 0.0
    length = targets.shape[1]
    shown, shifted = sequence[:, :length], sequence[:, 1 : length + 1]
    later = targets[:, : shifted.shape[1]]
    return max(
        float((shown == targets).mean()),
        float((shifted == later).mean()),
        float((shown[:, 1:] == targets[:, :-1]).mean()),
    )
