"""Is padding without influence, where a mask says what is padding?

Inputs at places that the mask leaves out are replaced by what the row itself has at other places; then nothing real may
move. A mask is an input of zeros and ones (or truth values), rows by places, each row one run of either kind, beside
another input with as many places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pytest_overfit.adapters.wires import Wires
from pytest_overfit.core.arrays import Array
from pytest_overfit.probes.wiring.faults import Fault

#: least change that counts, as a share of the outputs' spread: masking by large negative numbers leaves a rest
_MOVES = 1e-3

Inputs = Mapping[str, Array]


def look(wires: Wires) -> list[dict[str, Any]]:
    inputs = wires.inputs()
    found = []
    for name, values in inputs.items():
        real = _real(values)
        others = [] if real is None else [each for each in inputs if each != name and _goes_with(inputs[each], values)]
        if real is not None and others:
            found.append({"mask": name, "inputs": others, "moved": _moved(wires, inputs, others, real)})
    return found


def _real(values: Array) -> Array | None:
    """True where a place is real; None: this is no mask, or it leaves nothing out."""
    if values.ndim != 2 or values.shape[1] < 2 or not np.isin(values, (0, 1)).all():
        return None
    ones = values.astype(bool)
    runs = (ones[:, 1:] != ones[:, :-1]).sum(axis=1)
    if runs.max() > 1 or ones.all() or not ones.any():
        return None
    # the longest row has no padding, and all rows are real where padding does not begin
    whole = ones[runs == 0, 0]
    edges = [ones[:, edge] for edge in (0, -1) if ones[:, edge].all() or not ones[:, edge].any()]
    kind = whole[0] if len(whole) else edges[0][0] if edges else None
    return None if kind is None else ones if kind else ~ones


def _goes_with(values: Array, mask: Array) -> bool:
    return values.shape[:2] == mask.shape and not (values.ndim == 2 and np.isin(values, (0, 1)).all())


def _moved(wires: Wires, inputs: Inputs, others: list[str], real: Array) -> float:
    """How far real outputs went, as a share of their spread."""
    changed = {name: _repadded(inputs[name], real) for name in others}
    before, after = wires.answer(inputs), wires.answer({**inputs, **changed})
    moved = [0.0]
    for old, new in zip(before or (), after or (), strict=False):
        by_row = old.shape == new.shape and old.shape[:1] == real.shape[:1]
        if old.dtype.kind != "f" or not by_row or not np.isfinite(old).any():
            continue
        difference = np.abs(np.nan_to_num(old) - np.nan_to_num(new)).astype(np.float64)
        if old.shape[:2] == real.shape:
            difference = difference[real]
        moved.append(float(difference.max(initial=0.0)) / (float(np.nan_to_num(old).std()) or 1.0))
    return max(moved)


def _repadded(values: Array, real: Array) -> Array:
    """Real values of the row itself, its first ones in turn, at the places that are padding."""
    new = values.copy()
    for row, places in enumerate(real):
        here, left_out = np.flatnonzero(places), np.flatnonzero(~places)
        if len(here) and len(left_out):
            new[row, left_out] = values[row, np.resize(here, len(left_out))]
    return new


def faults(measured: list[dict[str, Any]]) -> Iterator[Fault]:
    for each in measured:
        if each["moved"] > _MOVES:
            yield Fault(
                name="mask_ignored",
                outcome="failed",
                subjects=(each["mask"],),
                evidence=f"outputs move by up to {each['moved']:.2g} of their spread when only places of "
                f"{' and '.join(each['inputs'])} change that {each['mask']} leaves out",
                cure="give the mask to every part that looks at several places: attention, means, maxima, recurrences",
            )
