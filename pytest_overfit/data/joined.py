"""Several batches as one."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from pytest_overfit.core.foreign import is_torch_tensor
from pytest_overfit.data.batch import Batch
from pytest_overfit.data.tree import Rows, leaves, length, to_numpy


def joined(batches: Sequence[Batch]) -> Batch:
    """The rows of all batches, in their order, as one batch.

    Raises `ValueError` or torch's `RuntimeError` where a part has no row for each target, and where batches differ in
    their parts or in the shapes of these (padded to another length in each).
    """
    columns = [list(leaves([batch.x, batch.y, batch.weights])) for batch in batches]
    if any(length(leaf) != batch.rows for batch, parts in zip(batches, columns, strict=True) for leaf in parts):
        raise ValueError("a part of the batch has no row for each target")
    if len({len(parts) for parts in columns}) > 1:
        raise ValueError("they differ in their parts")
    whole = iter([_stacked(pieces) for pieces in zip(*columns, strict=True)])
    return dataclasses.replace(batches[0].map(lambda _: next(whole)), rows=sum(batch.rows for batch in batches))


def _stacked(pieces: Sequence[Any]) -> Any:
    if isinstance(pieces[0], Rows):
        return Rows(row for piece in pieces for row in piece)
    if is_torch_tensor(pieces[0]):
        return sys.modules["torch"].cat([piece.detach() for piece in pieces])
    if hasattr(pieces[0], "iloc"):
        return sys.modules["pandas"].concat(list(pieces))
    return np.concatenate([to_numpy(piece) for piece in pieces])
