"""Near-copies of texts: which share most of their letters in the same order.

Measured: the Jaccard similarity of the sets of overlapping 5-letter shingles of two texts, after Unicode folding, case
folding and white space. Candidates are found by joining the hashes of one shingle in four, chosen by its hash so that
both texts choose alike (the sampling of Broder 1997 and Schleimer et al. 2003), then all shingles are compared.
Two texts of 60 letters that are alike to 0.8 share 50 shingles, 12 of them chosen; the chance that none is, is 6e-7,
and at the shortest text, 16 letters, 0.05: such a pair can be missed.

At 0.8 a pair is a finding: one word in thirty changed. Pairs from 0.5 on are counted as notes. p is the share of a
sample of rows of the large split that are as alike to another row of it: texts made from a template tell by it.
Cannot see: paraphrases and translations (give embeddings as vectors), texts with fewer than 12 shingles (too short for
"near" to mean anything; exact comparison has them).

Cost: one pass over all letters in numpy, a sort of a quarter of the hashes of the small split; memory about 3 bytes a
letter of the small split, and blocks of the large one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.duplicates.near.results import Near, NearPair
from pytest_overfit.duplicates.values.fingerprints import folded

LENGTH = 5
LEAST_SHINGLES = 12
#: one shingle in this many is joined on
KEEP = 4
FINDING, NOTE = 0.8, 0.5
#: a shingle that this many texts of the small split have says nothing (a licence header, a greeting)
MOST_COMMON = 50
#: Jaccard similarity of the chosen shingles alone from which a pair is compared in full; a guess with a wide margin
ENOUGH = 0.25
#: candidates of one text that are compared in full, those with most shingles in common first
CANDIDATES = 5
LEFT_OUT = 2_000
BLOCK = 4_096


def find_near_text(small: Sequence[str], large: Sequence[str], *, already: Any = None, seed: int = 0) -> Near:
    """Texts of `small` that are near-copies of texts of `large`; `already` masks known exact copies."""
    asked = np.flatnonzero(~np.asarray(already, bool)) if already is not None else np.arange(len(small))
    texts = [_folded(small[int(row)]) for row in asked]
    long = [row for row, text in enumerate(texts) if _long(text)]
    info: dict[str, Any] = {"kind": "text", "rows": len(long), "short": len(texts) - len(long)}
    if not long or not len(large):
        return Near(False, f"no text with {LEAST_SHINGLES} shingles of {LENGTH} letters or more", info=info)
    sample = np.random.default_rng(seed).permutation(len(large))[:LEFT_OUT].tolist()
    left_out = [(row, text) for row in sample if _long(text := _folded(large[row]))]
    own = [-1] * len(long) + [row for row, _ in left_out]
    best = _best([*(texts[row] for row in long), *(text for _, text in left_out)], large, own)
    best, within = best[: len(long)], np.array([likeness for likeness, _ in best[len(long) :]])
    pairs = []
    for row, (likeness, where) in zip(long, best, strict=True):
        if likeness >= FINDING:
            p = (1 + int((within >= likeness).sum())) / (1 + len(within))
            pairs.append(NearPair(int(asked[row]), where, p, "shingles", likeness))
    pairs.sort(key=lambda pair: (pair.p, -pair.likeness, pair.i))
    info["notes"] = sum(NOTE <= likeness < FINDING for likeness, _ in best)
    info["within"] = float((within >= FINDING).mean()) if len(within) else 0.0
    return Near(True, "", tuple(pairs), info["within"] * len(long), info=info)


def _folded(text: Any) -> str:
    """The text as it is compared; bytes are read as UTF-8."""
    return folded(text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text))


def _long(text: str) -> bool:
    return len(text) >= LEAST_SHINGLES + LENGTH - 1


def _best(texts: list[str], large: Sequence[str], own: list[int]) -> list[tuple[float, int]]:
    """The most similar text of `large` for each of `texts`, other than row `own` of it."""
    best = [(0.0, -1)] * len(texts)
    keys, owner = _chosen(texts)
    order = np.argsort(keys, kind="stable")
    keys, owner = keys[order], owner[order]
    rare = np.searchsorted(keys, keys, "right") - np.searchsorted(keys, keys, "left") <= MOST_COMMON
    sizes = np.bincount(owner[rare], minlength=len(texts))
    full: dict[int, Array] = {}
    for start, block in _blocks(large):
        for mine, theirs in _candidates(keys, owner, sizes, block):
            where = start + theirs
            if own[mine] == where:
                continue
            if mine not in full:
                full[mine] = np.unique(_hashes(texts[mine]))
            likeness = _jaccard(full[mine], np.unique(_hashes(block[theirs])))
            best[mine] = max(best[mine], (likeness, where), key=lambda each: (each[0], -each[1]))
    return best


def _blocks(large: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    for start in range(0, len(large), BLOCK):
        yield start, [_folded(large[row]) for row in range(start, min(start + BLOCK, len(large)))]


def _candidates(keys: Array, owner: Array, sizes: Array, block: list[str]) -> Iterator[tuple[int, int]]:
    """Pairs (text, row of the block) whose chosen shingles are alike, at most a few a text."""
    theirs, row = _chosen(block)
    texts = len(sizes)
    first, last = np.searchsorted(keys, theirs, "left"), np.searchsorted(keys, theirs, "right")
    rare = last - first <= MOST_COMMON
    hit = np.flatnonzero((last > first) & rare)
    if not len(hit):
        return
    many = last[hit] - first[hit]
    at = np.repeat(first[hit] - np.concatenate([[0], np.cumsum(many)[:-1]]), many) + np.arange(many.sum())
    pair, shared = np.unique(np.repeat(row[hit], many) * texts + owner[at], return_counts=True)
    theirs_row, mine = np.divmod(pair, texts)
    both = sizes[mine] + np.bincount(row[rare], minlength=len(block))[theirs_row]
    alike = shared >= ENOUGH * (both - shared)
    theirs_row, mine, shared = theirs_row[alike], mine[alike], shared[alike]
    order = np.lexsort((theirs_row, -shared, mine))
    mine, theirs_row = mine[order], theirs_row[order]
    rank = np.arange(len(mine)) - np.searchsorted(mine, mine, "left")
    yield from zip(mine[rank < CANDIDATES].tolist(), theirs_row[rank < CANDIDATES].tolist(), strict=True)


def _chosen(texts: list[str]) -> tuple[Array, Array]:
    """Distinct chosen shingle hashes of all texts, with the number of the text each is from."""
    ends = np.cumsum([len(text) for text in texts])
    hashes = _hashes("".join(texts))
    owner = np.searchsorted(ends, np.arange(len(hashes)), "right")
    inside = np.arange(len(hashes)) + LENGTH <= ends[np.minimum(owner, len(texts) - 1)]
    keep = inside & (hashes % KEEP == 0)
    keys, owner = hashes[keep], owner[keep]
    order = np.lexsort((keys, owner))
    keys, owner = keys[order], owner[order]
    new = np.ones(len(keys), bool)
    new[1:] = (keys[1:] != keys[:-1]) | (owner[1:] != owner[:-1])
    return keys[new], owner[new]


def _hashes(text: str) -> Array:
    """A 64-bit hash of each run of LENGTH letters; its low bits are mixed, because the choice reads them."""
    letters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    count = max(0, len(letters) - LENGTH + 1)
    mixed = np.zeros(count, np.uint64)
    for offset in range(LENGTH):
        mixed = (mixed ^ letters[offset : offset + count]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _jaccard(one: Array, other: Array) -> float:
    """Of two sorted sets."""
    if not len(one) or not len(other):
        return 0.0
    at = np.minimum(np.searchsorted(one, other), len(one) - 1)
    common = int((one[at] == other).sum())
    return common / (len(one) + len(other) - common)
