"""What a head's outputs can be, by construction: seen by shaking the weights, whatever their values are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from pytest_overfit.adapters.base import Head, Reading
from pytest_overfit.adapters.wires import Wires
from pytest_overfit.core.arrays import Array

#: noise on every weight when it is shaken, as multiples of its own size, in turn
SHAKES = (3.0, 30.0, 3.0, 30.0, 3.0, 30.0)

#: outputs whose range grows by less than this factor from the weak to the strong noise are bounded
_GROWS = 1.3

#: "shares" sum to 1 over the classes, "shares_of_rows" over the rows, "one" is always 1, "bounded" keeps its range when
#: the noise grows, "positive" is never below 0 and often 0; of shares that never come near to 1, what they are made of
Form = Literal[
    "shares",
    "shares_of_shares",
    "shares_of_bounded",
    "log_shares",
    "shares_of_rows",
    "shares_of_places",
    "one",
    "bounded",
    "positive",
    "free",
]

#: outputs that sum to 1 over the classes
SHARES = ("shares", "shares_of_shares", "shares_of_bounded")

#: a share above this is as good as 1
_CERTAIN = 0.99


def form_of(wires: Wires, head: Head) -> tuple[Form, float, float] | None:
    """What the outputs are, the lowest and the highest; None: the model cannot be shaken."""
    values = [_values_of(wires.shaken(share, index), head) for index, share in enumerate(SHAKES)]
    seen = [(share, each) for share, each in zip(SHAKES, values, strict=True) if each is not None]
    if len({share for share, _ in seen}) < 2:
        return None
    outputs = [head.outputs.astype(np.float64), *(each for _, each in seen)]
    form = _form(head, outputs, _grows(seen))
    if form != "one" and all(np.array_equal(each, outputs[1]) for _, each in seen):
        return None  # evaluation reads other weights than these
    low, high = min(float(each.min()) for each in outputs), max(float(each.max()) for each in outputs)
    return form, low, high


def _values_of(reading: Reading | None, head: Head) -> Array | None:
    """The head's outputs; those of the model itself where its loss is written by hand."""
    if reading is None:
        return None
    found = [each.outputs for each in reading.heads] or [
        each for each in reading.outputs if each.shape == head.outputs.shape
    ]
    return found[0].astype(np.float64) if len(found) == 1 and np.isfinite(found[0]).all() else None


def _grows(seen: Sequence[tuple[float, Array]]) -> float:
    """How much wider the outputs' range is under strong noise than under weak."""
    widths = []
    for noise in (min(SHAKES), max(SHAKES)):
        part = [values for share, values in seen if share == noise]
        widths.append(max(float(each.max()) for each in part) - min(float(each.min()) for each in part))
    return widths[1] / widths[0] if widths[0] > 0 else 1.0


def _form(head: Head, outputs: Sequence[Array], grows: float) -> Form:
    by_class = [np.moveaxis(each, head.class_axis, -1) for each in outputs] if head.kind == "classes" else list(outputs)
    if head.kind == "classes" and by_class[0].shape[-1] > 1:
        if all(_sums_to_one(each, -1) for each in by_class):
            return _of_shares(by_class, grows)
        if all((each <= 1e-6).all() and _sums_to_one(np.exp(each), -1) for each in by_class):
            return "log_shares"
        if head.outputs.ndim > 2 and any(_over_places(by_class, axis) for axis in range(1, head.outputs.ndim - 1)):
            return "shares_of_places"
    if len(by_class[0]) > 1 and _over_places(by_class, 0):
        return "shares_of_rows"
    if all(np.allclose(each, 1.0, rtol=0.0, atol=1e-6) for each in by_class):
        return "one"
    if grows < _GROWS:
        return "bounded"
    lowest = [float(each.min()) for each in outputs]
    return "positive" if min(lowest) == 0.0 and sum(each == 0.0 for each in lowest) > len(lowest) // 2 else "free"


def _of_shares(by_class: Sequence[Array], grows: float) -> Form:
    """A softmax of numbers that are bounded themselves keeps its distance from 1 under any noise.

    Where these are shares again, they are known but for one number that is the same for all of a row's classes, and
    that is so chosen that they sum to 1.
    """
    high, low = max(float(each.max()) for each in by_class), min(float(each.min()) for each in by_class)
    if grows >= _GROWS or high > _CERTAIN or high == low:
        return "shares"
    logs = [np.log(each.clip(1e-30)) for each in by_class]
    inside = [each - each.mean(-1, keepdims=True) + 1.0 / each.shape[-1] for each in logs]
    return "shares_of_shares" if min(float(each.min()) for each in inside) > -1e-3 else "shares_of_bounded"


def _over_places(by_class: Sequence[Array], axis: int) -> bool:
    whole = all(_sums_to_one(each, axis) for each in by_class)
    return whole or all((each <= 1e-6).all() and _sums_to_one(np.exp(each), axis) for each in by_class)


def _sums_to_one(values: Array, axis: int) -> bool:
    return bool((values >= -1e-6).all() and np.abs(values.sum(axis=axis) - 1.0).max() < 1e-3)
