"""A split spoilt on purpose: whatever is still learnt from it was not learnt from what was taken away."""

from __future__ import annotations

import numpy as np

from pytest_overfit.core.errors import CaseError, NotApplicable
from pytest_overfit.data.batch import Batch
from pytest_overfit.data.splits import Arrays, Split


def permuted_targets(split: Split, seed: int) -> Split:
    """Targets that belong to other rows, the same in every epoch."""
    random = np.random.default_rng(seed)
    if isinstance(split, Arrays):
        return split.prepared(lambda batch: _moved(batch, random.permutation(batch.rows).tolist()))
    raise NotApplicable(
        "labels are permuted over a whole split, so train must be arrays: give train=(x, y), or leave controls out"
    )


def _moved(batch: Batch, rows: list[int]) -> Batch:
    moved = batch.with_targets_of(rows)
    if moved is None:
        raise CaseError("no part of the batch is a target, so none can be permuted; name it 'labels', or give (x, y)")
    return moved


def blank_inputs(split: Split) -> Split:
    """Zeros in place of every input."""
    return split.prepared(lambda batch: batch.without_inputs())
