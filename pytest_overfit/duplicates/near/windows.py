"""Windows of one series, cut overlapping and then split at random: no two rows are equal, and yet all is known.

Measured: the share of rows of the small split that continue a row of the large one: the last values of one are the
first of the other. Runs of 8 values are hashed at every position, one in four is kept, chosen by its hash so that both
splits choose alike (the winnowing idea of Schleimer et al. 2003), and the hashes of both splits are joined. A shared
run is only a candidate: the two rows are laid over each other at that offset, and *all* values in the overlap must be
equal (bit for bit in the narrower float type; -0 is 0).

Chance: values may repeat (counts, rounded prices). P(run of L values equal) = c1 * (c2 / c1)**(L - 1), where c1 and c2
are the shares of equal values and equal neighbouring pairs between places of one and the same window (a Markov chain of
first order). An overlap counts when the expected number of chance overlaps of its length in the whole comparison is
below 0.01. Straight lines, flat or not, never count. Periodic or constant data therefore are never a finding.

Cannot see: windows scaled one by one before they were stacked (scale the series, or give raw values), noise added to
each window (`find_near` with kind="series" does), windows shorter than 4.

Cost: one pass over all values, a sort of a quarter of the hashes of the small split; large split in blocks.
"""

from __future__ import annotations

import math

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.duplicates.near.results import WindowPair, Windows

RUN = 8
KEEP = 4
ALPHA = 0.01
#: windows of the large split in a block, and tries of a candidate offset for one window
BLOCK, TRIES = 8_192, 3
#: values equal to those a fixed time later: the series repeats itself
PERIODIC = 0.95
#: distances in time at which equal values are counted: all up to this many, as a period may be any, and as many more
LAGS = 64
#: examples handed back
SHOWN = 1_000


