"""`run_selftest` and `pytest --overfit-selftest`: what is caught, how it is told, and what stays as it was."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_overfit import CaseError, run_selftest
from pytest_overfit.selftest import session
from pytest_overfit.selftest.faults import FAULTS
from pytest_overfit.settings import Settings, current_settings, set_settings
from tests.selftest import torch_cases as cases

#: names come from what is changed and trained again
pytestmark = pytest.mark.reasons

#: three faults, quickly told: one that the batch shows, one that stays hidden in a batch, one that has no place
FEW = ("lr_zero", "misaligned_labels", "double_sigmoid")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "FAULTS", tuple(each for each in FAULTS if each.name in FEW))


# --------------------------------------------------------------------------------------------------------- the function


def test_faults_are_caught_and_named() -> None:
    told: list[str] = []
    found = run_selftest(cases.quick(), ["wiring", "overfit_batch"], faults=FEW, tell=told.append)
    (line,) = told
    assert line.startswith(
        "self-test of 'classes': 2 of 3 faults can be planted; 6 runs: 2 probes on the case as it is"
    )
    assert found.case == "classes"
    assert found.probes == ("wiring", "overfit_batch")
    assert found.mark("lr_zero") == "named"
    assert found.missed == ["misaligned_labels"]  # one batch is memorised whatever its labels
    assert (found.caught, found.named) == (0.5, 0.5)
    assert list(found.unplanted) == ["double_sigmoid"]


def test_the_expected_number_of_runs_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    run_selftest(cases.quick(), ["wiring"], faults=["double_sigmoid"])
    assert capsys.readouterr().out.startswith("self-test of 'classes': 0 of 1 faults can be planted; 1 runs: 1 probes")


def test_a_limit_that_was_loosened_too_far_shows_as_a_miss() -> None:
    """Within the limits of the case the fault is refused; within those it passes as the healthy case does."""
    strict = run_selftest(cases.quick(), ["overfit_batch"], faults=["double_softmax"], tell=None)
    assert strict.mark("double_softmax") == "named"
    loose = {"overfit_batch": {"steps": 120, "max_loss_ratio": 0.9, "min_accuracy": 0.01}}
    loosened = run_selftest(cases.quick(limits=loose), ["overfit_batch"], faults=["double_softmax"], tell=None)
    assert loosened.missed == ["double_softmax"]
    called = run_selftest(
        cases.quick(), ["overfit_batch"], faults=["double_softmax"], tell=None, max_loss_ratio=0.9, min_accuracy=0.01
    )
    assert called.missed == ["double_softmax"]


def test_a_case_that_is_refused_as_it_is_tells_nothing() -> None:
    found = run_selftest(
        cases.quick(optimizer=lambda p: cases.torch.optim.SGD(p, lr=0.0)), ["wiring"], faults=FEW, tell=None
    )
    assert list(found.refused) == ["wiring"]
    assert found.judged == []
    assert "refuses the case as it is" in str(found)


def test_by_default_those_probes_that_the_fields_allow() -> None:
    names = run_selftest(cases.classes(), faults=["double_sigmoid"], tell=None).probes
    assert set(names) == {"wiring", "overfit_batch", "inert_regularizer"}
    more = run_selftest(cases.quick(), faults=["double_sigmoid"], tell=None).probes
    assert set(more) - set(names) == {"early_accuracy", "split_duplicates"}


def test_a_probe_that_did_not_apply_is_asked_about_faults() -> None:
    """The healthy net has no dropout, so that this probe applies to the planted one alone."""
    found = run_selftest(cases.quick(), ["inert_regularizer"], faults=["inert_regularizer", "zero_init"], tell=None)
    assert found.judged == ["inert_regularizer"]
    assert found.mark("inert_regularizer") == "named"


def test_misuse() -> None:
    with pytest.raises(CaseError, match="expected a Case"):
        run_selftest("mlp")  # type: ignore[arg-type]
    with pytest.raises(CaseError, match="unknown probe 'wirings'; did you mean 'wiring'"):
        run_selftest(cases.quick(), ["wirings"])
    with pytest.raises(CaseError, match="'lr_zeros' cannot be planted; did you mean 'lr_zero'"):
        run_selftest(cases.quick(), faults=["lr_zeros"])
    with pytest.raises(CaseError, match="unknown limit"):
        run_selftest(cases.quick(), ["wiring"], stepz=3)


def test_nothing_is_recorded_and_ctrl_c_leaves_the_settings() -> None:
    recorded: list[Any] = []
    mine = Settings(record=recorded.append, record_error=lambda *each: recorded.append(each))
    reset = set_settings(mine)
    try:
        run_selftest(cases.quick(), ["wiring"], faults=["lr_zero"], tell=None)
        assert recorded == []

        def interrupted() -> Any:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_selftest(cases.quick(model=interrupted), ["wiring"], faults=["lr_zero"], tell=None)
        assert current_settings() is mine
    finally:
        reset()


def test_names_are_those_of_the_table_and_unique() -> None:
    names = [each.name for each in FAULTS]
    assert len(set(names)) == len(names) >= 20


# ----------------------------------------------------------------------------------------------------------- the option

OF_TORCH = """
import pytest
from pytest_overfit import parametrize_with_probes
from tests.selftest import torch_cases as cases

