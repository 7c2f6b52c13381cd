"""What the first layers with weights are given, and the same at unit scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from pytest_overfit.adapters.keras.layers import substitute
from pytest_overfit.adapters.keras.programs.original import Alteration, everything
from pytest_overfit.adapters.keras.programs.structure import Structure
from pytest_overfit.adapters.programs import UnchangeableError
from pytest_overfit.core.arrays import Array


def standardised(structure: Structure) -> Alteration:
    """Each column of what they are given, its last axis, has mean 0 and spread 1 in this batch."""
    if not structure.given:
        raise UnchangeableError("what its first layers with weights are given was not seen")

    def altered(model: Any) -> Any:
        found = everything(model)
        for each in structure.given:
            layer = found[each.layer]
            substitute(layer, "call", _with_scaled(layer.call, each.values))
        return model

    return Alteration(model=altered)


def _with_scaled(own: Callable[..., Any], seen: Array) -> Callable[..., Any]:
    wide = seen.astype(np.float64).reshape(-1, seen.shape[-1])
    spread = wide.std(axis=0)
    mean, spread = wide.mean(axis=0), np.where(spread > 0, spread, 1.0)

    def call(given: Any, *args: Any, **kwargs: Any) -> Any:
        scaled = (given - keras.ops.convert_to_tensor(mean, given.dtype)) / keras.ops.convert_to_tensor(
            spread, given.dtype
        )
        return own(scaled, *args, **kwargs)

    return call
