"""Rows of which none can be told from another, or that all have one target: then scores say nothing of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pytest_overfit.core.arrays import Array
from pytest_overfit.core.verdict import Cause, Finding
from pytest_overfit.probes.early_accuracy.estimates import Predictions
from pytest_overfit.probes.early_accuracy.simple_models import FeatureTable

_INPUTS = "look at what fills the inputs of {where}: a column list that is empty, a scaler fitted to one row, a cache"
_TARGETS = "look at what fills the targets of {where}: a mapping of labels, a column of the wrong name, a filter"


def same_rows(
    tables: tuple[FeatureTable, FeatureTable] | None, train: Predictions, val: Predictions
) -> dict[str, list[str]]:
    """The splits in which all rows have the same input, and those in which they have the same target."""
    inputs = {} if tables is None else {"train": tables[0].features, "val": tables[1].features}
    targets = {"train": train.target, "val": val.target}
    return {
        "inputs": [name for name, each in inputs.items() if _alike(each)],
        "targets": [name for name, each in targets.items() if _alike(each)],
    }


def _alike(rows: Array) -> bool:
    return len(rows) > 1 and bool((rows == rows[:1]).all())


def of_rows(measured: Mapping[str, Any]) -> Iterator[Finding]:
    """Failed where the rows of train are alike and those it is judged by are not; inconclusive where both are."""
    same = measured.get("same") or {"inputs": [], "targets": []}
    for what, fault, cure in (("inputs", "constant_input", _INPUTS), ("targets", "labels_collapsed", _TARGETS)):
        alike = same[what]
        if "train" not in alike:
            continue
        rows, split = measured["rows"]["train"], measured["split"]
        cause = Cause(fault, cure.format(where="train"))
        one = f"all {rows} rows of train have the same {what.removesuffix('s')}"
        if "val" in alike:
            message = f"{one}, and so have those of {split}: nothing can be learnt or told from them"
            yield Finding(name=fault, value=None, outcome="inconclusive", message=message, cause=cause)
        else:
            yield Finding.failed(fault, None, f"{one}, those of {split} differ: nothing can be learnt from it", cause)
