"""The paired comparison: its answers, its quantiles, and how often it is wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pytest_overfit.measures.paired import LOOKS, looks, paired
from pytest_overfit.measures.student import two_sided, within


@given(alpha=st.floats(1e-6, 0.9), freedom=st.integers(1, 200))
@settings(deadline=None)
def test_quantiles_are_students(alpha: float, freedom: int) -> None:
    assert two_sided(alpha, freedom) == pytest.approx(stats.t.ppf(1 - alpha / 2, freedom), rel=1e-9)


@given(t=st.floats(0, 1e4), freedom=st.integers(1, 200))
@settings(deadline=None)
def test_probabilities_are_students(t: float, freedom: int) -> None:
    assert within(t, freedom) == pytest.approx(1 - 2 * stats.t.sf(t, freedom), abs=1e-12)


@given(most=st.integers(2, 100), alpha=st.floats(0.001, 0.4))
def test_parts_of_alpha_add_up_and_the_last_look_is_the_last_pair(most: int, alpha: float) -> None:
    made = list(looks(most, alpha))
    assert sum(part for _, part in made) == pytest.approx(alpha)
    assert all(part > 0 for _, part in made)
    assert made[-1][0] == most
    assert {pairs for pairs, _ in made[:-1]} == {each for each in LOOKS if each < most}


NUMBERS = st.lists(st.floats(-1, 1), min_size=1, max_size=16)


@given(differences=NUMBERS, margin=st.floats(0.001, 1))
@settings(deadline=None)
def test_turning_every_sign_turns_the_answer(differences: list[float], margin: float) -> None:
    one, other = paired(differences, margin), paired([-each for each in differences], margin)
    turned = {"helps": "harms", "harms": "helps"}
    assert other.outcome == turned.get(one.outcome, one.outcome)
    assert (other.low, other.high) == (-one.high, -one.low)


@given(differences=NUMBERS, margin=st.floats(0.001, 1))
@settings(deadline=None)
def test_an_answer_is_what_its_interval_says(differences: list[float], margin: float) -> None:
    found = paired(differences, margin)
    if found.outcome in ("helps", "harms"):
        assert found.low > 0 or found.high < 0 or found.low == found.high
        assert abs(found.mean) >= margin
    if found.outcome == "no measurable effect":
        assert abs(found.mean) < margin
    if found.decided:
        assert paired([*differences[: found.pairs]], margin) == found  # later pairs do not change an answer


def test_the_first_look_is_after_four_pairs() -> None:
    assert paired([0.1, 0.1001, 0.0999], 0.01).outcome == "undecided"
    assert paired([0.1, 0.1001, 0.0999, 0.1], 0.01).outcome == "helps"


def test_scores_that_repeat_exactly_are_judged_by_their_resolution() -> None:
    assert paired([0.0] * 4, 0.01, resolution=1 / 500).outcome == "no measurable effect"
    assert paired([0.0] * 16, 0.01, resolution=1 / 10).outcome == "undecided"


@pytest.mark.parametrize(
    "given",
    [
        ([math.nan], 0.1, 0.05, 16),
        ([0.1], 0.0, 0.05, 16),
        ([0.1], 0.1, 0.0, 16),
        ([0.1], 0.1, 0.05, 1),
        ([0.1] * 5, 0.1, 0.05, 4),
    ],
)
def test_numbers_that_cannot_be_used_are_refused(given: tuple[list[float], float, float, int]) -> None:
    with pytest.raises(ValueError, match=r"finite|wanted"):
        paired(*given)


NOISE = {
    "normal": lambda random, size: random.normal(size=size),
    "t with 3 degrees of freedom": lambda random, size: random.standard_t(3, size=size) / math.sqrt(3),
    "a tenth of the pairs 5 times as noisy": lambda random, size: (
        random.normal(size=size) * np.where(random.random(size) < 0.1, 5, 1) / math.sqrt(3.4)
    ),
    "a few rows of a small split": lambda random, size: random.integers(-2, 3, size=size) / math.sqrt(2),
}


@pytest.mark.parametrize("noise", sorted(NOISE))
@pytest.mark.parametrize("spread", [0.5, 2.0])
def test_at_most_one_answer_in_twenty_is_wrong(noise: str, spread: float) -> None:
    """2,000 runs a cell; `benchmarks/sequential.py` has more, and the cells where it does not hold."""
    random = np.random.default_rng(1)
    drawn = NOISE[noise](random, (2000, 16)) * spread
    found = [paired(each.tolist(), 1.0).outcome for each in drawn]
    assert sum(each in ("helps", "harms") for each in found) <= 0.05 * 2000
    found = [paired((each + 1.0).tolist(), 1.0).outcome for each in drawn]
    assert sum(each in ("harms", "no measurable effect") for each in found) <= 0.05 * 2000
