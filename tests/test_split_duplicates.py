"""The probe `split_duplicates`: from a case to a verdict, its limits and options, and its judgement on plain values."""

# ruff: noqa: E501 - tables of cases, one a line

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_overfit.core.limits import Resolved
from pytest_overfit.core.verdict import Verdict
from pytest_overfit.data.duplicate_judgement import SplitDuplicatesLimits, judge_duplicates

SPLITS = """
    R = np.random.default_rng(0)
    A, B = R.normal(size=(200, 5)), R.normal(size=(100, 5))
    COPIED = np.concatenate([B[:96], A[:4]])

    def never():
        raise AssertionError("the model was built")

    def splits(name="splits", test=B, **more):
        return Case(name=name, model=never, train=(A, np.arange(200) % 3), test=(test, np.arange(1, 101) % 3), **more)
"""


def run(project: Any, source: str, *arguments: str) -> Any:
    import textwrap

    return project.run(textwrap.dedent(SPLITS) + textwrap.dedent(source), *arguments)


def test_clean_splits_pass_and_copies_fail(project: Any) -> None:
    result = run(
        project,
        """
        def test_clean(overfit):
            verdict = overfit.split_duplicates(splits())
            assert verdict.passed and verdict.data["across"][0]["rows"] == 0
            assert Duplicates(verdict.data).clean("test") == list(range(100))

        def test_copied(overfit):
            overfit.split_duplicates(splits("copied", COPIED))

        @pytest.mark.overfit("split_duplicates")
        def test_marked():
            return splits("marked", COPIED)
        """,
        "--overfit-json=out.json",
    )
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*copied: FAILED: 4 of 100 rows of test (4.00%) have an exact copy in train, a leak: *",
            "*FAIL  exact_copies *0.04  <= 0 *(default)*",
            "*FAIL  conflicting_labels *",
            "*fact  exact: test[[]96] = train[[]0], labels 1 and 0 *",
        ]
    )
    result.stdout.no_fnmatch_line("*the model was built*")
    result.stdout.no_fnmatch_line("*site-packages*")
    verdicts = {each["case"]: each for each in json.loads((project.path / "out.json").read_text())["verdicts"]}
    assert [each["i"] for each in verdicts["copied"]["data"]["pairs"]] == [96, 97, 98, 99]
    assert (
        Verdict.from_dict({k: v for k, v in verdicts["copied"].items() if k not in ("test", "attempts")}).outcome
        == "failed"
    )


def test_limits_come_from_call_case_and_ini(project: Any) -> None:
    project.ini("overfit_limits = max_rate = 0.5")
    result = run(
        project,
        """
        def test_ini(overfit):
            overfit.split_duplicates(Case(name="ini", model=never, train=A, test=COPIED))

        def test_case(overfit):
            overfit.split_duplicates(Case(name="case", model=never, train=A, test=COPIED, limits={"max_rate": 0.01}))

        def test_call(overfit):
            overfit.split_duplicates(Case(name="call", model=never, train=A, test=COPIED, limits={"max_rate": 0.01}), max_rate=0.04)

        def test_wrong(overfit):
            overfit.split_duplicates(Case(name="wrong", model=never, train=A, test=COPIED), max_rat=0.04)
        """,
    )
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines_random(
        ["*<= 0.01 *(case)*", "*call: unknown limit 'max_rat'; did you mean 'max_rate'?*"]
    )


def test_one_split_is_not_applicable_and_misuse_is_told(project: Any) -> None:
    result = run(
        project,
        """
        def test_one(overfit):
            overfit.split_duplicates(Case(name="one", model=never, train=A))

        def test_batch(overfit):
            overfit.split_duplicates(Case(name="batch", model=never, batch=(A, A)))

        def test_option(overfit):
            overfit.split_duplicates(splits("option", options={"split_duplicates": {"groups": "x"}}))

        def test_width(overfit):
            overfit.split_duplicates(Case(name="width", model=never, train=A, test=B[:, :3]))

        def test_raises(overfit):
            overfit.split_duplicates(Case(name="raises", model=never, train=A, test=lambda: 1 / 0))
        """,
        "-rs",
    )
    result.assert_outcomes(skipped=2, failed=3)
    result.stdout.fnmatch_lines_random(
        [
            "*Case 'option': options*: unknown option 'groups'; did you mean 'group'?",
            "*Case 'width': the samples have different shapes*",
            "*Case 'raises': the function given as test raised ZeroDivisionError*",
            "*one: split_duplicates: it has train= only; copies are looked for between two splits*",
            "*batch: split_duplicates: it has batch= only*",
        ]
    )


