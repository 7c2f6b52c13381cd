"""Paired comparisons that stop as soon as they know: boundaries, answers, refusals, error rates."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pytest_overfit.measures.paired import FIRST_LOOK, MOST, Comparison, looks, needed, paired
from pytest_overfit.measures.t_walk import boundaries, spent

FAST = settings(deadline=None, max_examples=60)
NUMBERS = st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=FIRST_LOOK, max_size=MOST)


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    path = Path(__file__).parent.parent / "benchmarks" / "error_rates" / "sequential.py"
    spec = importlib.util.spec_from_file_location("sequential", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["sequential"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def noisy(mean: float, sd: float, count: int = 16, seed: int = 0) -> list[float]:
    values = np.random.default_rng(seed).normal(size=count)
    values = (values - values.mean()) / values.std()
    return [float(each) for each in mean + sd * values]


# ---------------------------------------------------------------------------------------------------------- boundaries


@pytest.mark.parametrize(("count", "alpha"), [(3, 0.05), (10, 0.05), (16, 0.05), (30, 0.01), (12, 0.0005)])
def test_the_boundary_of_one_look_is_student_s_quantile(count: int, alpha: float) -> None:
    assert boundaries((count,), alpha)[0] == pytest.approx(stats.t.isf(alpha / 2, count - 1), rel=1e-3)


@pytest.mark.parametrize("at", [(10, 13, 16), tuple(range(4, 13))])
def test_a_walk_without_a_mean_crosses_as_often_as_is_spent(at: tuple[int, ...]) -> None:
    runs = 100_000
    x = np.random.default_rng(0).normal(size=(runs, at[-1]))
    crossed = np.zeros(runs, bool)
    for k, boundary in zip(at, boundaries(at, 0.05), strict=True):
        crossed |= np.abs(x[:, :k].mean(1)) > boundary * x[:, :k].std(1, ddof=1) / math.sqrt(k)
        due = spent(k / at[-1], 0.05)
        assert crossed.mean() == pytest.approx(due, abs=4 * math.sqrt(due / runs))


def test_boundaries_of_a_normal_walk_would_let_too_much_through(benchmark: ModuleType) -> None:
    """What the exact computation is for: the same check finds the usual shortcut wrong."""
    at = (10, 13, 16)
    x = np.random.default_rng(0).normal(size=(20_000, 16))
    crossed = np.zeros(len(x), bool)
    for k, boundary in zip(at, benchmark.normal_boundaries(at), strict=True):
        crossed |= np.abs(x[:, :k].mean(1)) > boundary * x[:, :k].std(1, ddof=1) / math.sqrt(k)
    assert crossed.mean() > 0.07


def test_all_of_alpha_is_spent_at_the_end_and_little_before() -> None:
    assert spent(1.0, 0.05) == pytest.approx(0.05)
    assert spent(0.25, 0.05) == pytest.approx(0.05 / 8)


def test_a_look_that_comes_too_early_decides_nothing() -> None:
    """Of so small an alpha the first look of a long comparison has less than can be computed."""
    assert boundaries(looks(100), 1e-6)[0] == math.inf
    assert paired([1.0] * 10, margin=0.1, alpha=1e-6, most=100).outcome == "undecided"


def test_looks() -> None:
    assert looks(10) == (10,)
    assert looks(12) == (10, 12)
    assert looks(16) == (10, 13, 16)
    assert looks(18) == (10, 13, 16, 18)


# ------------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("differences", "outcome", "seeds"),
    [
        (noisy(0.04, 0.01), "helps", 16),
        (noisy(-0.04, 0.01), "harms", 16),
        (noisy(0.0, 0.01), "no measurable effect", 16),
        (noisy(0.005, 0.002), "no measurable effect", 16),  # above 0 beyond doubt, and too small to matter
        (noisy(0.02, 0.01), "helps", 16),  # at the margin itself there is an answer too
        (noisy(0.0, 0.1), "undecided", 16),
        (noisy(0.0, 0.1, count=MOST), "inconclusive", MOST),
        (noisy(0.0, 0.1, count=13), "undecided", 13),
        (noisy(0.04, 0.01, count=10), "helps", 10),
        (noisy(0.04, 0.01, count=9), "undecided", 9),
    ],
)
def test_answers(differences: list[float], outcome: str, seeds: int) -> None:
    found = paired(differences, margin=0.02)
    assert (found.outcome, found.seeds) == (outcome, seeds)
    assert found.decided == (outcome in ("helps", "harms", "no measurable effect"))
    assert found.low < found.mean < found.high


def test_there_is_no_interval_before_the_first_look() -> None:
    found = paired([0.5, 0.7], margin=0.01)
    assert found == Comparison("undecided", 0.6, -math.inf, math.inf, 2, FIRST_LOOK)


def test_between_looks_the_last_look_counts() -> None:
    values = noisy(0.0, 0.1)
    assert paired(values[:12], margin=0.02) == paired(values[:10], margin=0.02)
    assert paired(values[:12], margin=0.02).next_look == 13
    assert paired(values[:13], margin=0.02) != paired(values[:10], margin=0.02)


def test_differences_that_are_all_zero() -> None:
    found = paired([0.0] * 10, margin=0.02)
    assert found.outcome == "no measurable effect"
    assert found.high == -found.low == pytest.approx(math.log(20) / 10 * 0.02)


@pytest.mark.parametrize("value", [0.04, -0.04, 1e200, 1e-300])
def test_differences_that_are_all_the_same(value: float) -> None:
    found = paired([value] * 10, margin=abs(value) / 2)
    assert found.outcome == ("helps" if value > 0 else "harms")


def test_a_long_tail_widens_its_own_side_only() -> None:
    tail = [*noisy(0.0, 0.01, count=15), 0.2]
    found = paired(tail, margin=0.02, most=16)
    mirrored = paired([-each for each in tail], margin=0.02, most=16)
    t = boundaries(looks(16), 0.05)[-1] * np.std(tail, ddof=1) / 4
    assert found.mean - found.low == pytest.approx(t)
    assert found.high - found.mean > 2 * t
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


def test_fewer_wrong_answers_cost_a_wider_interval() -> None:
    values = noisy(0.01, 0.02)
    widths = [found.high - found.low for found in (paired(values, 0.02, alpha) for alpha in (0.2, 0.05, 0.01))]
    assert widths == sorted(widths)


@FAST
@given(NUMBERS, st.floats(0.001, 1))
def test_the_other_arm_has_the_mirrored_answer(differences: list[float], margin: float) -> None:
    other = {"helps": "harms", "harms": "helps"}
    found, back = paired(differences, margin), paired([-each for each in differences], margin)
    assert back.outcome == other.get(found.outcome, found.outcome)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))


@FAST
@given(NUMBERS, st.floats(0.001, 1), st.integers(-40, 40))
def test_the_unit_of_the_score_does_not_matter(differences: list[float], margin: float, power: int) -> None:
    found = paired(differences, margin)
    scaled = paired([each * 2.0**power for each in differences], margin * 2.0**power)
    assert scaled.outcome == found.outcome
    assert (scaled.low, scaled.high) == pytest.approx((found.low * 2.0**power, found.high * 2.0**power), rel=1e-9)


@FAST
@given(NUMBERS, st.floats(0.001, 1))
def test_the_answer_is_what_the_interval_says(differences: list[float], margin: float) -> None:
    found = paired(differences, margin)
    inside = -margin < found.low and found.high < margin
    assert found.low <= found.mean <= found.high
    assert (found.outcome == "no measurable effect") == inside
    assert (found.outcome == "helps") == (not inside and found.low > 0)
    assert (found.outcome == "harms") == (not inside and found.high < 0)


# ----------------------------------------------------------------------------------------------------- how many seeds


def test_seeds_that_an_undecided_comparison_needs() -> None:
    values = noisy(0.0, 0.05)
    found = paired(values, margin=0.02, most=16)
    assert found.outcome == "inconclusive"
    more = needed(found, 0.02)
    assert more is not None
    assert 25 < more < 120
    again = noisy(0.0, 0.05, count=2 * more)
    assert paired(again, margin=0.02, most=2 * more).outcome == "no measurable effect"


def test_seeds_that_a_decided_comparison_and_none_at_all_need() -> None:
    assert needed(paired([0.0] * 10, 0.02), 0.02) == 10
    assert needed(paired([0.0] * 5, 0.02), 0.02) is None


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("differences", "more", "words"),
    [
        ([], {}, r"0 differences, but wanted are 2 to 40"),
        ([0.1], {}, r"1 differences, but wanted are 2 to 40"),
        ([0.1] * 17, {"most": 16}, r"17 differences, but wanted are 2 to 16 \(most=16\)"),
        ([0.1, math.nan], {}, r"difference 1 is nan, but wanted are finite numbers"),
        ([-math.inf, 0.1], {}, r"difference 0 is -inf"),
        ([0.1, 0.2], {"margin": 0.0}, r"margin=0\.0, but wanted is the least difference that matters"),
        ([0.1, 0.2], {"margin": -1.0}, r"margin=-1\.0"),
        ([0.1, 0.2], {"margin": math.nan}, r"margin=nan"),
        ([0.1, 0.2], {"alpha": 0.0}, r"alpha=0\.0, but wanted is .* between 0 and 1"),
        ([0.1, 0.2], {"alpha": 1.0}, r"alpha=1\.0"),
        ([0.1, 0.2], {"most": 9}, r"most=9, but wanted is a number of seeds, at least 10"),
    ],
)
def test_refusals(differences: Sequence[float], more: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        paired(differences, **{"margin": 0.02, **more})  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------------------- error rates


def test_the_simulation_asks_what_paired_answers(benchmark: ModuleType) -> None:
    names = {
        benchmark.HELPS: "helps",
        benchmark.HARMS: "harms",
        benchmark.NO_EFFECT: "no measurable effect",
        benchmark.OPEN: "inconclusive",
    }
    seen = set()
    for number, noise in enumerate(benchmark.NOISE.values()):
        x = noise(np.random.default_rng(number), (40, MOST)) + (number % 3 - 1)
        for row, said, seeds, low, high in zip(x, *benchmark.Rule().answers(x), strict=True):
            for count in range(FIRST_LOOK, MOST + 1):
                found = paired(list(row[:count]), margin=1.0)
                if found.outcome != "undecided":
                    break
            assert (found.outcome, found.seeds) == (names[said], seeds)
            assert (found.low, found.high) == pytest.approx((low, high))
            seen.add(found.outcome)
    assert seen == set(names.values())


def test_a_t_test_after_each_seed_is_wrong_one_time_in_five(benchmark: ModuleType) -> None:
    x = np.random.default_rng(0).normal(size=(4_000, 16))
    stopped = np.zeros(len(x), bool)
    for k in range(3, 17):
        stopped |= np.abs(stats.ttest_1samp(x[:, :k], 0, axis=1).statistic) > stats.t.isf(0.025, k - 1)
    said, *_ = benchmark.Rule().answers(5 * x)
    assert stopped.mean() > 0.18
    assert benchmark.wrong(said, 0.0) <= 0.045


def test_the_check_would_see_a_rule_that_is_wrong_too_often(benchmark: ModuleType) -> None:
    """The rule without what it does about skewness, and with looks from the fourth seed on."""
    careless = benchmark.Rule(looks=tuple(range(4, 17)), skew=0.0)
    assert benchmark.worst(benchmark.NOISE["exponential"], 2.0, careless, runs=2_000)[0] > 0.09
    assert benchmark.worst(benchmark.NOISE["two values, 50:50"], 5.0, careless, runs=2_000)[0] > 0.08


def test_a_clear_effect_is_found(benchmark: ModuleType) -> None:
    x = np.random.default_rng(0).normal(size=(1_000, 16))
    said, seeds, *_ = benchmark.Rule().answers(2 + x)
    assert np.mean(said == benchmark.HELPS) > 0.99
    assert seeds.mean() < 12
    said, *_ = benchmark.Rule().answers(0.5 * x)
    assert np.mean(said == benchmark.NO_EFFECT) > 0.97


@pytest.mark.slow
def test_at_most_one_answer_in_twenty_is_wrong(benchmark: ModuleType) -> None:
    """Normal, heavy-tailed, skewed and discrete differences, 0.25 to 5 margins wide; 20,000 comparisons a cell."""
    rates = {
        (name, sd): benchmark.worst(noise, sd, benchmark.Rule(), seed=1)
        for name, noise in benchmark.NOISE.items()
        for sd in (0.25, 0.5, 1.0, 2.0, 5.0)
    }
    assert {cell: rate for cell, rate in rates.items() if rate[0] > 0.05} == {}
    assert {cell: rate for cell, rate in rates.items() if rate[1] < 0.95} == {}
    assert benchmark.accuracies() <= 0.05
