"""The probabilities that a classifier's outputs stand for."""

from __future__ import annotations

import numpy as np

from pytest_overfit.adapters.base import Head
from pytest_overfit.core.arrays import Array
from pytest_overfit.measures.reference_losses.output_domains import simplex_axis


def probabilities(head: Head) -> Array | None:
    """Of each class along the axis of the classes, or of a one, in the targets' shape; None: they stand for none."""
    if head.kind == "binary":
        chances = _of_one(head)
        return None if chances is None else chances.reshape(head.targets.shape)
    return _of_classes(head)


def _of_one(head: Head) -> Array | None:
    """Probability of a one."""
    outputs = head.outputs.astype(np.float64)
    if head.domain == "probabilities":
        return np.clip(outputs, 0.0, 1.0)
    if not _is_cross_entropy(head):
        return None
    chances: Array = 0.5 * (1.0 + np.tanh(0.5 * outputs))  # the logistic function without overflow
    return chances


def _of_classes(head: Head) -> Array | None:
    """Probability of each class, along the axis of the classes."""
    outputs = head.outputs.astype(np.float64)
    if head.domain == "log_probabilities":
        shares: Array = np.exp(outputs)
        return shares
    if head.domain == "probabilities" or (not head.loss_name and simplex_axis(outputs) is not None):
        return np.asarray(outputs / outputs.sum(axis=head.class_axis, keepdims=True))
    if not _is_cross_entropy(head):
        return None
    powers = np.exp(outputs - outputs.max(axis=head.class_axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=head.class_axis, keepdims=True))


def _is_cross_entropy(head: Head) -> bool:
    """The loss makes probabilities of the outputs itself; a hinge or a margin does not."""
    return "cross" in head.loss_name or head.loss_name == "multilabel_soft_margin_loss"
