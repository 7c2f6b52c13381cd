"""Windows of one series in two splits, groups in two splits, and time order."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_overfit.duplicates.near import find_windows, out_of_order, shared_groups
from pytest_overfit.duplicates.near.windows import WindowPair


def windows(series: np.ndarray, length: int, stride: int = 1) -> np.ndarray:
    """(n, length) or (n, length, channels)."""
    cut = np.lib.stride_tricks.sliding_window_view(series, length, axis=0)[::stride]
    return cut if series.ndim == 1 else cut.transpose(0, 2, 1)


def walk(count: int, seed: int = 0, channels: int = 0) -> np.ndarray:
    return np.cumsum(np.random.default_rng(seed).normal(size=(count, channels) if channels else count), axis=0)


def cut_at_random(rows: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(seed).permutation(len(rows))
    return rows[order[: len(rows) // 5]], rows[order[len(rows) // 5 :]]


SERIES = {
    "floats": walk(3_000),
    "channels": walk(3_000, channels=3),
    "float32": walk(3_000).astype(np.float32),
    "prices in cents": np.round(walk(3_000), 2),
    "counts": np.random.default_rng(0).poisson(3, 3_000),
    "rain, of which half is zero": np.where(
        np.random.default_rng(2).random(3_000) < 0.5, 0.0, np.random.default_rng(3).gamma(1.0, 3.0, 3_000)
    ),
    "counts with holes": np.where(np.random.default_rng(1).random(3_000) < 0.02, np.nan, walk(3_000)),
}


@pytest.mark.parametrize("series", SERIES.values(), ids=SERIES)
@pytest.mark.parametrize("stride", [1, 5])
def test_windows_cut_at_random_are_found_and_cut_in_time_are_not(series: np.ndarray, stride: int) -> None:
    rows = windows(series, 40, stride)
    small, large = cut_at_random(rows)
    random = find_windows(small, large)
    assert random.testable, random.why
    assert random.share > 0.95
    assert random.stride == stride
    at = 4 * len(rows) // 5
    border = 39 // stride
    assert find_windows(rows[at + border :], rows[:at]).share == 0
    beside = find_windows(rows[at:], rows[:at])
    assert beside.rows == tuple(range(border))
    assert {pair.i: pair.overlap for pair in beside.pairs} == {i: 40 - stride * (i + 1) for i in range(border)}
    order = np.random.default_rng(0).permutation(len(rows) - at)
    assert sorted(order[list(find_windows(rows[at:][order], rows[:at]).rows)]) == list(range(border))


def test_a_row_between_two_cuts_is_known_from_both_sides() -> None:
    rows = windows(walk(400), 24)
    within = find_windows(rows[150:200], np.concatenate([rows[:150], rows[200:]]))
    assert within.rows == (*range(23), *range(27, 50))


def test_equal_rows_are_copies_and_no_windows() -> None:
    rows = np.random.default_rng(0).normal(size=(300, 20))
    assert find_windows(rows[:60], rows).rows == ()
    holes = np.where(np.random.default_rng(1).random(rows.shape) < 0.1, np.nan, rows)
    holes[5] = np.nan
    assert find_windows(holes[:60], holes).rows == ()


def test_the_pairs_say_where() -> None:
    series = walk(500)
    found = find_windows(series[None, 100:150], np.stack([series[300:350], series[120:170]]))
    assert found.pairs == (WindowPair(0, 1, -20, 30),)
    assert found.rows == (0,)


def test_float32_copies_of_float64_windows_are_found() -> None:
    small, large = cut_at_random(windows(walk(2_000), 30))
    assert find_windows(small.astype(np.float32), large).share > 0.98


INDEPENDENT = {
    "floats": lambda random: random.normal(size=(800, 40)),
    "counts": lambda random: random.poisson(2, (800, 40)),
    "binary": lambda random: random.integers(0, 2, (800, 40)),
    "bool": lambda random: random.random((800, 40)) < 0.1,
    "mostly zero": lambda random: np.where(random.random((800, 40)) < 0.9, 0, random.integers(1, 4, (800, 40))),
    "steps": lambda random: np.repeat(random.integers(0, 5, (800, 8)), 5, axis=1),
    "short": lambda random: random.integers(0, 9, (800, 5)),
    "one season": lambda random: np.sin(np.arange(40) / 3) + random.integers(0, 3, (800, 1)),
    "straight": lambda random: np.arange(40) + random.integers(0, 50, (800, 1)),
}


@pytest.mark.parametrize("make", INDEPENDENT.values(), ids=INDEPENDENT)
@pytest.mark.parametrize("seed", range(3))
def test_rows_of_their_own_do_not_overlap(make, seed: int) -> None:
    small, large = cut_at_random(make(np.random.default_rng(seed)))
    found = find_windows(small, large)
    if found.testable:
        assert found.rows == ()


def test_periodic_and_constant_series_are_not_testable() -> None:
    for series in (np.sin(np.arange(2_000) * 2 * np.pi / 24).round(6), np.ones(2_000), np.arange(2_000) % 7):
        found = find_windows(*cut_at_random(windows(series, 60)))
        assert not found.testable
        assert "repeat" in found.why


@pytest.mark.parametrize(
    ("small", "large", "why"),
    [
        (np.ones((0, 9)), np.ones((9, 9)), "no rows"),
        (np.ones((5, 3)), np.ones((9, 3)), "4 or more"),
        (np.ones((5, 8)), np.ones((9, 9)), "equal length"),
        (np.ones((5, 8, 2)), np.ones((9, 8, 3)), "channels"),
    ],
)
def test_what_has_no_windows_is_not_testable(small, large, why) -> None:
    found = find_windows(small, large)
    assert not found.testable
    assert why in found.why


def test_wrong_input_is_named() -> None:
    with pytest.raises(TypeError, match="numbers"):
        find_windows(np.array([["a"]]), np.array([["b"]]))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), length=st.integers(10, 40), offset=st.integers(-39, 39))
def test_every_overlap_is_a_real_one(seed: int, length: int, offset: int) -> None:
    series = walk(400, seed)
    there = 150 + offset
    found = find_windows(series[None, 150 : 150 + length], np.stack([series[there : there + length], -series[:length]]))
    overlap = length - abs(offset)
    if found.rows:
        assert found.pairs == (WindowPair(0, 0, -offset, overlap),)
    assert bool(found.rows) == (offset != 0 and overlap >= found.info["least_overlap"])


def test_shared_groups() -> None:
    groups = shared_groups(np.array(["b", "a", "b", "", "d"]), ["c", "b", None, "b", "d"])
    assert [(each.value, each.small, each.large) for each in groups.shared] == [
        ("b", (0, 2), (1, 3)),
        ("d", (4,), (4,)),
    ]
    assert groups.rows == (0, 2, 4)
    assert (groups.small, groups.large, groups.missing) == (3, 3, 2)
    assert shared_groups([1, 2.0, float("nan")], np.array([1.0, np.nan])).rows == (0,)
    assert shared_groups([[1, "x"]], [(1, "x"), (1, "y")]).rows == (0,)
    assert shared_groups([1, 2], [3]).shared == ()
    assert shared_groups([], []).shared == ()


DAY = datetime.timedelta(days=1)


@pytest.mark.parametrize(
    ("small", "large", "gap", "rows"),
    [
        ([5, 6], [1, 4], 0, ()),
        ([4, 6], [1, 4], 0, (0,)),
        ([6, 5], [1, 4], 2, (1, 0)),
        ([5.0, float("nan")], [1.0], 9, (0,)),
        (["2024-01-03", "2024-01-09"], ["2024-01-02"], DAY, (0,)),
        (["2024-01-03", "2024-01-09"], ["2024-01-02"], 0.5, ()),
        (np.array(["2024-01-03", "NaT"], "M8[D]"), [datetime.date(2024, 1, 2)], 1, (0,)),
        ([datetime.datetime(2024, 1, 3, 1, tzinfo=datetime.timezone(2 * DAY / 24))], ["2024-01-02T23:00:00Z"], 0, (0,)),
        ([], [1], 0, ()),
        ([None], [1], 0, ()),
    ],
)
def test_rows_that_are_too_early(small, large, gap, rows) -> None:
    assert out_of_order(small, large, gap).rows == rows


def test_splits_in_the_wrong_order_are_told() -> None:
    assert out_of_order([1, 2], [3, 4]).reversed
    assert not out_of_order([1, 4], [3, 4]).reversed
    assert out_of_order([1, 9], [3, 4]).share == 0.5


@pytest.mark.parametrize(
    ("small", "large", "gap", "message"),
    [
        (["2024-01-03"], [1], 0, "one kind"),
        (["soon"], ["2024-01-03"], 0, "ISO 8601"),
        ([1j], [1], 0, "numbers or dates"),
        ([1], [1], DAY, "in their unit"),
    ],
)
def test_times_that_are_none(small, large, gap, message) -> None:
    with pytest.raises(TypeError, match=message):
        out_of_order(small, large, gap)
