"""The batch as tensors on the model's device, and which of its parts are targets.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import dataclasses
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pytest_overfit.core.errors import CaseError
from pytest_overfit.data.batch import leaves, map_leaves, to_numpy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_overfit.core.case import Case
    from pytest_overfit.data.batch import Batch

    Array = NDArray[Any]


def on_device(case: Case, model: nn.Module, batch: Batch) -> Batch:
    """The batch as a user's own conversion would make it; tensors keep their dtype.

    numpy floats take the model's dtype; numpy integers stay what they are as inputs and become int64 as targets, which
    torch's losses want of class indices.
    """
    first = next(model.parameters(), None)
    device = first.device if first is not None else torch.device("cpu")
    floats = (each.dtype for each in model.parameters() if each.is_floating_point())
    dtype = next(floats, torch.get_default_dtype())

    def change(leaf: Any, target: bool) -> Any:
        if isinstance(leaf, torch.Tensor):
            return leaf.to(device)
        tensor = _tensor(case, leaf).to(device)
        if tensor.is_floating_point():
            return tensor.to(dtype)
        return tensor.long() if target and tensor.dtype is not torch.bool else tensor

    return dataclasses.replace(
        batch,
        x=map_leaves(batch.x, lambda leaf: change(leaf, target=False)),
        y=map_leaves(batch.y, lambda leaf: change(leaf, target=True)),
    )


def _tensor(case: Case, leaf: Any) -> torch.Tensor:
    try:
        return torch.as_tensor(leaf)
    except TypeError as error:
        raise CaseError(
            f"Case {case.name!r}: the batch holds an array of dtype {leaf.dtype}, which torch has no tensor "
            "for; number text (a vocabulary, numpy.unique) and write other numbers as x.astype('float32')"
        ) from error


def sides(batch: Batch, labels: AbstractSet[str | int]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Inputs and targets as numpy arrays; `labels`: keys or places of the inputs that are targets."""
    parts = _parts(batch.x) if labels else {}
    inputs = [each for key, each in parts.items() if key not in labels] if labels else batch.x
    targets = [each for key, each in parts.items() if key in labels] + [batch.y]
    return tuple(map(to_numpy, leaves(inputs))), tuple(map(to_numpy, leaves(targets)))


def _parts(x: Any) -> dict[str | int, Any]:
    return dict(x) if isinstance(x, dict) else dict(enumerate(x))


def blinded(batch: Batch, labels: AbstractSet[str | int]) -> Batch:
    """Row 0 of the inputs in every row; targets as they are."""
    first = [0] * batch.rows
    blind = map_leaves(batch.x, lambda leaf: leaf[first])
    if labels:
        kept = {key: batch.x[key] if key in labels else each for key, each in _parts(blind).items()}
        blind = kept if isinstance(batch.x, dict) else tuple(kept.values())
    return dataclasses.replace(batch, x=blind)
