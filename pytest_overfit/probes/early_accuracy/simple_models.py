"""What simple models reach on the same split: a constant, a linear model, the nearest neighbour.

Not scikit-learn's: importing it makes the first verdict of a process 1.4 times as long, and the rule is 1.2
(benchmarks/speed/libraries.py).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.probes.early_accuracy.estimates import Predictions, estimate

#: rows that are fitted and asked: the linear model decomposes a matrix of that size, below a second
FITTED, ASKED = 2_000, 2_000
#: columns used; more are thinned out evenly
COLUMNS = 4_096
#: penalties tried, as shares of the mean squared singular value
_PENALTIES = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0)


@dataclasses.dataclass(frozen=True)
class FeatureTable:
    """Inputs as a table, and the answers whose targets belong to them."""

    features: Array
    answers: Predictions

    def some(self, most: int) -> FeatureTable:
        """At most so many rows, drawn evenly."""
        rows = len(self.features)
        if rows <= most:
            return self
        chosen = np.sort(np.random.default_rng(0).permutation(rows)[:most])
        return FeatureTable(self.features[chosen], self.answers.of(chosen))


def measure_baselines(train: FeatureTable, val: FeatureTable) -> dict[str, dict[str, Any]]:
    """The estimates of `constant`, `linear` and `nearest` on `val` after fitting on `train`."""
    train, val = train.some(FITTED), val.some(ASKED)
    x_train, x_val = _standardised(train.features, val.features)
    wanted = _numbers(train.answers, val.answers)
    fitted = _linear(x_train, wanted, x_val)
    answers = val.answers
    constant = _decided(answers, wanted.mean(axis=0)[None].repeat(answers.rows, axis=0))
    nearest = answers.instead(train.answers.target[_nearest(x_train, x_val)])
    return {
        "constant": estimate(constant),
        "linear": estimate(_decided(answers, fitted)),
        "nearest": estimate(nearest),
    }


def constant_only(train: Predictions, val: Predictions) -> dict[str, dict[str, Any]]:
    """The estimate of `constant` alone, where inputs are no table: position by position."""
    if train.target.shape[1:] != val.target.shape[1:]:
        return {}
    if train.kind == "values":
        best = train.target.mean(axis=0)
    else:
        values, counts = np.unique(train.target[train.counted], return_counts=True)
        best = np.full(train.target.shape[1], values[counts.argmax()])
    return {"constant": estimate(val.instead(best[None].repeat(val.rows, axis=0)))}


def holds_inside(train: FeatureTable) -> dict[str, dict[str, Any]]:
    """The same estimates on a quarter of `train`, fitted on the rest of it: do inputs tell anything there?"""
    order = np.random.default_rng(1).permutation(len(train.features))
    cut = len(order) // 4
    parts = [FeatureTable(train.features[rows], train.answers.of(rows)) for rows in (order[cut:], order[:cut])]
    return measure_baselines(*parts)


def _standardised(train: Array, val: Array) -> tuple[Array, Array]:
    """Both in units of `train`: mean 0, standard deviation 1; missing and constant columns are 0."""
    step = -(-train.shape[1] // COLUMNS)
    train, val = (each[:, ::step].astype(np.float64) for each in (train, val))
    with np.errstate(all="ignore"):
        masked = np.ma.masked_invalid(train)
        mean, spread = masked.mean(axis=0).filled(0.0), masked.std(axis=0).filled(0.0)
        scaled = [np.where(spread > 0, (each - mean) / np.where(spread > 0, spread, 1.0), 0.0) for each in (train, val)]
    first, second = (np.nan_to_num(np.clip(each, -50, 50), nan=0.0) for each in scaled)
    return first, second


def _numbers(train: Predictions, val: Predictions) -> Array:
    """The targets of `train` as columns of numbers; one column a class."""
    if train.kind != "classes":
        return train.target.astype(np.float64)
    width = train.raw.shape[1] if train.raw is not None else 0
    width = max(width, int(train.target.max()) + 1, int(val.target.max()) + 1)
    return np.asarray(np.eye(width)[train.target[:, 0].astype(int)])


def _decided(answers: Predictions, outputs: Array) -> Predictions:
    """Columns of numbers as predictions of the targets' kind."""
    if answers.kind == "classes":
        return answers.instead(outputs.argmax(axis=1)[:, None], outputs)
    return answers.instead(outputs > 0.5 if answers.kind == "binary" else outputs, outputs)


def _linear(x: Array, y: Array, asked: Array) -> Array:
    """Ridge regression; the penalty with the least generalised cross-validation (Golub, Heath and Wahba, 1979)."""
    mean, rows = y.mean(axis=0), len(x)
    wide = x.shape[1] > rows
    values, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    values = np.maximum(values, 0.0)
    left = vectors if wide else x @ vectors / np.sqrt(np.maximum(values, 1e-300))
    kept = values > 1e-10 * values.max(initial=0.0)
    values, vectors, left = values[kept], vectors[:, kept], left[:, kept]
    if not len(values):
        return np.asarray(mean[None].repeat(len(asked), axis=0))
    turned = left.T @ (y - mean)

    def validated(penalty: float) -> float:
        shrink = values / (values + penalty)
        residual = (y - mean) - left @ (shrink[:, None] * turned)
        free = max(1e-9, 1.0 - (1.0 + float(shrink.sum())) / rows)
        return float((residual**2).mean()) / free**2

    penalty = min((each * float(values.mean()) for each in _PENALTIES), key=validated)
    inner = turned * (np.sqrt(values) / (values + penalty))[:, None]
    right = x.T @ left / np.sqrt(values) if wide else vectors
    return np.asarray(asked @ (right @ inner) + mean)


def _nearest(x: Array, asked: Array) -> Array:
    """For each asked row the nearest of `x`, by Euclidean distance."""
    squares = (x**2).sum(axis=1)
    return np.asarray((squares[None] - 2.0 * asked @ x.T).argmin(axis=1))
