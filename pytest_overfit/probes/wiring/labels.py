"""Are labels counted from 0, over all of `train` where it is given?

A batch may lack a class by chance, or most of them. So where its labels do not have the lowest one, those of `train`
are counted: all of arrays, of a dataset some that are spread over it, of a loader its first rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pytest_overfit.adapters.base import Head, Reading
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.case import Case
from pytest_overfit.data.batch import Batch
from pytest_overfit.data.splits import Arrays, MapStyle, Split, open_split
from pytest_overfit.probes.wiring.faults import Fault

#: rows of a dataset or loader that are read: a class of one in 200 is missed by fewer than one in 20,000 such looks
_ROWS = 2000

#: rows that are read at once
_AT_ONCE = 100


def look(case: Case, first: Reading) -> dict[str, Any] | None:
    """The labels that occur, how many outputs there are, and where was looked; None: there is not one label a row."""
    if len(first.heads) != 1 or not _one_a_row(first.heads[0]):
        return None
    head = first.heads[0]
    units = int(head.outputs.shape[head.class_axis])
    labels, seen = _labels(head.targets if head.mask is None else head.targets[head.mask]), "the batch"
    if units > 2 and 0 not in labels and case.train is not None:
        with contextlib.suppress(Exception):  # data that open in another way than a batch did are judged by the batch
            labels, seen = _of_train(open_split(case, "train", _AT_ONCE), labels)
    return {"labels": sorted(labels), "units": units, "seen": seen}


def _one_a_row(head: Head) -> bool:
    return head.kind == "classes" and head.targets.ndim == 1 and head.outputs.ndim == 2


def _labels(targets: Array) -> set[int]:
    """Negative ones are left out of the loss."""
    return {int(each) for each in np.unique(targets) if each >= 0}


def _of_train(split: Split, labels: set[int]) -> tuple[set[int], str]:
    """Those of train too, up to the first 0."""
    rows = 0
    for batch in _batches(split):
        targets = batch.sides()[1]
        if len(targets) != 1 or targets[0].shape != (batch.rows,) or targets[0].dtype.kind not in "iu":
            break
        labels, rows = labels | _labels(targets[0]), rows + batch.rows
        if 0 in labels or (rows >= _ROWS and not isinstance(split, Arrays)):
            break
    if not rows:
        return labels, "the batch"
    of = "" if split.rows is None else f" of {split.rows:,}"
    return labels, f"all {rows:,} rows of train" if rows == split.rows else f"{rows:,}{of} rows of train and the batch"


def _batches(split: Split) -> Iterator[Batch]:
    if isinstance(split, Arrays):
        return iter((split.batch,))
    if isinstance(split, MapStyle):
        places = np.unique(np.linspace(0, split.rows - 1, min(split.rows, _ROWS)).astype(int)).tolist()
        return (split.at(places[start : start + _AT_ONCE]) for start in range(0, len(places), _AT_ONCE))
    return split.chunks()


def faults(measured: Mapping[str, Any] | None) -> Iterator[Fault]:
    """Counted from 1, beside one unit that no label names: with every other unit named, that is not chance."""
    if measured is None or measured["units"] <= 2:
        return
    labels: Sequence[int] = measured["labels"]
    if labels == list(range(1, measured["units"])):
        yield Fault(
            name="label_off_by_one",
            outcome="warning",
            subjects=(),
            evidence=f"labels go from 1 to {measured['units'] - 1} in {measured['seen']}, and the model has "
            f"{measured['units']} outputs: output 0 is never a target",
            cure="number the labels from 0, and give the model one output less",
        )
