"""What a run shows for nothing: its curve, the program's make-up, and the scale of its data."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pytest_overfit.adapters.base import Head
from pytest_overfit.adapters.programs import Activation, Anatomy, Origin, WeightFacts
from pytest_overfit.core.arrays import Array
from pytest_overfit.measures.memorising.criteria import loss_ratio
from pytest_overfit.measures.reference_losses.reference import Reference

#: a loss that came no further than this share of the way from the constant's stands at it
_STANDS = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Symptoms:
    """One run that did not memorise its batch, and the program before its first update."""

    #: plain values of the run, as `overfit_batch` measures them
    measured: Mapping[str, Any]
    anatomy: Anatomy
    inputs: tuple[Array, ...]
    targets: tuple[Array, ...]
    #: the model's first answer on the batch
    outputs: tuple[Array, ...] = ()
    #: predictions with their targets, of recognised losses
    heads: tuple[Head, ...] = ()
    #: where the first number came from that is not finite
    origin: Origin | None = None

    # ---------------------------------------------------------------- the curve

    @property
    def steps(self) -> int:
        return int(self.measured["steps"])

    @functools.cached_property
    def reference(self) -> Reference:
        known = self.measured["reference"]
        return Reference(constant=known["constant"], best=known["best"], how=known["how"])

    @functools.cached_property
    def points(self) -> list[tuple[int, float]]:
        """Step and loss of each reading."""
        return [(each["step"], each["loss"]) for each in self.measured["points"] if each["loss"] is not None]

    @property
    def last_loss(self) -> float:
        return self.points[-1][1] if self.points else math.nan

    @property
    def ratio(self) -> float:
        """Of the last reading."""
        return loss_ratio(self.last_loss, self.reference)

    @property
    def stands(self) -> bool:
        """The run came to next to nothing."""
        return not math.isfinite(self.ratio) or self.ratio >= 1 - _STANDS

    @property
    def is_not_finite(self) -> bool:
        return self.measured["stop"] == "non_finite" or bool(self.measured["parameters"].get("not_finite"))

    @functools.cached_property
    def swings(self) -> float:
        """Largest loss over the first one: healthy runs come down."""
        losses = [each for each in self.measured["losses"] if math.isfinite(each)]
        return max(losses, default=0.0) / max(abs(losses[0]), 1e-12) if losses else 0.0

    @property
    def diverges(self) -> bool:
        """No finite number, or a loss that climbs above its start."""
        return self.is_not_finite or self.swings > 2

    @property
    def moved(self) -> float | None:
        """How far all parameters went, as a share of their size."""
        found = self.measured["parameters"].get("moved")
        return None if found is None else float(found)

    # --------------------------------------------------------------- the program

    @property
    def last_activation(self) -> tuple[int, Activation] | None:
        """The function that makes the model's answer, with its number."""
        found = [(n, each) for n, each in enumerate(self.anatomy.activations) if each.last]
        return found[-1] if found else None

    @property
    def hidden_activations(self) -> list[Activation]:
        return [each for each in self.anatomy.activations if not each.last]

    @property
    def matrices(self) -> list[WeightFacts]:
        """Matrices and kernels, in the order of the layers."""
        return [each for each in self.anatomy.weights if each.main]

    @property
    def head(self) -> Head | None:
        """The only one."""
        return self.heads[0] if len(self.heads) == 1 else None

    @property
    def loss_name(self) -> str:
        """The loss as its owner calls it."""
        return next((each.loss_name for each in self.heads if each.loss_name), "") or "".join(self.anatomy.losses[:1])

    @property
    def classes(self) -> int:
        """Size of the axis of classes, 0 where there is none."""
        head = self.head
        return head.outputs.shape[head.class_axis] if head is not None and head.kind == "classes" else 0

    # ------------------------------------------------------------------ the data

    def scales(self) -> Iterator[Scale]:
        """Of each floating point input."""
        return (scale_of(each) for each in self.inputs if each.dtype.kind == "f" and each.ndim > 1)

    def target_scale(self) -> Scale | None:
        """Of floating point targets that are not shares."""
        floats = [each for each in self.targets if each.dtype.kind == "f" and each.size]
        return scale_of(floats[0].reshape(len(floats[0]), -1)) if len(floats) == 1 else None


@dataclasses.dataclass(frozen=True)
class Scale:
    """Of the columns of an array."""

    #: largest value without its sign
    largest: float
    #: root of the mean of squares over all
    size: float
    #: spread over all, and the largest spread of a column over the usual one
    spread: float
    uneven: float
    #: largest distance of a column's mean from 0, in its spreads
    shifted: float


def scale_of(values: Array) -> Scale:
    """Columns are what is left when rows, and places of series and images, are taken together.

    Images have fewer channels than pixels a side, wherever their framework puts them.
    """
    axis = 1 if values.ndim in (4, 5) and values.shape[1] < values.shape[-1] else -1
    columns = np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis]).astype(np.float64)
    if not columns.size or not np.isfinite(columns).all():
        return Scale(math.nan, math.nan, math.nan, 1.0, 0.0)
    spreads = columns.std(axis=0)
    moving = spreads[spreads > 0]
    usual = float(np.median(moving)) if moving.size else 0.0
    means = np.abs(columns.mean(axis=0))
    return Scale(
        largest=float(np.abs(columns).max()),
        size=float(np.sqrt((columns**2).mean())),
        spread=float(columns.std()),
        uneven=float(moving.max() / usual) if usual else 1.0,
        shifted=float((means / np.where(spreads > 0, spreads, np.inf)).max()),
    )


def between(points: Sequence[tuple[int, float]], step: int) -> float:
    """The last reading at or before a step; NaN: there is none."""
    return next((loss for at, loss in reversed(points) if at <= step), math.nan)
