"""Near-copies of numeric rows across two splits: views, neighbours, calibration, in that order."""

from __future__ import annotations

from typing import Any

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.duplicates.exact.in_memory import Repeats, repeats
from pytest_overfit.duplicates.exact.rows import RowsInMemory, all_keys, choose_columns
from pytest_overfit.duplicates.near.neighbours import one_blas_thread
from pytest_overfit.duplicates.near.p_values import ALPHA, NullDistribution, fit_null, unusual
from pytest_overfit.duplicates.near.results import Near, NearPair
from pytest_overfit.duplicates.near.sides import Lookup, Side, overlaid, with_evenness, without_shared
from pytest_overfit.duplicates.near.views import views_of
from pytest_overfit.duplicates.values.canonical import compared, plain_numbers

#: rows of the large split that are searched; more are sampled, and `info["searched"]` says how many were
MOST_ROWS = 200_000
#: dimensions that pictures laid over each other need: a shift leaves them equal, so that copies are closer than others
ALIGNED_LEAST = 2.0


def find_near(
    small: Array,
    large: Array,
    *,
    kind: str = "vector",
    already: Array | None = None,
    again: Repeats | None = None,
    seed: int = 0,
    alpha: float = ALPHA,
) -> Near:
    """Rows of `small` that are near-copies of rows of `large`.

    `kind`: "image" ((n, h, w), (n, h, w, c) or (n, c, h, w)), "series" ((n, time) or (n, time, channels)) or "vector".
    `already`: mask of rows of `small` that are known to be exact copies and are left out. `again`: equal rows of
    `large`, where they are known.
    `alpha`: false alarms per run; a row is a finding when its p, times views, times rows looked up, is below it.
    """
    small, large, kind = _checked(small, large, kind)
    asked = np.flatnonzero(~np.asarray(already, bool)) if already is not None else np.arange(len(small))
    kept = _distinct(large, again) if len(large) else np.empty(0, np.int64)
    info: dict[str, Any] = {"kind": kind, "rows": len(asked), "distinct": len(kept), "views": {}}
    if len(kept) > MOST_ROWS:
        kept = np.sort(np.random.default_rng(seed).choice(kept, MOST_ROWS, replace=False))
    info["searched"] = len(kept)
    if not len(asked) or not len(kept):
        return Near(False, "no rows to compare", info=info)
    with one_blas_thread():
        parts = _parts(kind, small[asked], large, kept, seed, alpha / len(asked))
    return _gathered(parts, asked, alpha, info)


class _Part:
    """One view's answer: p, ratio and neighbour of each row asked for, and p of left-out rows of the large split."""

    def __init__(self, calibration: NullDistribution, rows: int) -> None:
        self.calibration = calibration
        self.p, self.ratio = np.ones(rows), np.ones(rows)
        self.row = np.full(rows, -1, np.int64)
        self.left_out = np.ones(0)


def _parts(kind: str, small: Array, large: Array, kept: Array, seed: int, level: float) -> dict[str, _Part]:
    """The answer of each view; pictures are also laid over those with a spectrum like theirs."""
    parts: dict[str, _Part] = {}
    for name, view in views_of(kind, large, seed).items():
        lookup = Lookup(view, large, kept, seed)
        if not lookup.able:
            why = "the rows are all the same, have no contrast, or share too few values that are not common"
            parts[name] = _Part(NullDistribution(why), len(small))
            continue
        own = lookup.left_out()
        parts[name] = _part(lookup, own, small, large, level)
        if kind == "image" and name == "spectrum":
            own, asked = overlaid(own, large, large), overlaid(lookup.rows(small), small, large)
            null = fit_null(own.distances, own.free, min(lookup.count, len(own.rows)), least=ALIGNED_LEAST)
            parts["aligned"] = _judged(null, own, asked, len(small))
    return parts


