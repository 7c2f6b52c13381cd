"""Reference losses of recognised plain losses, from the targets alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pytest_overfit.adapters.base import Head
from pytest_overfit.core.arrays import Array
from pytest_overfit.measures.reference_losses.reference import Reference


def closed_form(head: Head, groups: Array, cells: Array | None = None) -> Reference:
    """References of a recognised plain loss: label entropy, binary entropy, variance, deviation from the median.

    `cells`: finer ties, from `prefix_cells`.
    """
    per_group = _PLAIN[head.plain]
    constant = per_group(head, np.zeros_like(groups))
    best = _label_entropy(head, cells) if cells is not None else per_group(head, groups)
    # + 0.0 makes 0.0 of -0.0
    return Reference(
        constant=constant * head.scale + 0.0, best=best * head.scale + 0.0, how=f"closed form of {head.loss_name}"
    )


def summed(references: Sequence[Reference]) -> Reference:
    """References of a loss that is the sum of several plain ones, each already times its factor."""
    return Reference(
        constant=sum(each.constant or 0.0 for each in references),
        best=sum(each.best or 0.0 for each in references),
        how=" + ".join(each.how for each in references),
    )


def _entropy(head: Head, groups: Array) -> float:
    if head.targets.ndim == head.outputs.ndim:
        share = np.moveaxis(head.targets, head.class_axis, -1).astype(np.float64)
        return _mean_over_groups(share, groups, _cross_entropy_with_mean)
    positions = int(np.prod(head.targets.shape[1:]))
    return _label_entropy(head, groups[:, None] * positions + np.arange(positions)[None, :])


def _label_entropy(head: Head, cells: Array) -> float:
    """Mean entropy of the counted labels that share a cell."""
    classes = int(head.targets.max(initial=0)) + 1
    flat = head.targets.reshape(cells.shape)
    counted = np.ones(flat.shape, bool) if head.mask is None else head.mask.reshape(flat.shape)
    _, cell = np.unique(cells[counted], return_inverse=True)
    pairs, counts = np.unique(cell * classes + flat[counted].astype(np.int64), return_counts=True)
    share_of_cell = counts / np.bincount(cell)[pairs // classes]
    return float((counts * -np.log(share_of_cell)).sum() / max(1, counted.sum()))


def _cross_entropy_with_mean(targets: Array) -> Array:
    """Per row: cross-entropy of its target distribution with the rows' mean distribution."""
    mean = targets.mean(axis=0, keepdims=True)
    return np.asarray(-(targets * np.log(np.where(mean > 0, mean, 1.0))).sum(axis=-1))


def _binary_entropy(head: Head, groups: Array) -> float:
    pair = np.stack([head.targets, 1.0 - head.targets], axis=-1)
    return _mean_over_groups(pair, groups, _cross_entropy_with_mean)


def _variance(head: Head, groups: Array) -> float:
    return _mean_over_groups(head.targets, groups, lambda part: (part - part.mean(axis=0, keepdims=True)) ** 2)


def _deviation(head: Head, groups: Array) -> float:
    return _mean_over_groups(head.targets, groups, lambda part: np.abs(part - np.median(part, axis=0, keepdims=True)))


def _mean_over_groups(values: Array, groups: Array, per_target: Callable[[Array], Array]) -> float:
    values = values.astype(np.float64)
    parts = [per_target(values[groups == group]) for group in np.unique(groups)]
    return float(np.concatenate(parts).mean())


_PLAIN: dict[str, Callable[[Any, Any], float]] = {
    "cross_entropy": _entropy,
    "binary_cross_entropy": _binary_entropy,
    "squared_error": _variance,
    "absolute_error": _deviation,
}
