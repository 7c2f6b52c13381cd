"""Curves that lead to the goal, and curves that only seem to."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_overfit.measures.memorising.trend import HORIZON, TRICKLE, WINDOW, trend

STEPS = list(range(25, 501, 25))
GOAL = 0.05


@given(rate=st.floats(0.0005, 0.005))
@settings(deadline=None)
def test_a_steady_fall_reaches_the_goal_where_it_does(rate: float) -> None:
    found = trend(STEPS, [math.exp(-rate * step) for step in STEPS], GOAL)
    assert found.still_falling
    true = math.log(1 / GOAL) / rate
    assert found.reaches_goal_at is not None
    assert abs(found.reaches_goal_at - max(500, true)) <= 0.02 * true + 1


@given(plateau=st.floats(0.3, 1.2), speed=st.floats(0.025, 0.1))
@settings(deadline=None)
def test_a_fall_to_a_plateau_is_no_fall_to_the_goal(plateau: float, speed: float) -> None:
    found = trend(STEPS, [plateau + (1.5 - plateau) * math.exp(-speed * step) for step in STEPS], GOAL)
    assert not found.still_falling


@pytest.mark.parametrize("noise", [0.001, 0.03, 0.2])
def test_noise_around_a_level_is_seldom_a_fall(noise: float) -> None:
    """A true rate of 1 %: of 1,000 curves, more than 20 would be seen once in a thousand times."""
    draw = random.Random(1)
    found = [trend(STEPS, [math.exp(draw.gauss(-0.5, noise)) for _ in STEPS], GOAL).still_falling for _ in range(1000)]
    assert sum(found) <= 20


@pytest.mark.parametrize(("fall", "noise"), [(0.1, 0.014), (0.3, 0.04), (0.6, 0.08)])
def test_a_fall_under_noise_seldom_seems_to_stand(fall: float, noise: float) -> None:
    draw, rate = random.Random(2), fall / (WINDOW * 500)
    curves = ([math.exp(draw.gauss(-rate * step, noise)) for step in STEPS] for _ in range(1000))
    assert sum(not trend(STEPS, each, GOAL).still_falling for each in curves) <= 50


def test_a_rise_is_no_fall() -> None:
    assert not trend(STEPS, [1 + step / 500 for step in STEPS], GOAL).still_falling


def test_a_slow_fall_is_never_said_to_stand_still() -> None:
    rate = 2 * TRICKLE / (WINDOW * 500)
    assert trend(STEPS, [math.exp(-rate * step) for step in STEPS], GOAL).still_falling


def test_beyond_the_horizon_a_trickle_stands_still() -> None:
    rate = TRICKLE / (2 * WINDOW * 500)
    assert math.log(1 / GOAL) / rate > HORIZON * 500
    found = trend(STEPS, [math.exp(-rate * step) for step in STEPS], GOAL)
    assert found.significant
    assert not found.still_falling


@given(steps=st.integers(2, 60), points=st.integers(2, 30))
@settings(deadline=None)
def test_a_short_steady_fall_is_a_fall(steps: int, points: int) -> None:
    at = sorted({max(1, round(steps * each / points)) for each in range(1, points + 1)} | {0})
    found = trend(at, [math.exp(-2 * step / steps) for step in at], GOAL)
    assert found.still_falling
    assert found.reaches_goal_at is not None


def test_a_short_level_is_no_fall() -> None:
    assert not trend([0, 1, 2], [1.0, 1.0, 1.0], GOAL).still_falling
    assert not trend([0, 1, 2], [1.0, 0.5, 0.9], GOAL).still_falling


def test_too_few_points_say_nothing() -> None:
    assert not trend([5], [1.0], GOAL).still_falling
    assert not trend([], [], GOAL).still_falling
    assert not trend(STEPS, [math.nan] * len(STEPS), GOAL).still_falling
