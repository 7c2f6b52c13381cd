"""Is the label inside the input? Columns that are the target in another spelling, and the best single column."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.probes.early_accuracy.estimates import Predictions, estimate
from pytest_overfit.probes.early_accuracy.simple_models import FITTED, FeatureTable

#: rows below which a column agrees with the labels by luck too easily
_LEAST = 20
#: how exactly a column must be the target, relative to its spread: what float32 leaves of a copy
_EXACT = 1e-5
#: numbers touched by one search; beyond it fewer columns are looked at
_WORK = 300_000_000
#: bins of the one-column rule
_BINS = 16


def label_columns(train: FeatureTable, val: FeatureTable) -> list[dict[str, Any]]:
    """Columns that spell out the target on every row of both splits; empty where there is one column only.

    `code`: one value for each class, and another for every other. `one_hot`: a column for each class that is one
    value on its rows and another on all others. `copy`: a straight line of the numeric target. `encoded`: the mean of
    the target over all rows that share the value, validation rows included, which the rows of train alone do not give.
    Keys: kind, columns.
    """
    features = np.concatenate([train.features, val.features])
    target = np.concatenate([train.answers.target, val.answers.target])
    if features.shape[1] < 2 or len(features) < _LEAST or not (train.answers.flat and target.shape[1] >= 1):
        return []
    most = max(1, _WORK // (len(features) * 20))
    features = features[:, :most]
    search = _copies if train.answers.kind == "values" else _codes
    found = list(search(features, target))
    return found or list(_encoded(features, target, len(train.features), train.answers.kind))


def _two_valued(features: Array) -> Array:
    """Which columns take exactly two values."""
    low, high = features.min(axis=0), features.max(axis=0)
    return np.asarray((low < high) & ((features == low) | (features == high)).all(axis=0))


def _codes(features: Array, target: Array) -> Iterator[dict[str, Any]]:
    for label in range(target.shape[1]):
        classes, coded = np.unique(target[:, label], return_inverse=True)
        coded = coded.reshape(-1)
        if len(classes) < 2:
            continue
        first = np.array([int((coded == number).argmax()) for number in range(len(classes))])
        values = features[first]  # what each class would be spelt as: (classes, columns)
        agree = (features == values[coded]).all(axis=0)
        ordered = np.sort(values, axis=0)
        agree &= (ordered[1:] > ordered[:-1]).all(axis=0)
        columns = np.flatnonzero(agree).tolist()
        if columns:
            yield {"kind": "code", "columns": columns}
        elif len(classes) > 2:
            yield from _one_hot(features, coded, len(classes))


def _one_hot(features: Array, coded: Array, classes: int) -> Iterator[dict[str, Any]]:
    """A column a class; one class may be left out, as it follows from the others."""
    places = np.flatnonzero(_two_valued(features))
    if len(places) < classes - 1:
        return
    high = features[:, places] == features[:, places].max(axis=0)
    inside = np.eye(classes)[coded].T @ high  # how many rows of each class have the higher value
    size = np.bincount(coded, minlength=classes)[:, None]
    total = high.sum(axis=0)[None]
    exact = ((inside == size) & (total == size)) | ((inside == 0) & (total == len(features) - size))
    if (exact.any(axis=1)).sum() >= classes - 1:
        yield {"kind": "one_hot", "columns": places[exact.any(axis=0)].tolist()}


def _copies(features: Array, target: Array) -> Iterator[dict[str, Any]]:
    """Columns that are `a * target + b`."""
    x = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    y = target.astype(np.float64) - target.mean(axis=0)
    with np.errstate(all="ignore"):
        squares, spread = (x**2).sum(axis=0), (y**2).sum(axis=0)
        for column in range(y.shape[1]):
            along = x.T @ y[:, column]
            residual = squares - along**2 / spread[column]
            places = np.flatnonzero((squares > 0) & (spread[column] > 0) & (residual <= _EXACT**2 * squares))
            # a difference of large sums is not exact: look again at the few that are left
            slope = along[places] / spread[column]
            off = np.abs(x[:, places] - slope * y[:, [column]]).max(axis=0, initial=0.0)
            places = places[off <= 10 * _EXACT * np.sqrt(squares[places] / len(x))]
            if len(places):
                yield {"kind": "copy", "columns": places.tolist()}


def _encoded(features: Array, target: Array, split: int, kind: str) -> Iterator[dict[str, Any]]:
    """Columns that hold the target's mean over all rows of the same value, which train's rows alone do not give."""
    wanted = np.eye(int(target.max()) + 1)[target[:, 0].astype(int)] if kind == "classes" else target.astype(float)
    if kind == "classes":  # the class number itself is what a two-class encoding averages
        wanted = np.concatenate([wanted, target.astype(float)], axis=1)
    found = [
        column
        for column in range(features.shape[1])
        if _is_mean(features[:, column], wanted) and not _is_mean(features[:split, column], wanted[:split])
    ]
    if found:
        yield {"kind": "encoded", "columns": found}


def _is_mean(values: Array, wanted: Array) -> bool:
    """A straight line leads from each of its values to the mean of some wanted column over that value's rows."""
    if not np.isfinite(values).all() or len(np.unique(values[:100])) < 4:
        return False
    kinds, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    if len(kinds) < 4 or len(kinds) > 0.9 * len(values):
        return False
    for column in wanted.T:
        mean = np.bincount(group.reshape(-1), weights=column) / sizes
        x, y = kinds.astype(np.float64) - kinds.mean(dtype=np.float64), mean - mean.mean()
        spread = float((y**2).sum())
        if spread > 0 and float((x**2).sum()) > 0:
            slope = float((x * y).sum()) / float((x**2).sum())
            if slope and np.abs(y - slope * x).max() <= 10 * _EXACT * np.sqrt(spread / len(y)):
                return True
    return False


def best_column(train: FeatureTable, val: FeatureTable) -> dict[str, Any] | None:
    """The column that predicts best alone, by the commonest class or mean in each of its bins, and its estimate.

    Chosen on train, asked on val. Keys: column, estimate. None: targets are not classes, or not one a row.
    """
    if train.answers.kind == "values" or train.answers.target.shape[1] != 1:
        return None
    small = train.some(FITTED)
    label = small.answers.target[:, 0].astype(int)
    classes = int(max(label.max(), val.answers.target.max())) + 1
    if len(label) * small.features.shape[1] * 20 > _WORK or label.min() < 0:
        return None
    best, right, rule = -1, -1.0, (np.zeros(0), np.zeros(0))
    for column in range(small.features.shape[1]):
        values = small.features[:, column]
        with np.errstate(all="ignore"):  # of what is infinite
            edges = np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1]))
        counts = np.bincount(np.searchsorted(edges, values) * classes + label, minlength=(len(edges) + 1) * classes)
        table = counts.reshape(-1, classes)
        if table.max(axis=1).sum() > right:
            best, right, rule = column, float(table.max(axis=1).sum()), (edges, table.argmax(axis=1))
    predicted = rule[1][np.searchsorted(rule[0], val.features[:, best])]
    alone: Predictions = val.answers.instead(predicted[:, None])
    return {"column": best, "estimate": estimate(alone)}
