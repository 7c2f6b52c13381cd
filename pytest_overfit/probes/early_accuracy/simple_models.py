"""What simple models reach on the same split: a constant, a linear model, the nearest neighbour.

Not scikit-learn's: importing it makes the first verdict of a process 1.4 times as long, and the rule is 1.2
(benchmarks/speed/libraries.py).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.probes.early_accuracy.estimates import Predictions, by_permutation, estimate
from pytest_overfit.probes.early_accuracy.relabelling import relabelling

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
    """The estimates of `constant`, `linear` and `nearest` on `val` after fitting on `train`.

    What `linear` and `nearest` know must also depend on which targets the rows of `train` have: their `related` and
    `signal` are at least the p of a test that permutes those. Any function of the inputs, fitted to anything, may go
    with the targets of `val`.
    """
    train, val = train.some(FITTED), val.some(ASKED)
    x_train, x_val = _standardised(train.features, val.features)
    wanted, asked = _numbers(train.answers, val.answers), _numbers(val.answers, train.answers)
    linear, nearest = _Ridge(x_train, wanted), _nearest(x_train, x_val)
    answers, apart = val.answers, asked - asked.mean(axis=0)
    voted = np.zeros_like(wanted)
    np.add.at(voted, nearest, apart)
    constant = _decided(answers, wanted.mean(axis=0)[None].repeat(answers.rows, axis=0))
    return {
        "constant": estimate(constant),
        "linear": _learnt(_decided(answers, linear.outputs(x_val)), linear.votes(x_val, apart), wanted),
        "nearest": _learnt(answers.instead(train.answers.target[nearest]), voted, wanted),
    }


def _learnt(answers: Predictions, votes: Array, wanted: Array) -> dict[str, Any]:
    """The estimate of a model that is linear in the targets it was fitted to.

    So how well it does on `val` is a sum over the rows of train: what the rows of `val` that lean on one `vote` for,
    times its target. Which makes the test exact: those targets are permuted, and every fit is made again.
    """
    found = estimate(answers)
    classes = wanted.argmax(axis=1) if answers.kind == "classes" else None
    by_luck = by_permutation(votes @ wanted.T if classes is None else votes, classes)
    learnt = {"related": max(found["related"], by_luck), "signal": max(found["signal"], by_luck)}
    return {**found, **learnt, "relabelled": relabelling(answers)}


def constant_only(train: Predictions, val: Predictions) -> dict[str, dict[str, Any]]:
    """The estimate of `constant` alone, where inputs are not a table: position by position."""
    if train.target.shape[1:] != val.target.shape[1:]:
        return {}
    if train.kind == "values":
        best = train.target.mean(axis=0)
    else:
        values, counts = np.unique(train.target[train.counted], return_counts=True)
        best = np.full(train.target.shape[1], values[counts.argmax()])
    return {"constant": estimate(val.instead(best[None].repeat(val.rows, axis=0)))}


def holds_inside(table: FeatureTable, share: float = 0.25) -> dict[str, dict[str, Any]]:
    """The same estimates on a share of one split, fitted on the rest of it: do inputs tell anything there?"""
    order = np.random.default_rng(1).permutation(len(table.features))
    cut = int(share * len(order))
    if not 0 < cut < len(order):
        return {}
    parts = [FeatureTable(table.features[rows], table.answers.of(rows)) for rows in (order[cut:], order[:cut])]
    return measure_baselines(*parts)


def holds_inside_both(train: FeatureTable, val: FeatureTable) -> dict[str, dict[str, dict[str, Any]]]:
    """The same inside each split, with as many rows of one as of the other: where do labels depend on inputs?"""
    rows = min(len(train.features), len(val.features))
    return {name: holds_inside(each.some(rows), 0.5) for name, each in (("train", train), ("val", val))}


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


def _numbers(answers: Predictions, others: Predictions) -> Array:
    """The targets as columns of numbers; one column a class, as many as both have."""
    if answers.kind != "classes":
        return answers.target.astype(np.float64)
    widths = [each.raw.shape[1] if each.raw is not None else 0 for each in (answers, others)]
    width = max(*widths, int(answers.target.max()) + 1, int(others.target.max()) + 1)
    return np.asarray(np.eye(width)[answers.target[:, 0].astype(int)])


def _decided(answers: Predictions, outputs: Array) -> Predictions:
    """Columns of numbers as predictions of the targets' kind."""
    if answers.kind == "classes":
        return answers.instead(outputs.argmax(axis=1)[:, None], outputs)
    return answers.instead(outputs > 0.5 if answers.kind == "binary" else outputs, outputs)


class _Ridge:
    """Ridge regression; the penalty with the least generalised cross-validation (Golub, Heath and Wahba, 1979)."""

    def __init__(self, x: Array, y: Array) -> None:
        self._mean = y.mean(axis=0)
        wide = x.shape[1] > len(x)
        values, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
        values = np.maximum(values, 0.0)
        left = vectors if wide else x @ vectors / np.sqrt(np.maximum(values, 1e-300))
        kept = values > 1e-10 * values.max(initial=0.0)
        self._values, self._left = values[kept], left[:, kept]
        self._right = x.T @ self._left / np.sqrt(self._values) if wide else vectors[:, kept]
        self._residual = y - self._mean
        self._turned = self._left.T @ self._residual

    def outputs(self, asked: Array) -> Array:
        """What it answers to these rows."""
        if not len(self._values):
            return np.asarray(self._mean[None].repeat(len(asked), axis=0))
        penalty = min((each * float(self._values.mean()) for each in _PENALTIES), key=self._validated)
        return np.asarray(asked @ (self._right @ (self._turned * self._gain(penalty))) + self._mean)

    def votes(self, asked: Array, wanted: Array) -> Array:
        """How much more `wanted` the answers to `asked` would be, for the target of each row that was fitted.

        At a middling penalty, whatever the targets are: one that was chosen by them would be another for each order.
        """
        if not len(self._values):
            return np.zeros_like(self._residual)
        pulled = (asked @ self._right).T @ wanted
        return np.asarray(self._left @ (pulled * self._gain(float(self._values.mean()))))

    def _gain(self, penalty: float) -> Array:
        return np.asarray((np.sqrt(self._values) / (self._values + penalty))[:, None])

    def _validated(self, penalty: float) -> float:
        shrink = self._values / (self._values + penalty)
        residual = self._residual - self._left @ (shrink[:, None] * self._turned)
        free = max(1e-9, 1.0 - (1.0 + float(shrink.sum())) / len(residual))
        return float((residual**2).mean()) / free**2


def _nearest(x: Array, asked: Array) -> Array:
    """For each asked row the nearest of `x`, by Euclidean distance."""
    squares = (x**2).sum(axis=1)
    return np.asarray((squares[None] - 2.0 * asked @ x.T).argmin(axis=1))
