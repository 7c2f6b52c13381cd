"""The same program with the usual loss of a task."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch.nn import functional as F

from pytest_overfit.adapters.programs import Anatomy, UnchangeableError
from pytest_overfit.adapters.torch.records import predictions
from pytest_overfit.core.case import Case

Tensor = torch.Tensor

#: probabilities are kept so far from 0 and 1
_LEAST = 1e-7


def with_loss(case: Case, kind: str, anatomy: Anatomy) -> Case:
    """The case with this loss, of the outputs as they are: scores, or what a last softmax or sigmoid makes of them."""
    if case.step is not None or case.loss is None:
        raise UnchangeableError("the loss is computed where it cannot be replaced")
    last = next((each.function for each in reversed(anatomy.activations) if each.last), None)
    chosen = {"cross_entropy": _cross_entropy, "binary_cross_entropy": _binary, "squared_error": _squared}[kind]

    def loss(outputs: Any, targets: Any) -> Tensor:
        found = predictions(outputs)
        if len(found) != 1 or not isinstance(targets, Tensor):
            raise UnchangeableError("there is more than one output or target")
        return chosen(found[0], targets, last)

    return dataclasses.replace(case, loss=loss)


def _cross_entropy(outputs: Tensor, targets: Tensor, last: str | None) -> Tensor:
    if outputs.ndim < 2:
        raise UnchangeableError("outputs have no axis of classes")
    if targets.shape == outputs.shape and targets.is_floating_point():
        return F.cross_entropy(_scores(outputs, last), targets)
    if targets.ndim == outputs.ndim and targets.shape[-1] == 1:
        targets = targets.squeeze(-1)
    axis = _class_axis(outputs, targets)
    scores = _scores(outputs, last).movedim(axis, -1)
    if scores.shape[-1] <= int(targets.max()) or int(targets.min()) < 0:
        raise UnchangeableError("targets are not numbers of classes that the outputs have")
    return F.cross_entropy(scores.reshape(-1, scores.shape[-1]), targets.reshape(-1).long())


def _class_axis(outputs: Tensor, targets: Tensor) -> int:
    for axis in (1, outputs.ndim - 1):
        if (*outputs.shape[:axis], *outputs.shape[axis + 1 :]) == tuple(targets.shape):
            return axis
    raise UnchangeableError(f"outputs {tuple(outputs.shape)} have no axis of classes beside {tuple(targets.shape)}")


def _scores(outputs: Tensor, last: str | None) -> Tensor:
    return outputs.clamp(min=_LEAST).log() if last in ("softmax", "sigmoid") else outputs


def _binary(outputs: Tensor, targets: Tensor, last: str | None) -> Tensor:
    wanted = _like(outputs, targets)
    if bool((wanted < 0).any()) or bool((wanted > 1).any()):
        raise UnchangeableError("targets are not probabilities")
    if last == "sigmoid":
        return F.binary_cross_entropy(outputs.clamp(_LEAST, 1 - _LEAST), wanted)
    return F.binary_cross_entropy_with_logits(outputs, wanted)


def _squared(outputs: Tensor, targets: Tensor, last: str | None) -> Tensor:
    del last
    return F.mse_loss(outputs, _like(outputs, targets))


def _like(outputs: Tensor, targets: Tensor) -> Tensor:
    if outputs.numel() != targets.numel():
        raise UnchangeableError(f"outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)} do not pair up")
    return targets.reshape(outputs.shape).to(outputs.dtype)
