"""What an output and its target can be scored as, given the loss between them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from pytest_overfit.adapters.arrays import counting_only, in_shape_of
from pytest_overfit.adapters.base import Head
from pytest_overfit.adapters.keras.losses import LossFacts, Pair
from pytest_overfit.core.arrays import Array


def heads_of(
    pairs: Sequence[Pair], outputs: Sequence[Array], masks: Sequence[Any], *, plain: bool, weighted: bool
) -> tuple[Head, ...]:
    """Heads of one reading. `plain`: the data term is the compiled losses; `weighted`: samples have weights."""
    alone = plain and not weighted and len(pairs) == 1 and len(outputs) == 1
    found = []
    for pair in pairs:
        mask = masks[pair.output] if pair.output < len(masks) else None
        head = _head(pair, outputs[pair.output], mask, alone and not pair.weighted, plain and not weighted)
        if head is not None:
            found.append(head)
    return tuple(found)


def _head(pair: Pair, outputs: Array, mask: Any, alone: bool, trusted: bool) -> Head | None:
    maker = {"sparse": _sparse, "one_hot": _one_hot, "binary": _binary, "hinge": _hinge, "values": _values}
    loss = pair.loss
    if loss.kind.family not in maker:
        return None
    head = maker[loss.kind.family](pair, outputs)
    head = _masked(head, mask)
    head = _masked(head, _asked_for(pair, _unit_shape(head)))
    exact = alone and mask is None and head.mask is None and not loss.smoothing and _fits(head, loss)
    form = loss.kind.plain if exact and loss.reduction in _SCALED else ""
    scale = _summed(head) if form and loss.reduction == "sum" else 1.0
    minimum = 0.0 if trusted and not loss.smoothing and _never_negative(head, loss) else None
    return dataclasses.replace(head, name=pair.name, loss_name=loss.name, plain=form, scale=scale, minimum=minimum)


def _masked(head: Head, mask: Any) -> Head:
    if mask is None or mask.shape != _unit_shape(head):
        return head
    return counting_only(head, mask.astype(bool))


def _asked_for(pair: Pair, shape: tuple[int, ...]) -> Array | None:
    """False where the weight is 0, as padding is left out in Keras; None: everything counts."""
    if pair.weights is None or bool(np.all(pair.weights)):
        return None
    weights = np.asarray(pair.weights)
    if weights.ndim > len(shape) and weights.shape[-1] == 1:
        weights = weights[..., 0]
    if weights.ndim > len(shape) or weights.shape != shape[: weights.ndim]:
        return None
    return np.broadcast_to(weights.reshape(weights.shape + (1,) * (len(shape) - weights.ndim)) != 0, shape)


#: reductions that leave an average, or a sum, of all losses
_SCALED = ("sum_over_batch_size", "mean", "mean_with_sample_weight", "sum")


def _unit_shape(head: Head) -> tuple[int, ...]:
    """Shape of what is counted: the targets without the class axis."""
    if head.kind == "classes" and head.targets.ndim == head.outputs.ndim:
        return head.targets.shape[:-1]
    return head.targets.shape


def _fits(head: Head, loss: LossFacts) -> bool:
    """Shapes and values are those the closed forms are for."""
    targets = head.targets
    if head.kind == "values" and loss.kind.family != "binary":
        return targets.shape == head.outputs.shape
    if loss.kind.family == "binary":
        return targets.shape == head.outputs.shape and bool(((targets >= 0) & (targets <= 1)).all())
    if head.class_axis not in (-1, head.outputs.ndim - 1):
        return False
    if targets.ndim == head.outputs.ndim:
        return bool((targets >= 0).all()) and bool(np.allclose(targets.sum(axis=-1), 1.0, atol=1e-4))
    return targets.shape == head.outputs.shape[:-1]


def _summed(head: Head) -> float:
    """How many averages a sum adds up: one a label, or one a vector of the last axis."""
    return float(math.prod(head.outputs.shape[:-1]))


def _never_negative(head: Head, loss: LossFacts) -> bool:
    # with soft targets the least value is their own entropy
    return loss.kind.never_negative or (bool(loss.kind.plain) and bool(np.isin(head.targets, (0, 1)).all()))


def _domain(loss: LossFacts) -> Literal["unbounded", "probabilities"]:
    unbounded = loss.from_logits or loss.name.endswith("hinge")
    return "unbounded" if unbounded else "probabilities"


def _sparse(pair: Pair, outputs: Array) -> Head:
    targets = pair.targets
    if targets.ndim == outputs.ndim and targets.shape[-1] == 1:
        targets = targets[..., 0]
    labels = np.round(targets).astype(np.int64)
    mask = None if pair.loss.ignore_class is None else labels != pair.loss.ignore_class
    return Head(
        kind="classes", outputs=outputs, targets=labels, class_axis=pair.loss.axis, mask=mask, domain=_domain(pair.loss)
    )


def _one_hot(pair: Pair, outputs: Array) -> Head:
    return Head(
        kind="classes",
        outputs=outputs,
        targets=pair.targets.astype(np.float64),
        class_axis=pair.loss.axis,
        domain=_domain(pair.loss),
    )


def _binary(pair: Pair, outputs: Array) -> Head:
    """Targets between 0 and 1, such as grey pixels, are quantities: the side of 0.5 they lie on says little."""
    targets = in_shape_of(outputs, pair.targets).astype(np.float64)
    if not np.isin(targets, (0, 1)).all():
        shown = 1.0 / (1.0 + np.exp(-outputs.astype(np.float64))) if pair.loss.from_logits else outputs
        return Head(kind="values", outputs=shown, targets=targets, domain=_domain(pair.loss))
    return Head(kind="binary", outputs=outputs, targets=targets, domain=_domain(pair.loss))


def _hinge(pair: Pair, outputs: Array) -> Head:
    """Keras takes labels of 0 and 1 for -1 and 1; here it is the other way round."""
    targets = (in_shape_of(outputs, pair.targets) > 0).astype(np.float64)
    return Head(kind="binary", outputs=outputs, targets=targets)


def _values(pair: Pair, outputs: Array) -> Head:
    return Head(kind="values", outputs=outputs, targets=in_shape_of(outputs, pair.targets))


def head_of_array(outputs: Array, targets: Array) -> Head | None:
    """A head of an output and the array that the loss compares it with, where the loss itself is unknown."""
    if targets.dtype.kind in "iu" and outputs.shape[:-1] == targets.shape and outputs.shape[-1] > 1:
        return Head(kind="classes", outputs=outputs, targets=targets.astype(np.int64))
    if outputs.size != targets.size:
        return None
    shares = bool(((outputs >= 0) & (outputs <= 1)).all())
    inside: Literal["probabilities", "unbounded"] = "probabilities" if shares else "unbounded"
    kind: Literal["binary", "values"] = "binary" if np.isin(targets, (0, 1)).all() else "values"
    return Head(kind=kind, outputs=outputs, targets=in_shape_of(outputs, targets).astype(np.float64), domain=inside)
