"""What a head predicts, what would be right, and which targets count: read off in one way for every score."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from pytest_overfit.adapters.base import Head
from pytest_overfit.core.arrays import Array

#: what a prediction can be scored as
Kind = Literal["classes", "binary", "values"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """Three arrays of one shape: that of the targets, without an axis of classes."""

    #: class, yes or no, or a value
    predicted: Array
    label: Array
    #: True where a target counts: not masked, no padding, no missing value
    counted: Array

    @property
    def right(self) -> Array:
        """True where the prediction is the label."""
        return np.asarray(self.predicted == self.label)

    def by_row(self, rows: int) -> Prediction:
        """The same with one axis behind the rows."""
        predicted, label, counted = (each.reshape(rows, -1) for each in (self.predicted, self.label, self.counted))
        return Prediction(predicted=predicted, label=label, counted=counted)


def read(head: Head, kind: Kind | None = None) -> Prediction:
    """The predictions of a head: the largest class, the side of the threshold, or the value itself.

    `kind`: read it as this in place of its own kind, which may be guessed for each chunk of a split.
    """
    kind = kind or head.kind
    if kind == "classes":
        soft = head.targets.ndim == head.outputs.ndim
        label = head.targets.argmax(axis=head.class_axis) if soft else head.targets
        predicted, counted = head.outputs.argmax(axis=head.class_axis), ~padding(label)
    elif kind == "binary":
        threshold = 0.0 if head.domain == "unbounded" else 0.5
        predicted, label = head.outputs.reshape(head.targets.shape) > threshold, head.targets > 0.5
        counted = np.ones(label.shape, bool)
    else:
        label = head.targets.astype(np.float64)
        predicted, counted = head.outputs.reshape(label.shape).astype(np.float64), ~np.isnan(label)
    if head.mask is not None:
        counted = counted & head.mask.reshape(label.shape)
    return Prediction(predicted=predicted, label=label, counted=counted)


def can_be_read(head: Head) -> bool:
    """Each answer has a target of its own; a loss may spread one over the other, or take a part of the outputs."""
    return head.kind == "classes" or head.outputs.size == head.targets.size


def padding(tokens: Array) -> Array:
    """True on trailing runs of one token that fill up rows of unequal length, where a row has any left over.

    A token is taken for padding when it ends at least one row in two, in runs of differing length, and never stands
    before another token. Leaving it out is safe for a model that memorises: it has those tokens right as well.
    """
    none = np.zeros(tokens.shape, bool)
    if tokens.ndim != 2 or tokens.shape[1] < 3:
        return none
    last = tokens[:, -1]
    values, counts = np.unique(last, return_counts=True)
    token = values[counts.argmax()]
    same = tokens == token
    trailing = np.cumprod(same[:, ::-1], axis=1)[:, ::-1].astype(bool)
    lengths = trailing.sum(axis=1)
    ends_often = counts.max() * 2 >= len(last)
    only_trailing = not bool((same & ~trailing).any())
    if ends_often and only_trailing and lengths.max() > 1 and len(np.unique(lengths)) > 1:
        return trailing
    return none
