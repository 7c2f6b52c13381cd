"""Rows with one input and different targets: no model gets them all right, so memorising does not ask for that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pytest_overfit.adapters.base import Head, Learner
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.verdict import Finding
from pytest_overfit.measures.broadcasting import fault_of, words_of
from pytest_overfit.measures.predictions.agreement import majority_share
from pytest_overfit.measures.predictions.read import read

#: share of the targets (of quantities: of their variance) that must be out of reach. Ratings of few films by few users,
#: or a few categories, repeat by chance: of 700 healthy programs the most was 0.15
_SOME = 0.2


def conflicts_of(learner: Learner, heads: Sequence[Head], groups: Array) -> dict[str, Any] | None:
    """The first two rows that conflict, how many rows do, and the share that is lost; None: none do.

    `groups` numbers the rows by what the model is given. Where it is also given what is no row by row, or draws what it
    answers with, rows may differ that look alike.
    """
    rows = len(groups)
    by_row = all(each.shape[:1] == (rows,) for each in learner.inputs)
    if len(np.unique(groups)) == rows or not by_row or learner.samples or not learner.targets:
        return None
    lost = max((_lost(each, groups) for each in heads if len(each.targets) == rows), default=0.0)
    pairs = _pairs(groups, [each for each in learner.targets if each.shape[:1] == (rows,)])
    if lost <= _SOME or not pairs:
        return None
    return {"lost": lost, "rows": len({row for pair in pairs for row in pair}), "of": rows, "example": list(pairs[0])}


def _lost(head: Head, groups: Array) -> float:
    if head.kind == "values":
        return _variance_lost(head, groups)
    if head.kind == "binary" and head.outputs.size != head.targets.size:
        return 0.0
    found = read(head)
    return 1.0 - majority_share(found.label, found.counted, groups) if found.counted.any() else 0.0


def _variance_lost(head: Head, groups: Array) -> float:
    """Share of the variance that lies between rows of one input."""
    values = np.nan_to_num(head.targets.reshape(len(groups), -1).astype(np.float64))
    within = np.stack([values[groups == group].mean(axis=0) for group in groups])
    whole = float(((values - values.mean(axis=0)) ** 2).sum())
    return float(((values - within) ** 2).sum()) / whole if whole > 0 else 0.0


def _pairs(groups: Array, targets: Sequence[Array]) -> list[tuple[int, int]]:
    """Each row that differs from the first one with its input, after that one."""
    first = {int(group): row for row, group in reversed(list(enumerate(groups)))}
    pairs = ((first[int(group)], row) for row, group in enumerate(groups))
    return [(a, b) for a, b in pairs if any((each[a] != each[b]).any() for each in targets)]


def findings_of(measured: Mapping[str, Any]) -> list[Finding]:
    """What outputs and targets show of each other: shapes that broadcast, and a warning of rows that conflict.

    What conflicts is taken off what is asked, so that no model is failed for it.
    """
    findings = []
    if measured.get("broadcast"):
        name, outcome = fault_of(measured["broadcast"])
        evidence, _ = words_of(measured["broadcast"])
        findings.append(Finding(name=name, value=None, outcome=outcome, message=evidence))
    found = measured.get("conflicts")
    if found:
        a, b = found["example"]
        message = (
            f"{found['rows']} of {found['of']} rows have the input of another row and other targets (rows {a} and {b}, "
            f"for one): {found['lost']:.0%} of what is asked for no model can get right"
        )
        findings.append(Finding(name="conflicting_labels", value=found["rows"], outcome="warning", message=message))
    return findings
