"""Windows of one series, cut overlapping and then split at random: no two rows are equal, and yet all is known.

Measured: the share of rows of the small split that continue a row of the large one: the last values of one are the
first of the other. Wherever two rows overlap, one of them begins inside the other and one of them ends there. So the
first and the last run of each large row are hashed (the first and last that are not constant), as long as the shortest
overlap that counts, and looked up among the runs at every place of the small rows. A shared run is only a candidate:
the two rows are laid over each other at that offset, and *all* values in the overlap must be equal (bit for bit in the
narrower float type; -0 is 0). Rows that are equal as they stand are copies, which the search for these tells.

Chance: values may repeat (counts, rounded prices). P(run of L values equal) = c1 * (c2 / c1)**(L - 1), where c1 and c2
are the shares of equal values and equal neighbouring pairs between places of one and the same window (a Markov chain of
first order). An overlap counts when the expected number of chance overlaps of its length in the whole comparison is
below 0.01. Straight lines, flat or not, never count. Periodic or constant data therefore are never a finding.
A shorter overlap counts where a third row proves it: one that overlaps both by more, so that their places in time are
known. After a cut in time without a gap these are the rows that share a few values, or one, with the last before it.

Cannot see: windows scaled one by one before they were stacked (scale the series, or give raw values), noise added to
each window (`find_near` with kind="series" does), windows shorter than 4.

Cost: a hash for each value of the small split, two for each row of the large one.
"""

from __future__ import annotations

import math

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.duplicates.exact.keys import Filter, inside, once
from pytest_overfit.duplicates.near.results import WindowPair, Windows
from pytest_overfit.duplicates.values.canonical import canonical

