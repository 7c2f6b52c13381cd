"""The judgement of `overfit_batch`, by the hundred, on learners made of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NoReturn

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_overfit import Case
from pytest_overfit.adapters.base import Mode, Reading, RunningStatistics
from pytest_overfit.core.limits import resolve
from pytest_overfit.core.verdict import Finding, Judgement
from pytest_overfit.measures.memorising.pace import chunk_size, steps_to_go
from pytest_overfit.measures.memorising.progress import Point
from pytest_overfit.measures.reference_losses.reference import Reference
from pytest_overfit.probes.base import Bench
from pytest_overfit.probes.overfit_batch import PROBE, OverfitBatchLimits
from pytest_overfit.testing import FAULTS, FakeLearner, check_learner, memorising, standing

KINDS = ("classes", "values")


def no_trainer(seed: int, plain: bool) -> NoReturn:
    raise AssertionError("overfit_batch trains on one batch")


def no_limits(probe: str) -> NoReturn:
    raise AssertionError("overfit_batch asks for no limits of another probe")


def judge(fake: FakeLearner, **limits: float) -> Judgement:
    resolved = resolve(OverfitBatchLimits, [("call", limits)])
    case = Case(name="fake", model=lambda: None, batch=((), ()))
    bench = Bench(case=case, seed=0, make_learner=lambda: fake, make_trainer=no_trainer, limits_of=no_limits)
    return PROBE.judge(PROBE.measure(bench, resolved.values), resolved)


def named(judgement: Judgement) -> list[tuple[str, str]]:
    """Faults with their confidence; each names what its finding says, and a change."""
    assert all(each.cure and each.evidence for each in judgement.diagnoses)
    return [(each.fault, each.confidence) for each in judgement.diagnoses]


def finding(judgement: Judgement, name: str) -> Finding:
    return next(each for each in judgement.findings if each.name == name)


def messages(judgement: Judgement, name: str) -> list[str]:
    return [each.message for each in judgement.findings if each.name == name]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_planted_fault_is_caught_and_its_healthy_twin_passes(kind: str, watched: bool, fault: str) -> None:
    assert judge(FakeLearner(kind=kind, watched=watched, **FAULTS[fault])).outcome == "failed"
    assert judge(FakeLearner(kind=kind, watched=watched)).outcome == "passed"


@given(good=st.sets(st.integers(0, 80)), share=st.floats(0, 1))
@settings(deadline=None)
def test_a_dip_does_not_pass(good: set[int], share: float) -> None:
    """Two readings five steps apart; or before, between and after the last two updates: every time it fits."""
    for watched, apart in ((False, (5, 0)), (True, (2, 1, 0))):
        fake = FakeLearner(watched=watched, way=lambda step: float(step in good) * (1 - share) + share * (step > 60))
        judgement = judge(fake, steps=100)
        if judgement.outcome == "passed":
            ends = [fake.step - back for back in apart]
            assert all(fake._loss_at("fit") <= 0.05 * math.log(4) + 1e-9 for fake.step in ends)


@given(
    ratios=st.lists(st.floats(0, 2) | st.floats(0.999999, 1.000001) | st.floats(0.049, 0.051), min_size=2, max_size=2),
    apart=st.sampled_from([1, 5]),
)
@settings(deadline=None)
def test_the_next_reading_comes_within_25_steps(ratios: list[float], apart: int) -> None:
    reference = Reference(constant=1.0, best=0.0, how="")
    points = [Point(step=step, loss=ratio) for step, ratio in zip((25, 50), ratios, strict=True)]
    assert 1 <= chunk_size(500, 50, apart, steps_to_go(points, reference)) <= 25


@pytest.mark.parametrize("kind", KINDS)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(3, 40),
    half=st.floats(2, 60),
    floor=st.sampled_from([0.0, 0.3, -0.2]),
)
@settings(deadline=None)
def test_any_model_that_memorises_passes(kind: str, seed: int, rows: int, half: float, floor: float) -> None:
    way = lambda step: 1.0 - 0.5 ** (step / half)  # noqa: E731
    judgement = judge(FakeLearner(kind=kind, seed=seed, rows=rows, classes=min(4, rows), way=way, floor=floor))
    assert judgement.outcome == "passed", judgement.summary


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 10_000), rows=st.integers(3, 40), share=st.floats(0, 0.1))
@settings(deadline=None)
def test_no_model_that_stops_short_passes(kind: str, seed: int, rows: int, share: float) -> None:
    way = lambda step: min(memorising(step), share)  # noqa: E731
    judgement = judge(FakeLearner(kind=kind, seed=seed, rows=rows, classes=min(4, rows), way=way))
    assert judgement.outcome == "failed", judgement.summary


def test_stops_at_the_second_chunk_end_that_fits() -> None:
    fake = FakeLearner(way=lambda step: float(step >= 20))
    judge(fake)
    assert fake.step == 30  # readings at 5 and 25, where it fits first; five steps later it is confirmed


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_reading_at_the_very_end_is_confirmed_by_a_few_more_steps(kind: str) -> None:
    late = FakeLearner(kind=kind, way=lambda step: float(step >= 500))
    assert judge(late, steps=500).outcome == "passed"
    assert late.step == 505
    dip = FakeLearner(kind=kind, way=lambda step: float(step in (500, 501, 502)))
    assert judge(dip, steps=500).outcome == "failed"


def test_a_declared_schedule_ends_where_it_was_planned_to() -> None:
    late = FakeLearner(way=lambda step: float(step >= 500), has_schedule=True)
    judgement = judge(late)
    assert judgement.outcome == "inconclusive"
    assert "at the last reading only" in judgement.summary
    assert late.step == 500


def test_a_slow_model_is_inconclusive_and_told_the_steps_it_needs() -> None:
    judgement = judge(FakeLearner(way=lambda step: step / 4000), steps=500)
    assert judgement.outcome == "inconclusive"
    assert "still falling at step 500" in judgement.summary
    needed = int(judgement.summary.rpartition("steps=")[2])
    assert judge(FakeLearner(way=lambda step: step / 4000), steps=needed).outcome == "passed"


class TestSlowButSure:
    """A run whose steps were left open goes on while its projections agree, and says that it was slow."""

    @pytest.mark.parametrize(("obeys_rate", "name"), [(True, "lr_too_low"), (False, "slow_to_fit")])
    def test_it_passes_with_a_named_warning_and_its_count(self, obeys_rate: bool, name: str) -> None:
        judgement = judge(FakeLearner(way=lambda step: step / 4000, obeys_rate=obeys_rate))
        assert judgement.outcome == "passed", judgement.summary
        warned = finding(judgement, name)
        assert warned.outcome == "warning"
        assert warned.value > 1000
        assert ("at 10 times the learning rate" in warned.message) == obeys_rate
        assert named(judgement) == [(name, "proved" if obeys_rate else "shown")]

    def test_more_than_a_thousand_steps_are_warned_about_also_where_they_were_asked_for(self) -> None:
        judgement = judge(FakeLearner(way=lambda step: step / 4000, obeys_rate=False), steps=3000)
        assert finding(judgement, "slow_to_fit").outcome == "warning"

    def test_a_quick_run_carries_no_warning(self) -> None:
        judgement = judge(FakeLearner())
        assert not [each for each in judgement.findings if each.outcome == "warning"]
        assert not judgement.diagnoses

    @pytest.mark.parametrize("plateau", [0.2, 0.35, 0.5])
    def test_a_curve_on_its_way_to_a_plateau_is_not_waited_for(self, plateau: float) -> None:
        fake = FakeLearner(kind="values", way=lambda step: plateau * (1.0 - 0.5 ** (step / 150)))
        assert judge(fake).outcome != "passed"
        assert fake.step <= 1000

    def test_a_projection_that_runs_away_ends_the_run(self) -> None:
        fake = FakeLearner(kind="values", way=lambda step: 0.18 * math.log1p(step / 60))
        assert judge(fake).outcome == "inconclusive"
        assert fake.step < 4000


def test_near_its_limits_only_a_long_plateau_is_a_refutation() -> None:
    def near(step: int) -> float:
        return min(memorising(step), 0.72)  # a squared error of 0.08 of the constant's

    assert judge(FakeLearner(kind="values", way=near), steps=500).outcome == "inconclusive"
    long = FakeLearner(kind="values", way=near)
    assert judge(long).outcome == "failed"
    assert long.step == 1000


def test_a_rising_loss_fails_and_is_said() -> None:
    judgement = judge(FakeLearner(way=lambda step: -memorising(step)))
    assert judgement.outcome == "failed"
    assert "and rising" in judgement.summary
    assert any("the loss rises" in each for each in messages(judgement, "fact"))


def test_non_finite_loss_names_its_first_step() -> None:
    judgement = judge(FakeLearner(nan_from=7))
    assert finding(judgement, "first_non_finite_step").value == 8
    assert judgement.summary == "the loss is nan from step 8 on"


def test_no_update_stops_at_once_unless_a_schedule_is_pending() -> None:
    at_once = FakeLearner(way=standing, unchanged=("weight", "bias"))
    judgement = judge(at_once)
    assert at_once.step == 5
    assert "no parameter changed" in judgement.summary
    assert messages(judgement, "fact")[0] == "2 of 2 trainable parameters never changed: weight, bias"
    pending = FakeLearner(way=standing, unchanged=("weight", "bias"), has_schedule=True)
    judge(pending)
    assert pending.step == 500


def test_a_model_at_the_constants_loss_is_said_to_ignore_its_input() -> None:
    facts = messages(judge(FakeLearner(way=standing)), "fact")
    assert any("stands at the constant's" in each for each in facts)


def test_at_most_three_facts() -> None:
    fake = FakeLearner(way=standing, unchanged=("a",), without_gradient=("b",), has_schedule=True)
    assert 1 <= len(messages(judge(fake), "fact")) <= 3


def test_a_healthy_model_has_no_facts_about_a_cause() -> None:
    assert not messages(judge(FakeLearner(without_gradient=("unused",))), "fact")


class TestModes:
    def test_lagging_running_statistics_pass_with_a_warning(self) -> None:
        lagging = RunningStatistics(name="norm", momentum=3e-4, remaining=0.98)
        fake = FakeLearner(modes={"eval": standing}, running=(lagging,))
        judgement = judge(fake)
        assert judgement.outcome == "passed"
        warned = finding(judgement, "eval_mode_loss")
        assert warned.outcome == "warning"
        assert f"norm has made 2% of the way in {fake.step} steps" in warned.message
        assert fake.step < 100  # what momentum explains is not waited for

    @pytest.mark.parametrize(
        "running",
        [
            RunningStatistics(name="norm", momentum=0.1, remaining=0.4),
            RunningStatistics(name="norm", momentum=0.1, remaining=0.01, stray=0.6),
            RunningStatistics(name="norm", momentum=3e-4, remaining=0.9, stray=0.6),
        ],
    )
    def test_further_off_than_momentum_explains_fails_once_they_had_their_steps(
        self, running: RunningStatistics
    ) -> None:
        judgement = judge(FakeLearner(modes={"eval": standing}, running=(running,)))
        assert judgement.outcome == "failed"
        assert "norm do not follow the batch's" in judgement.summary
        assert named(judgement) == [("batchnorm_eval_mismatch", "proved")]  # with settled ones it fits

    def test_without_the_steps_to_settle_nothing_is_refuted(self) -> None:
        off = RunningStatistics(name="norm", momentum=0.1, remaining=0.4)
        assert judge(FakeLearner(modes={"eval": standing}, running=(off,)), steps=44).outcome == "passed"

    @pytest.mark.parametrize(
        ("resting", "off", "outcome"),
        [
            (memorising, 0.0, "warning"),
            (memorising, 3.0, "warning"),
            (lambda step: 0.2, 0.05, "warning"),  # what dropout makes of it, say
            (standing, 0.05, "failed"),
            (lambda step: 0.2, 0.5, "failed"),
            (standing, 0.5, "failed"),
        ],
    )
    def test_where_statistics_come_to_rest_decides(
        self, resting: Callable[[int], float], off: float, outcome: str
    ) -> None:
        """Not what is left of their way: weights that move on leave any share of it."""
        moved = RunningStatistics(name="norm", momentum=0.1, remaining=0.4, stray=0.9, off=off)
        fake = FakeLearner(modes={"eval": standing, "at_rest": resting}, running=(moved,))
        judgement = judge(fake)
        assert finding(judgement, "eval_mode_loss").outcome == outcome
        assert fake.step < 100  # no step is made to see it
        astray = outcome == "failed" and off == 0.5
        assert named(judgement) == ([("batchnorm_eval_mismatch", "proved")] if astray else [])

    def test_evaluation_that_comes_later_passes(self) -> None:
        """Settled statistics would not be enough at first, as where two branches share a layer."""
        following = RunningStatistics(name="norm", momentum=0.1, remaining=0.0, calls=2)
        modes = {"eval": lambda step: min(1.0, step / 400), "reestimated": lambda step: 0.1 + 0 * step}
        fake = FakeLearner(modes=modes, running=(following,))
        judgement = judge(fake)
        assert judgement.outcome == "passed", judgement.summary
        assert messages(judgement, "eval_mode_loss") == ["evaluation fits as well"]
        assert fake.step > 100

    def test_evaluation_that_stands_still_is_not_waited_for(self) -> None:
        following = RunningStatistics(name="norm", momentum=0.1, remaining=0.0)
        modes = {"eval": lambda step: float(step > 300), "reestimated": lambda step: 0.1 + 0 * step}
        fake = FakeLearner(modes=modes, running=(following,))
        assert judge(fake).outcome == "failed"
        assert fake.step < 100

    @pytest.mark.parametrize(("share", "outcome"), [(0.2, "passed"), (0.0, "failed")])
    def test_calls_that_training_normalises_each_by_itself(self, share: float, outcome: str) -> None:
        shared = RunningStatistics(name="norm", momentum=0.1, remaining=0.0, calls=2)
        modes = {"eval": lambda step: share, "reestimated": lambda step: share / 2}
        judgement = judge(FakeLearner(modes=modes, running=(shared,)))
        assert judgement.outcome == outcome
        assert ("normalises the 2 calls of norm alike" in str(judgement.findings)) == (outcome == "passed")

    def test_the_steps_that_settling_took_are_no_steps_to_memorise(self) -> None:
        off = RunningStatistics(name="norm", momentum=0.1, remaining=0.4)
        fake = FakeLearner(modes={"eval": lambda step: memorising(step - 20)}, running=(off,))
        judgement = judge(fake)
        assert judgement.outcome == "passed", judgement.summary
        assert fake.step > int(judgement.summary.split(" rows in ")[1].split()[0])
        assert finding(judgement, "batchnorm_eval_mismatch").outcome == "warning"
        assert named(judgement) == [("batchnorm_eval_mismatch", "shown")]

    def test_statistics_that_never_move_fail_with_their_layer(self) -> None:
        stuck = RunningStatistics(name="BatchNorm1d norm", momentum=0.0, remaining=1.0)
        judgement = judge(FakeLearner(modes={"eval": standing}, running=(stuck,)))
        assert judgement.outcome == "failed"
        assert "BatchNorm1d norm never move" in judgement.summary

    def test_bad_after_re_estimation_fails(self) -> None:
        judgement = judge(FakeLearner(modes={"eval": standing, "reestimated": standing}))
        assert judgement.outcome == "failed"
        assert not judgement.diagnoses  # no layer of statistics was seen to be off
        assert "evaluation is wrong" in judgement.summary

    def test_fitting_in_train_mode_only_fails_and_names_the_module(self) -> None:
        judgement = judge(FakeLearner(modes={"fit": standing, "eval": standing}))
        assert judgement.outcome == "failed"
        assert any("fits in train mode only: Fake layer" in each.message for each in judgement.findings)

    def test_strong_dropout_in_train_mode_is_only_told(self) -> None:
        judgement = judge(FakeLearner(modes={"train": lambda step: 0.1}))
        assert judgement.outcome == "passed"
        assert finding(judgement, "train_mode_loss").outcome == "note"


class TestUnsuitableBatches:
    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"given_targets": np.zeros(16, int)}, "targets of the batch are equal"),
            ({"given_inputs": np.ones((16, 3))}, "inputs of the batch are equal"),
            ({"rows": 1, "classes": 1}, "one row only"),
        ],
    )
    def test_inconclusive_with_the_reason_and_without_training(self, change: dict, reason: str) -> None:
        fake = FakeLearner(**change)
        judgement = judge(fake)
        assert judgement.outcome == "inconclusive"
        assert reason in judgement.summary
        assert fake.step == 0

    def test_contradictory_labels_lower_what_is_asked(self) -> None:
        x = np.repeat(np.arange(8.0)[:, None], 2, axis=0)
        y = np.array([0, 1] + [0, 0, 1, 1] * 3 + [2, 2])
        fake = FakeLearner(given_inputs=x, given_targets=y, classes=3)
        judgement = judge(fake)
        assert finding(judgement, "best_loss").value == pytest.approx(2 * math.log(2) / 16)
        assert finding(judgement, "accuracy").limit == pytest.approx(15 / 16)


class TestBlindedControl:
    """A loss that can only be stepped is held against the same factory on blinded inputs."""

    def test_memorising_passes_and_says_how(self) -> None:
        judgement = judge(FakeLearner(opaque=True))
        assert judgement.outcome == "passed"
        assert "blinded" in finding(judgement, "constant_loss").source

    def test_standing_still_fails(self) -> None:
        assert judge(FakeLearner(opaque=True, way=standing)).outcome == "failed"

    def test_an_unknown_floor_passes_on_its_predictions(self) -> None:
        assert judge(FakeLearner(opaque=True, floor=0.3)).outcome == "passed"

    def test_an_unknown_floor_without_predictions_is_inconclusive(self) -> None:
        judgement = judge(Mute(opaque=True, floor=0.3))
        assert judgement.outcome == "inconclusive"
        assert "give score=" in judgement.summary


class Mute(FakeLearner):
    """A learner that shows its loss and nothing else."""

    def read(self, mode: Mode) -> Reading:
        return Reading(loss=self._loss_at(mode))

    def blinded(self) -> Mute:
        return Mute(opaque=True, floor=self.floor, way=standing)


def test_the_budget_ends_a_run_inconclusively() -> None:
    ticks = iter(range(1000))
    resolved = resolve(OverfitBatchLimits, [("ini", {"budget": 3.0})])
    case = Case(name="fake", model=lambda: None, batch=((), ()))
    slow = FakeLearner(way=lambda step: step / 4000)
    bench = Bench(
        case=case,
        seed=0,
        make_learner=lambda: slow,
        make_trainer=no_trainer,
        limits_of=no_limits,
        clock=lambda: float(next(ticks)),
    )
    judgement = PROBE.judge(PROBE.measure(bench, resolved.values), resolved)
    assert judgement.outcome == "inconclusive"
    assert "the budget was spent at step" in judgement.summary
    assert slow.step < 500


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("opaque", [False, True])
@pytest.mark.parametrize("watched", [False, True])
def test_the_fake_keeps_the_adapter_contract(kind: str, opaque: bool, watched: bool) -> None:
    assert check_learner(FakeLearner(kind=kind, opaque=opaque, watched=watched)) == []


def test_a_training_pass_that_is_no_reading_breaks_the_contract() -> None:
    dropping = FakeLearner(watched=True)
    dropping.last_pass = lambda: dropping.read("train")  # type: ignore[method-assign]
    dropping.modes = {"train": lambda step: 0.5 * memorising(step) + 0.2}
    assert any("last_pass()" in each for each in check_learner(dropping))
