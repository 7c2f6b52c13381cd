"""Does a row's output depend on that row alone?

In evaluation, groups of rows are replaced by others of the batch, and the outputs of those that stay are compared. With
the rows numbered in binary, each digit gives two groups, so every row is once replaced while each other one stays, and
the passes grow with the logarithm of the rows. All have one shape, so that no kernel sums in another order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pytest_overfit.adapters.wires import Wires
from pytest_overfit.core.arrays import Array
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
    if not _the_same(base, wires.answer(inputs)):  # evaluation is random, which is for others to judge
        return {"moved": None, "rows": []}
    outputs = [] if base is None else [each for each in base if _by_row(each, rows)]
    if not outputs:
        return {"moved": None, "rows": []}
    found = np.zeros(rows)
    for group in _groups(rows):
        found = np.maximum(found, _others_moved(wires, inputs, base or (), group))
    moved = float(found.max())
    if moved > _MIXES and not _carries_over(wires, inputs, base or (), rows):
        return {"moved": 0.0, "rows": []}
    return {"moved": moved, "rows": np.flatnonzero(found > _MIXES).tolist()}


def _the_same(first: Sequence[Array] | None, second: Sequence[Array] | None) -> bool:
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first or (), second or (), strict=False))


def _rows_of(inputs: Inputs) -> int | None:
    lengths = {each.shape[:1] for each in inputs.values()}
    return next(iter(lengths))[0] if len(lengths) == 1 and () not in lengths else None


def _by_row(output: Array, rows: int) -> bool:
    """Numbers, a row each; a table of all pairs of rows compares them by design."""
    return output.dtype.kind == "f" and output.shape[:1] == (rows,) and output.shape[1:2] != (rows,)


def _groups(rows: int) -> Iterator[Array]:
    """Rows to be replaced, as masks."""
    numbers = np.arange(rows)
    for digit in range(max(1, (rows - 1).bit_length())):
        group = (numbers >> digit) & 1 == 1
        yield group
        yield ~group


def _others_moved(wires: Wires, inputs: Inputs, base: Sequence[Array], group: Array) -> Array:
    """For each row that stays, how far its outputs went."""
    rows = len(group)
    source = np.where(group, (np.arange(rows) + 1) % rows, np.arange(rows))
    after = wires.answer({name: each[source] for name, each in inputs.items()})
    return _distances(base, after, rows) * ~group


def _distances(base: Sequence[Array], after: Sequence[Array] | None, rows: int) -> Array:
    found = np.zeros(rows)
    for old, new in zip(base, after or (), strict=False):
        if _by_row(old, rows) and old.shape == new.shape:
            a, b = (np.nan_to_num(each.astype(np.float64)) for each in (old, new))
            difference = np.abs(a - b).reshape(rows, -1).max(axis=1, initial=0.0)
            spread = float(a.std()) or 1.0
            found = np.maximum(found, difference / spread)
    return found


def _carries_over(wires: Wires, inputs: Inputs, base: Sequence[Array], rows: int) -> bool:
    """A slight change of some rows reaches others; where the inputs are whole numbers there is none to make."""
    if not any(each.dtype.kind == "f" for each in inputs.values()):
        return True
    random = np.random.default_rng(0)

    def disturbed(values: Array, group: Array) -> Array:
        if values.dtype.kind != "f":
            return values
        noise = random.normal(size=values.shape).astype(values.dtype) * (_SLIGHT * (float(values.std()) or 1.0))
        return np.where(group.reshape(-1, *[1] * (values.ndim - 1)), values + noise, values)

    for group in _groups(rows):
        after = wires.answer({name: disturbed(each, group) for name, each in inputs.items()})
        if (_distances(base, after, rows) * ~group).max() > _CARRIED:
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
