"""The same rows on another scale are found with that scale; rows of their own, and single rows rescaled, are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits, load_iris

from pytest_overfit import find_duplicates
from pytest_overfit.duplicates.near.scales import find_rescaled

Change = Callable[[np.ndarray], np.ndarray]
COPIES = 12


def standardised(rows: np.ndarray) -> np.ndarray:
    return (rows - rows.mean(0)) / np.where(rows.std(0) > 0, rows.std(0), 1)


def halves(rows: np.ndarray, copies: int = COPIES) -> tuple[np.ndarray, np.ndarray]:
    """Train and test; the first rows of test are the first of train."""
    rows = rows[np.sort(np.unique(rows.reshape(len(rows), -1), axis=0, return_index=True)[1])]
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    cut = len(rows) // 5
    test, train = rows[:cut].copy(), rows[cut:]
    test[:copies] = train[:copies]
    return train, test


PIXELS = (load_digits().images * 15.9375).astype(np.uint8)
COLOURS = np.stack([PIXELS, PIXELS[:, ::-1], np.roll(PIXELS, 1, 2)], -1)
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
MASKS = (PIXELS > 100).astype(np.uint8)
LEVELS = PIXELS // 64
MIXED = np.random.default_rng(1).normal(size=(900, 4)) * [1, 50, 1e3, 0.1] + [5, 0, -3e3, 7]
MIXED = np.concatenate([MIXED, np.random.default_rng(2).integers(0, 4, (900, 3))], 1)

#: rows, what was done to train, and to test
SCALED: dict[str, tuple[np.ndarray, Change, Change]] = {
    "centred bytes": (PIXELS, lambda x: x, lambda x: (x / 127.5 - 1).astype(np.float32)),
    "centred bytes, flat": (PIXELS.reshape(-1, 64), lambda x: (x / 127.5 - 1).astype(np.float32), lambda x: x),
    "half precision": (PIXELS, lambda x: x, lambda x: (x / 127.5 - 1).astype(np.float16)),
    "masks": (MASKS, lambda x: 255 * x, lambda x: x),
    "masks of floats": (MASKS, lambda x: x, lambda x: 255.0 * x),
    "few grey levels": (LEVELS, lambda x: 85 * x, lambda x: x / 3),
    "one mean and deviation": (PIXELS, lambda x: x / 255, lambda x: (x / 255 - 0.1307) / 0.3081),
    "each by its own mean": (PIXELS, lambda x: (x - x.mean()) / x.std(), lambda x: (x - x.mean()) / x.std()),
    "channels": (COLOURS, lambda x: x, lambda x: ((x / 255 - MEAN) / DEVIATION).astype(np.float32)),
    "channels first": (
        COLOURS,
        lambda x: x.transpose(0, 3, 1, 2),
        lambda x: ((x / 255 - MEAN) / DEVIATION).transpose(0, 3, 1, 2),
    ),
    "standardised train": (load_breast_cancer().data, standardised, lambda x: x),
    "standardised test": (load_breast_cancer().data, lambda x: x, standardised),
    "standardised each by itself": (load_breast_cancer().data, standardised, standardised),
    "few columns": (load_iris().data, standardised, lambda x: x),
    "columns of whole numbers too": (MIXED, standardised, lambda x: x),
    "to the unit interval": (MIXED, lambda x: (x - x.min(0)) / np.ptp(x, axis=0), lambda x: x),
}


def answer(train: np.ndarray, test: np.ndarray) -> tuple[set[int], list[str]]:
    found = find_duplicates(train=train, test=test, near=False, windows=False)
    exact = {each["i"]: each["j"] for each in found.pairs if each["kind"] == "exact"}
    assert all(exact[row] == row for row in exact if row < COPIES)
    told = [each.message for each in found.judgement.findings if each.name == "scale_differs"]
    assert found.clean("test") == [row for row in range(len(test)) if row not in exact]
    return set(exact), told


@pytest.mark.parametrize(("rows", "of_train", "of_test"), SCALED.values(), ids=SCALED)
def test_copies_on_another_scale_are_found(rows: np.ndarray, of_train: Change, of_test: Change) -> None:
    train, test = halves(rows)
    found, told = answer(of_train(train), of_test(test))
    assert found == set(range(COPIES))
    assert len(told) == 1
    assert f"in {COPIES} rows" in told[0]
    clean, told = answer(of_train(train), of_test(test)[COPIES:])
    assert clean == set()
    assert all("none was found" in each for each in told)


OWN: dict[str, Callable[[np.random.Generator], tuple[Any, Any]]] = {
    "another half of the range": lambda r: (r.integers(0, 10, (800, 5)), r.integers(0, 5, (200, 5))),
    "fewer levels": lambda r: (r.integers(0, 4, (1200, 8)), r.integers(0, 2, (300, 8))),
    "wider": lambda r: (r.normal(size=(800, 8)), 3 * r.normal(size=(200, 8)) + 1),
    "one column wider": lambda r: (r.normal(size=(800, 2)), r.normal(size=(200, 2)) * [3, 1]),
    "binary": lambda r: (r.random((800, 30)) < 0.5, r.random((200, 30)) < 0.1),
}


@pytest.mark.parametrize("make", OWN.values(), ids=OWN)
def test_rows_of_another_spread_are_on_no_other_scale(make: Callable[[np.random.Generator], tuple[Any, Any]]) -> None:
    for seed in range(5):
        train, test = make(np.random.default_rng(seed))
        assert find_rescaled(test.astype(float), train.astype(float)) is None


def test_pictures_each_of_its_own_brightness_are_no_copies() -> None:
    random = np.random.default_rng(0)
    train, test = halves(PIXELS, 0)
    test = test * random.uniform(0.3, 0.6, (len(test), 1, 1))
    assert answer(train, test)[0] == set()
    test[:COPIES] = train[:COPIES] * random.uniform(0.3, 0.6, (COPIES, 1, 1))
    assert len(answer(train, test)[0]) <= 1


def test_rows_of_one_level_are_left_out_and_equal_rows_on_one_scale_stay() -> None:
    train, test = halves(MASKS)
    train[50], test[50] = 1, 1
    assert find_rescaled(test, train) is None
    assert answer(255 * train, test)[0] == set(range(COPIES))
    empty = range(51, 51 + 2 * COPIES)
    test[list(empty)], train[100] = 0, 0
    found = find_duplicates(train=255 * train, test=test, near=False, windows=False)
    assert {each["i"] for each in found.pairs} == {*range(COPIES), *empty}
