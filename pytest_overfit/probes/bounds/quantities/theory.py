"""The loss of an uninformed model, where the loss is a recognised one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pytest_overfit.adapters.base import Head
from pytest_overfit.measures.reference_losses.closed_form import closed_form


def untrained_loss(heads: Sequence[Head]) -> tuple[float, str] | None:
    """Loss of equal probabilities, or of an output of zero, and its derivation in words; None: not a known loss.

    Cross-entropy of C equal probabilities is -ln(1/C) = ln C whatever the labels are; binary, ln 2. An output of zero
    has the mean squared target as its squared error, which is the targets' variance where their mean is 0, and the
    mean absolute target as its absolute error. Several heads add up.
    """
    parts = [_of(head) for head in heads]
    known = [each for each in parts if each is not None]
    if not known or len(known) < len(parts):
        return None
    return sum(value for value, _ in known), " + ".join(words for _, words in known)


def constant_loss(heads: Sequence[Head]) -> tuple[float, str]:
    """Loss of the best answer that ignores the input, and its derivation in words; of heads that all are plain.

    It is what a model has whose last bias starts at the prior: the entropy of the class frequencies (of each position,
    where a row has several targets), the targets' variance, or their mean deviation from the median.
    """
    losses = [closed_form(each, np.zeros(len(each.targets), np.int64)).constant or 0.0 for each in heads]
    words = [f"{loss:.4g}, {_CONSTANT[head.plain]}" for loss, head in zip(losses, heads, strict=True)]
    return sum(losses), " + ".join(words)


#: what the loss of the best constant is
_CONSTANT = {
    "cross_entropy": "the entropy of the class frequencies",
    "binary_cross_entropy": "the entropy of the share of ones",
    "squared_error": "the variance of the targets",
    "absolute_error": "the mean deviation from the median",
}


def _of(head: Head) -> tuple[float, str] | None:
    times = "" if head.scale == 1.0 else f"{head.scale:g} x "
    if head.plain == "cross_entropy":
        classes = head.outputs.shape[head.class_axis]
        return head.scale * math.log(classes), f"{times}ln {classes}: equal probabilities for {classes} classes"
    if head.plain == "binary_cross_entropy":
        return head.scale * math.log(2), f"{times}ln 2: probability 1/2 for both answers"
    targets = head.targets.astype(np.float64)
    if head.plain == "squared_error":
        mean, variance = float((targets**2).mean()), float(targets.var())
        return head.scale * mean, f"{times}mean squared target of an output of 0 (their variance is {variance:.4g})"
    if head.plain == "absolute_error":
        return head.scale * float(np.abs(targets).mean()), f"{times}mean absolute target of an output of 0"
    return None
