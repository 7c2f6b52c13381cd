"""Rows in memory: keys made of a few well-chosen columns, fingerprints of whole rows, and their real comparison."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.duplicates.exact.keys import CHUNK, Keys, distinct
from pytest_overfit.duplicates.values.canonical import ValueComparison, canonical, words

#: numbers handled at once where whole rows are read
BLOCK = 1 << 19
#: rows on which columns are ranked, on which a set of them is tried, and on which it is confirmed
_RANKED, _TRIED, _CONFIRMED = 128, 2_048, 32_768
#: columns that are ranked, that are tried, that are tried once more where the set is confirmed, that are taken
_CANDIDATES, _TRIALS, _MORE, _MOST = 1_024, 48, 4, 20

_ODD = 0x9E3779B97F4A7C15
_ODD2 = 0xC2B2AE3D27D4EB4F

#: one number of a row: leaf, and its place among the leaf's numbers
Column = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class RowsInMemory:
    """One split in memory: its leaves, each with rows first, and how each is compared."""

    name: str
    leaves: tuple[Array, ...]
    comparisons: tuple[ValueComparison, ...]

    def __len__(self) -> int:
        return len(self.leaves[0])

    def sizes(self) -> list[int]:
        """Numbers a row, by leaf."""
        return [math.prod(leaf.shape[1:]) for leaf in self.leaves]

    def column(self, column: Column, rows: Any) -> Array:
        """Words of one number of some rows (a slice or indices)."""
        leaf, place = self.leaves[column[0]], column[1]
        inside = np.unravel_index(place, leaf.shape[1:]) if leaf.ndim > 1 else ()
        return words(self._canonical(column[0], leaf[(rows, *map(int, inside))]))

    def block(self, leaf: int, rows: Any) -> Array:
        """Some rows of one leaf in canonical form, flat."""
        found = self.leaves[leaf][rows]
        return self._canonical(leaf, found).reshape(len(found), -1)

    def _canonical(self, leaf: int, values: Array) -> Array:
        how = self.comparisons[leaf]
        return canonical(values, how.dtype, self.name in how.scaled)


def _mixed(key: Array | None, word: Array) -> Array:
    """The key of some rows with one more word of each in it; every bit of the word reaches the high half."""
    mixed: Array = (word if key is None else key ^ word) * np.uint64(_ODD)
    mixed ^= mixed >> np.uint64(32)
    return mixed


def _key_of(rows: RowsInMemory, columns: Sequence[Column], part: slice) -> Array:
    """64 bits of one column or more of some rows."""
    key = _mixed(None, rows.column(columns[0], part))
    for each in columns[1:]:
        key = _mixed(key, rows.column(each, part))
    return key


def all_keys(
    rows: RowsInMemory, columns: Sequence[Column], progress: Callable[[int], None] = lambda count: None
) -> Keys:
    """Keys of all rows, made chunk by chunk."""
    found = np.zeros(len(rows), np.uint32)
    for start in range(0, len(rows) if columns else 0, CHUNK):
        part = slice(start, start + CHUNK)
        found[part] = (_key_of(rows, columns, part) * np.uint64(_ODD2)) >> np.uint64(32)
        progress(min(start + CHUNK, len(rows)))
    return Keys(found)


def _spread(count: int, most: int) -> slice:
    """At most `most` rows, evenly over `count`."""
    return slice(0, count, max(1, -(-count // most)))


def choose_columns(rows: RowsInMemory) -> list[Column]:
    """A few columns that separate the rows nearly as well as all of them do."""
    few, some, many = (_spread(len(rows), most) for most in (_RANKED, _TRIED, _CONFIRMED))
    ranked = _ranked(rows, few)
    chosen = _grown(rows, ranked, [], some)
    return _grown(rows, [each for each in ranked if each not in chosen][:_MORE], chosen, many)


def _ranked(rows: RowsInMemory, few: slice) -> list[Column]:
    """Columns, those with most values among a few rows first."""
    sizes = rows.sizes()
    total = sum(sizes)
    places = np.unique(np.linspace(0, total - 1, min(total, _CANDIDATES)).astype(np.int64)) if total else np.empty(0)
    values: list[Array] = []
    columns: list[Column] = []
    for leaf, first in enumerate(np.cumsum([0, *sizes[:-1]])):
        inside = places[(places >= first) & (places < first + sizes[leaf])] - first
        if len(inside):
            part = _words_of(rows, leaf, inside, few)
            part.sort(axis=1)
            values.append(np.count_nonzero(part[:, 1:] != part[:, :-1], axis=1))
            columns += [(leaf, place) for place in inside.tolist()]
    if not columns:
        return []
    mixed = np.random.default_rng(0).permutation(len(columns))  # neighbours often hold the same
    best = mixed[np.argsort(-np.concatenate(values)[mixed], kind="stable")]
    return [columns[each] for each in best[:_TRIALS]]


def _words_of(rows: RowsInMemory, leaf: int, places: Array, few: slice) -> Array:
    """Words of some numbers of one leaf, a line for each number."""
    if len(places) * 4 >= rows.sizes()[leaf]:
        block = rows.block(leaf, few)
        return np.ascontiguousarray(block.view(f"u{block.dtype.itemsize}")[:, places].T)
    return np.stack([rows.column((leaf, place), few) for place in places.tolist()])


def _grown(rows: RowsInMemory, candidates: Sequence[Column], chosen: list[Column], sample: slice) -> list[Column]:
    """Add each column that separates more of the sampled rows, until all are separated."""
    if len(chosen) >= _MOST:
        return chosen
    key = _key_of(rows, chosen, sample) if chosen else None
    apart = 1 if key is None else len(distinct(key))
    for column in candidates:
        if len(chosen) >= _MOST or (key is not None and apart == len(key)):
            break
        longer = _mixed(key, rows.column(column, sample))
        now = len(distinct(longer))
        if now > apart:
            chosen, key, apart = [*chosen, column], longer, now
    return chosen


def row_hashes(rows: RowsInMemory, which: Array) -> Array:
    """64 bits over all numbers of each row: rows that differ share one almost never."""
    found = np.zeros(len(which), np.uint64)
    width = max(1, sum(rows.sizes()))
    step = max(1, BLOCK // width)
    for start in range(0, len(which), step):
        part = which[start : start + step]
        key = np.zeros(len(part), np.uint64)
        for leaf in range(len(rows.leaves)):
            key = (key ^ _hashed(rows.block(leaf, part))) * np.uint64(_ODD2)
            key ^= key >> np.uint64(32)
        found[start : start + step] = key
    return found


def _hashed(block: Array) -> Array:
    """A hash a line. Every word is mixed with its place before it is added: sums of plain products cancel."""
    try:
        from xxhash import xxh3_64_intdigest  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        word = words(block)
        salt = (np.arange(1, word.shape[1] + 1, dtype=np.uint64) * np.uint64(_ODD)) | np.uint64(1)
        word = (word ^ salt) * np.uint64(_ODD2)
        word ^= word >> np.uint64(31)
        word *= np.uint64(_ODD)
        word ^= word >> np.uint64(29)
        return np.asarray(word.sum(axis=1, dtype=np.uint64))
    width = block.shape[1] * block.dtype.itemsize
    if not width:
        return np.zeros(len(block), np.uint64)
    view = block.reshape(-1).view(np.uint8).data
    hashes = [xxh3_64_intdigest(view[start : start + width]) for start in range(0, len(block) * width, width)]
    return np.array(hashes, np.uint64)


def same_rows(left: RowsInMemory, i: Array, right: RowsInMemory, j: Array) -> Array:
    """The real comparison: is row i[k] of the one equal to row j[k] of the other, number by number?"""
    same = np.ones(len(i), bool)
    step = max(1, BLOCK // max(1, sum(left.sizes())))
    for start in range(0, len(i), step):
        part = slice(start, start + step)
        for leaf in range(len(left.leaves)):
            one, other = left.block(leaf, i[part]), right.block(leaf, j[part])
            bits = f"u{one.dtype.itemsize}"
            same[part] &= (one.view(bits) == other.view(bits)).all(axis=1)
    return same
