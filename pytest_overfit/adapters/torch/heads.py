"""Turn the recorded calls of loss functions into heads: predictions beside their targets, aligned with the rows.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from pytest_overfit.adapters.arrays import counting_only, in_shape_of
from pytest_overfit.adapters.base import Head, Plain
from pytest_overfit.adapters.torch.losses import LossCall, Scrutiny
from pytest_overfit.data.batch import to_numpy

Tensor = torch.Tensor

#: this many calls of one loss on one shape are steps of a loop (over time, say), not separate heads
_LOOP = 8


def heads_of(calls: Sequence[LossCall], rows: int, scrutiny: Scrutiny) -> tuple[Head, ...]:
    """Turn recorded calls into heads.

    Left out: calls that cannot be lined up with the batch's rows, those whose target the model made itself, and those
    that the loss does not use. Heads are `plain` only where their sum is the whole data term.
    """
    weights = scrutiny.weights if len(calls) == scrutiny.count else {}
    usable = {
        number: call
        for number, call in enumerate(calls)
        if number not in scrutiny.own_targets and (not weights or number in weights)
    }
    if len(usable) > _LOOP and len({(call.function, call.input.shape) for call in usable.values()}) == 1:
        head = _looped(list(usable.values()), rows)
        return () if head is None else (head,)
    found = {number: _aligned(call, scrutiny.asked.get(number), rows) for number, call in usable.items()}
    heads = {number: head for number, head in found.items() if head is not None}
    plain = (
        bool(weights) and scrutiny.direct and set(heads) == set(weights) and all(head.plain for head in heads.values())
    )
    return tuple(
        dataclasses.replace(
            head,
            name=f"{head.loss_name} {number + 1}" if len(usable) > 1 else "",
            plain=head.plain if plain else "",
            scale=head.scale * weights.get(number, 1.0),
        )
        for number, head in heads.items()
    )


def _aligned(call: LossCall, asked: Tensor | None, rows: int) -> Head | None:
    head = _HEAD_OF[call.function](call)
    return None if head is None else _lined_up(_narrowed(head, asked), rows)


def _narrowed(head: Head, asked: Tensor | None) -> Head:
    """Leave out the targets that the loss does not look at."""
    if asked is None or head.kind not in ("classes", "binary") or tuple(asked.shape) != head.outputs.shape:
        return head
    looked = to_numpy(asked)
    if head.kind == "classes":
        looked = to_numpy(asked.any(dim=head.class_axis))
    return counting_only(head, looked)


def _looped(calls: Sequence[LossCall], rows: int) -> Head | None:
    """Many calls on one shape, e.g. one a time step: one head with the calls as positions."""
    heads = [_HEAD_OF[call.function](call) for call in calls]
    found = [head for head in heads if head is not None and head.outputs.shape[0] == rows]
    if len(found) < len(calls):
        return None
    first = found[0]
    axis = first.class_axis % first.outputs.ndim
    outputs = np.stack([head.outputs for head in found], axis=1)
    masks = [head.mask for head in found]
    return dataclasses.replace(
        first,
        outputs=outputs,
        targets=np.stack([head.targets for head in found], axis=1),
        mask=None if masks[0] is None else np.stack([each for each in masks if each is not None], axis=1),
        class_axis=axis + 1,
        plain="",
    )


def _lined_up(head: Head, rows: int) -> Head | None:
    """Undo a flattening of (rows, positions) that happened inside the loss."""
    size = head.outputs.shape[0]
    if size == rows and head.targets.shape[:1] == (rows,):
        return head
    if size % rows or head.targets.shape[:1] != (size,):
        return None
    fold = (rows, size // rows)
    axis = head.class_axis % head.outputs.ndim
    return dataclasses.replace(
        head,
        outputs=head.outputs.reshape(fold + head.outputs.shape[1:]),
        targets=head.targets.reshape(fold + head.targets.shape[1:]),
        mask=None if head.mask is None else head.mask.reshape(fold + head.mask.shape[1:]),
        class_axis=axis + 1,
    )


def _scale(call: LossCall, count: int) -> float | None:
    """Factor between the mean over counted targets and the loss; None for a reduction with no single number."""
    reduction = call.arguments.get("reduction")
    if call.arguments.get("size_average") is not None or call.arguments.get("reduce") is not None:
        return None
    return {"mean": 1.0, "sum": float(count)}.get(str(reduction))


def _classes(call: LossCall, domain: Any) -> Head | None:
    if call.input.ndim < 2:
        return None
    outputs, targets = to_numpy(call.input), to_numpy(call.target)
    soft = call.target.is_floating_point()
    ignored = call.arguments.get("ignore_index", -100)
    mask = None if soft else targets != ignored
    if mask is not None and targets.ndim == 1 and 0 <= int(ignored or 0) < outputs.shape[1] and not mask.all():
        # one label a row, and a real class among the ignored: its rows are to be predicted like all others
        return Head(kind="classes", outputs=outputs, targets=targets, class_axis=1, domain=domain, loss_name=call.name)
    counted = int(mask.sum()) if mask is not None else call.input.numel() // call.input.shape[1]
    scale = _scale(call, counted)
    weighted = call.arguments.get("weight") is not None or bool(call.arguments.get("label_smoothing"))
    distributions = not soft or bool(abs(targets.sum(axis=1) - 1).max() < 1e-3)
    plain: Plain = "" if scale is None or weighted or not counted or not distributions else "cross_entropy"
    return Head(
        kind="classes",
        outputs=outputs,
        targets=targets,
        class_axis=1,
        domain=domain,
        mask=mask,
        plain=plain,
        scale=scale or 1.0,
        minimum=0.0,
        loss_name=call.name,
    )


def _divergence(call: LossCall) -> Head | None:
    targets = call.target.exp() if call.arguments.get("log_target") else call.target
    return Head(
        kind="classes",
        outputs=to_numpy(call.input),
        targets=to_numpy(targets),
        class_axis=-1,
        domain="log_probabilities",
        loss_name=call.name,
    )


def _margin(call: LossCall) -> Head | None:
    return Head(
        kind="classes", outputs=to_numpy(call.input), targets=to_numpy(call.target), class_axis=1, loss_name=call.name
    )


def _elementwise(kind: Any, plain: Plain, domain: Any = "unbounded", minimum: float | None = 0.0) -> Any:
    def head(call: LossCall) -> Head | None:
        targets = to_numpy(call.target)
        scale = _scale(call, targets.size)
        weights = ("weight", "pos_weight")
        same_shape = call.input.shape == call.target.shape
        bare = scale is not None and same_shape and all(call.arguments.get(name) is None for name in weights)
        outputs = to_numpy(call.input)
        return Head(
            kind=kind,
            outputs=outputs,
            targets=in_shape_of(outputs, targets),
            domain=domain,
            plain=plain if bare else "",
            scale=scale or 1.0,
            minimum=minimum,
            loss_name=call.name,
        )

    return head


def _poisson(call: LossCall) -> Head | None:
    rate = call.input.exp() if call.arguments.get("log_input", True) else call.input
    return Head(kind="values", outputs=to_numpy(rate), targets=to_numpy(call.target), loss_name=call.name)


def _signs(call: LossCall) -> Head | None:
    """Losses whose labels are -1 and +1."""
    targets = (to_numpy(call.target) > 0).astype(float)
    return Head(kind="binary", outputs=to_numpy(call.input), targets=targets, loss_name=call.name)


_HEAD_OF: dict[Callable[..., Any], Callable[[LossCall], Head | None]] = {
    F.cross_entropy: functools.partial(_classes, domain="unbounded"),
    F.nll_loss: functools.partial(_classes, domain="log_probabilities"),
    F.kl_div: _divergence,
    F.multi_margin_loss: _margin,
    F.binary_cross_entropy: _elementwise("binary", "binary_cross_entropy", "probabilities"),
    F.binary_cross_entropy_with_logits: _elementwise("binary", "binary_cross_entropy"),
    F.multilabel_soft_margin_loss: _elementwise("binary", ""),
    F.soft_margin_loss: _signs,
    F.mse_loss: _elementwise("values", "squared_error"),
    F.l1_loss: _elementwise("values", "absolute_error"),
    F.smooth_l1_loss: _elementwise("values", ""),
    F.huber_loss: _elementwise("values", ""),
    F.gaussian_nll_loss: _elementwise("values", "", minimum=None),
    F.poisson_nll_loss: _poisson,
}
