"""Does a row's output depend on that row alone?

In evaluation, groups of rows are replaced by others of the batch, and the outputs of those that stay are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pytest_overfit.adapters.wires import Wires
from pytest_overfit.core.arrays import Array
from pytest_overfit.measures.evaluation import answers_agree, finite, groups_of, is_by_row, others_moved, row_distances
from pytest_overfit.probes.wiring.faults import Fault

#: least change of a row that counts, as a share of the outputs' spread: activations quantised over the batch move
#: others by 1 to 2 %, attention or a mean over the batch by 10 % and more
_MIXES = 0.05

#: noise on rows, as a share of their own spread, that must carry over to others where they are mixed: a queue of
#: limited capacity or a quantiser answers to large changes only
_SLIGHT = 1e-3

#: least change, as a share of the outputs' spread, that carries it over: more than float32 rounds
_CARRIED = 1e-5

Inputs = Mapping[str, Array]


def look(wires: Wires, interact: bool) -> dict[str, Any]:
    """`moved`: how far a row went, at most, when others were replaced; None: it cannot be asked."""
    inputs = wires.inputs()
    rows = _rows_of(inputs)
    if interact or rows is None or rows < 2:
        return {"moved": None, "rows": []}
    base = wires.answer(inputs)
    if base is None or not answers_agree(base, wires.answer(inputs)):  # random evaluation is for others to judge
        return {"moved": None, "rows": []}
    if not any(is_by_row(each, rows) for each in base):
        return {"moved": None, "rows": []}
    found = others_moved(lambda those: wires.answer({name: each[those] for name, each in inputs.items()}), base, rows)
    moved = float(found.max())
    if moved > _MIXES and not _carries_over(wires, inputs, base, rows):
        return {"moved": 0.0, "rows": []}
    return {"moved": moved, "rows": np.flatnonzero(found > _MIXES).tolist()}


def _rows_of(inputs: Inputs) -> int | None:
    lengths = {each.shape[:1] for each in inputs.values()}
    return next(iter(lengths))[0] if len(lengths) == 1 and () not in lengths else None


def _carries_over(wires: Wires, inputs: Inputs, base: Sequence[Array], rows: int) -> bool:
    """A slight change of some rows reaches others; where the inputs are whole numbers there is none to make."""
    if not any(each.dtype.kind == "f" for each in inputs.values()):
        return True
    random = np.random.default_rng(0)

    def disturbed(values: Array, group: Array) -> Array:
        if values.dtype.kind != "f":
            return values
        noise = random.normal(size=values.shape).astype(values.dtype) * (_SLIGHT * (float(finite(values).std()) or 1.0))
        return np.where(group.reshape(-1, *[1] * (values.ndim - 1)), values + noise, values)

    for group in groups_of(rows):
        after = wires.answer({name: disturbed(each, group) for name, each in inputs.items()})
        if (row_distances(base, after, rows) * ~group).max() > _CARRIED:
            return True
    return False


def faults(measured: Mapping[str, Any]) -> Iterator[Fault]:
    if measured["rows"]:
        rows = [f"row {each}" for each in measured["rows"]]
        yield Fault(
            name="batch_mixing",
            outcome="failed",
            subjects=tuple(rows),
            evidence=f"in evaluation the outputs of {{subjects}} move by up to {measured['moved']:.2g} of the outputs' "
            "spread when other rows of the batch are replaced",
            cure="look for an operation over axis 0: attention without batch_first=True, a mean, a softmax or a "
            "reshape over rows, normalisation by the batch in evaluation; rows that belong together are declared with "
            "options={'overfit_batch': {'rows_interact': True}}",
        )