def find_windows(small: Array, large: Array) -> Windows:
    """Rows (n, length) or (n, length, channels) of `small` that overlap rows of `large` in time."""
    small, large = _series(small), _series(large)
    why = _untestable(small, large)
    if why:
        return Windows(False, why)
    small, large = _same_type(small, large)
    length = small.shape[1]
    run = min(RUN, max(3, length // 2))
    least = _least_overlap(small, large, run)
    info = {"run": run, "least_overlap": least}
    if least > length - 1:
        return Windows(False, "the values repeat so much that rows overlap by chance", info=info)
    best = _overlaps(small, large, run, least)
    pairs = tuple(WindowPair(i, *best[i]) for i in sorted(best))
    offsets = np.abs([pair.offset for pair in pairs if pair.offset]).astype(np.int64)
    stride = int(np.bincount(offsets).argmax()) if len(offsets) else 0
    longest = sorted(pairs, key=lambda pair: (-pair.overlap, pair.i))[:SHOWN]
    return Windows(True, "", len(pairs) / len(small), tuple(sorted(best)), tuple(longest), stride, info=info)


def _series(rows: Array) -> Array:
    rows = np.asarray(rows)
    if rows.dtype.kind not in "biuf" or rows.ndim not in (2, 3):
        raise TypeError(
            f"expected numbers (rows, time) or (rows, time, channels), got {rows.ndim}-d rows of {rows.dtype}"
        )
    return rows if rows.ndim == 3 else rows[:, :, None]


def _untestable(small: Array, large: Array) -> str:
    if not len(small) or not len(large):
        return "no rows to compare"
    if small.shape[2] != large.shape[2]:
        return f"rows of {small.shape[2]} and {large.shape[2]} channels"
    if small.shape[1] != large.shape[1] or small.shape[1] < 4:
        return f"windows of {small.shape[1]} and {large.shape[1]} values; they must be of equal length, 4 or more"
    return ""


def _same_type(small: Array, large: Array) -> tuple[Array, Array]:
    """Both in the narrower float type, so that a float32 copy of float64 values is the same."""
    kinds = [each.dtype for each in (small, large) if each.dtype.kind == "f"]
    narrow = min(kinds, key=lambda kind: kind.itemsize) if kinds else np.dtype(np.float64)
    with np.errstate(over="ignore"):
        return small.astype(narrow), large.astype(narrow)


def _least_overlap(small: Array, large: Array, run: int) -> int:
    """The shortest overlap that is no chance."""
    one = two = places = 0.0
    rows = np.random.default_rng(0).permutation(len(large))[:500]
    sample = large[rows]
    length = sample.shape[1]
    for lag in sorted({*range(1, min(length, LAGS)), *np.linspace(1, length - 1, LAGS, dtype=int).tolist()}):
        same = (sample[:, lag:] == sample[:, :-lag]).all(2)
        if same.mean() > PERIODIC and not (sample == sample[:, :1]).all():
            return int(length)
        one, two, places = one + same.sum(), two + (same[:, 1:] & same[:, :-1]).sum(), places + same.size
    single = (one + 1) / (places + 1)
    follow = float((two + 1) / (one + 2)) if one else 0.0
    tries = math.log(len(small)) + math.log(len(large)) + math.log(2 * length)
    if follow >= 1:
        return int(length)
    if follow <= 0:
        needed = 1
    else:
        needed = 1 + math.ceil(max(0.0, (math.log(ALPHA) - tries - math.log(single)) / math.log(follow)))
    return int(max(run, needed))


def _overlaps(small: Array, large: Array, run: int, least: int) -> dict[int, tuple[int, int, int]]:
    """The longest overlap found for each row of `small`: (row of large, offset, values)."""
    keys, row, at = _runs(small, run)
    order = np.argsort(keys, kind="stable")
    keys, row, at = keys[order], row[order], at[order]
    best: dict[int, tuple[int, int, int]] = {}
    for start in range(0, len(large), BLOCK):
        block = large[start : start + BLOCK]
        theirs, their_row, their_at = _runs(block, run)
        first, last = np.searchsorted(keys, theirs, "left"), np.searchsorted(keys, theirs, "right")
        hit = np.flatnonzero(last > first)
        for turn in range(TRIES):  # equal keys of several small rows: a few of them, spread
            here = hit[last[hit] - first[hit] > turn]
            mine = first[here] + (turn * 7919 + here) % (last[here] - first[here])
            _keep_best(best, small, block, start, least, row[mine], their_row[here], their_at[here] - at[mine])
    return best


def _keep_best(
    best: dict[int, tuple[int, int, int]],
    small: Array,
    block: Array,
    start: int,
    least: int,
    mine: Array,
    theirs: Array,
    offset: Array,
) -> None:
    """Lay candidate rows over each other, longest overlap first, until one agrees everywhere."""
    length = small.shape[1]
    order = np.lexsort((np.abs(offset), mine))
    mine, theirs, offset = mine[order], theirs[order], offset[order]
    rank = np.arange(len(mine)) - np.searchsorted(mine, mine, "left")
    first = rank < 4 * TRIES
    for i, j, move in np.column_stack([mine, theirs, offset])[first].tolist():
        overlap = length - abs(move)
        if overlap < least or (i in best and best[i][2] >= overlap):
            continue
        ours = small[i, max(0, -move) : length - max(0, move)]
        other = block[j, max(0, move) : length - max(0, -move)]
        if np.array_equal(ours, other, equal_nan=True) and _tells(ours):
            best[i] = (start + j, move, overlap)


def _tells(values: Array) -> bool:
    """A straight line, flat or not, is the same everywhere and tells nothing."""
    steps = np.diff(values.astype(np.float64), axis=0)
    bend = np.abs(np.diff(steps, axis=0))
    return bool((np.isnan(bend) | (bend > 1e-6 * np.abs(steps[1:]))).any())


def _runs(rows: Array, run: int) -> tuple[Array, Array, Array]:
    """Hashes of the chosen runs that are not constant, with their rows and positions."""
    count, length, channels = rows.shape
    places = length - run + 1
    rows = rows + rows.dtype.type(0)  # -0 becomes 0
    bits = np.ascontiguousarray(rows).view(f"u{rows.dtype.itemsize}").astype(np.uint64)
    mixed = np.zeros((count, places), np.uint64)
    varied = np.zeros((count, places), bool)
    for step in range(run):
        for channel in range(channels):
            mixed = (mixed ^ bits[:, step : step + places, channel]) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
        if step:
            varied |= (bits[:, step : step + places] != bits[:, :places]).any(2)
    chosen = varied & (mixed % KEEP == 0) if places > 4 * KEEP else varied
    row, at = np.nonzero(chosen)
    return mixed[row, at], row, at
