"""Open all splits, bring their parts together by name, and note what prevents an answer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.core.errors import CaseError, ProgramError
from pytest_overfit.core.usercode import user_frames
from pytest_overfit.duplicates.exact.rows import RowsInMemory
from pytest_overfit.duplicates.reading.fields import Facts
from pytest_overfit.duplicates.reading.open import open_samples
from pytest_overfit.duplicates.reading.split import SampleChunk, Samples
from pytest_overfit.duplicates.reading.tables import is_counter
from pytest_overfit.duplicates.steadiness import Steadiness, steadiness, without_transforms
from pytest_overfit.duplicates.values.canonical import ValueComparison, compared, numeric, plain_numbers
from pytest_overfit.duplicates.values.fingerprints import Coding, as_leaf, folded

#: samples looked at to decide how the splits are compared, and columns whose spread is
PEEKED, SPREAD = 256, 64


@dataclasses.dataclass
class Opened:
    """The splits, ready to be read, and what was noticed on the way."""

    splits: dict[str, Samples]
    coding: Coding
    #: the splits as rows in memory, where all of them are
    rows: dict[str, RowsInMemory] | None
    steady: dict[str, Steadiness]
    #: differences between the splits that are findings of their own: code and message
    differences: list[tuple[str, str]]
    notes: list[str]
    #: mean and standard deviation of each column (of some, where there are many) in the first samples, by split
    spreads: dict[str, Array]

    @property
    def scaled(self) -> set[str]:
        """Splits that are compared after a scale was taken off."""
        return {name for how in self.coding.comparisons.values() for name in how.scaled}


def open_all(given: Mapping[str, Any], facts: Facts, text: str, most: int, keep: Callable[[Any], None]) -> Opened:
    """Open every split and decide how their samples are compared; `keep` is shown each container first."""
    splits = {name: open_samples(name, container, facts, most, keep) for name, container in given.items()}
    notes: list[str] = []
    differences: list[tuple[str, str]] = []
    spreads: dict[str, Array] = {}

    def compared_as(splits: dict[str, Samples]) -> tuple[Coding, dict[str, Steadiness]]:
        peeks = {name: _peeked(split) for name, split in splits.items()}
        _drop_counters(splits, notes)
        peeks = _aligned(splits, peeks, notes)
        coding = Coding(_comparisons(peeks, differences), text)
        spreads.update({name: _spread(peek) for name, peek in peeks.items()})
        return coding, {name: steadiness(split, coding) for name, split in splits.items()}

    coding, steady = compared_as(splits)
    bare = without_transforms(splits, steady, coding)
    if bare is not None:
        splits = bare
        coding, steady = compared_as(splits)
        notes.append("samples are random under their transforms: compared as they are without them")
    for split in splits.values():
        notes += split.notes
    rows = _rows(splits, coding) if bare is None else None
    return Opened(splits, coding, rows, steady, differences, notes, spreads)


def _spread(peek: SampleChunk) -> Array:
    """Means and standard deviations of columns of numbers; of samples of several shapes, of all together."""
    found = [np.empty((0, 2))]
    for column in peek.leaves.values():
        _, values = _values(column)
        if values is not None and values.dtype.kind in "biuf":
            flat = values.reshape(len(column) if len(values) == len(column) else values.size, -1)
            some = flat[:, :: max(1, flat.shape[1] // SPREAD)].astype(np.float64)
            with np.errstate(all="ignore"):  # of what is infinite
                found.append(np.stack([some.mean(0), some.std(0)], -1))
    return np.concatenate(found)


def _peeked(split: Samples) -> SampleChunk:
    chunk = split.peek(PEEKED if split.memory is not None else 32)
    if chunk is None or not len(chunk):
        why = next(iter(split.errors.values()), "it gave no samples")
        message = f"{split.name}= is empty or cannot be read: {why}"
        if split.raised is None:
            raise CaseError(message)
        error = ProgramError("\n  ".join([message, *user_frames(split.raised.__traceback__)]))
        error.__context__ = split.raised
        raise error from None
    split.errors.clear()
    split.raised = None  # it may be nothing that could travel to another process
    return chunk


def _drop_counters(splits: dict[str, Samples], notes: list[str]) -> None:
    """A column that only numbers the rows of a table is not part of what makes two rows the same."""
    tables = [split.memory for split in splits.values() if split.is_table and split.memory is not None]
    if len(tables) < len(splits):
        return
    names = set.intersection(*(set(each.leaves) for each in tables))
    counters = [name for name in sorted(names) if name and all(is_counter(each.leaves, name) for each in tables)]
    if counters and len(counters) < len(names):
        notes.append(f"left out, because they only number the rows: {', '.join(counters)}")
        for split in splits.values():
            _keep(split, [name for name in split.memory.leaves if name not in counters] if split.memory else [])


def _keep(split: Samples, names: list[str]) -> None:
    if split.memory is not None:
        split.memory = dataclasses.replace(split.memory, leaves={name: split.memory.leaves[name] for name in names})


def _aligned(splits: dict[str, Samples], peeks: dict[str, SampleChunk], notes: list[str]) -> dict[str, SampleChunk]:
    """Parts by name: tables are compared on the columns they share, anything else must have the same parts."""
    names = {name: list(split.memory.leaves if split.memory else peeks[name].leaves) for name, split in splits.items()}
    first = next(iter(names.values()))
    if any(set(each) != set(first) for each in names.values()):
        _keep_shared(splits, names, notes)
    return {name: split.peek(PEEKED) or peeks[name] if split.memory else peeks[name] for name, split in splits.items()}


def _keep_shared(splits: dict[str, Samples], names: Mapping[str, list[str]], notes: list[str]) -> None:
    first = next(iter(names.values()))
    shared = [name for name in first if all(name in other for other in names.values())]
    parts = "; ".join(f"{name}: {', '.join(leaves) or 'one'}" for name, leaves in names.items())
    if not shared or not all(split.is_table and split.memory for split in splits.values()):
        raise CaseError(
            f"the splits are made of different parts ({parts[:300]}), so no two samples can be equal; give key="
        )
    left = sorted({each for some in names.values() for each in some} - set(shared))
    notes.append(f"compared on the {len(shared)} columns that all splits have; left out: {', '.join(left)}")
    for split in splits.values():
        _keep(split, shared)


def _comparisons(peeks: Mapping[str, SampleChunk], differences: list[tuple[str, str]]) -> dict[str, ValueComparison]:
    found: dict[str, ValueComparison] = {}
    for leaf in next(iter(peeks.values())).leaves:
        values = {name: _values(chunk.leaves[leaf]) for name, chunk in peeks.items() if leaf in chunk.leaves}
        kinds = {name: kind for name, (kind, _) in values.items()}
        part = f"part {leaf!r} of " if leaf else ""
        if len(set(kinds.values()) - {"mixed"}) > 1:
            listed = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
            raise CaseError(f"{part}the samples are of different kinds ({listed}), so no two samples can be equal")
        arrays = {name: each for name, (_, each) in values.items() if each is not None}
        if len(arrays) == len(peeks):
            how = found[leaf] = dataclasses.replace(
                compared(arrays), flat=_other_shapes(peeks, leaf, part, differences)
            )
            _differences(how, arrays, part, differences)
    return found


def _no_two_equal(part: str, shapes: str) -> CaseError:
    return CaseError(
        f"{part}the samples have different shapes ({shapes}), so no two samples can be equal; are these splits of "
        "one data set? give key= a function that brings them to one form"
    )


def _other_shapes(peeks: Mapping[str, SampleChunk], leaf: str, part: str, differences: list[tuple[str, str]]) -> bool:
    """True if each split has one shape, not all the same, but as many numbers; refuses another number of them."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, chunk in peeks.items():
        seen = {tuple(getattr(each, "shape", None) or as_leaf(each).shape) for each in chunk.leaves[leaf]}
        if len(seen) > 1:  # of variable length
            return False
        shapes[name] = seen.pop()
    if len(set(shapes.values())) == 1:
        return False
    listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    if len({math.prod(shape) for shape in shapes.values()}) > 1:
        if min(map(len, peeks.values())) == 1:  # of any length
            return False
        if any(len(shape) == 1 for shape in shapes.values()):
            text = f"{part}the first samples have different shapes ({listed}): read as sequences of any length"
            differences.append(("shape", text))
            return False
        raise _no_two_equal(part, listed)
    differences.append(("shape", f"{part}the samples have different shapes ({listed}): compared number by number"))
    return True