def test_by_the_fixture(overfit):
    assert overfit.wiring(cases.quick()).passed

@pytest.mark.overfit("overfit_batch")
def test_by_the_marker():
    return cases.quick()

def test_of_something_else():
    raise AssertionError("is not run")
"""


@pytest.mark.usefixtures("every_probe")
def test_the_option_shows_a_table_a_case(project: Any) -> None:
    project.pytester.makeconftest("")  # no fake learners
    result = project.run(OF_TORCH, "--overfit-selftest", "--overfit-json=found.json")
    result.assert_outcomes(passed=2, deselected=1)
    text = result.stdout.str()
    assert "overfit self-test: 2 tests, each with its case as it is and with up to 3 faults: at most 8 runs" in text
    result.stdout.fnmatch_lines(
        [
            "*overfit: self-test*",
            "classes: 2 faults planted, 1 caught (50%), 1 by name (50%); 1 could not be planted",
            "  fault *wiring*overfit_batch",
            "  lr_zero *named*",
            "  misaligned_labels *missed *missed",
            "  missed by every probe: misaligned_labels",
            "    double_sigmoid: its loss is none of yes and no*",
        ]
    )
    document = json.loads((project.path / "found.json").read_text())
    assert [each["outcome"] for each in document["verdicts"]] == ["passed", "passed"]  # of the case as it is
    (found,) = document["selftest"]
    assert (found["case"], found["caught"]) == ("classes", 0.5)
    assert found["faults"]["lr_zero"]["wiring"]["mark"] == "named"


def test_without_the_option_nothing_is_planted(project: Any) -> None:
    result = project.run(
        """
        def test_it(overfit):
            overfit.batch(good())

        def test_other():
            pass
        """
    )
    result.assert_outcomes(passed=2)
    assert "self-test" not in result.stdout.str()


def test_the_outcome_of_a_test_is_that_of_the_case_as_it_is(project: Any) -> None:
    """A refused case fails its test as ever, an expected failure is one, and says what that means for the table."""
    result = project.run(
        """
        def test_refused(overfit):
            overfit.batch(broken())

        @parametrize_with_probes([broken("known")], ["overfit_batch"], expected_failures={"known": "a reason"})
        def test_matrix(case, probe):
            probe(case)
        """,
        "--overfit-selftest",
    )
    result.assert_outcomes(failed=1, xfailed=1)
    result.stdout.fnmatch_lines(
        ["broken: nothing was asked*", "  overfit_batch refuses the case as it is, so that it tells nothing*"]
    )


def test_probes_that_train_repeatedly_are_asked_for(project: Any, every_probe: None) -> None:
    source = """
        @pytest.mark.overfit("bounds")
        def test_it():
            return Case(name="good", model=object, batch=(X, Y), options={"bounds": {"initial_loss": (0, 10)}})
    """
    result = project.run(source, "--overfit-selftest", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*bounds trains repeatedly; --overfit-selftest=all asks it as well*"])
    project.again("--overfit-selftest=all").assert_outcomes(passed=1)


def test_another_word_is_refused(project: Any) -> None:
    result = project.run("def test_it(): pass", "--overfit-selftest=every")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*invalid choice: 'every'*"])


def test_no_test_with_a_probe(project: Any) -> None:
    result = project.run("def test_it(): pass", "--overfit-selftest")
    result.assert_outcomes(deselected=1)
    result.stdout.fnmatch_lines(["no test ran a probe on a case"])


@pytest.mark.slow
@pytest.mark.usefixtures("every_probe")
def test_with_two_workers_the_controller_shows_the_table(project: Any) -> None:
    project.pytester.makeconftest("")
    project.write(OF_TORCH)
    result = project.pytester.runpytest_subprocess("--overfit-selftest", "-n2", "--overfit-diagnose=never")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*overfit: self-test*", "classes: * faults planted, *", "  fault *wiring*"])


@pytest.mark.slow
def test_a_plain_case_whole() -> None:
    """All faults by all probes that train once: what is measured on real cases is in `benchmarks/selftest`."""
    found = run_selftest(cases.quick(), tell=None)
    assert len(found.judged) >= 40
    assert found.caught >= 0.75
    assert found.named >= 0.65
