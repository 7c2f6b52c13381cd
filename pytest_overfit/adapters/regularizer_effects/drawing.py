"""What is random where a model evaluates: a noisy copy of an input, or something that is meant?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pytest_overfit.adapters.regularizer_effects.names import listed
from pytest_overfit.core.arrays import Array

#: answers to one input that are averaged: noise and drops of one entry in two are then down to a sixth
ANSWERS = 32

#: cosine of the averaged answer and the input from which on it is a noisy copy: with four of five entries dropped it is
#: 0.94, with nine of ten 0.88
_COPY = 0.9


def is_copy(given: Array | None, answers: Sequence[Sequence[Array]]) -> bool:
    """Each answer is one array of the input's shape, and their average is the input, scaled perhaps."""
    if given is None or any(len(each) != 1 or each[0].shape != given.shape for each in answers):
        return False
    one = given.astype(float).ravel()
    mean = np.mean([each[0].astype(float) for each in answers], axis=0).ravel()
    lengths = float(np.linalg.norm(mean) * np.linalg.norm(one))
    return bool(lengths) and float(mean @ one) > _COPY * lengths


def as_meant(names: Sequence[str]) -> list[str]:
    """What is said of those that are random in evaluation and are not held against anyone."""
    why = "random in evaluation as well and no noisy copy of an input, so taken for a sample or a mask that is meant"
    return [f"{listed(names)}: {why}"] if names else []