def _values(column: Any) -> tuple[str, Array | None]:
    """What kind a column is of, and its numbers."""
    if isinstance(column, np.ndarray) and numeric(column.dtype):
        return "complex numbers" if column.dtype.kind == "c" else "numbers", plain_numbers(column)
    leaves = [as_leaf(each) for each in column]
    arrays = [each for each in leaves if isinstance(each, np.ndarray)]
    if len(arrays) == len(leaves):
        return "numbers", np.concatenate([each.ravel() for each in arrays])
    filled = [each for each in leaves if each is not None]
    if filled and all(isinstance(each, str) for each in filled):
        return "text", None
    return "mixed", None


def _differences(
    how: ValueComparison, arrays: Mapping[str, Array], part: str, differences: list[tuple[str, str]]
) -> None:
    types = ", ".join(f"{name} {each.dtype}" for name, each in arrays.items())
    if how.scaled:
        text = f"{part}{' and '.join(how.scaled)} holds k/255 where another split holds k ({types}): compared as k"
        differences.append(("scale", text))
    elif how.widths_differ:
        differences.append(
            ("dtype", f"{part}the splits have different number types ({types}): compared as {how.dtype[1:]}")
        )


def _rows(splits: dict[str, Samples], coding: Coding) -> dict[str, RowsInMemory] | None:
    """All splits as rows of numbers in memory, texts as codes; None where one of them is not."""
    memory = {name: split.memory for name, split in splits.items() if split.memory is not None}
    if len(memory) < len(splits):
        return None
    leaves: dict[str, list[Array]] = {name: [] for name in memory}
    comparisons: list[ValueComparison] = []
    for leaf in next(iter(memory.values())).leaves:
        columns = {name: whole.leaves[leaf] for name, whole in memory.items()}
        arrays = _coded(columns, coding) if leaf not in coding.comparisons else _arrays(columns)
        if arrays is None:
            return None
        comparisons.append(coding.comparisons.get(leaf) or ValueComparison("<i8"))
        arrays = _one_shape(arrays, leaf, comparisons[-1].flat)
        for name, each in arrays.items():
            leaves[name].append(each)
    return {name: RowsInMemory(name, tuple(leaves[name]), tuple(comparisons)) for name in memory}


