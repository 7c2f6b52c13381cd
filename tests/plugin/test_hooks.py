"""The five hooks, each through a conftest."""

from __future__ import annotations

import json
from typing import Any

import pytest

PROBE = """
import dataclasses

from pytest_overfit.core.verdict import Finding, Judgement

@dataclasses.dataclass(frozen=True, kw_only=True)
class LossIsFiniteLimits:
    steps: int = 3

class LossIsFinite:
    name = "loss_is_finite"
    limits = LossIsFiniteLimits

    def measure(self, bench, limits):
        learner = bench.make_learner()
        return {"framework": learner.framework, "losses": learner.train(limits.steps), "steps": limits.steps}

    def judge(self, measured, limits):
        good = all(each == each for each in measured["losses"])
        return Judgement(outcome="passed" if good else "failed", summary=f"steps={limits.values.steps}", findings=())
"""


def test_make_learner_is_asked_first_and_may_decline(project: Any) -> None:
    project.pytester.makeconftest(
        """
        from pytest_overfit.testing import FakeLearner

        def pytest_overfit_make_learner(case, batch, seed):
            assert batch.rows == 16 and isinstance(seed, int)
            return FakeLearner() if case.name == "fake" else None
        """
    )
    result = project.run(
        """
        def make():
            return {"loss": 1.0}

        def step(model, x, y):
            model["loss"] *= 0.9
            return model["loss"]

        def test_fake(overfit):
            assert overfit.batch(good("fake")).framework == "fake"

        def test_declined():
            (verdict,) = run_probes(Case(name="own", model=make, step=step, batch=(X, Y)), ["overfit_batch"], steps=5)
            assert verdict.framework == "step"
        """
    )
    result.assert_outcomes(passed=2)


def test_an_added_probe_is_as_good_as_a_built_in_one(project: Any) -> None:
    project.conftest(PROBE + "\ndef pytest_overfit_probes():\n    return [LossIsFinite()]\n")
    result = project.run(
        """
        @pytest.mark.overfit
        def test_all():
            return splits()

        @pytest.mark.overfit("loss_is_finite", steps=7)
        def test_one():
            return good("seven", limits={"loss_is_finite.steps": 5, "overfit_batch": {"min_accuracy": 0.9}})

        @parametrize_with_probes([splits(), case("nan", nan_from=1)], expected_failures={"nan": "known"})
        def test_matrix(case, probe):
            probe(case)
        """,
        "-v",
    )
    result.assert_outcomes(passed=7, xfailed=2)
    for line in (
        "test_all[loss_is_finite] PASSED",
        "test_all[overfit_batch] PASSED",
        "test_all[split_duplicates] PASSED",
        "test_matrix[nan-overfit_batch] XFAIL",
    ):
        assert line in str(result.stdout)
    result.stdout.fnmatch_lines(["ok *seven-loss_is_finite: *steps=7"])


def test_an_added_probe_may_replace_a_built_in_one(project: Any) -> None:
    project.conftest(
        PROBE + "\nLossIsFinite.name = 'overfit_batch'\ndef pytest_overfit_probes():\n    return [LossIsFinite()]\n"
    )
    project.run("def test_it(overfit):\n    assert overfit.batch(good()).summary == 'steps=3'\n").assert_outcomes(
        passed=1
    )


def test_what_is_no_probe_is_a_usage_error(project: Any) -> None:
    project.conftest("def pytest_overfit_probes():\n    return ['loss_is_finite']\n")
    result = project.run("def test_it():\n    pass\n")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: hook pytest_overfit_probes: 'loss_is_finite' is not a probe: name, * missing*"]
    )


def test_every_verdict_is_announced_at_once(project: Any) -> None:
    project.conftest(
        """
        SEEN = []

        def pytest_overfit_verdict(verdict):
            SEEN.append((verdict.case, verdict.outcome))
        """
    )
    result = project.run(
        """
        import conftest

        def test_it(overfit):
            overfit.batch(good())
            assert conftest.SEEN == [("good", "passed")]
            with pytest.raises(ProbeFailed):
                overfit.batch(broken())
            assert conftest.SEEN[1:] == [("broken", "failed")]
        """
    )
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize("arguments", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_update_json_changes_what_is_written_once(project: Any, arguments: tuple[str, ...]) -> None:
    project.conftest(
        """
        from pathlib import Path

        def pytest_overfit_update_json(config, document):
            document["commit"] = "abc123"
            with Path(config.rootpath, "calls.txt").open("a") as file:
                file.write(f"{hasattr(config, 'workerinput')}\\n")
        """
    )
    result = project.run("def test_it(overfit):\n    overfit.batch(good())\n", "--overfit-json=out.json", *arguments)
    result.assert_outcomes(passed=1)
    document = json.loads((project.path / "out.json").read_text())
    assert document["commit"] == "abc123"
    assert len(document["verdicts"]) == 1
    assert (project.path / "calls.txt").read_text() == "False\n"


def test_update_json_is_not_asked_without_a_file(project: Any) -> None:
    project.conftest("def pytest_overfit_update_json(config, document):\n    raise RuntimeError\n")
    project.run("def test_it(overfit):\n    overfit.batch(good())\n").assert_outcomes(passed=1)