#: the shortest run that counts, and the longest that is hashed
RUN, LONGEST = 8, 16
ALPHA = 0.01
#: numbers hashed at once; rows looked at for one that shares a run, and candidates that a row is laid over
BLOCK, TRIES, CANDIDATES = 1 << 17, 3, 12
#: values equal to those a fixed time later: the series repeats itself
PERIODIC = 0.95
#: distances in time at which equal values are counted: all up to this many, as a period may be any, and as many more
LAGS = 64
_ODD64, _ODD, _BASE = 0x9E3779B97F4A7C15, 0x9E3779B1, 0x85EBCA77

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
    """The shortest overlap that is no chance."""
    one = two = places = 0.0
    few = max(100, min(500, BLOCK // math.prod(large.shape[1:])))
    rows = np.random.default_rng(0).permutation(len(large))[:few]
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


def _overlaps(small: Array, large: Array, least: int) -> dict[int, Place]:
    """The longest overlap found for each row of `small`: where values of it are in `large`."""
    edges = _Edges(large, least)
    best: dict[int, Place] = {}
    step = max(1, BLOCK // math.prod(small.shape[1:]))
    for start in range(0, len(small), step):
        row, offset, theirs = edges.inside(small[start : start + step])
        for i, j, move in _nearest(row, offset, theirs):
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
            if overlap > 0 and move + further and _agree(small[others[at]], large[j], move + further, told=True):
                new[int(others[at])] = (j, move + further, overlap)
        best.update(new)
        known = sorted(new)


class _Edges:
    """The first and the last run of each row that is not constant, by their hashes."""

    def __init__(self, rows: Array, least: int) -> None:
        self.least, self.run = least, min(least, LONGEST)
        run = self.run
        row, at = _edge_runs(rows, run)
        marks = [
            _marks(rows[row[part, None], at[part, None] + np.arange(run)], run)[:, 0]
            for part in _parts(len(row), run * rows.shape[2])
        ]
        keys = np.concatenate([*marks, np.empty(0, np.uint32)])
        order = np.argsort(keys, kind="stable")
        self.keys, self.row, self.at = keys[order], row[order], at[order]
        self.filter = Filter(once(self.keys))

    def inside(self, rows: Array) -> tuple[Array, Array, Array]:
        """Where these rows have such a run: the row, how far it is moved, and the row that begins or ends there."""
        marks = _marks(rows, self.run)
        keys, places = marks.ravel(), marks.shape[1]
        hits = self.filter.passing(keys)
        hits = hits[inside(keys[hits], self.keys)]
        first, last = (np.searchsorted(self.keys, keys[hits], side) for side in ("left", "right"))
        row, at = np.divmod(hits, places)
        found = []
        for turn in range(TRIES):  # equal keys of several rows: a few of them, spread
            here = np.flatnonzero(last - first > turn)
            edge = first[here] + (turn * 7919 + here) % (last[here] - first[here])
            found.append((row[here], self.at[edge] - at[here], self.row[edge]))
        row, offset, theirs = (np.concatenate(each) for each in zip(*found, strict=True))
        moved = (offset != 0) & (np.abs(offset) <= rows.shape[1] - self.least)
        return row[moved], offset[moved], theirs[moved]


def _edge_runs(rows: Array, run: int) -> tuple[Array, Array]:
    """Rows and places of their first and last runs in which something changes."""
    first, last = _first_change(rows), _first_change(rows[:, ::-1])
    varied = np.flatnonzero(first)
    heads = np.maximum(0, first[varied] + 1 - run)
    tails = np.minimum(rows.shape[1] - run, rows.shape[1] - 1 - last[varied])
    return np.concatenate([varied, varied]), np.concatenate([heads, tails])


def _first_change(rows: Array) -> Array:
    """The first place of each row whose value is not that of place 0; 0 where all are the same."""
    found = np.zeros(len(rows), np.int64)
    left, width = np.arange(len(rows)), RUN
    while len(left):
        for part in _parts(len(left), width * rows.shape[2]):
            some = rows[left[part], :width]
            changed = (some != some[:, :1]) & ((some == some) | (some[:, :1] == some[:, :1]))  # noqa: PLR0124 - NaN
            found[left[part]] = changed.any(2).argmax(1)
        left, width = left[found[left] == 0] if width < rows.shape[1] else left[:0], 4 * width
    return found


def _parts(count: int, width: int) -> list[slice]:
    step = max(1, BLOCK // width)
    return [slice(start, start + step) for start in range(0, count, step)]


def _nearest(row: Array, offset: Array, theirs: Array) -> list[list[int]]:
    """A few candidates of each row, those that are moved least first."""
    order = np.lexsort((np.abs(offset), row))
    row, offset, theirs = row[order], offset[order], theirs[order]
    few = np.arange(len(row)) - np.searchsorted(row, row, "left") < CANDIDATES
    return np.column_stack([row, theirs, offset])[few].tolist()  # type: ignore[no-any-return]


def _agree(row: Array, other: Array, move: int, told: bool = False) -> bool:
    """All values in the overlap are equal, and (unless that is known) they tell something."""
    length = len(row)
    ours, theirs = row[max(0, -move) : length - max(0, move)], other[max(0, move) : length - max(0, -move)]
    return np.array_equal(ours, theirs, equal_nan=True) and (told or _tells(ours))


def _tells(values: Array) -> bool:
    """A straight line, flat or not, is the same everywhere and tells nothing."""
    steps = np.diff(values.astype(np.float64), axis=0)
    bend = np.abs(np.diff(steps, axis=0))
    return bool((np.isnan(bend) | (bend > 1e-6 * np.abs(steps[1:]))).any())


def _marks(rows: Array, run: int) -> Array:
    """A hash of the run at each place of each row: a polynomial in an odd number modulo 2**32, by running sums."""
    count, length, channels = rows.shape
    values = canonical(rows, rows.dtype.str)
    bits = values.view(f"u{values.dtype.itemsize}")
    if bits.dtype.itemsize > 4:
        bits = (bits * np.uint64(_ODD64)) >> np.uint64(32)
    bits = bits.astype(np.uint32, copy=False)
    bits *= _powers(_ODD, channels + 1)[1:]
    bits ^= bits >> np.uint32(15)
    mixed = bits[:, :, 0] if channels == 1 else bits.sum(2, dtype=np.uint32)
    mixed *= _powers(_BASE, length)
    sums = np.zeros((count, length + 1), np.uint32)
    np.cumsum(mixed, axis=1, out=sums[:, 1:])
    marks = sums[:, run:] - sums[:, :-run]
    marks *= _powers(pow(_BASE, -1, 1 << 32), length - run + 1)
    marks ^= marks >> np.uint32(16)
    return np.asarray(marks)


def _powers(base: int, count: int) -> Array:
    """Powers from the zeroth on, modulo 2**32."""
    found = np.full(count, base, np.uint32)
    found[:1] = 1
    return np.multiply.accumulate(found)
