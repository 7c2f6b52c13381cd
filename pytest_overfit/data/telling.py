"""The batch of a case: the first one, and where that cannot tell a model from a constant, rows from further on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from pytest_overfit.core.arrays import Array
from pytest_overfit.core.case import Case
from pytest_overfit.core.usercode import user_code
from pytest_overfit.data.batch import Batch
from pytest_overfit.data.containers import called, given_as, holds_a_split
from pytest_overfit.data.first_batch import ROWS, first_batch, first_item
from pytest_overfit.data.further import batch_from, rows_further_on
from pytest_overfit.data.rereading import generators_of, kept_generators


def batch_of(case: Case, labels: AbstractSet[Any] = frozenset()) -> Batch:
    """Take the batch of a case and check it.

    The first batch of `train` stays wherever it can tell. Where all its targets, or all its inputs, are equal (sorted
    data), rows from further on are looked at: of what can be read by its place, at most 8 batches of rows spread over
    all of it; of anything else, the 32 batches that come first. A batch that the user gave stays as it is. `labels`:
    parts of the inputs that turned out to be targets. Raises `CaseError` for a batch that no model could be judged on:
    empty, of unequal lengths, not numeric.
    """
    if case.batch is not None:
        return _given(case)
    source = called(case.train, "train", f"Case {case.name!r}: {given_as(case.train, 'train')}")
    with kept_generators(generators_of(source)):
        first = _first(source, case)
    why = untelling(first, labels)
    if why is None:
        return first
    with kept_generators(source):
        found = rows_further_on(source, case, first, lambda batch: untelling(batch, labels) is None, labels)
    where = f"the first batch cannot tell: {why.partition(';')[0]}; {found.where}"
    return dataclasses.replace(found.batch or first, remark=where)


def _given(case: Case) -> Batch:
    """The batch that the user gave."""
    given = called(case.batch, "batch", f"Case {case.name!r}: the batch function")
    if hasattr(given, "__next__"):
        with user_code("the batch function"):
            return batch_from(first_item(given), case)
    return _first(given, case) if holds_a_split(given) else batch_from(given, case)


def _first(source: Any, case: Case) -> Batch:
    given, whole = first_batch(source, case)
    most = int(case.fit_kwargs.get("batch_size") or ROWS)
    return batch_from(given, case, (lambda rows: range(min(rows, most))) if whole else None)


def untelling(batch: Batch, labels: AbstractSet[Any] = frozenset()) -> str | None:
    """Why this batch shows no difference between a model and a constant; None: it is fit for a test."""
    return unsuitable(*batch.sides({*labels, *batch.named_targets()}), batch.rows)


def unsuitable(inputs: Sequence[Array], targets: Sequence[Array], rows: int) -> str | None:
    """The same of inputs and targets as arrays, as a learner has them."""
    if rows < 2:
        return "the batch has one row only; give it at least two, with different targets"
    instead = "shuffle the data, or give batch= with rows that differ"
    if targets and not any(map(_varies, targets)):
        value = ", ".join(str(each) for each in targets[0].reshape(len(targets[0]), -1)[0][:3].tolist())
        return f"all {rows} targets of the batch are equal ({value}); {_elsewhere(inputs, targets) or instead}"
    if any(each.size for each in inputs) and not any(len(each) != rows or _varies(each) for each in inputs):
        return f"all {rows} inputs of the batch are equal; {instead}"
    return None


def _elsewhere(inputs: Sequence[Array], targets: Sequence[Array]) -> str:
    """What to declare where targets differ along the second axis, and inputs are as long there; "": they do not."""
    shapes = {each.shape[:2] for each in inputs if each.ndim > 1}
    for each in targets:
        if each.shape[:2] in shapes and _varies(each.swapaxes(0, 1)):
            return "they differ along the second axis: if rows lie there (time first), declare row_axis=1"
    return ""


def _varies(array: Array) -> bool:
    return bool((array[1:2] != array[:1]).any() or (array != array[:1]).any())
