"""Scores that still rise, and scores that stand: what a run's last points say about where it leads."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from pytest_overfit.measures.memorising.extension import MORE_STEPS, MOST_STEPS, Extension
from pytest_overfit.measures.memorising.progress import FitProgress, Point
from pytest_overfit.measures.predictions.agreement import Agreement, Measure
from pytest_overfit.measures.reference_losses.reference import SCORE_ALONE, Reference
from pytest_overfit.probes.overfit_batch import OverfitBatchLimits

BETWEEN = Reference(constant=1.0, best=0.0, how="")
ALONE = Reference(constant=None, best=None, how=SCORE_ALONE)

#: token accuracy of a small T5, and its loss ratio: it fitted at step 530
TOKENS = [0.947] * 12
RATIOS = [0.057, 0.053, 0.048, 0.051, 0.049, 0.048, 0.047, 0.045, 0.044, 0.045, 0.047, 0.044]


def progress(
    scores: Sequence[float], ratios: Sequence[float] | None = None, measure: Measure = "token_accuracy", every: int = 25
) -> FitProgress:
    ratios = ratios or [0.01] * len(scores)
    first = 500 - every * (len(scores) - 1)
    points = [
        Point(step=first + every * number, loss=ratio, agreements=(Agreement(measure=measure, value=score, best=1.0),))
        for number, (score, ratio) in enumerate(zip(scores, ratios, strict=True))
    ]
    return FitProgress(points, ALONE if measure == "score" else BETWEEN, OverfitBatchLimits())


def still(found: FitProgress) -> bool:
    return all(each.still_falling for each in found.trends())


def test_a_score_that_rises_to_its_limit_is_projected_there() -> None:
    rising = [0.844, 0.852, 0.861, 0.868, 0.877, 0.896, 0.901, 0.904, 0.913, 0.929, 0.938, 0.936, 0.949]
    found = progress(rising, measure="score")
    assert still(found)
    assert 500 <= (found.fits_by() or 0) <= 600


def test_where_the_score_alone_decides_no_loss_is_waited_for() -> None:
    assert len(progress([0.5] * 12, measure="score").trends()) == 1


@pytest.mark.parametrize("level", [0.0, 0.3, 0.9])
def test_a_score_that_stands_does_not_rise(level: float) -> None:
    assert not still(progress([level] * 12, measure="score"))


def test_a_score_that_swings_does_not_rise() -> None:
    swinging = [0.458, 0.542, 0.542, 0.500, 0.417, 0.500, 0.500, 0.500, 0.458, 0.583, 0.500, 0.542]
    assert not still(progress(swinging, measure="near_rows"))


def test_a_share_that_rests_near_its_limit_while_the_loss_still_falls_is_on_its_way() -> None:
    assert still(progress(TOKENS, RATIOS))


def test_a_share_that_rests_far_off_stands_whatever_the_loss_does() -> None:
    assert not still(progress([0.5] * 12, RATIOS))


def test_a_share_that_rests_while_the_loss_has_nothing_left_to_gain_stands() -> None:
    assert not still(progress([0.94] * 12, [0.004 * 0.8**number for number in range(12)]))


def test_one_row_more_is_a_rise() -> None:
    assert still(progress([0.875] * 9 + [0.9375] * 3, measure="accuracy"))


def test_near_is_within_twice_what_the_limits_allow() -> None:
    assert progress(TOKENS, RATIOS).is_near()
    assert progress([0.91] * 12, [0.09] * 12).is_near()
    assert not progress([0.89] * 12, [0.04] * 12).is_near()
    assert not progress([0.95] * 12, [0.11] * 12).is_near()


class TestExtension:
    """Loss curves whose score is right all along."""

    def end(self, ratio_at: object, most: int = 10_000) -> int:
        """How far a run with such a curve goes."""
        extension, done, more = Extension(), 0, 500
        while more and done < most:
            done += more
            more = extension.steps(lambda window: self.progress(ratio_at, done, window))  # noqa: B023
        return done

    def progress(self, ratio_at: object, done: int, window: float) -> FitProgress:
        score = (Agreement(measure="accuracy", value=1.0, best=1.0),)
        points = [
            Point(step=step, loss=ratio_at(step), agreements=score)  # type: ignore[operator]
            for step in range(25, done + 1, 25)
        ]
        return FitProgress(points, BETWEEN, OverfitBatchLimits(), window)

    @pytest.mark.parametrize("needed", [1200, 2000, 3000])
    @pytest.mark.parametrize("exponent", [0.8, 1.0, 1.5])
    def test_a_power_of_the_steps_is_followed_to_its_goal(self, needed: int, exponent: float) -> None:
        assert self.end(lambda step: 0.05 * (needed / step) ** exponent) >= needed

    @pytest.mark.parametrize("needed", [1200, 2000, 3000])
    def test_an_even_fall_is_followed_to_its_goal(self, needed: int) -> None:
        assert self.end(lambda step: 0.9 * (0.05 / 0.9) ** (step / needed)) >= needed

    @pytest.mark.parametrize(
        ("projections", "end"),
        [
            ([1156, 2334, 2242, 2485, 1771, 1934, 2122], 2250),  # autoencoders, read at 500, 750, ...
            ([1358, 2187, 1822, 2893, 2179, 2081, 2357], 2250),
            ([1105, 2700, 2600, 2600], 750),  # further off than the steps explain
            ([1100, 1400, 3000, 3000], 1000),
            ([1200, 4100], 750),
            ([1200, None], 750),
        ],
    )
    def test_projections_may_grow_as_the_steps_do(self, projections: list[int | None], end: int) -> None:
        """The slope of a power of the steps leads to so many times the steps made."""
        extension, done = Extension(), 500
        for each in projections:
            said = SimpleNamespace(
                last=SimpleNamespace(step=done),
                fits_by=lambda each=each: each,
                is_near=lambda: False,
                below_constant=lambda: True,
            )
            more = extension.steps(lambda _, said=said: said)  # type: ignore[misc]
            done += more
            if not more:
                break
        assert done == end

    @pytest.mark.parametrize("plateau", [0.11, 0.2, 0.4])
    def test_a_fall_to_a_plateau_is_left(self, plateau: float) -> None:
        assert self.end(lambda step: plateau + 0.9 * 0.99**step) <= MORE_STEPS

    def test_no_run_goes_beyond_the_most(self) -> None:
        assert self.end(lambda step: 0.9 * (0.05 / 0.9) ** min(step / 3900, 0.99)) <= MOST_STEPS

    def test_above_the_constant_only_a_near_end_is_waited_for(self) -> None:
        assert self.end(lambda step: 40 * (0.05 / 40) ** (step / 900)) == MORE_STEPS
        assert self.end(lambda step: 400 * (0.05 / 400) ** (step / 1500)) == 500