def test_groups_time_and_allow_are_options(project: Any) -> None:
    result = run(
        project,
        """
        def given(name, **options):
            return Case(name=name, model=never, train=A, test=COPIED if "allow" in options else B, options={"split_duplicates": options})

        def test_group(overfit):
            overfit.split_duplicates(given("group", group={"train": np.arange(200), "test": np.arange(199, 299)}))

        def test_group_clean(overfit):
            overfit.split_duplicates(given("group_clean", group={"train": np.arange(200), "test": np.arange(200, 300)}))

        def test_time(overfit):
            overfit.split_duplicates(given("time", time={"train": np.arange(200), "test": np.arange(200, 300)}, gap=5))

        def test_time_clean(overfit):
            overfit.split_duplicates(given("time_clean", time={"train": np.arange(200), "test": np.arange(206, 306)}, gap=5))

        def test_allow(overfit):
            overfit.split_duplicates(given("allow", allow={f"test:{row}": "a control sample" for row in range(96, 100)}))
        """,
    )
    result.assert_outcomes(passed=3, failed=2)
    result.stdout.fnmatch_lines_random(
        ["*group: FAILED: 1 of 100 groups of test stand in train too*", "*time: FAILED: 5 rows of test are not later*"]
    )


# ----------------------------------------------------------------------------------------------------------- judgement


def measured(**changes: Any) -> dict[str, Any]:
    pair = {"in": "train", "of": "test"}
    form = {
        "across": [{**pair, "rows": 0, "rate": 0.0, "sources": 0, "conflicts": 0, "samples": 1000}],
        "within": {
            name: {"rows": 0, "rate": 0.0, "groups": 0, "conflicts": 0, "sampled": False, "samples": 1000}
            for name in ("train", "test")
        },
        "near": [{**pair, "testable": True, "why": "", "rows": 0, "rate": 0.0, "expected": 0.0, "samples": 1000}],
        "windows": [], "groups": [], "time": [], "pairs": [], "allowed": {"used": [], "unused": []},
        "info": {"splits": {"train": {"samples": 1000}, "test": {"samples": 1000}}, "differences": [], "notes": [],
                 "doubts": [], "unverified": 0},
    }  # fmt: skip
    for key, value in changes.items():
        if isinstance(form[key], list):
            form[key] = [{**(form[key][0] if form[key] else {**pair, "samples": 1000}), **value}]
        else:
            form[key] = {**form[key], **value}
    return form


def outcome(form: dict[str, Any], **limits: Any) -> tuple[str, str]:
    found = judge_duplicates(form, Resolved(SplitDuplicatesLimits(**limits), {}))
    return found.outcome, found.summary


JUDGED = [
    ({}, "passed", "no exact copy, no near-copy between splits"),
    ({"across": {"rows": 1, "rate": 0.001}}, "failed", "a leak"),
    ({"across": {"rows": 100, "rate": 0.1}, "within": {"train": {**measured()["within"]["train"], "rate": 0.1}}}, "failed", "the data repeat"),
    ({"across": {"rows": 100, "rate": 0.1}, "within": {"train": {**measured()["within"]["train"], "rate": 0.02}}}, "failed", "a leak"),
    ({"across": {"rows": 15, "rate": 0.015}, "within": {"train": {**measured()["within"]["train"], "rate": 0.015}}}, "failed", "a leak"),
    ({"near": {"rows": 3, "rate": 0.003}}, "passed", "3 near-copies"),
    ({"near": {"rows": 30, "rate": 0.03}}, "failed", "30 of 1000 rows of test (3.00%) have a near-copy"),
    ({"near": {"testable": False, "why": "two dimensions"}}, "passed", "near-copies not testable"),
    ({"windows": {"testable": True, "rows": 60, "rate": 0.06}}, "failed", "60 of 1000 windows"),
    ({"windows": {"testable": True, "rows": 6, "rate": 0.006}}, "passed", "no exact copy"),
    ({"info": {"doubts": [["train", "it is augmented"]]}}, "inconclusive", "cannot tell that train is clean"),
    ({"info": {"doubts": [["train", "it is augmented"]]}, "across": {"rows": 1, "rate": 0.001}}, "failed", "a leak"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "wanted", "words"), JUDGED)
def test_judgement(changes: dict[str, Any], wanted: str, words: str) -> None:
    found, summary = outcome(measured(**changes))
    assert (found, words in summary) == (wanted, True), summary


def test_within_a_limit_is_passed_but_a_conflict_never_is() -> None:
    form = measured(across={"rows": 10, "rate": 0.01})
    assert outcome(form, max_rate=0.01)[0] == "passed"
    form["across"][0]["conflicts"] = 1
    assert outcome(form, max_rate=0.01)[0] == "failed"
