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
from pytest_overfit.measures.evaluation import finite
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
            found.append({"mask": name, "inputs": others, "moved": _moved(wires, inputs, others, real), "own": True})
    return found + [each for name, mask in wires.masks() for each in _handed_on(wires, name, mask)]


def _handed_on(wires: Wires, name: str, mask: Array) -> list[dict[str, Any]]:
    """A mask that the framework hands from layer to layer: lost on the way, it leaves padding its influence."""
    real = _real(mask.astype(np.int64))
    if real is None:
        return []
    before, after = wires.answer(wires.inputs()), wires.answer_repadded(name, lambda values: _repadded(values, real))
    moved = _distance(before, after, real)
    return [{"mask": name, "inputs": ["what it gives"], "moved": moved, "own": False}]


def _real(values: Array) -> Array | None:
    """True where a place is real; None: this is not a mask, or it leaves nothing out."""
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
    return _distance(wires.answer(inputs), wires.answer({**inputs, **changed}), real)


def _distance(before: tuple[Array, ...] | None, after: tuple[Array, ...] | None, real: Array) -> float:
    moved = [0.0]
    for old, new in zip(before or (), after or (), strict=False):
        by_row = old.shape == new.shape and old.shape[:1] == real.shape[:1]
        if old.dtype.kind != "f" or not by_row or not np.isfinite(old).any():
            continue
        plain = finite(old)
        difference = np.abs(plain - finite(new))
        if old.shape[:2] == real.shape:
            difference = difference[real]
        moved.append(float(difference.max(initial=0.0)) / (float(plain.std()) or 1.0))
    return max(moved)


def _repadded(values: Array, real: Array) -> Array:
    """Real values of the row itself, its first ones in turn, at the places that are padding."""
    new = values.copy()
    for row, places in enumerate(real):
        here, left_out = np.flatnonzero(places), np.flatnonzero(~places)
        if len(here) and len(left_out):
            new[row, left_out] = values[row, np.resize(here, len(left_out))]
    return new


def needless(measured: list[dict[str, Any]]) -> frozenset[str]:
    """Masks of padding that has no influence."""
    return frozenset(each["mask"] for each in measured if each["moved"] <= _MOVES)


def faults(measured: list[dict[str, Any]]) -> Iterator[Fault]:
    for found in measured:
        if found["moved"] > _MOVES:
            yield Fault(
                name="mask_ignored",
                outcome="failed" if found["own"] else "warning",
                subjects=(found["mask"],),
                evidence=f"outputs move by up to {found['moved']:.2g} of their spread when only places of "
                f"{' and '.join(found['inputs'])} change that {found['mask']} leaves out",
                cure="give the mask to every part that looks at several places: attention, means, maxima, recurrences",
            )