def _arrays(columns: Mapping[str, Any]) -> dict[str, Array] | None:
    if not all(isinstance(each, np.ndarray) and numeric(each.dtype) for each in columns.values()):
        return None
    return {name: plain_numbers(each) for name, each in columns.items()}


def _coded(columns: Mapping[str, Any], coding: Coding) -> dict[str, Array] | None:
    """Texts as numbers, the same for the same text: exact by construction."""
    codes: dict[Any, int] = {}
    found: dict[str, Array] = {}
    for name, column in columns.items():
        items = column.tolist() if isinstance(column, np.ndarray) else column
        if not set(map(type, items)) <= {str, type(None)}:
            return None
        if coding.text == "normalized":
            items = [None if each is None else folded(each) for each in items]
        for each in items:
            codes.setdefault(each, len(codes))
        found[name] = np.fromiter(map(codes.__getitem__, items), np.int64, len(items))
    return found


def _one_shape(arrays: dict[str, Array], leaf: str, flat: bool) -> dict[str, Array]:
    """Rows of another shape but as many numbers are compared flat; of another size they cannot be equal."""
    if flat:
        return {name: rows.reshape(len(rows), -1) for name, rows in arrays.items()}
    shapes = {name: rows.shape[1:] for name, rows in arrays.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise _no_two_equal(f"part {leaf!r} of " if leaf else "", listed)
    return arrays
