"""What an unrecognised loss predicts, guessed from shapes, dtypes and the declared task."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from pytest_overfit.adapters.base import Head
from pytest_overfit.core.arrays import Array
from pytest_overfit.measures.reference_losses.output_domains import simplex_axis


def inferred_heads(outputs: Sequence[Array], targets: Sequence[Array], task: str | None) -> list[Head]:
    """A head for each pair of output and target, in their order; an empty list where one pair cannot be recognised."""
    if not targets or len(outputs) != len(targets) or (task is not None and len(targets) > 1):
        return []
    heads = [_inferred(*pair, task) for pair in zip(outputs, targets, strict=True)]
    found = [each for each in heads if each is not None]
    if len(found) < len(targets):
        return []
    names = [f"output {number}" for number in range(1, len(found) + 1)] if len(found) > 1 else [""]
    return [dataclasses.replace(head, name=name) for head, name in zip(found, names, strict=True)]


def _inferred(output: Array, target: Array, task: str | None) -> Head | None:
    if output.shape[:1] != target.shape[:1]:
        return None
    if output.dtype.kind in "iu" and target.dtype.kind in "iu" and output.size == target.size:  # labels already
        kinds, both = np.unique(np.stack([output.ravel(), target.ravel()]), return_inverse=True)
        given, true = both.reshape(2, *target.shape)
        return Head(kind="classes", outputs=np.eye(max(2, len(kinds)))[given], targets=true)
    axis = _class_axis(output, target, task)
    if axis is not None:
        return Head(kind="classes", outputs=output, targets=target, class_axis=axis)
    if output.size != target.size:
        return None
    inside = bool(((output >= 0) & (output <= 1)).all())
    zeros_and_ones = bool(np.isin(target, (0, 1)).all())
    distances = not inside and bool((output >= 0).all())  # neither logits nor probabilities
    if task in ("binary", "multilabel") or (task is None and zeros_and_ones and not distances):
        return Head(
            kind="binary",
            outputs=output,
            targets=target.astype(float),
            domain="probabilities" if inside else "unbounded",
        )
    if task == "regression" or (task is None and np.issubdtype(target.dtype, np.floating) and not zeros_and_ones):
        return Head(kind="values", outputs=output, targets=target)
    return None


def _class_axis(output: Array, target: Array, task: str | None) -> int | None:
    """Which axis of the outputs holds the classes: the one that labels lack, or the last one of distributions."""
    labels = task in ("multiclass", "language_model", "segmentation") or (task is None and target.dtype.kind in "iu")
    if labels and output.ndim == target.ndim + 1:
        for axis in (output.ndim - 1, 1):
            if output.shape[:axis] + output.shape[axis + 1 :] == target.shape and output.shape[axis] > 1:
                return axis
    one_hot = output.shape == target.shape and output.ndim > 1 and output.shape[-1] > 1
    if task in (None, "multiclass") and one_hot and simplex_axis(target.astype(float)) is not None:
        return -1
    return None
