"""Rows in memory: keys made of a few well-chosen columns, fingerprints of whole rows, and their real comparison.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pytest_overfit.data.comparing import Comparison, canonical, words

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

#: rows handled at once: their keys stay in a core's own cache
CHUNK = 16_384
#: numbers handled at once where whole rows are read
BLOCK = 1 << 19
#: rows on which columns are ranked, on which a set of them is tried, and on which it is confirmed
_RANKED, _TRIED, _CONFIRMED = 128, 2_048, 32_768
#: columns that are ranked, that are tried, that are taken
_CANDIDATES, _TRIALS, _MOST = 1_024, 48, 12

_ODD = 0x9E3779B97F4A7C15
_ODD2 = 0xC2B2AE3D27D4EB4F

#: one number of a row: leaf, and its place among the leaf's numbers
Column = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Rows:
    """One split in memory: its leaves, each with rows first, and how each is compared."""

    name: str
    leaves: tuple[Array, ...]
    comparisons: tuple[Comparison, ...]

    def __len__(self) -> int:
        return len(self.leaves[0])

    def sizes(self) -> list[int]:
        """Numbers a row, by leaf."""
        import math

        return [math.prod(leaf.shape[1:]) for leaf in self.leaves]

    def column(self, column: Column, rows: Any) -> Array:
        """Words of one number of some rows (a slice or indices)."""
        import numpy as np

        leaf, place = self.leaves[column[0]], column[1]
        found = (
            leaf[(rows, *(int(each) for each in np.unravel_index(place, leaf.shape[1:])))]
            if leaf.ndim > 1
            else leaf[rows]
        )
        how = self.comparisons[column[0]]
        return words(canonical(found, how.dtype, self.name in how.scaled))

    def block(self, leaf: int, rows: Any) -> Array:
        """Some rows of one leaf in canonical form, flat."""
        how = self.comparisons[leaf]
        found = self.leaves[leaf][rows]
        return canonical(found, how.dtype, self.name in how.scaled).reshape(len(found), -1)


def keys_of(rows: Rows, columns: Sequence[Column], part: Any) -> Array:
    """A 64-bit key of some rows; rows that are equal have equal keys."""
    import numpy as np

    odd, shift = np.uint64(_ODD), np.uint64(32)
    key: Array | None = None
    for each in columns:
        word = rows.column(each, part)
        if key is None:
            key = word * odd
        else:
            key ^= word
            key *= odd
        key ^= key >> shift
    if key is None:
        return np.zeros(len(rows.leaves[0][part]), np.uint64)
    key *= np.uint64(_ODD2)
    key ^= key >> np.uint64(29)
    return key


def all_keys(rows: Rows, columns: Sequence[Column], progress: Callable[[int], None] = lambda count: None) -> Array:
    """Keys of all rows, made chunk by chunk."""
    import numpy as np

    found = np.empty(len(rows), np.uint64)
    for start in range(0, len(rows), CHUNK):
        found[start : start + CHUNK] = keys_of(rows, columns, slice(start, start + CHUNK))
        progress(min(start + CHUNK, len(rows)))
    return found


def _spread(count: int, most: int) -> Array:
    """At most `most` places, evenly over `count`."""
    import numpy as np

    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def choose_columns(rows: Rows) -> list[Column]:
    """A few columns that tell the rows apart nearly as well as all of them do."""
    few, some, many = (_spread(len(rows), most) for most in (_RANKED, _TRIED, _CONFIRMED))
    ranked = _ranked(rows, few)
    chosen = _grown(rows, ranked[:_TRIALS], [], some)
    return _grown(rows, [each for each in ranked[:_TRIALS] if each not in chosen][:4], chosen, many)


def _ranked(rows: Rows, few: Array) -> list[Column]:
    """Columns, those with most values among a few rows first."""
    import numpy as np

    sizes = rows.sizes()
    places = _spread(sum(sizes), _CANDIDATES) if sum(sizes) else np.empty(0, np.int64)
    starts = np.cumsum([0, *sizes])
    found: list[tuple[int, Column]] = []
    for leaf in range(len(sizes)):
        inside = places[(places >= starts[leaf]) & (places < starts[leaf + 1])] - starts[leaf]
        if len(inside):
            part = np.empty((len(inside), len(few)), np.uint64)
            if len(inside) * 4 >= sizes[leaf]:
                part[:] = words(rows.block(leaf, few))[:, inside].T
            else:
                for line, place in enumerate(inside):
                    part[line] = rows.column((leaf, int(place)), few)
            part.sort(axis=1)
            values = 1 + np.count_nonzero(part[:, 1:] != part[:, :-1], axis=1)
            found += [(int(count), (leaf, int(place))) for count, place in zip(values, inside, strict=True)]
    order = np.random.default_rng(0).permutation(len(found))  # neighbours often say the same
    mixed = [found[each] for each in order]
    return [column for _, column in sorted(mixed, key=lambda each: -each[0])]


def _grown(rows: Rows, candidates: Sequence[Column], chosen: list[Column], sample: Array) -> list[Column]:
    """Add each column that tells more of the sampled rows apart, until all are told apart."""
    distinct = _distinct(keys_of(rows, chosen, sample)) if chosen else 1
    for each in candidates:
        if distinct == len(sample) or len(chosen) == _MOST:
            break
        now = _distinct(keys_of(rows, [*chosen, each], sample))
        if now > distinct:
            chosen, distinct = [*chosen, each], now
    return chosen


def _distinct(keys: Array) -> int:
    import numpy as np

    ordered = np.sort(keys)
    return 1 + int(np.count_nonzero(ordered[1:] != ordered[:-1])) if len(ordered) else 0


def row_hashes(rows: Rows, which: Array) -> Array:
    """64 bits over all numbers of each row: rows that differ share one almost never."""
    import numpy as np

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
    import numpy as np

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


def same_rows(left: Rows, i: Array, right: Rows, j: Array) -> Array:
    """The real comparison: is row i[k] of the one equal to row j[k] of the other, number by number?"""
    import numpy as np

    same = np.ones(len(i), bool)
    step = max(1, BLOCK // max(1, sum(left.sizes())))
    for start in range(0, len(i), step):
        part = slice(start, start + step)
        for leaf in range(len(left.leaves)):
            one, other = left.block(leaf, i[part]), right.block(leaf, j[part])
            bits = f"u{one.dtype.itemsize}"
            same[part] &= (one.view(bits) == other.view(bits)).all(axis=1)
    return same
