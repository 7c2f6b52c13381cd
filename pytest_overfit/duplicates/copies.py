"""Which rows of which split have an equal where: in memory by keys, else by fingerprints, one or many processes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pytest_overfit.core.errors import CaseError
from pytest_overfit.duplicates.alignment import Opened
from pytest_overfit.duplicates.exact.executor import read_apart
from pytest_overfit.duplicates.exact.fingerprint_table import FingerprintTable, numbered
from pytest_overfit.duplicates.exact.in_memory import Overlap, Repeats, overlap, repeats, shared
from pytest_overfit.duplicates.exact.keys import twice
from pytest_overfit.duplicates.exact.one_pass import Read, read
from pytest_overfit.duplicates.exact.rows import RowsInMemory, all_keys, choose_columns
from pytest_overfit.duplicates.exact.verification import Verifier
from pytest_overfit.duplicates.steadiness import watched_seen

#: `progress(count, of)`: samples read so far, of how many; None: unknown
CountSamples = Callable[[int, "int | None"], None]


@dataclasses.dataclass
class Copies:
    """Equal rows: `overlaps[a, b]` between two splits (a is the earlier one), `repeats[a]` within one."""

    counts: dict[str, int]
    overlaps: dict[tuple[str, str], Overlap]
    repeats: dict[str, Repeats]
    #: label of a row: by split, by row
    labels: dict[str, Callable[[int], Any] | None]
    groups: dict[str, Sequence[Any] | None] = dataclasses.field(default_factory=dict)
    times: dict[str, Sequence[Any] | None] = dataclasses.field(default_factory=dict)
    #: share of a split's values on which its repeats were counted, where not all were held
    part: dict[str, float] = dataclasses.field(default_factory=dict)
    #: matches that rest on fingerprints alone, because they could not be read again
    unverified: int = 0
    notes: list[str] = dataclasses.field(default_factory=list)
    #: what keeps a clean result from being believed: split, reason
    doubts: list[tuple[str, str]] = dataclasses.field(default_factory=list)


def find_copies(opened: Opened, executor: Any, progress: CountSamples = lambda count, of: None) -> Copies:
    """All exact copies between and within the splits."""
    if opened.rows is not None and executor is None:
        return _in_memory(opened, opened.rows, progress)
    return _by_fingerprint(opened, executor, progress)


class _Count:
    """Samples of all splits that were read, one split after the other."""

    def __init__(self, opened: Opened, progress: CountSamples) -> None:
        lengths = [split.length for split in opened.splits.values()]
        self._of = None if None in lengths else sum(length or 0 for length in lengths)
        self._before, self._progress = 0, progress

    def __call__(self, count: int) -> None:
        self._progress(self._before + count, self._of)

    def next(self, count: int) -> None:
        """The split before had so many."""
        self._before += count


def _in_memory(opened: Opened, rows: Mapping[str, RowsInMemory], progress: CountSamples) -> Copies:
    largest = max(rows.values(), key=len)
    columns = choose_columns(largest)
    count, keys = _Count(opened, progress), {}
    for name, each in rows.items():
        keys[name] = all_keys(each, columns, count)
        count.next(len(each))
    memory = {name: split.memory for name, split in opened.splits.items() if split.memory is not None}
    return Copies(
        counts={name: len(each) for name, each in rows.items()},
        overlaps={(a, b): overlap(rows[a], keys[a], rows[b], keys[b]) for a, b in itertools.combinations(rows, 2)},
        repeats={name: repeats(each, keys[name]) for name, each in rows.items()},
        labels={name: None if whole.labels is None else whole.labels.__getitem__ for name, whole in memory.items()},
        groups={name: whole.groups for name, whole in memory.items()},
        times={name: whole.times for name, whole in memory.items()},
    )


def _by_fingerprint(opened: Opened, executor: Any, progress: CountSamples) -> Copies:
    splits, coding = opened.splits, opened.coding
    passing = max(splits, key=lambda name: float("inf") if splits[name].length is None else splits[name].length or 0)
    if splits.get("train") is not None and splits["train"].length is None:
        passing = "train"
    count, reads = _Count(opened, progress), {}
    for name, split in splits.items():
        if name != passing:
            reads[name] = read(split, coding, None, progress=count)
            count.next(reads[name].count)
    table = FingerprintTable(np.concatenate([each.prints for each in reads.values()]))
    parts = np.split(table.numbers, np.cumsum([each.count for each in reads.values()])[:-1])
    for each, numbers in zip(reads.values(), parts, strict=True):
        each.ids = numbers
    reads[passing] = _pass(opened, passing, table, executor, count)
    several = twice(np.sort(np.concatenate([each.ids for each in reads.values()])))
    members = {name: Repeats(reads[name].rows, reads[name].ids).among(several) for name in splits}
    verify = Verifier(splits, coding, len(table.prints))
    if any(len(each.rows) for each in members.values()):
        verify(members)
    copies = Copies({}, {}, {}, {}, unverified=verify.unverified)
    for name in splits:
        _add(copies, name, reads[name], members[name].several() if name != passing else None)
        _doubts(copies, opened, name, reads[name])
    for a, b in itertools.combinations(splits, 2):
        copies.overlaps[a, b] = shared(members[a], members[b])
    return copies


def _pass(opened: Opened, name: str, table: FingerprintTable, executor: Any, progress: Callable[[int], None]) -> Read:
    """The largest split, by other threads, processes or machines where that was asked for."""
    split, coding = opened.splits[name], opened.coding
    if executor is not None:
        found = read_apart(split, coding, table, executor, progress)
        if found is not None:
            return found
        opened.notes.append(f"{name} is read in this process: it has no places by which it could be parted")
    return read(split, coding, table, opened.steady[name].watched, progress=progress)


def _add(copies: Copies, name: str, found: Read, repeats: Repeats | None) -> None:
    """What one pass gave; `repeats` within the split, of a held one."""
    by_row: dict[int, Any] = dict(zip(found.rows.tolist(), found.labels, strict=True))
    copies.counts[name] = found.count
    copies.repeats[name] = _within(found, copies, name, by_row) if repeats is None else repeats
    copies.labels[name] = by_row.get if found.labelled else None
    copies.groups[name], copies.times[name] = found.groups, found.times


def _within(passed: Read, copies: Copies, name: str, labels: dict[int, Any]) -> Repeats:
    """Repeats within the streamed split by the fingerprints that were held.

    Their labels were not held, only a word for each, which tells as well as the label whether two of them differ.
    """
    _, numbers = numbered(passed.held[:, :2])
    if passed.mask:
        copies.part[name] = 1 / (passed.mask + 1)
    found = Repeats(np.arange(len(numbers)), numbers).several()
    rows, words = passed.held[found.rows, 2:].T
    for row, word in zip(rows.tolist(), words.tolist(), strict=True):
        labels.setdefault(row, word)
    return Repeats(rows.astype(np.int64), found.ids)


def _doubts(copies: Copies, opened: Opened, name: str, found: Read) -> None:
    """Reasons not to believe that a split is clean."""
    steady = opened.steady[name] = watched_seen(opened.steady[name], found.seen, found.cut)
    if steady.steady is not True:
        copies.doubts.append((name, steady.why))
    elif found.strayed is not None:
        why = (
            f"sample {found.strayed} was another one when a worker of executor= read it: is the dataset made at "
            "random, or have the workers other files or other versions of what is installed here?"
        )
        copies.doubts.append((name, why))
    if len(found.errors) > 1:
        copies.doubts.append((name, f"{len(found.errors)} samples could not be read; the others were compared"))
    for place, why in itertools.islice(found.errors.items(), 10):
        copies.doubts.append((name, f"sample {place} could not be read: {why}"))
    if found.cycle:
        copies.notes.append(f"{name} starts again after {found.cycle} samples: read once")
    elif found.cut:
        why = f"it goes on after the first {found.count} samples, which were read; give a finite one, or max_samples="
        copies.doubts.append((name, why))
    if len(found.widths) > 1:
        copies.doubts.append((name, "its batches have different widths: padded samples are never equal; unpad them"))
    if not found.count:
        raise CaseError(f"{name}= is empty or cannot be read: {next(iter(found.errors.values()), 'no samples')}")
