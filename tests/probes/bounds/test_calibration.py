"""Calibrated bounds: their rate of false alarms, how they are judged, and that nothing is written unasked."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from pytest_overfit import Case, CaseError, Verdict, at_least, at_most, calibrated, chance, run_probes, theory
from pytest_overfit.baselines import case_files
from pytest_overfit.core.bounds import Bound, bound_of
from pytest_overfit.core.calibration import Calibration
from pytest_overfit.core.limits import resolve
from pytest_overfit.core.verdict import Judgement
from pytest_overfit.probes.bounds import PROBE, BoundsLimits
from pytest_overfit.probes.bounds.judgement import Series
from pytest_overfit.probes.bounds.tolerance import (
    CONFIDENCE,
    beyond,
    ends_of,
    mean_rate,
    rate,
    run_answer,
    seeds_wanted,
    to_break,
)
from pytest_overfit.settings import Settings, set_settings

pytestmark = pytest.mark.usefixtures("every_probe")

# ------------------------------------------------------------------------------------------------------------- the rate


def test_how_many_seeds_break_an_end() -> None:
    assert [to_break(seeds) for seeds in (3, 4, 5, 6, 7, 8, 12, 16)] == [3, 4, 4, 4, 4, 5, 7, 9]


@pytest.mark.parametrize(("false_alarms", "ends", "seeds", "wanted"), [(1e-3, 1, 8, 24), (1e-3, 2, 8, 34)])
def test_how_many_seeds_a_calibration_takes(false_alarms: float, ends: int, seeds: int, wanted: int) -> None:
    assert seeds_wanted(false_alarms, ends, seeds) == wanted
    assert seeds_wanted(false_alarms, 0, seeds) == 1  # what is the same for every seed


@given(st.floats(1e-5, 0.4), st.integers(1, 20), st.integers(3, 32))
@settings(deadline=None, max_examples=100)
def test_it_takes_the_least_seeds_that_keep_the_stated_rate(false_alarms: float, ends: int, seeds: int) -> None:
    wanted = seeds_wanted(false_alarms, ends, seeds)

    def in_all(calibrated_on: int) -> float:
        """The rate of all ends where each is as far in as the confidence allows."""
        most = -math.expm1(math.log((1 - CONFIDENCE) / ends) / calibrated_on)
        return ends * rate(most, seeds)

    assert in_all(wanted) <= false_alarms * (1 + 1e-9)
    assert wanted == 1 or in_all(wanted - 1) > false_alarms * (1 - 1e-9)


@pytest.mark.parametrize(("old", "seeds"), [(2, 3), (3, 4), (4, 5), (2, 8)])
def test_the_mean_rate_is_what_counting_all_orders_gives(old: int, seeds: int) -> None:
    broken = total = 0
    for of_run in itertools.combinations(range(old + seeds), seeds):
        high = max(each for each in range(old + seeds) if each not in of_run)
        broken += run_answer(of_run, -math.inf, high, seeds) == "failed"
        total += 1
    assert mean_rate(old, seeds) == broken / total


def lognormal(random_: random.Random) -> float:
    return math.exp(random_.gauss(0, 1))


def rounded(random_: random.Random) -> float:
    return float(round(random_.gauss(0, 1)))


@pytest.mark.parametrize("draw", [lambda random_: random_.gauss(0, 1), lognormal, rounded])
def test_a_model_that_did_not_change_fails_no_more_often_than_stated(draw: Any) -> None:
    """5,000 calibrations with one run each; benchmarks/error_rates/calibration.py has 100,000."""
    stated, seeds, random_, runs = 0.2, 8, random.Random(1), 5000
    old = seeds_wanted(stated, 2, seeds)
    failed = 0
    for _ in range(runs):
        low, high = ends_of([draw(random_) for _ in range(old)])
        failed += run_answer([draw(random_) for _ in range(seeds)], low, high, seeds) == "failed"
    expected = 2 * mean_rate(old, seeds)
    assert expected < stated
    assert failed / runs <= expected + 4 * math.sqrt(expected / runs)
    if draw is not rounded:  # ties lower it
        assert failed / runs >= expected - 4 * math.sqrt(expected / runs)


# ------------------------------------------------------------------------------------------------------- bound, answer

VALUES = st.lists(st.floats(-1e6, 1e6) | st.integers(-50, 50).map(float), min_size=1, max_size=20)


@given(VALUES, st.sampled_from([0.0, 0.1, 5.0]))
@settings(deadline=None)
def test_a_bound_holds_all_values_that_it_was_made_of(values: list[float], resolution: float) -> None:
    low, high = ends_of(values, resolution)
    assert beyond(values, low, high) == 0
    assert high - low <= max(values) - min(values) + 2 * resolution + 5e-5 * max(map(abs, values))


def test_whole_numbers_stay_and_equal_values_get_one_step() -> None:
    assert ends_of([25.0, 51.0], 5.0) == (25.0, 51.0)
    assert ends_of([25.0, 25.0], 5.0) == (20.0, 30.0)
    low, high = ends_of([2.302585, 2.302585])
    assert low < 2.302585 - 5e-6 < 2.302585 + 5e-6 < high < 2.3027


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=3, max_size=16))
@settings(deadline=None)
def test_stopping_early_changes_no_answer(values: list[float]) -> None:
    seeds = len(values)
    known = [run_answer(values[:seen], -0.5, 0.5, seeds) for seen in range(1, seeds + 1)]
    assert known[-1] == ("failed" if beyond(values, -0.5, 0.5) >= to_break(seeds) else "passed")
    assert {each for each in known if each != "inconclusive"} == {known[-1]}


@pytest.mark.parametrize(
    ("given_", "low", "high", "text"),
    [
        (calibrated, calibrated, calibrated, "calibrated"),
        (at_least(calibrated), calibrated, None, ">= calibrated"),
        (at_most(calibrated), None, calibrated, "<= calibrated"),
        ((calibrated, theory + 0.5), calibrated, theory + 0.5, "calibrated to theory + 0.5"),
    ],
)
def test_how_it_is_written(given_: Any, low: Any, high: Any, text: str) -> None:
    bound = bound_of(given_, "here")
    assert (bound.low, bound.high, str(bound)) == (low, high, text)


def test_a_margin_is_refused() -> None:
    for each in (calibrated + 0.1, at_least(calibrated - 0.1)):
        with pytest.raises(CaseError, match=r"here: calibrated . 0\.1: a calibrated end has no margin, .* write "):
            bound_of(each, "here")


def series(*values: float, low: float | None = None, high: float | None = None, **more: Any) -> Series:
    ends = {"lows": [] if low is None else [low] * len(values), "highs": [] if high is None else [high] * len(values)}
    made = [name for name, end in (("low", low), ("high", high)) if end is not None]
    given_ = {"name": "gap", "unit": "score", "once": False, "source": "call", "bound": str(Bound(low, high)), **ends}
    return Series(values=list(values), **{"calibrated": made, **given_, **more})


def judge(*found: Series, **limits: Any) -> Judgement:
    measured = {"quantities": [dataclasses.asdict(each) for each in found], "remarks": []}
    return PROBE.judge(measured, resolve(BoundsLimits, [("call", limits)]))


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        ((0.5, 0.2, 0.9, 0.4), "passed"),
        ((0.0, 1.0, 0.0, 1.0), "passed"),  # on the ends
        ((1.1, 1.2, 1.3, 1.4, 1.5), "failed"),
        ((-1.0, -2.0, -1.0, -1.0, -1.0), "failed"),
        ((9.0, 9.0, 9.0, 9.0, 0.5, 0.5, 0.5, 0.5), "passed"),  # half of them: no majority
        ((9.0, 0.5, 9.0, 0.5, 9.0, 0.5, 9.0, 9.0), "failed"),
        ((9.0, -9.0, 9.0, -9.0, 9.0, -9.0, 9.0, -9.0), "passed"),  # beyond two ends, neither by a majority
        ((0.5, math.nan), "failed"),
    ],
)
def test_a_run_is_judged_by_the_majority_of_its_seeds(values: tuple[float, ...], outcome: str) -> None:
    found = series(*values, low=0.0, high=1.0)
    assert judge(found).outcome == outcome
    assert found.decided(BoundsLimits())


def test_another_seed_is_asked_for_until_it_is_certain() -> None:
    for seen in ((0.5,), (0.5, 0.5, 0.5), (9.0,) * 4, (9.0,) * 4 + (0.5,) * 3):
        assert not series(*seen, low=0.0, high=1.0).decided(BoundsLimits())
    told = judge(series(*(9.0,) * 5, low=0.0, high=1.0)).summary
    assert told == "gap 9 (5 of 5 seeds beyond the calibrated range), bound 0 to 1"


def test_an_end_that_people_wrote_is_judged_beside_it_as_ever() -> None:
    near = (0.09, 0.10, 0.11, 0.10)
    outcomes = {
        high: judge(series(*near, low=0.0, high=high, calibrated=["low"])).outcome for high in (0.3, 0.105, 0.01)
    }
    assert outcomes == {0.3: "passed", 0.105: "inconclusive", 0.01: "failed"}
    assert judge(series(*near, 0.1, low=0.2, high=0.3, calibrated=["low"])).outcome == "failed"


# ---------------------------------------------------------------------------------------------------------- real models


class Kept:
    """In place of a folder: what was measured now, to be read later."""

    def __init__(self) -> None:
        self.entries: dict[str, Any] = {}

    def run(self, case: Case, *, now: bool = False, seed: int = 0, **limits: Any) -> Verdict:
        found = Calibration(now=now, read=lambda _: self.entries, path=lambda name: f"{name}.json", command=lambda: "x")
        reset = set_settings(Settings(seed=seed, calibration=lambda: found))
        try:
            verdict = run_probes(case, ["bounds"], **limits)[0]
        finally:
            reset()
        if now:
            self.entries = dict(verdict.data["calibration"])
        return verdict


def mlp(bounds: dict[str, Any], last: float = 1.0, lr: float = 1e-2, hidden: int = 16) -> Case:
    def make() -> nn.Module:
        model = nn.Sequential(nn.Linear(8, hidden), nn.ReLU(), nn.Linear(hidden, 3))
        with torch.no_grad():
            model[2].weight.mul_(last)
        return model

    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(24, 8, generator=generator), torch.arange(24) % 3
    return Case(
        name="mlp",
        model=make,
        loss=functional.cross_entropy,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=lr),
        batch=(x, y),
        options={"bounds": bounds},
    )


LEARNS = {"steps_to_memorise": at_most(calibrated), "loss_after_k_steps": calibrated}


def test_a_model_that_starts_or_learns_otherwise_fails_and_its_healthy_twins_pass() -> None:
    kept = Kept()
    assert kept.run(mlp(LEARNS), now=True, k=20).passed
    assert kept.entries["steps_to_memorise"]["seeds"] == seeds_wanted(1e-3, 3, 8)
    for seed in (0, 1, 2):
        assert kept.run(mlp(LEARNS), seed=seed, k=20).passed
    slower = kept.run(mlp(LEARNS, lr=1e-3), k=20)
    assert slower.outcome == "failed"
    assert [each.outcome for each in slower.findings[:2]] == ["failed", "failed"]
    never = kept.run(mlp(LEARNS, lr=1e-9), k=20)  # no seed memorises: a value that is known to be above the end
    assert never.findings[0].outcome == "failed"
    assert "5 of 5 seeds beyond" in never.findings[0].message


def test_counts_are_calibrated_to_exactly_what_they_are() -> None:
    kept = Kept()
    bounds = {"parameters_trainable": calibrated}
    assert kept.run(mlp(bounds), now=True).passed
    entry = kept.entries["parameters_trainable"]
    assert (entry["low"], entry["high"], entry["seeds"], entry["false_alarms"]) == (195, 195, 1, 0)
    assert kept.run(mlp(bounds)).summary == "1 bound held: parameters_trainable 195 parameters"
    assert kept.run(mlp(bounds, hidden=17)).outcome == "failed"


def test_a_quantity_that_no_seed_changes_is_remarked() -> None:
    kept = Kept()
    verdict = kept.run(mlp({"initial_loss": calibrated}, last=0.0), now=True)
    assert not any("same for every seed" in each.message for each in verdict.findings)  # its biases still differ

    def seeded() -> nn.Module:
        torch.manual_seed(0)
        return nn.Linear(8, 3)

    case = dataclasses.replace(mlp({"initial_loss": calibrated}), model=seeded)
    told = [each.message for each in kept.run(case, now=True).findings]
    assert any("initial_loss was the same for every seed" in each for each in told)


def test_what_gives_no_number_is_not_calibrated() -> None:
    for bounds, more, words in (
        ({"val_score": at_least(calibrated)}, {}, "val_score cannot be calibrated: the case has no val= data"),
        ({"steps_to_memorise": at_most(calibrated)}, {"steps": 2}, "not memorised within 2 steps (seed 1 of 24)"),
        ({"loss_after_k_steps": calibrated}, {}, "it is nan (seed 1 of 34); nothing was written"),
    ):
        with pytest.raises(CaseError) as caught:
            Kept().run(mlp(bounds, lr=1e30 if "nan" in words else 1e-2), now=True, **more)
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({"save_load": calibrated}, "save_load holds or does not, so calibrated is not a bound; write save_load=True"),
        ({"initial_loss": at_least(calibrated + 1)}, "a calibrated end has no margin"),
        ({"gap": (chance, calibrated)}, "there is no chance for gap"),
    ],
)
def test_a_bound_that_cannot_be_calibrated_is_refused(bounds: dict[str, Any], words: str) -> None:
    with pytest.raises(CaseError) as caught:
        Kept().run(mlp(bounds), now=True)
    assert words in str(caught.value)


@pytest.mark.parametrize("value", [0, 0.5, 2])
def test_a_rate_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(
        CaseError, match=r"call: false_alarms: expected a number above 0 and below 0\.5, got .*; 1e-3 is usual"
    ):
        Kept().run(mlp({"initial_loss": calibrated}), now=True, false_alarms=value)


def test_outside_pytest_there_is_nothing_to_read() -> None:
    reset = set_settings(Settings())
    try:
        with pytest.raises(CaseError, match="initial_loss: calibrated bounds are read by pytest alone; write numbers"):
            run_probes(mlp({"initial_loss": calibrated}), ["bounds"])
    finally:
        reset()


def test_a_calibration_that_does_not_fit_the_test_is_refused() -> None:
    kept = Kept()
    one, two = {"initial_loss": at_most(calibrated)}, {"initial_loss": calibrated}
    kept.run(mlp(one), now=True)
    assert kept.run(mlp(one)).passed
    assert kept.run(mlp(one), false_alarms=1e-2, seeds=16).passed  # fewer seeds would have been enough
    for bounds, limits, words in (
        (two, {}, "mlp.json was calibrated on 24 seeds, but false_alarms=0.001 for all calibrated bounds of this test"),
        (one, {"false_alarms": 1e-4}, "on 24 seeds, but false_alarms=0.0001 for all calibrated bounds of this test"),
        (
            one,
            {"k": 7},
            "calibrated with epochs=20, k=50, steps=None, this test has epochs=20, k=7, steps=None; make it",
        ),
        ({**one, "gradient_norm": calibrated}, {}, "'mlp': gradient_norm: calibrated, but there is no calibration in"),
    ):
        with pytest.raises(CaseError) as caught:
            kept.run(mlp(bounds), **limits)
        assert words in str(caught.value)
        assert "make it with: x" in str(caught.value)


# ------------------------------------------------------------------------------------------------------- through pytest

#: learners whose loss differs from seed to seed, and is what the file `state` says
LEARNER = """
from pathlib import Path
from pytest_overfit.testing import standing

