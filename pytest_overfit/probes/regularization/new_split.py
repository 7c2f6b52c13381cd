"""Another cut of the same rows into train and validation."""

from __future__ import annotations

import numpy as np

from pytest_overfit.core.errors import CaseError
from pytest_overfit.data.joined import joined
from pytest_overfit.data.splits import Arrays, Split, rows_of


def resplit(train: Split, val: Split, seed: int, where: str) -> tuple[Arrays, Arrays]:
    """Pool the rows of both splits and cut them again at random, at the same sizes.

    Raises `CaseError` for splits that are not held as arrays. Groups and time order are not kept: rows that belong
    together must not be cut at random.
    """
    if not isinstance(train, Arrays) or not isinstance(val, Arrays):
        raise CaseError(
            f"{where} resplit=True pools the rows of train and val, so both must be arrays; give train=(x, y) and "
            "val=(x, y), or leave resplit out"
        )
    try:
        pooled = joined([train.batch, val.batch])
    except (ValueError, RuntimeError) as error:
        raise CaseError(f"{where} resplit=True: rows of train and val cannot be joined: {error}") from None
    order = np.random.default_rng(seed).permutation(pooled.rows).tolist()
    cut = train.rows
    return (
        Arrays(train.source, rows_of(pooled, order[:cut]), train.size),
        Arrays(val.source, rows_of(pooled, order[cut:]), val.size),
    )
