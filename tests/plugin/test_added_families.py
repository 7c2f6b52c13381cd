"""Families of hypotheses that another package adds, and when verdicts are explained."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pytest_overfit import Case, CaseError, run_probes
from pytest_overfit.adapters.programs import Change
from pytest_overfit.diagnosis.hypotheses import SUSPECT, Hypothesis
from pytest_overfit.settings import Settings, set_settings

pytestmark = pytest.mark.reasons

#: the example of the documentation
EXAMPLE = re.search(
    r"```python\n(# conftest\.py.*?)```",
    (Path(__file__).parents[2] / "docs" / "diagnoses.md").read_text(encoding="utf-8"),
    re.DOTALL,
)

TESTS = """
    import torch
    from torch import nn
    from pytest_overfit import Case

    def case(factor):
        torch.manual_seed(0)
        x, y = torch.randn(24, 6), torch.arange(24) % 3
        return Case(name="net", model=lambda: nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 3)),
                    loss=nn.CrossEntropyLoss(), optimizer=lambda p: torch.optim.Adam(p, 0.02 * factor), batch=(x, y))

    def test_slow(overfit):
        overfit.batch(case(1e-6), steps=60)

    def test_fits(overfit):
        overfit.batch(case(1.0))
"""


def ran(project: Any, conftest: str, *arguments: str) -> Any:
    project.pytester.makeconftest(conftest)
    project.pytester.makepyfile(test_it=TESTS)
    return project.pytester.runpytest_inprocess("-p", "no:cacheprovider", *arguments)


def test_the_documented_family_names_its_fault(project: Any) -> None:
    assert EXAMPLE is not None
    result = ran(project, EXAMPLE[1], "--overfit-json=found.json")
    result.assert_outcomes(failed=1, passed=1)
    (slow,) = [
        each
        for each in json.loads((project.pytester.path / "found.json").read_text(encoding="utf-8"))["verdicts"]
        if each["outcome"] != "passed"
    ]
    assert "house_rate" in [each["fault"] for each in slow["diagnoses"]]


def test_a_family_that_raises_is_a_note(project: Any) -> None:
    conftest = """
        def broken(symptoms):
            raise ZeroDivisionError("no units")

        def pytest_overfit_diagnosis_families():
            return [broken]
    """
    result = ran(project, conftest)
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*note  the family of hypotheses broken was left out: ZeroDivisionError: no units*"])


@pytest.mark.parametrize("returned", ["3", "None", "['lr_too_low']"])
def test_a_family_that_returns_something_else_is_told_what_to_return(project: Any, returned: str) -> None:
    conftest = f"""
        def suspects(symptoms):
            return {returned}

        def pytest_overfit_diagnosis_families():
            return [suspects]
    """
    result = ran(project, conftest, "-k", "slow")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*suspects: expected a list of Hypothesis, got *; return *Hypothesis(fault=..., *"])


@pytest.mark.parametrize("returned", ["['lr_too_low']", "[None]"])
def test_what_is_no_family_is_a_usage_error(project: Any, returned: str) -> None:
    result = ran(project, f"def pytest_overfit_diagnosis_families():\n    return {returned}\n")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: hook pytest_overfit_diagnosis_families: * is not a family: expected *"])


# ------------------------------------------------------------------------------------------------- when


def case(rate: float, *last: nn.Module) -> Case:
    torch.manual_seed(0)
    return Case(
        name="net",
        model=lambda: nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 3), *last),
        loss=nn.CrossEntropyLoss(),
        optimizer=lambda p: torch.optim.SGD(p, rate),
        batch=(torch.randn(24, 6), torch.arange(24) % 3),
    )


def test_never_names_nothing_and_auto_does() -> None:
    for diagnose, named in (("never", False), ("auto", True), (None, True)):
        (verdict,) = run_probes(case(0.5, nn.Softmax(1)), ["overfit_batch"], diagnose=diagnose, steps=200)  # type: ignore[arg-type]
        assert not verdict.passed
        assert ("double_softmax" in [each.fault for each in verdict.diagnoses]) is named, verdict


def test_what_a_call_says_wins_over_the_option() -> None:
    reset = set_settings(Settings(diagnose="never"))
    try:
        assert not run_probes(case(0.5, nn.Softmax(1)), ["overfit_batch"], steps=200)[0].diagnoses
        assert run_probes(case(0.5, nn.Softmax(1)), ["overfit_batch"], diagnose="auto", steps=200)[0].diagnoses
    finally:
        reset()


def test_always_leaves_a_healthy_verdict_as_it_is() -> None:
    (verdict,) = run_probes(case(0.5), ["overfit_batch"], diagnose="always")
    assert (verdict.outcome, verdict.diagnoses) == ("passed", ())


@pytest.mark.parametrize("wrong", ["sometimes", True, 3])
def test_a_wrong_word_is_refused_before_anything_runs(wrong: Any) -> None:
    with pytest.raises(CaseError, match="diagnose: expected one of 'auto', 'always', 'never', got"):
        run_probes(case(0.5), ["overfit_batch"], diagnose=wrong)


def test_an_added_suspicion_is_tried_like_any_other() -> None:
    seen = []

    def family(symptoms: Any) -> list[Hypothesis]:
        seen.append(symptoms.steps)
        return [
            Hypothesis(
                fault="house_rate",
                family="house",
                what="the rate of another project",
                change=Change(kind="rate_to", factor=0.5),
                changed="with 0.5",
                cure="write lr=0.5",
                rank=SUSPECT - 6,
            )
        ]

    reset = set_settings(Settings(extra_families=[family]))
    try:
        (verdict,) = run_probes(case(1e-3), ["overfit_batch"], steps=300)
    finally:
        reset()
    assert seen == [300]
    found = next(each for each in verdict.diagnoses if each.fault == "house_rate")
    assert (found.confidence, found.cure) == ("proved", "write lr=0.5")
    assert found.evidence.startswith("the rate of another project; with 0.5 the batch is memorised in")