def state():
    file = Path(__file__).parent / "state"
    return file.read_text() if file.exists() else ""

def pytest_overfit_make_learner(case, batch, seed):
    with open(Path(__file__).parent / "seeds", "a") as file:
        file.write(f"{seed}\\n")
    more = {"floor": {"floor": 5.0}, "nan": {"nan_from": 0}}.get(state(), {})
    return FakeLearner(kind="values", seed=seed, **more)
"""

SOURCE = """
def test_it(overfit):
    overfit.within(good(), initial_loss=calibrated)
"""


@pytest.fixture
def user(project: Any) -> Any:
    project.conftest(LEARNER)
    return project


def file_of(project: Any, case: str = "good") -> Path:
    return Path(project.path / ".overfit" / "calibrated" / f"{case}.json")


def seeds_of(project: Any) -> set[str]:
    file = project.path / "seeds"
    found = set(file.read_text().split())
    file.unlink()
    return found


def test_calibrate_once_then_judge(user: Any) -> None:
    missing = user.run(SOURCE)
    missing.assert_outcomes(failed=1)
    words = "*initial_loss: calibrated, but there is no calibration in *calibrated?good.json; make it with: pytest {}"
    missing.stdout.fnmatch_lines([words.format("test_it.py::test_it --overfit-calibrate")])
    made_ = user.again("--overfit-calibrate")
    made_.assert_outcomes(passed=1)
    made_.stdout.fnmatch_lines(["*overfit: calibration*", "calibrated: 1 case in *calibrated"])
    text = file_of(user).read_text()
    user.again().assert_outcomes(passed=1)
    user.again("--overfit-seed=5").assert_outcomes(passed=1)
    (user.path / "state").write_text("floor")
    broken = user.again()
    broken.assert_outcomes(failed=1)
    broken.stdout.fnmatch_lines(
        ["*initial_loss * (5 of 5 seeds beyond the calibrated range), bound * to * (*34 seeds)"]
    )
    (user.path / "state").unlink()
    user.again().assert_outcomes(passed=1)
    assert file_of(user).read_text() == text


def test_the_file_is_plain_readable_json(user: Any) -> None:
    user.run(SOURCE, "--overfit-calibrate")
    text = file_of(user).read_text()
    form = json.loads(text)
    assert text == json.dumps(form, indent=2, sort_keys=True) + "\n"
    assert (form["schema"], form["case"]) == (1, "good")
    entry = form["quantities"]["initial_loss"]
    assert entry["low"] < entry["mean"] < entry["high"]
    assert {name: entry[name] for name in ("seeds", "false_alarms", "epochs", "k", "steps")} == {
        "seeds": 34, "false_alarms": 1e-3, "epochs": 20, "k": 50, "steps": None,
    }  # fmt: skip
    user.again("--overfit-calibrate")
    assert file_of(user).read_text() == text  # nothing changes where nothing changed


def test_runs_have_other_seeds_than_the_calibration(user: Any) -> None:
    user.run(SOURCE, "--overfit-calibrate")
    both = seeds_of(user)
    user.again()
    of_run = seeds_of(user)
    assert of_run < both
    assert len(both - of_run) == 34
    user.again("--overfit-seed=3")
    assert not seeds_of(user) & (both - of_run)


def test_a_marked_test_and_a_second_test_of_the_case_keep_to_one_file(user: Any) -> None:
    user.run(
        SOURCE
        + """
