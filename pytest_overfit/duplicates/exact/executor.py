"""A split read in parts by whatever has a `map`: pools of threads or processes, a cluster.

One task reads one part, with the fingerprints of the held splits, and gives back its matches: nothing is shuffled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pytest_overfit.core.errors import CaseError, OverfitError
from pytest_overfit.core.foreign import describe
from pytest_overfit.core.usercode import user_code
from pytest_overfit.duplicates.exact.fingerprint_table import FingerprintTable
from pytest_overfit.duplicates.exact.one_pass import Gathered, Read, read
from pytest_overfit.duplicates.reading.fields import Facts
from pytest_overfit.duplicates.reading.pickling import Parcel, packed
from pytest_overfit.duplicates.reading.sources import Source
from pytest_overfit.duplicates.reading.split import SampleChunk, Samples
from pytest_overfit.duplicates.steadiness import fingerprint
from pytest_overfit.duplicates.values.fingerprints import Coding

#: parts of a split: enough for a few tasks a worker, few enough that what each of them carries costs little
_SHARDS = 16


@dataclasses.dataclass(frozen=True)
class Work:
    """What all shards of a split have in common."""

    split: Samples
    coding: Coding
    table: FingerprintTable


@dataclasses.dataclass(frozen=True)
class Shard:
    """One task. What lies in memory travels with it, part by part; else the split's source travels, whole."""

    work: Parcel
    start: int
    stop: int
    memory: SampleChunk | None
    source: Source | None
    #: fingerprints of some samples as they are read here
    known: dict[int, bytes]

    def split(self, work: Work) -> Samples:
        """The part that this task reads."""
        size = self.stop - self.start if self.memory is not None else work.split.length
        fetch = self.source or work.split.fetch
        return dataclasses.replace(work.split, length=size, memory=self.memory, fetch=fetch, notes=[], errors={})


def read_apart(
    split: Samples, coding: Coding, table: FingerprintTable, executor: Any, progress: Callable[[int], None]
) -> Read | None:
    """One pass over a split, its parts read by `executor.map`; None: it has no places by which it could be parted."""
    if split.memory is None and split.fetch is None:
        return None
    shards = list(_shards(split, coding, table))
    found, count = Gathered(), 0
    for part in _mapped(executor, shards, split):
        if isinstance(part, OverfitError):
            raise part
        if not isinstance(part, Read):
            raise CaseError(
                f"executor.map gave {describe(part)}; expected what the function that it was given returned"
            )
        found.add(part)
        count += 1
        progress(found.whole.count)
    if count != len(shards):
        raise CaseError(f"executor.map gave {count} results for {len(shards)} tasks; expected one a task")
    return found.done()


def _shards(split: Samples, coding: Coding, table: FingerprintTable) -> Iterator[Shard]:
    length = split.length or 0
    step = max(1, -(-length // _SHARDS))
    alone = split.memory is not None or (split.fetch is not None and split.fetch.part(0, 1) is not None)
    travelling = dataclasses.replace(
        split, memory=None, open=None, bare=None, raised=None, fetch=None if alone else split.fetch
    )
    if split.memory is not None:  # labels, groups and times are columns already
        travelling.facts = Facts()
    work = Parcel(Work(travelling, coding, table))
    for start in range(0, length, step):
        stop = min(start + step, length)
        memory = None if split.memory is None else split.memory.part(slice(start, stop))
        source = split.fetch.part(start, stop) if alone and split.fetch is not None else None
        known = {place: fingerprint(split, coding, place) for place in (start, stop - 1)}
        yield Shard(work, start, stop, memory, source, known)
    split.errors.clear()


def _mapped(executor: Any, shards: list[Shard], split: Samples) -> Iterable[Read | OverfitError]:
    try:
        with user_code("executor.map"):
            yield from executor.map(read_shard, [Parcel(each) for each in shards])
    except OverfitError:
        _check_that_it_travels(split, shards[0])
        raise


def _check_that_it_travels(split: Samples, shard: Shard) -> None:
    """An engine reports in its own words, if at all, what it could not pickle."""
    travelling = shard.work.open().split
    pieces = [(f"{name}=", getattr(travelling.facts, name)) for name in ("key", "label", "group", "time")]
    pieces.append((f"{split.name}= is read as {split.how}, which", travelling.fetch or shard.source))
    pieces.append((f"{split.name}= holds samples that", shard.memory))
    for what, piece in pieces:
        try:
            packed(piece)
        except Exception as error:  # each library has its own way to refuse
            instead = (
                f"a function at the top of a module that returns the dataset, {split.name}=load_{split.name}"
                if what.startswith(split.name)
                else "a function at the top of a module, or the name of a column"
            )
            raise CaseError(
                f"{what} cannot be sent to another process ({type(error).__name__}: {error}); give {instead}; or use "
                "concurrent.futures.ThreadPoolExecutor(), which sends nothing"
            ) from None


def read_shard(parcel: Parcel) -> Read | OverfitError:
    """What one task does. An error is given back as a value: engines wrap exceptions each in their own way."""
    try:
        shard, work = _opened(parcel)
        split = shard.split(work)
        if shard.memory is not None:
            found = read(split, work.coding, work.table)
        else:
            found = read(split, work.coding, work.table, start=shard.start, stop=shard.stop)
        found.strayed = _strayed(split, work.coding, shard)
    except OverfitError as error:
        return error
    return found


def _opened(parcel: Parcel) -> tuple[Shard, Work]:
    try:
        shard: Shard = parcel.open()
        return shard, shard.work.open(keep=True)
    except OverfitError:
        raise
    except Exception as error:  # whatever a module or a file that is not there leads to
        raise CaseError(
            f"a worker of executor= cannot open its part of the data ({type(error).__name__}: {error}); every worker "
            "must be able to import what the data are made of, and to read their files under the same path"
        ) from None


def _strayed(split: Samples, coding: Coding, shard: Shard) -> int | None:
    """The first sample that is another one here than where the shard comes from."""
    shift = shard.start if shard.memory is not None else 0
    return next((at for at, mark in shard.known.items() if fingerprint(split, coding, at - shift) != mark), None)
