"""Does every input move some output?

Each slice of an input (a feature, a step, a channel) is replaced by the same slice of another row. Rows stand alone, so
each pass asks about another slice in every row; what moved nothing is asked again in other rows before it counts as
unread. Only values of the same slice are used, and slices that are the same in all rows are left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pytest_overfit.adapters.wires import Wires
from pytest_overfit.core.arrays import Array
from pytest_overfit.probes.wiring.faults import Fault

#: blocks that the features of a table are asked in, at most; and passes that another axis (steps, channels, pixels) may
#: cost: neighbours are joined to so many blocks
_BLOCKS, _PASSES = 256, 4

#: rows in which a slice must have moved nothing before it is called unread
_ROWS = 6

#: a share of the slices of an axis from which on the input counts as unread
_HALF = 0.5

#: a border of no more than this share of an axis may be left over by a layer that steps over it
_BORDER = 0.25

Inputs = Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class _Axis:
    """One axis of one input, cut into blocks."""

    name: str
    axis: int
    blocks: Sequence[Array]


def look(wires: Wires, alone: bool) -> list[dict[str, Any]]:
    """Unread parts of each input by axis; `alone`: rows were seen to stand alone."""
    inputs = wires.inputs()
    base = wires.answer(inputs) if alone else None
    if base is None:
        return []
    found: list[dict[str, Any]] = []
    for name, values in inputs.items():
        if _same_in_all_rows(values):
            continue
        if not _whole_moves(wires, inputs, name, base):
            if not _moves_in_training(wires, inputs, name, _rolled(values)):
                own = name in wires.arguments()
                found.append({"input": name, "axis": None, "own": own, "border": not own and _names_rows(values)})
            continue
        for axis in range(1, values.ndim):
            found += _axis(wires, inputs, base, name, axis)
    return found


def _same_in_all_rows(values: Array) -> bool:
    return values.ndim == 0 or bool((values == values[:1]).all())


def _moved_rows(base: Sequence[Array], after: Sequence[Array] | None, rows: int) -> Array:
    """Rows whose outputs are other than before, to the bit."""
    found = np.zeros(rows, dtype=bool)
    for old, new in zip(base, after or (), strict=False):
        if old.shape == new.shape and old.shape[:1] == (rows,):
            found |= (old != new).reshape(rows, -1).any(axis=1)
        elif old.shape != new.shape or bool((old != new).any()):  # which row moved it cannot be seen: all may have
            found |= True
    return found


def _whole_moves(wires: Wires, inputs: Inputs, name: str, base: Sequence[Array]) -> bool:
    rolled = {**inputs, name: _rolled(inputs[name])}
    return bool(_moved_rows(base, wires.answer(rolled), len(inputs[name])).any())


def _names_rows(values: Array) -> bool:
    """One whole number or text a row: it comes along to say which row this is."""
    return values.ndim == 1 and values.dtype.kind != "f"


def _rolled(values: Array) -> Array:
    return np.roll(values, 1, axis=0)


def _moves_in_training(wires: Wires, inputs: Inputs, name: str, instead: Array) -> bool:
    """It is used where the model trains, as the answers that a decoder is taught with are."""
    before = wires.answer(inputs, training=True)
    after = wires.answer({**inputs, name: instead}, training=True)
    return before is None or bool(_moved_rows(before, after, len(instead)).any())


def _axis(wires: Wires, inputs: Inputs, base: Sequence[Array], name: str, axis: int) -> list[dict[str, Any]]:
    values = inputs[name]
    size = values.shape[axis]
    most = _BLOCKS if values.ndim == 2 else _PASSES * len(values)
    blocks = [each for each in np.array_split(np.arange(size), min(size, most)) if len(each)]
    blocks = [each for each in blocks if not _same_in_all_rows(values.take(each, axis=axis))]
    if len(blocks) < 2:
        return []
    unread = _unread(wires, inputs, base, _Axis(name, axis, blocks))
    if not unread:
        return []
    places = sorted(int(place) for index in unread for place in blocks[index])
    of = sum(len(each) for each in blocks)
    other = values.copy()
    np.moveaxis(other, axis, 0)[places] = np.moveaxis(_rolled(values), axis, 0)[places]
    if _moves_in_training(wires, inputs, name, other):
        return []
    end = _at_an_end(places, size)
    border = len(places) <= _BORDER * size and end and wires.strides()
    return [
        {"input": name, "axis": axis, "rank": values.ndim, "unread": places, "of": of, "end": end, "border": border}
    ]


def _at_an_end(places: Sequence[int], size: int) -> bool:
    """All of them are one run at the beginning, and one at the end."""
    inside = set(range(size)) - set(places)
    return bool(inside) and set(range(min(inside), max(inside) + 1)) == inside


def _unread(wires: Wires, inputs: Inputs, base: Sequence[Array], axis: _Axis) -> list[int]:
    """Blocks that moved nothing in `_ROWS` rows, or in as many as there are."""
    rows = len(inputs[axis.name])
    waiting = list(range(len(axis.blocks)))
    asked = dict.fromkeys(waiting, 0)
    turn = 0
    while waiting and min(asked[each] for each in waiting) < min(_ROWS, rows):
        batch = waiting[:rows]
        chosen = [batch[(row + turn) % len(batch)] for row in range(rows)]
        moved = _moved_rows(base, wires.answer(_replaced(inputs, axis, chosen)), rows)
        read = {block for block, did in zip(chosen, moved, strict=True) if did}
        for block in chosen:
            asked[block] += 1
        # those that were asked least come first
        waiting = sorted((each for each in waiting if each not in read), key=lambda each: asked[each])
        turn += 1
        if all(asked[each] >= min(_ROWS, rows) for each in waiting):
            break
    return sorted(waiting)


def _replaced(inputs: Inputs, axis: _Axis, chosen: Sequence[int]) -> dict[str, Array]:
    """In each row its chosen block, from the nearest later row in which it differs."""
    values = inputs[axis.name]
    new = values.copy()
    rows = len(values)
    for row, block in enumerate(chosen):
        places = axis.blocks[block]
        old = values[row].take(places, axis=axis.axis - 1)
        for step in range(1, rows):
            other = values[(row + step) % rows].take(places, axis=axis.axis - 1)
            if not np.array_equal(old, other):
                new[row][(*[slice(None)] * (axis.axis - 1), places)] = other
                break
    return {**inputs, axis.name: new}


def faults(measured: Sequence[Mapping[str, Any]], needless: frozenset[str] = frozenset()) -> Iterator[Fault]:
    """`needless`: masks of padding that moves nothing anyway, as a causal model's does where it stands at the end."""
    for found in measured:
        if found["border"] or _scattered(found) or found["input"] in needless:
            continue
        if found["axis"] is None:
            whole = "failed" if found["own"] else "warning"
            yield _fault(found["input"], whole, f"input {found['input']} moves no output at all")
            continue
        share = len(found["unread"]) / found["of"]
        outcome = "failed" if share >= _HALF else "warning"
        yield _fault(
            found["input"],
            outcome,
            f"{len(found['unread'])} of {found['of']} places on axis {found['axis']} of input {found['input']} move no "
            f"output: {_ranges(found['unread'])}",
        )


def _scattered(part: Mapping[str, Any]) -> bool:
    """Single places among steps, points or pixels: a maximum over them may have hidden a few in every row."""
    if part["axis"] is None or part["rank"] < 3 or part["end"]:
        return False
    return bool(len(part["unread"]) < _HALF * part["of"])


def _fault(name: str, outcome: Any, evidence: str) -> Fault:
    return Fault(
        name="input_unused",
        outcome=outcome,
        subjects=(name,),
        evidence=evidence,
        cure="look where the forward pass takes this input apart: a slice too short, one part read twice, an argument "
        "that is never used; if it is meant so, say so with allow=",
    )


def _ranges(places: Sequence[int]) -> str:
    """Runs of neighbours: 0 to 9, 12."""
    runs: list[list[int]] = []
    for place in places:
        if runs and place == runs[-1][1] + 1:
            runs[-1][1] = place
        else:
            runs.append([place, place])
    shown = [str(first) if first == last else f"{first} to {last}" for first, last in runs[:4]]
    return ", ".join(shown) + (" and more" if len(runs) > 4 else "")
