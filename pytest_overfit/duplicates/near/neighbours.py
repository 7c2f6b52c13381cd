"""The k nearest rows: exact for small data, by inverted lists for large data; numpy alone.

Inverted lists: the rows are put into about sqrt(n) cells around centres that a few rounds of k-means found on a sample,
and a row is compared with the rows of the few cells nearest to it only. A near-copy of a row lies so close to it that
both are nearly always in one cell or in neighbouring ones; what is missed is a miss, never a false alarm, because the
calibration is measured with the same search.

Cost: n x sqrt(n) x d multiplications to build, q x cells visited x sqrt(n) x d to look q rows up. Memory beside the
data: blocks of a few MB. Limit: on rows without any structure in more than about 30 dimensions true neighbours (not
copies) are missed often.

Not scipy's or scikit-learn's: importing scipy.spatial alone makes the first search of a process 1.7 times as long,
sklearn.neighbors 3.9 times, and the rule is 1.2 (benchmarks/speed/libraries.py).
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator

import numpy as np

from pytest_overfit.core.arrays import Array

#: up to this many rows every distance is computed: as fast as the lists, and exact
EXACT_ROWS = 6_000
#: cells visited for each row; with 4 of 245 as many near-copies were found as with 8
PROBES = 4
#: rows looked up at once in the lists
QUERIES = 4_096
#: lines of so many numbers are sorted sooner than divided
SORTED = 512
#: share of a row's squared length that rounding may take from a squared distance
ROUNDED = 1e-5
#: bytes of one block of distances: fits the second-level cache of common machines a few times
BLOCK_BYTES = 8 << 20


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep matrix products on one thread: on a busy machine two wait for each other and take 4 to 10 times as long."""
    try:
        limits = importlib.import_module("threadpoolctl").threadpool_limits
    except ImportError:
        yield
        return
    with limits(limits=1, user_api="blas"):
        yield


