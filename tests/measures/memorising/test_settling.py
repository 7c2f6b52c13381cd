"""Where momentum and steps bring running statistics, and statistics that are elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_overfit.adapters.base import RunningStatistics
from pytest_overfit.adapters.running_statistics import moved_statistics
from pytest_overfit.measures.memorising.settling import expected_remaining, follows, hurries, steps_to_settle

CHANNELS = 16


def after(
    steps: int, momentum: float, seed: int, elsewhere: float = 0.0, drift: float = 0.0, calls: int = 1
) -> RunningStatistics:
    """Statistics updated by a batch, by a second domain so many spreads aside, and by a batch that drifts."""
    draw = np.random.default_rng(seed)
    goal = (draw.normal(size=CHANNELS), draw.uniform(0.5, 2.0, CHANNELS))
    aside = draw.normal(size=CHANNELS)
    aside -= (
        goal[0] * (aside @ goal[0]) / (goal[0] @ goal[0])
    )  # a domain that lies on the way there draws nothing aside
    other = goal[0] + elsewhere * aside * CHANNELS**0.5 / np.linalg.norm(aside)
    then = (np.zeros(CHANNELS), np.ones(CHANNELS))
    wander = drift * draw.normal(size=(2, CHANNELS))
    mean, variance = then
    for step in range(steps):
        left = 1.0 - step / steps
        for _ in range(calls):
            mean = mean + momentum * (goal[0] + left * wander[0] - mean)
            variance = variance + momentum * (goal[1] + left * abs(wander[1]) - variance)
        if elsewhere:
            mean = mean + momentum * (other - mean)
            variance = variance + momentum * (goal[1] - variance)
    return moved_statistics("norm", momentum, then, (mean, variance), goal, calls)


@given(seed=st.integers(0, 1000), momentum=st.sampled_from([0.3, 0.1, 0.01, 1e-3, 3e-4]), steps=st.integers(5, 400))
@settings(deadline=None)
def test_a_fixed_batch_is_followed_exactly(seed: int, momentum: float, steps: int) -> None:
    for calls in (1, 2):
        found = after(steps, momentum, seed, calls=calls)
        assert found.remaining == pytest.approx(expected_remaining(found, steps), abs=1e-9)
        assert follows(found, steps)
        assert not hurries(found, steps)


@given(seed=st.integers(0, 1000), momentum=st.sampled_from([0.1, 0.01, 3e-4]))
@settings(deadline=None)
def test_weights_that_move_on_are_allowed_for(seed: int, momentum: float) -> None:
    assert follows(after(60, momentum, seed, drift=0.2), 60)


@given(seed=st.integers(0, 1000), momentum=st.sampled_from([0.1, 0.01, 3e-4]))
@settings(deadline=None)
def test_a_second_domain_draws_the_means_aside(seed: int, momentum: float) -> None:
    found = after(400, momentum, seed, elsewhere=4.0)
    assert not follows(found, 400)
    assert found.stray > 0.5


def test_a_second_domain_shows_by_its_updates_before_the_statistics_have_settled() -> None:
    assert hurries(after(30, 0.01, 0, elsewhere=0.2), 30)


@pytest.mark.parametrize(("momentum", "steps"), [(0.1, 44), (0.01, 459), (3e-4, 15_349)])
def test_steps_to_settle(momentum: float, steps: int) -> None:
    assert steps_to_settle(momentum) == steps


def test_statistics_that_do_not_move_say_so() -> None:
    start = (np.zeros(3), np.ones(3))
    assert moved_statistics("norm", 0.1, start, start, (np.ones(3), np.ones(3)), 1).remaining == 1.0
    assert moved_statistics("norm", 0.1, start, start, start, 1).remaining == 0.0
