"""Turn the recorded calls of loss functions into heads: predictions with their targets, aligned with the rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from pytest_overfit.adapters.arrays import counting_only
from pytest_overfit.adapters.base import Head
from pytest_overfit.adapters.output_rows import OutputRows
from pytest_overfit.adapters.torch.losses import HEAD_OF, LossCall
from pytest_overfit.adapters.torch.scrutiny import Scrutiny
from pytest_overfit.data.batch import to_numpy

Tensor = torch.Tensor

#: this many calls of one loss on one shape are steps of a loop (over time, say), not separate heads
_LOOP = 8


def heads_of(calls: Sequence[LossCall], rows: int, scrutiny: Scrutiny, turned: OutputRows) -> tuple[Head, ...]:
    """Turn recorded calls into heads.

    `turned`: where rows lie that do not come first. Left out: calls that cannot be lined up with the batch's rows,
    those whose target the model made itself, and those that the loss does not use. Heads are `plain` only where their
    sum is the whole data term.
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
    found = {number: _aligned(call, scrutiny.asked.get(number), rows, turned) for number, call in usable.items()}
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


def _aligned(call: LossCall, asked: Tensor | None, rows: int, turned: OutputRows) -> Head | None:
    head = HEAD_OF[call.function](call)
    if head is None:
        return None
    head = _narrowed(head, asked)
    return turned.lined_up(head) or _lined_up(head, rows)


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
    heads = [HEAD_OF[call.function](call) for call in calls]
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
