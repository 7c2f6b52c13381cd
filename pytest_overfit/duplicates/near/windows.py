"""Windows of one series, cut overlapping and then split at random: no two rows are equal, and yet all is known.

Measured: the share of rows of the small split that continue a row of the large one: the last values of one are the
first of the other. Wherever two rows overlap, one of them begins inside the other and one of them ends there. So edges
of each large row (`window_edges`) are looked up among the values at every place of the small rows. A shared edge is
only a candidate: the two rows are laid over each other at that offset, and *all* values in the overlap must be equal
(bit for bit in the narrower float type; -0 is 0). Rows that are equal as they stand are copies, which the search for
these tells.

Chance: values may repeat (counts, rounded prices). P(run of L values equal) = c1 * (c2 / c1)**(L - 1), where c1 and c2
are the shares of equal values and equal neighbouring pairs between places of one and the same window (a Markov chain of
first order). An overlap counts when the expected number of chance overlaps of its length in the whole comparison is
below 0.01. Straight lines, flat or not, never count. Periodic or constant data therefore are never a finding.
A shorter overlap counts where a third row proves it: one that overlaps both by more, so that their places in time are
known. After a cut in time without a gap these are the rows that share a few values, or one, with the last before it.

Cannot see: windows scaled one by one before they were stacked (scale the series, or give raw values), noise added to
each window (`find_near` with kind="series" does), windows shorter than 4.

Cost: that of the edges, and of the overlaps compared.
"""

from __future__ import annotations

import math

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.duplicates.near.results import WindowPair, Windows
from pytest_overfit.duplicates.near.window_edges import BLOCK, RUN, Edges

ALPHA = 0.01
#: candidates of a row that are looked at in some places, and those that it is laid over
LOOKED_AT, CANDIDATES = 32, 12
#: places of an overlap where values must be equal before all are compared
PLACES = 16
#: values equal to those a fixed time later: the series repeats itself
PERIODIC = 0.95
#: distances in time at which equal values are counted: all up to this many, as a period may be any, and as many more
LAGS = 64

#: row of the large split, offset, and how many values are shared
Place = tuple[int, int, int]


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
    best = _overlaps(small, large, least)
    _beyond(small, large, least, best)
    pairs = sorted((WindowPair(i, *place) for i, place in best.items()), key=lambda pair: (-pair.overlap, pair.i))
    stride = int(np.bincount([abs(pair.offset) for pair in pairs]).argmax()) if pairs else 0
    return Windows(True, "", len(pairs) / len(small), tuple(sorted(best)), tuple(pairs), stride, info=info)


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
        return small.astype(narrow, copy=False), large.astype(narrow, copy=False)


def _least_overlap(small: Array, large: Array, run: int) -> int:
    """The shortest overlap that is not chance."""
    one = two = places = 0.0
    few = max(100, min(500, BLOCK // math.prod(large.shape[1:])))
    rows = np.random.default_rng(0).permutation(len(large))[:few]
    sample = large[rows]
    length = sample.shape[1]
    for lag in sorted({*range(1, min(length, LAGS)), *np.linspace(1, length - 1, LAGS, dtype=int).tolist()}):
        same = _in_all_channels(sample[:, lag:] == sample[:, :-lag])
        equal = np.count_nonzero(same)
        if equal > PERIODIC * same.size and not (sample == sample[:, :1]).all():
            return int(length)
        one, two = one + equal, two + np.count_nonzero(same[:, 1:] & same[:, :-1])
        places += same.size
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


def _in_all_channels(equal: Array) -> Array:
    return equal[..., 0] if equal.shape[-1] == 1 else np.asarray(equal.all(-1))


def _overlaps(small: Array, large: Array, least: int) -> dict[int, Place]:
    """The longest overlap found for each row of `small`: where values of it are in `large`."""
    edges = Edges(large, least)
    best: dict[int, Place] = {}
    step = max(1, BLOCK // math.prod(small.shape[1:]))
    for start in range(0, len(small), step):
        block = small[start : start + step]
        row, offset, theirs = _nearest(*edges.inside(block), LOOKED_AT)
        alike = _alike(block, large, row, offset, theirs)
        few = _nearest(row[alike], offset[alike], theirs[alike], CANDIDATES)
        for i, move, j in np.column_stack(few).tolist():
            overlap = small.shape[1] - abs(move)
            if (start + i not in best or best[start + i][2] < overlap) and _agree(small[start + i], large[j], move):
                best[start + i] = (j, move, overlap)
    return best


def _beyond(small: Array, large: Array, least: int, best: dict[int, Place]) -> None:
    """Add rows that share fewer values than tell by themselves, known by a row in between that overlaps both."""
    known = sorted(best)
    while known:
        others = np.setdiff1d(np.arange(len(small)), list(best))
        linked = _overlaps(small[others], small[known], least)
        new = {}
        for at, (between, move, _) in linked.items():
            j, further, _ = best[known[between]]
            overlap = small.shape[1] - abs(move + further)
            if overlap > 0 and move + further and _agree(small[others[at]], large[j], move + further, known=True):
                new[int(others[at])] = (j, move + further, overlap)
        best.update(new)
        known = sorted(new)


def _nearest(row: Array, offset: Array, theirs: Array, most: int) -> tuple[Array, Array, Array]:
    """A few candidates of each row, those that are moved least first."""
    order = np.lexsort((np.abs(offset), row))
    row, offset, theirs = row[order], offset[order], theirs[order]
    few = np.arange(len(row)) - np.searchsorted(row, row, "left") < most
    return row[few], offset[few], theirs[few]


def _alike(small: Array, large: Array, row: Array, offset: Array, theirs: Array) -> Array:
    """Candidates that are equal at some places of their overlap."""
    left = np.arange(len(row))
    first, last = np.maximum(0, -offset), small.shape[1] - 1 - np.maximum(0, offset)
    for place in range(PLACES):
        at = first[left] + (last - first)[left] * place // (PLACES - 1)
        ours, other = small[row[left], at], large[theirs[left], at + offset[left]]
        equal = (ours == other) | ((ours != ours) & (other != other))  # noqa: PLR0124 - NaN
        left = left[_in_all_channels(equal)]
    return left


def _agree(row: Array, other: Array, move: int, known: bool = False) -> bool:
    """All values in the overlap are equal, and (unless that is known) they tell something."""
    length = len(row)
    ours, theirs = row[max(0, -move) : length - max(0, move)], other[max(0, move) : length - max(0, -move)]
    return np.array_equal(ours, theirs, equal_nan=True) and (known or _tells(ours))


def _tells(values: Array) -> bool:
    """A straight line, flat or not, is the same everywhere and tells nothing."""
    steps = np.diff(values.astype(np.float64), axis=0)
    bend = np.abs(np.diff(steps, axis=0))
    return bool((np.isnan(bend) | (bend > 1e-6 * np.abs(steps[1:]))).any())
