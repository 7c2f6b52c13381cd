"""Which rows of which split have an equal where: in memory by keys, else by fingerprints, one or many processes.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_overfit.core.errors import CaseError
from pytest_overfit.data.columns import Rows, all_keys, choose_columns
from pytest_overfit.data.exact import Overlap, Repeats, _inside, _several, _shared, overlap, repeats
from pytest_overfit.data.opening import Opened
from pytest_overfit.data.splits import Chunk, Split
from pytest_overfit.data.steadiness import watched_seen
from pytest_overfit.data.streamed import Coding, Read, Table, Verifier, merged, read

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

#: shards for each executor's `map`
_SHARDS = 16


@dataclasses.dataclass
class Copies:
    """Equal rows: `overlaps[a, b]` between two splits (a is the earlier one), `repeats[a]` within one."""

    counts: dict[str, int]
    overlaps: dict[tuple[str, str], Overlap]
    repeats: dict[str, Repeats]
    #: label of a row: by split, by row
    labels: dict[str, Callable[[int], Any] | None]
    groups: dict[str, list[Any] | None] = dataclasses.field(default_factory=dict)
    times: dict[str, list[Any] | None] = dataclasses.field(default_factory=dict)
    #: share of a split's values on which its repeats were counted, where not all were held
    part: dict[str, float] = dataclasses.field(default_factory=dict)
    #: matches that rest on fingerprints alone, because they could not be read again
    unverified: int = 0
    notes: list[str] = dataclasses.field(default_factory=list)
    #: what keeps a clean result from being believed: split, reason
    doubts: list[tuple[str, str]] = dataclasses.field(default_factory=list)


def find_copies(opened: Opened, executor: Any, progress: Callable[[int], None] = lambda count: None) -> Copies:
    """All exact copies between and within the splits."""
    if opened.rows is not None and executor is None:
        return _in_memory(opened, opened.rows)
    return _by_fingerprint(opened, executor, progress)


def _in_memory(opened: Opened, rows: Mapping[str, Rows]) -> Copies:
    largest = max(rows.values(), key=len)
    columns = choose_columns(largest)
    keys = {name: all_keys(each, columns) for name, each in rows.items()}
    memory = {name: split.memory for name, split in opened.splits.items() if split.memory is not None}
    return Copies(
        counts={name: len(each) for name, each in rows.items()},
        overlaps={(a, b): overlap(rows[a], keys[a], rows[b], keys[b]) for a, b in itertools.combinations(rows, 2)},
        repeats={name: repeats(each, keys[name]) for name, each in rows.items()},
        labels={name: _listed(whole.labels) for name, whole in memory.items()},
        groups={name: _whole(whole.groups) for name, whole in memory.items()},
        times={name: _whole(whole.times) for name, whole in memory.items()},
    )


def _listed(labels: Sequence[Any] | None) -> Callable[[int], Any] | None:
    return None if labels is None else labels.__getitem__


def _whole(values: Any) -> list[Any] | None:
    return None if values is None else list(values)


def _by_fingerprint(opened: Opened, executor: Any, progress: Callable[[int], None]) -> Copies:
    import numpy as np

    splits, coding = opened.splits, opened.coding
    passing = max(splits, key=lambda name: float("inf") if splits[name].length is None else splits[name].length or 0)
    if splits.get("train") is not None and splits["train"].length is None:
        passing = "train"
    reads = {name: read(split, coding, None) for name, split in splits.items() if name != passing}
    table = Table(np.concatenate([each.prints for each in reads.values()]))
    watched = opened.steady[passing].watched
    reads[passing] = _pass(splits[passing], coding, table, watched, executor, progress)
    for name, each in reads.items():
        if name != passing:
            each.ids = table.numbers(each.prints)
    ids = {name: (each.rows, each.ids) for name, each in reads.items()}
    members = _shared_or_repeated(ids)
    verify = Verifier(splits, coding, table)
    if any(len(rows) for rows, _ in members.values()):
        verify(members)
    copies = Copies({}, {}, {}, {}, unverified=verify.unverified)
    _fill(copies, opened, reads, members, passing)
    return copies


def _pass(
    split: Split, coding: Coding, table: Table, watched: Any, executor: Any, progress: Callable[[int], None]
) -> Read:
    if executor is None:
        return read(split, coding, table, watched, progress=progress)
    parts = list(_shards(split))
    if not parts:
        split.notes.append(f"{split.name} is read in one process: it has no places by which it could be parted")
        return read(split, coding, table, watched, progress=progress)
    found = executor.map(_read_part, parts, itertools.repeat(coding), itertools.repeat(table.prints))
    return merged(list(found))


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a split that another process can read."""

    split: Split
    start: int
    stop: int


