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
#: cells visited for each row; with 8 of 245 the nearest row was found for 0.99 of near-copies and more
PROBES = 8
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
        self.probes = probes
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
        step = max(1, BLOCK_BYTES // (4 * max(1, len(self.points)))) if self.centres is None else 4_096
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            look = self._exact if self.centres is None else self._probed
            squared[part], rows[part] = look(queries[part], k, own[part])
        return self._refined(queries, squared, rows), rows

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
        return _smallest(squared, np.broadcast_to(np.arange(len(self.points)), squared.shape), k)

    def _probed(self, queries: Array, k: int, own: Array) -> tuple[Array, Array]:
        if self.centres is None:
            return self._exact(queries, k, own)
        probes = min(self.probes, len(self.centres))
        to_centres = _centre_distances(queries, self.centres)
        visited = np.argpartition(to_centres, probes - 1, axis=1)[:, :probes]
        found = np.full((len(queries), probes, k), np.inf, np.float32)
        rows = np.full((len(queries), probes, k), -1, np.int64)
        flat = visited.ravel()
        by_cell = np.argsort(flat, kind="stable")
        ends = np.searchsorted(flat[by_cell], np.arange(len(self.centres) + 1))
        for cell in np.flatnonzero(np.diff(ends)):
            query, probe = np.divmod(by_cell[ends[cell] : ends[cell + 1]], probes)
            here = slice(self.starts[cell], self.starts[cell + 1])
            numbers = self.order[here]
            if not len(numbers):
                continue
            squared = self._squared(queries[query], here)
            squared[own[query, None] == numbers] = np.inf
            found[query, probe], rows[query, probe] = _smallest(squared, np.broadcast_to(numbers, squared.shape), k)
        return _smallest(found.reshape(len(queries), -1), rows.reshape(len(queries), -1), k)

    def _squared(self, queries: Array, part: slice) -> Array:
        squared = queries @ self.points[part].T
        squared *= -2
        squared += self.squares[part]
        squared += np.einsum("ij,ij->i", queries, queries)[:, None]
        return squared

    def _refined(self, queries: Array, squared: Array, rows: Array) -> Array:
        """Distances so small that rounding swallowed them are taken again from the differences."""
        np.maximum(squared, 0, out=squared)
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


def _smallest(squared: Array, rows: Array, k: int) -> tuple[Array, Array]:
    """The k smallest of each line, ascending, padded with inf and -1."""
    lines, have = squared.shape
    if have > k:
        keep = np.argpartition(squared, k - 1, axis=1)[:, :k]
        squared, rows = np.take_along_axis(squared, keep, 1), np.take_along_axis(rows, keep, 1)
    order = np.argsort(squared, axis=1, kind="stable")
    best, whose = np.full((lines, k), np.inf, np.float32), np.full((lines, k), -1, np.int64)
    best[:, :have], whose[:, :have] = np.take_along_axis(squared, order, 1), np.take_along_axis(rows, order, 1)
    whose[~np.isfinite(best)] = -1
    return best, whose


def _centre_distances(rows: Array, centres: Array) -> Array:
    away = rows @ centres.T
    away *= -2
    away += np.einsum("ij,ij->i", centres, centres)
    return away


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