def _part(lookup: Lookup, own: Side, small: Array, large: Array, level: float) -> _Part:
    """Calibrate on rows of the large split, judge by it those of the small one that may be close enough."""
    view = lookup.view
    if view.even:
        own = with_evenness(own, view, large, large)
    if view.shared:
        own = without_shared(own, unusual(own.distances, own.free, lookup.count), large, large)
    null = fit_null(own.distances, own.free, lookup.count, own.evenness)
    if not null.testable:
        return _Part(null, len(small))
    asked = lookup.close_rows(small, null, level)
    if view.even:
        asked = with_evenness(asked, view, small, large)
    if view.shared:
        asked = without_shared(asked, np.arange(len(asked.rows)), small, large)
    return _judged(null, own, asked, len(small))


def _judged(null: NullDistribution, own: Side, asked: Side, rows: int) -> _Part:
    part = _Part(null, rows)
    if null.testable and len(asked.rows):
        part.left_out = null.p_values(own.distances, own.free, own.evenness)
        part.p[asked.rows] = null.p_values(asked.distances, asked.free, asked.evenness)
        part.row[asked.rows] = asked.found[:, 0]
        tenth = asked.distances[:, min(9, asked.distances.shape[1] - 1)]
        known = (tenth > 0) & np.isfinite(tenth)
        part.ratio[asked.rows] = asked.distances[:, 0] / np.where(known, tenth, 1.0)
    return part


def _gathered(parts: dict[str, _Part], asked: Array, alpha: float, info: dict[str, Any]) -> Near:
    for name, part in parts.items():
        null = part.calibration
        info["views"][name] = {"why": null.why, "dimension": round(null.dimension, 2), "tail": round(null.rate, 3)}
    able = {name: part for name, part in parts.items() if part.calibration.testable}
    if not able:
        whys = {name: part.calibration.why for name, part in parts.items()}
        listed = whys.values() if len(whys) == 1 else (f"{name}: {why}" for name, why in whys.items())
        return Near(False, "; ".join(listed), info=info)
    level = alpha / (len(asked) * len(able))
    info["level"] = level
    names = list(able)
    p = np.stack([able[name].p for name in names])
    best = p.argmin(0)
    pairs = []
    for at in np.flatnonzero(p.min(0) <= level):
        name = names[best[at]]
        chance = float(min(1.0, p[best[at], at] * len(able)))
        row, ratio = int(able[name].row[at]), float(able[name].ratio[at])
        pairs.append(NearPair(int(asked[at]), row, chance, name, ratio))
    pairs.sort(key=lambda pair: (pair.p, pair.likeness, pair.i))
    within = max(float(np.mean(able[name].left_out <= level)) for name in names)
    info["within"] = within
    return Near(True, "", tuple(pairs), within * len(asked), info=info)


def _checked(small: Array, large: Array, kind: str) -> tuple[Array, Array, str]:
    """Arrays of equal row shape; images too small to have a spectrum are vectors."""
    small, large = np.asarray(small), np.asarray(large)
    if small.dtype.kind not in "biufc" or large.dtype.kind not in "biufc":
        raise TypeError(f"expected numbers, got rows of {small.dtype} and {large.dtype}")
    if small.shape[1:] != large.shape[1:]:
        raise ValueError(f"expected rows of one shape, got {small.shape[1:]} and {large.shape[1:]}")
    if "c" in (small.dtype.kind, large.dtype.kind):
        small, large = (np.stack([each.real, each.imag], -1) for each in (small, large))
        kind = "vector"
    if kind == "image" and (small.ndim not in (3, 4) or (min(small.shape[1:3]) < 4 and min(small.shape[2:]) < 4)):
        kind = "vector"
    if kind == "series" and (small.ndim not in (2, 3) or small.shape[1] < 8):
        kind = "vector"
    return small, large, kind


def _distinct(large: Array, again: Repeats | None) -> Array:
    """The first row of each group of equal rows."""
    if again is None:
        numbers = plain_numbers(large)
        rows = RowsInMemory("", (numbers,), (compared({"": numbers[:1]}),))
        again = repeats(rows, all_keys(rows, choose_columns(rows)))
    order = np.lexsort((again.rows, again.ids))
    ids = again.ids[order]
    later = again.rows[order[1:]][ids[1:] == ids[:-1]]
    return np.delete(np.arange(len(large)), later)
