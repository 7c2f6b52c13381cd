"""The faults that a quantity outside its bound shows by itself; most show none, because the bound is people's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from pytest_overfit.core.verdict import Cause


class Measured(Protocol):
    """What is read of a quantity over its seeds."""

    name: str
    #: the bound as it reads, and its upper ends
    bound: str
    highs: list[float]
    #: what was seen beside the last value, in words
    seen: str


def cause_of(series: Measured, value: float) -> Cause | None:
    """The fault that a value shows which lies outside its bound; None: a number outside its bound, and nothing more."""
    quantity = series.name.partition("[")[0]
    if quantity == "gradient_norm":
        return _of_gradient(series.name, value)
    if quantity == "dead_units" and _above(series.highs, value):
        return Cause("dead_relu", "lower the learning rate, start from smaller biases, or write LeakyReLU for ReLU")
    if quantity == "update_to_weight" and value == 0:
        return Cause("update_skipped", "look whether the learning rate is 0, and the optimizer's step is called")
    if quantity == "eval_twice" and value == 0:
        return Cause("random_in_eval", "let dropout and noise follow model.eval(), or training=False")
    if quantity == "batch_size_invariance" and value == 0 and "another answer" in series.seen:
        return Cause("batch_mixing", "compute each row by itself: no mean, softmax or attention over axis 0")
    if quantity == "initial_loss" and "theory" in series.bound and _above(series.highs, value):
        return Cause("over_confident_start", "start with smaller weights in the last layer")
    return None


def _of_gradient(name: str, value: float) -> Cause | None:
    if not math.isfinite(value):
        return Cause("nan_parameter", "look for a square root or a division at 0, a logarithm of 0, or an overflow")
    if value > 0:
        return None
    layer = name.partition("[")[2].rstrip("]") or "the model"
    return Cause("cut_gradient", f"look for detach(), .data, no_grad() or a factor of 0 behind {layer}", "likely")


def _above(highs: Sequence[float], value: float) -> bool:
    return bool(highs) and value > max(highs)