@pytest.mark.overfit("bounds")
def test_marked():
    import dataclasses
    return dataclasses.replace(good(), options={"bounds": {"loss_after_k_steps": at_most(calibrated)}})

def test_another_case(overfit):
    overfit.within(good("second"), initial_loss=at_least(calibrated))
""",
        "--overfit-calibrate",
    ).stdout.fnmatch_lines(["calibrated: 2 cases in *"])
    assert sorted(json.loads(file_of(user).read_text())["quantities"]) == ["initial_loss", "loss_after_k_steps"]
    user.again().assert_outcomes(passed=3)


def test_nothing_to_calibrate_is_said_and_no_good_run(user: Any) -> None:
    result = user.run("def test_it(overfit):\n    overfit.within(good(), initial_loss=(0, 9))\n", "--overfit-calibrate")
    result.assert_outcomes(passed=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["ERROR: --overfit-calibrate: nothing was calibrated: no bound of this run is written *"]
    )
    assert not (user.path / ".overfit").exists()


def test_a_model_that_breaks_another_bound_is_no_measure(user: Any) -> None:
    source = "def test_it(overfit):\n    overfit.within(good(), initial_loss=calibrated, output_std=(100, None))\n"
    result = user.run(source, "--overfit-calibrate")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["not calibrated: good (failed)"])
    assert not (user.path / ".overfit").exists()


def test_what_is_not_a_number_is_refused_and_leaves_the_file(user: Any) -> None:
    user.run(SOURCE, "--overfit-calibrate")
    text = file_of(user).read_text()
    (user.path / "state").write_text("nan")
    result = user.again("--overfit-calibrate")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*bounds: initial_loss cannot be calibrated: it is nan (seed 1 of 34); nothing was *"])
    assert file_of(user).read_text() == text


ENTRY = '{"schema": 1, "case": "good", "quantities": {"initial_loss": %s}}'

CORRUPT = {
    "half": ('{"schema": 1, "case": "go', "cannot be read: no JSON"),
    "binary": (b"\xff\xfe\x00", "cannot be read: no JSON"),
    "newer": ('{"schema": 99, "pytest_overfit": "9.9"}', "has schema 99, this version of pytest-overfit reads up to 1"),
    "baseline": ('{"schema": 1, "case": "good", "probes": {}}', "is not a pytest-overfit calibration"),
    "other": ('{"schema": 1, "case": "other", "quantities": {}}', "is of case 'other', not of 'good'"),
    "no ends": (ENTRY % "{}", "is not a pytest-overfit calibration"),
    "infinite": (
        ENTRY % '{"low": 0, "high": Infinity, "seeds": 9, "epochs": 1, "k": 1, "steps": 1}',
        "is not a pytest-overfit calib*",
    ),
    "low > high": (
        ENTRY % '{"low": 2, "high": 1, "seeds": 9, "epochs": 1, "k": 1, "steps": 1}',
        "is not a pytest-overfit calibration",
    ),
}


@pytest.mark.parametrize("arguments", [(), ("--overfit-calibrate",)])
@pytest.mark.parametrize("kind", CORRUPT)
def test_a_file_that_cannot_be_used_is_named_and_left_untouched(
    user: Any, kind: str, arguments: tuple[str, ...]
) -> None:
    content, words = CORRUPT[kind]
    raw = content if isinstance(content, bytes) else content.encode()
    file_of(user).parent.mkdir(parents=True)
    file_of(user).write_bytes(raw)
    result = user.run(SOURCE, *arguments)
    assert result.ret == 1
    result.stdout.fnmatch_lines([f"*calibration *good.json {words}*it was left as it is*"])
    assert file_of(user).read_bytes() == raw
    assert [each.name for each in file_of(user).parent.iterdir()] == ["good.json"]


def test_a_place_that_cannot_be_written_is_refused_before_any_test(user: Any) -> None:
    (user.path / ".overfit").write_text("a file")
    result = user.run(SOURCE, "--overfit-calibrate")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*--overfit-calibrate: cannot write to *calibrated: *.overfit: *"])
    assert (user.path / ".overfit").read_text() == "a file"


def test_storage_is_an_ini_value(user: Any) -> None:
    user.ini("overfit_storage = kept/numbers")
    user.run(SOURCE, "--overfit-calibrate").assert_outcomes(passed=1)
    assert (user.path / "kept" / "numbers" / "calibrated" / "good.json").is_file()
    user.again().assert_outcomes(passed=1)


def test_workers_measure_and_only_the_controller_writes(user: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xdist")
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # of the run that this test is part of
    monkeypatch.setattr(case_files, "write_json", case_files.write_json)  # the conftest below puts another there
    user.conftest(
        LEARNER
        + """
import os
from pytest_overfit.baselines import case_files

real = case_files.write_json

def watched(path, document, **more):
    assert "PYTEST_XDIST_WORKER" not in os.environ
    real(path, document, **more)

case_files.write_json = watched
"""
    )
    user.write(SOURCE + "\ndef test_other(overfit):\n    overfit.within(good('second'), initial_loss=calibrated)\n")
    user.pytester.runpytest_subprocess("-n", "2", "--overfit-calibrate").assert_outcomes(passed=2)
    texts = [file_of(user, name).read_text() for name in ("good", "second")]
    user.pytester.runpytest_subprocess("-n", "2").assert_outcomes(passed=2)
    user.again("--overfit-calibrate")
    assert [file_of(user, name).read_text() for name in ("good", "second")] == texts


def test_the_option_saves_nothing_of_a_baseline_and_goes_with_it(user: Any) -> None:
    user.run(SOURCE, "--overfit-calibrate", "--overfit-save").assert_outcomes(passed=1)
    assert (user.path / ".overfit" / "baseline" / "good.json").is_file()
    user.again("--overfit-compare", "--overfit-compare-fail=initial_loss:1%").assert_outcomes(passed=1)