class Index:
    """Rows (n, d), float32, to be searched for the neighbours of other rows or of each other."""

    def __init__(self, points: Array, *, seed: int = 0, exact_rows: int = EXACT_ROWS, probes: int = PROBES) -> None:
        self.points = np.ascontiguousarray(points, dtype=np.float32)
        self.squares = np.einsum("ij,ij->i", self.points, self.points)
        self.probes = min(probes, int(np.sqrt(len(self.points))))
        self.centres: Array | None = None
        if len(self.points) > exact_rows:
            self._build(seed)

    def search(self, queries: Array, k: int, own: Array | None = None) -> tuple[Array, Array]:
        """Distances (q, k), ascending, and the rows they belong to; where there are fewer than k, inf and -1.

        `own`: the row of the index that each query is, which is not its own neighbour.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        own = np.full(len(queries), -1) if own is None else own
        squared = np.full((len(queries), k), np.inf, np.float32)
        rows = np.full((len(queries), k), -1, np.int64)
        step = max(1, BLOCK_BYTES // (4 * max(1, len(self.points)))) if self.centres is None else QUERIES
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            look = self._exact if self.centres is None else self._probed
            squared[part], rows[part] = look(queries[part], k, own[part])
        return self._refined(queries, squared, rows), rows

    def reach(self, queries: Array, ks: list[int]) -> tuple[Array, Array] | None:
        """No more than the distance to the nearest row, and no less than those to the k-th nearest; None: by search.

        The k-th nearest of all cells is at most as far as the k-th nearest of the first cell.
        """
        if self.centres is None:
            return None
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        nearest = np.full(len(queries), np.inf, np.float32)
        beyond = np.full((len(queries), len(ks)), np.inf, np.float32)
        at = np.array(ks) - 1
        for query, probe, numbers, squared in self._visits(queries):
            np.minimum.at(nearest, query, squared.min(1))
            home = np.flatnonzero(probe == 0)
            if len(numbers) > at[-1] and len(home):
                beyond[query[home]] = np.sort(squared[home], axis=1)[:, at]
        norms = np.einsum("ij,ij->i", queries, queries)
        nearest, beyond = nearest + (1 - ROUNDED) * norms, beyond + (1 + ROUNDED) * norms[:, None]
        return np.sqrt(np.maximum(nearest, 0)), np.sqrt(np.maximum(beyond, 0))

    def _build(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        cells = int(np.sqrt(len(self.points)))
        sample = self.points[random.choice(len(self.points), min(len(self.points), 32 * cells), replace=False)]
        self.centres = _k_means(sample, cells)
        cell = _nearest_centre(self.points, self.centres)
        self.order = np.argsort(cell, kind="stable")
        self.starts = np.searchsorted(cell[self.order], np.arange(cells + 1))
        self.points = self.points[self.order]
        self.squares = self.squares[self.order]

    def _exact(self, queries: Array, k: int, own: Array) -> tuple[Array, Array]:
        squared = self._squared(queries, slice(0, len(self.points)))
        mine = np.flatnonzero(own >= 0)
        squared[mine, own[mine]] = np.inf
        best, which = _smallest(squared, k)
        best += np.einsum("ij,ij->i", queries, queries)[:, None]
        return np.maximum(best, 0), which

    def _probed(self, queries: Array, k: int, own: Array) -> tuple[Array, Array]:
        found = np.full((len(queries), self.probes, k), np.inf, np.float32)
        rows = np.full((len(queries), self.probes, k), -1, np.int64)
        for query, probe, numbers, squared in self._visits(queries):
            at = np.minimum(np.searchsorted(numbers, own[query]), len(numbers) - 1)  # a cell's rows are in order
            mine = np.flatnonzero(numbers[at] == own[query])
            squared[mine, at[mine]] = np.inf
            which = np.broadcast_to(np.arange(len(numbers)), squared.shape)
            if len(numbers) > k:
                squared, which = _some_smallest(squared, k)
            found[query, probe, : len(numbers)] = squared
            rows[query, probe, : len(numbers)] = numbers[which]
        best, which = _smallest(found.reshape(len(queries), -1), k)
        best = np.maximum(best + np.einsum("ij,ij->i", queries, queries)[:, None], 0)
        return np.asarray(best), np.where(which >= 0, np.take_along_axis(rows.reshape(len(queries), -1), which, 1), -1)

    def _visits(self, queries: Array) -> Iterator[tuple[Array, Array, Array, Array]]:
        """For each cell: the queries that visit it, as their how-manieth, its rows, and their `_squared`."""
        if self.centres is None:  # pragma: no cover - only called where there are cells
            return
        flat = _nearest_places(_centre_distances(queries, self.centres), self.probes).ravel()
        by_cell = np.argsort(flat, kind="stable")
        ends = np.searchsorted(flat[by_cell], np.arange(len(self.centres) + 1))
        for cell in np.flatnonzero(np.diff(ends)):
            query, probe = np.divmod(by_cell[ends[cell] : ends[cell + 1]], self.probes)
            here = slice(self.starts[cell], self.starts[cell + 1])
            if here.stop > here.start:
                yield query, probe, self.order[here], self._squared(queries[query], here)

    def _squared(self, queries: Array, part: slice) -> Array:
        """Squared distances less the square of each query, which all of its distances share."""
        squared = (-2 * queries) @ self.points[part].T
        squared += self.squares[part]
        return np.asarray(squared)

    def _refined(self, queries: Array, squared: Array, rows: Array) -> Array:
        """Distances so small that rounding swallowed them are taken again from the differences."""
        norms = np.einsum("ij,ij->i", queries, queries)
        places = None if self.centres is None else np.argsort(self.order)
        for query in np.flatnonzero(squared[:, 0] < 1e-3 * norms):
            near = np.flatnonzero(squared[query] < 1e-2 * norms[query])
            at = rows[query, near] if places is None else places[rows[query, near]]
            difference = self.points[at] - queries[query]
            squared[query, near] = np.einsum("ij,ij->i", difference, difference)
            order = np.argsort(squared[query], kind="stable")
            squared[query], rows[query] = squared[query, order], rows[query, order]
        return np.sqrt(squared)


def _smallest(squared: Array, k: int) -> tuple[Array, Array]:
    """The k smallest of each line, ascending, and their columns, padded with inf and -1."""
    lines, have = squared.shape
    which = np.broadcast_to(np.arange(have), squared.shape)
    if have > k:
        squared, which = _some_smallest(squared, k)
    order = _stable_order(squared)
    best, columns = np.full((lines, k), np.inf, np.float32), np.full((lines, k), -1, np.int64)
    best[:, :have] = np.take_along_axis(squared, order, 1)
    columns[:, :have] = np.take_along_axis(which, order, 1)
    columns[~np.isfinite(best)] = -1
    return best, columns


def _stable_order(squared: Array) -> Array:
    """As `argsort` with kind="stable", in a seventh of the time: numbers and places are sorted as one whole number."""
    bits = np.ascontiguousarray(squared, np.float32).view(np.int32)
    ordered = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits).astype(np.int64) << 32
    return np.asarray(np.sort(ordered | np.arange(squared.shape[1]), axis=1) & 0xFFFFFFFF)


def _nearest_places(away: Array, count: int) -> Array:
    """Places of the least numbers of each line in order; for a few of them a quarter of what `argpartition` takes."""
    found, line = np.empty((len(away), count), np.int64), np.arange(len(away))
    for turn in range(count):
        found[:, turn] = away.argmin(1)
        away[line, found[:, turn]] = np.inf
    return found


def _some_smallest(squared: Array, k: int) -> tuple[Array, Array]:
    """The k smallest of each line in any order, and their columns.

    The k-th smallest, then all up to it: for plain numbers a third of what `argpartition` takes.
    """
    ordered = np.sort(squared, axis=1) if squared.shape[1] <= SORTED else np.partition(squared, k - 1, axis=1)
    chosen = squared <= ordered[:, k - 1, None]
    flat = np.flatnonzero(chosen)
    if len(flat) == len(squared) * k:
        return squared.ravel()[flat].reshape(-1, k), (flat % squared.shape[1]).reshape(-1, k)
    which = np.argpartition(squared, k - 1, axis=1)[:, :k]  # equally far ones
    return np.take_along_axis(squared, which, 1), which


def _centre_distances(rows: Array, centres: Array) -> Array:
    away = rows @ (-2 * centres).T
    away += np.einsum("ij,ij->i", centres, centres)
    return np.asarray(away)


def _nearest_centre(rows: Array, centres: Array) -> Array:
    step = max(1, BLOCK_BYTES // (4 * len(centres)))
    parts = [_centre_distances(rows[at : at + step], centres).argmin(1) for at in range(0, len(rows), step)]
    return np.concatenate(parts)


def _k_means(sample: Array, cells: int, rounds: int = 4) -> Array:
    """Rough centres; an empty cell keeps its last centre. Exactness is of no use here, four rounds settle the sizes."""
    centres = sample[:cells].copy()
    for _ in range(rounds):
        cell = _nearest_centre(sample, centres)
        order = np.argsort(cell, kind="stable")
        starts = np.searchsorted(cell[order], np.arange(cells))
        counts = np.bincount(cell, minlength=cells)
        full = counts > 0
        centres[full] = np.add.reduceat(sample[order], starts[full], axis=0) / counts[full, None]
    return centres