def _shards(split: Split) -> Iterator[Part]:
    if split.length is None:
        return
    step = max(1, -(-split.length // _SHARDS))
    for start in range(0, split.length, step):
        stop = min(start + step, split.length)
        if split.memory is not None:
            whole = split.memory
            part = slice(start, stop)
            memory = Chunk(
                whole.index[part],
                {name: column[part] for name, column in whole.leaves.items()},
                *(None if each is None else each[part] for each in (whole.labels, whole.groups, whole.times)),
            )
            small = Split(split.name, split.how, split.facts, stop - start, memory, split.is_table)
            yield Part(small, 0, stop - start)
        elif split.fetch is not None:
            yield Part(split, start, stop)


def _read_part(part: Part, coding: Coding, prints: Array) -> Read:
    """What one process does: reads its part, gives back its matches."""
    return read(part.split, coding, Table(prints), start=part.start, stop=part.stop)


def _shared_or_repeated(ids: Mapping[str, tuple[Array, Array]]) -> dict[str, tuple[Array, Array]]:
    """Only rows whose number occurs twice or more, in whichever splits."""
    import numpy as np

    every = np.sort(np.concatenate([each for _, each in ids.values()]))
    twice = every[1:][every[1:] == every[:-1]]
    twice = twice[np.concatenate([[True], twice[1:] != twice[:-1]])] if len(twice) else twice
    found = {}
    for name, (rows, each) in ids.items():
        kept = _inside(each, twice)
        found[name] = (rows[kept], each[kept].copy())
    return found


def _fill(
    copies: Copies,
    opened: Opened,
    reads: Mapping[str, Read],
    members: Mapping[str, tuple[Array, Array]],
    passing: str,
) -> None:
    for name in opened.splits:
        each = reads[name]
        copies.counts[name] = each.count
        by_row = dict(zip(each.rows.tolist(), each.labels, strict=True))
        known = any(label is not None for label in each.labels)
        copies.labels[name] = by_row.get if known else None
        copies.groups[name], copies.times[name] = each.groups, each.times
        rows, ids = members[name]
        copies.repeats[name] = _several(rows, ids)
        _doubts(copies, opened, name, each)
    copies.repeats[passing] = _within(reads[passing], copies, passing)
    for a, b in itertools.combinations(opened.splits, 2):
        copies.overlaps[a, b] = _shared(*members[a], *members[b])


def _within(passed: Read, copies: Copies, name: str) -> Repeats:
    """Repeats within the streamed split by the fingerprints that were held; rows are not known, only how many."""
    import numpy as np

    prints = passed.prints
    order = np.lexsort((prints[:, 1], prints[:, 0]))
    ordered = prints[order]
    new = np.ones(len(ordered), bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    numbers = np.empty(len(ordered), np.int64)
    numbers[order] = np.cumsum(new) - 1
    if passed.mask:
        copies.part[name] = 1 / (passed.mask + 1)
    return _several(np.arange(len(numbers)), numbers)


def _doubts(copies: Copies, opened: Opened, name: str, each: Read) -> None:
    """Reasons not to believe that a split is clean."""
    found = opened.steady[name] = watched_seen(opened.steady[name], each.seen, each.cut)
    if found.steady is not True:
        copies.doubts.append((name, found.why))
    if len(each.errors) > 1:
        copies.doubts.append((name, f"{len(each.errors)} samples could not be read; the others were compared"))
    for place, why in itertools.islice(each.errors.items(), 10):
        copies.doubts.append((name, f"sample {place} could not be read: {why}"))
    if each.cycle:
        copies.notes.append(f"{name} starts again after {each.cycle} samples: read once")
    elif each.cut:
        why = f"it goes on after the first {each.count} samples, which were read; give a finite one, or max_samples="
        copies.doubts.append((name, why))
    if len(each.widths) > 1:
        copies.doubts.append((name, "its batches have different widths: padded samples are never equal; unpad them"))
    if not each.count:
        raise CaseError(f"{name}= is empty or cannot be read: {next(iter(each.errors.values()), 'no samples')}")
