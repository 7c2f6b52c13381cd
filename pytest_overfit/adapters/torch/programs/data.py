"""The same batch in other units or shapes."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from pytest_overfit.adapters.programs import UnchangeableError
from pytest_overfit.adapters.torch.learner import TorchLearner
from pytest_overfit.adapters.torch.records import predictions
from pytest_overfit.data.batch import Batch, map_leaves

Tensor = torch.Tensor


def standardised(batch: Batch, side: str) -> Batch:
    """Each column of floating point inputs, or of targets, with mean 0 and spread 1; a constant one becomes 0."""
    changed = [0]

    def scaled(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.is_floating_point() or leaf.ndim == 0 or len(leaf) < 2:
            return leaf
        changed[0] += 1
        return standardised_columns(leaf)

    if side == "targets":
        new = dataclasses.replace(batch, y=map_leaves(batch.y, scaled))
    else:
        new = batch._with_inputs(scaled, batch.named_targets())
    if not changed[0]:
        raise UnchangeableError(f"no {side} are floating point numbers")
    return new


def standardised_columns(leaf: Tensor) -> Tensor:
    """Rows of numbers by column, series by their last axis, images by their channel."""
    kept = 1 if leaf.ndim in (2, 4, 5) else leaf.ndim - 1 if leaf.ndim == 3 else None
    over = [axis for axis in range(leaf.ndim) if axis != kept]
    values = leaf.double()
    spread, mean = torch.std_mean(values, dim=over, keepdim=True, correction=0)
    one = torch.ones_like(spread)
    return ((values - mean) / torch.where(spread > 1e-12 * (1 + mean.abs()), spread, one)).to(leaf.dtype)


def targets_shaped(learner: TorchLearner) -> Batch:
    """Targets in the shape of the one output, where it is the same number of numbers."""
    with learner.modes.reading("fit"):
        outputs = predictions(learner.forward.quiet())
    y = learner.by_row.y
    if len(outputs) != 1 or not isinstance(y, Tensor):
        raise UnchangeableError("there is more than one output or target")
    if y.shape == outputs[0].shape or y.numel() != outputs[0].numel():
        raise UnchangeableError("outputs and targets have one shape, or other sizes")
    return dataclasses.replace(learner.by_row, y=y.reshape(outputs[0].shape))
