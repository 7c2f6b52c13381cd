"""Another cut of the same rows into train and validation.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.foreign import is_torch_tensor
from pytest_overfit.data.batch import Batch
from pytest_overfit.data.splits import Arrays, Split, rows_of
from pytest_overfit.data.tree import Rows, leaves, length, map_leaves


def resplit(train: Split, val: Split, seed: int, where: str) -> tuple[Arrays, Arrays]:
    """Pool the rows of both splits and cut them anew at random, at the same sizes.

    Raises `CaseError` for splits that are not held as arrays. Groups and time order are not kept: rows that belong
    together must not be cut at random.
    """
    if not isinstance(train, Arrays) or not isinstance(val, Arrays):
        raise CaseError(
            f"{where} resplit=True pools the rows of train and val, so both must be arrays; give train=(x, y) and "
            "val=(x, y), or leave resplit out"
        )
    pooled = _joined(train.batch, val.batch, where)
    order = np.random.default_rng(seed).permutation(pooled.rows).tolist()
    cut = train.rows
    return (
        Arrays(train.source, rows_of(pooled, order[:cut]), train.size),
        Arrays(val.source, rows_of(pooled, order[cut:]), val.size),
    )


def _joined(first: Batch, second: Batch, where: str) -> Batch:
    def side(one: Any, other: Any) -> Any:
        rest = leaves(other)
        return map_leaves(one, lambda leaf: _stacked(leaf, next(rest), first.rows))

    try:
        x, y, weights = side(first.x, second.x), side(first.y, second.y), side(first.weights, second.weights)
    except (ValueError, RuntimeError, StopIteration) as error:
        raise CaseError(f"{where} resplit=True: rows of train and val cannot be joined: {error}") from None
    return Batch(x, y, first.rows + second.rows, weights, first.labels)


def _stacked(one: Any, other: Any, rows: int) -> Any:
    if length(one) != rows:
        raise ValueError("a part of the batch has no row for each target")
    if isinstance(one, Rows):
        return Rows([*one, *other])
    if is_torch_tensor(one):
        return sys.modules["torch"].cat([one, other])
    if hasattr(one, "iloc"):
        return sys.modules["pandas"].concat([one, other])
    return np.concatenate([np.asarray(one), np.asarray(other)])
