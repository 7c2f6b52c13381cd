"""The probe `split_duplicates`: from a case to a verdict, its limits and options, and its judgement on plain values."""

# ruff: noqa: E501 - tables of cases, one a line

from __future__ import annotations

import itertools
import json
import random
import re
import textwrap
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler

from pytest_overfit import Case, CaseError, Duplicates, ProgramError, Verdict, run_probes
from pytest_overfit.core.limits import Resolved
from pytest_overfit.duplicates.judgement import SplitDuplicatesLimits, judge_duplicates
from pytest_overfit.probes.split_duplicates import OPTIONS, PROBE

R = np.random.default_rng(0)
A, B = R.normal(size=(200, 5)), R.normal(size=(100, 5))
#: the last four rows of B are the first four of A
COPIED = np.concatenate([B[:96], A[:4]])


def never() -> Any:
    raise AssertionError("the model was built")


def verdict(name: str = "case", **fields: Any) -> Verdict:
    """The verdict on splits of these names; `options` are those of the probe."""
    options = {"split_duplicates": fields.pop("options", {})}
    (found,) = run_probes(Case(name=name, model=never, options=options, **fields), "split_duplicates")
    return found


# ------------------------------------------------------------------------- planted faults, each beside a healthy twin


def series(cut_at_random: bool) -> dict[str, Any]:
    """Windows of one random walk, cut at random or at a time."""
    walk = np.cumsum(np.random.default_rng(1).normal(size=4_000))
    windows = np.lib.stride_tricks.sliding_window_view(walk, 32)[::8]
    order = np.random.default_rng(2).permutation(len(windows)) if cut_at_random else np.arange(len(windows))
    return {"train": windows[order[:380]], "test": windows[order[390:]]}


def near(planted: int) -> dict[str, Any]:
    """Rows of twenty numbers; the first `planted` of test are rows of train, a little changed."""
    rng = np.random.default_rng(3)
    train, test = rng.normal(size=(1_000, 20)), rng.normal(size=(300, 20))
    test[:planted] = train[:planted] + 0.001 * rng.normal(size=(planted, 20))
    return {"train": train, "test": test}


def pictures(copied: int) -> dict[str, Any]:
    """Bytes in train, the same scaled to 0..1 in test."""
    rng = np.random.default_rng(4)
    train, test = (rng.integers(0, 256, size=(n, 8, 8), dtype=np.uint8) for n in (200, 100))
    test[:copied] = train[:copied]
    return {"train": train, "test": test / 255}


def numbers(start: int, count: int) -> Any:
    return np.arange(start, start + count)


def labelled(test: Any, labels: Any) -> dict[str, Any]:
    return {"train": (A, np.arange(200) % 3), "test": (test, labels)}


def grouped(start: int) -> dict[str, Any]:
    groups = {"train": numbers(0, 200) // 4, "test": numbers(start, 100) // 4}
    return {"train": A, "test": B, "options": {"group": groups}}


def timed(start: int) -> dict[str, Any]:
    return {
        "train": A,
        "test": B,
        "options": {"time": {"train": numbers(0, 200), "test": numbers(start, 100)}, "gap": 5},
    }


class Samples(Dataset[Any]):
    """A torch dataset that may draw noise, or raise at some places."""

    def __init__(self, x: Any, noise: float = 0, broken: Any = (), error: type[Exception] = OSError) -> None:
        self.x, self.noise, self.broken, self.error = x, noise, broken, error

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        if index in self.broken:
            raise self.error(f"truncated file {index}")
        return torch.tensor(self.x[index]) + self.noise * torch.randn(5, dtype=torch.float64), 0


FOUND = {
    "exact": ({"train": A, "test": COPIED}, "failed", "exact_copies.test_in_train", "4 of 100 rows of test (4.00%) have an exact copy in train, a leak"),
    "exact clean": ({"train": A, "test": B}, "passed", "", "no exact copy, no near-copy between splits (train 200, test 100)"),
    "val": ({"train": A, "val": COPIED[50:], "test": B}, "failed", "exact_copies.test_in_val", "4 of 50 rows of val (8.00%) have an exact copy in train, a leak"),
    "val clean": ({"train": A, "val": B[50:], "test": B[:50]}, "passed", "", "no exact copy"),
    "conflict": (labelled(COPIED, np.r_[numbers(0, 96) % 3, [1, 1, 2, 0]]), "failed", "conflicting_labels.test_in_train", "a leak"),
    "conflict clean": (labelled(B, numbers(0, 100) % 3), "passed", "", "no exact copy"),
    "near": (near(30), "failed", "near_copies.test_in_train", "30 of 300 rows of test (10.00%) have a near-copy in train"),
    "near clean": (near(0), "passed", "", "no near-copy"),
    "windows": (series(True), "failed", "windows.test_in_train", "overlap windows of train"),
    "windows clean": (series(False), "passed", "", "no exact copy"),
    "group": (grouped(199), "failed", "shared_groups.test_in_train", "1 of 26 groups of test also occur in train (1 rows; first 49)"),
    "group clean": (grouped(200), "passed", "", "no exact copy"),
    "time": (timed(200), "failed", "time_order.test_after_train", "5 rows of test are not later than the last of train (199) plus the gap of 5"),
    "time clean": (timed(205), "passed", "", "no exact copy"),
    "scale": (pictures(3), "failed", "exact_copies.test_in_train", "3 of 100 rows of test (3.00%) have an exact copy in train, a leak"),
    "scale clean": (pictures(0), "passed", "", "no exact copy"),
    "dtype": ({"train": A.astype(np.float32), "test": COPIED}, "failed", "exact_copies.test_in_train", "a leak"),
    "dtype clean": ({"train": A.astype(np.float32), "test": B}, "passed", "", "no exact copy"),
    "unsteady": ({"train": Samples(A, noise=0.01), "test": Samples(B)}, "inconclusive", "readable.train", "cannot tell that train is clean: sample 0, read twice, was not the same"),
    "steady": ({"train": Samples(A), "test": Samples(B)}, "passed", "", "no exact copy"),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "outcome", "finding", "words"), FOUND.values(), ids=FOUND)
def test_planted_faults_beside_healthy_twins(fields: Any, outcome: str, finding: str, words: str) -> None:
    found = verdict(**fields)
    assert found.outcome == outcome, found.summary
    assert words in found.summary
    bad = {each.name for each in found.findings if each.outcome in ("failed", "inconclusive")}
    assert (finding in bad) if finding else not bad
    assert Verdict.from_dict(json.loads(json.dumps(found.to_dict()))).to_dict() == found.to_dict()


@pytest.mark.parametrize("which", ["scale", "scale clean", "dtype", "dtype clean"])
def test_another_dtype_or_scale_is_a_finding_of_its_own(which: str) -> None:
    found = verdict(**FOUND[which][0])
    name = f"{which.split()[0]}_differs"
    assert [each.name for each in found.findings if each.outcome == "warning"] == [name]


def test_copies_in_a_wide_table_are_told_once() -> None:
    """Numbers in sixteen columns or more may be windows; equal rows are copies, and no windows shifted by nothing."""
    rng = np.random.default_rng(6)
    train, test = rng.normal(size=(400, 20)), rng.normal(size=(100, 20))
    test[:30] = train[:30]
    found = verdict(train=train, test=test)
    assert [each.name for each in found.findings if each.outcome == "failed"] == ["exact_copies.test_in_train"]
    assert verdict(train=train, test=test, limits={"max_rate": 0.3}).outcome == "passed"
    reasons = {f"test:{row}": "meant" for row in range(30)}
    assert verdict(train=train, test=test, options={"allow": reasons}).outcome == "passed"


def test_a_cut_in_time_without_a_gap_is_told_whole_and_can_be_cleaned() -> None:
    walk = np.cumsum(np.random.default_rng(1).normal(size=1_023))
    rows = np.lib.stride_tricks.sliding_window_view(walk, 24)
    train, test = rows[:400], rows[400:]
    found = verdict(train=train, test=test)
    assert [each.outcome for each in found.findings if each.name == "windows.test_in_train"] == ["warning"]
    assert found.data["windows"][0]["rows"] == 23
    keep = Duplicates(found.data).clean("test")
    assert keep == list(range(23, 600))
    again = verdict(train=train, test=test[keep])
    assert [each.outcome for each in again.findings if each.name == "windows.test_in_train"] == ["passed"]
    allowed = verdict(train=train, test=test, options={"allow": {f"test:{row}": "a warm-up" for row in range(23)}})
    assert allowed.data["windows"][0]["rows"] == 0


def test_the_data_of_a_verdict_are_read_by_the_view() -> None:
    found = verdict(**labelled(COPIED, np.r_[np.arange(96) % 3, [1, 1, 2, 0]]))
    view = Duplicates(found.data)
    assert view.clean("test") == list(range(96))
    assert view.clean("train") == list(range(4, 200))
    assert view.rates == {"test in train": 0.04}
    assert [(each["i"], each["j"], each["conflict"]) for each in view.pairs] == [(96, 0, True), (97, 1, False), (98, 2, False), (99, 3, False)]  # fmt: skip
    again = verdict(**labelled(COPIED, np.r_[np.arange(96) % 3, [1, 1, 2, 0]]))
    assert again.data == found.data


def test_a_verdict_lists_some_of_many_copies_and_counts_all() -> None:
    x = np.random.default_rng(5).normal(size=(2_500, 3))
    found = verdict(train=(x, np.zeros(2_500)), test=(x, np.r_[np.zeros(2_000), np.ones(500)]), options={"near": False})
    view = Duplicates(found.data)
    assert found.summary.startswith("2500 of 2500 rows of test")
    assert (len(view.pairs), len(view.conflicts)) == (1_000, 500)
    assert all(each["conflict"] for each in view.pairs[:500])
    assert view.clean("test") == []


def test_places_of_a_split_in_random_order_are_not_handed_out() -> None:
    def shuffled() -> Iterator[Any]:
        return iter([COPIED[place] for place in np.random.permutation(len(COPIED))])

    found = verdict(train=A, test=shuffled)
    assert found.outcome == "failed"
    told = [each.message for each in found.findings if each.name == "remark"]
    assert "test comes in another order at each reading: its places are those of one reading" in told
    assert any("clean('train')" in each for each in told)
    assert not any("clean('test')" in each or "'allow'" in each for each in told)
    with pytest.raises(CaseError, match="comes in another order at each reading, so places mean nothing"):
        Duplicates(found.data).clean("test")


# ----------------------------------------------------------------------------------------------- what a reader learns


PROGRAM = """
    R = np.random.default_rng(0)
    A, B = R.normal(size=(200, 5)), R.normal(size=(100, 5))
    COPIED = np.concatenate([B[:96], A[:4]])

    def never():
        raise AssertionError("the model was built")

    def given(name, test=B, **more):
        return Case(name=name, model=never, train=(A, np.arange(200) % 3), test=(test, np.arange(1, 101) % 3), **more)
"""


def run(project: Any, source: str, *arguments: str) -> Any:
    return project.run(textwrap.dedent(PROGRAM) + textwrap.dedent(source), *arguments)


WAYS = """
    def test_clean(overfit):
        verdict = overfit.split_duplicates(given("clean"))
        assert verdict.passed and verdict.data["across"][0]["rows"] == 0
        assert Duplicates(verdict.data).clean("test") == list(range(100))

    def test_copied(overfit):
        overfit.split_duplicates(given("copied", COPIED))

    @pytest.mark.overfit("split_duplicates", max_near=0.02)
    def test_marked():
        return given("marked", COPIED)

    @parametrize_with_probes(
        [given("matrix"), given("leaky", COPIED)], ["split_duplicates"], expected_failures={"leaky": "copied until #7"}
    )
    def test_matrix(case, probe):
        probe(case)
"""


def test_failure_text_and_reports(project: Any) -> None:
    result = run(project, WAYS, "--overfit-json=out.json", "--junitxml=out.xml")
    result.assert_outcomes(passed=2, failed=2, xfailed=1)
    result.stdout.fnmatch_lines(
        [
            "*ProbeFailed: copied: FAILED: 4 of 100 rows of test (4.00%) have an exact copy in train, a leak",
            "*FAIL  exact_copies.test_in_train *0.04  <= 0 *(default)  see above",
            "*FAIL  conflicting_labels.test_in_train *4 *<= 0 *(theory)*4 rows of test have a copy in train with another label",
            "*ok    near_copies.test_in_train *0 *<= 0.01  (default)  no row of test has a near-copy in train",
            "*fact  exact: test[[]96] = train[[]0], labels 1 and 0 [[]*[]]",
            "*note  rows to keep: Duplicates(verdict.data).clean('test'), or find_duplicates(...).clean('test')",
            "*note  a copy that is meant: options={'split_duplicates': {'allow': {'test:96': 'the reason'}}}",
            "*probe split_duplicates, seed 0, ?.? s",
            "*rerun pytest test_it.py::test_copied",
            "marked: FAILED: 4 of 100 *",
            "*<= 0.02 *(marker)*",
            "*== overfit: split_duplicates ==*",
            "FAILED        copied: 4 of 100 rows of test (4.00%) have an exact copy in*",
            "failed as expected: 1 (-v lists them)",
            "passed: 2 (-v lists them)",
        ]
    )
    for unwanted in ("*the model was built*", "*site-packages*", "*loss*", "*0 steps*"):
        result.stdout.no_fnmatch_line(unwanted)
    verdicts = {each["case"]: each for each in json.loads((project.path / "out.json").read_text())["verdicts"]}
    assert [each["i"] for each in verdicts["copied"]["data"]["pairs"]] == [96, 97, 98, 99]
    cases = ElementTree.parse(project.path / "out.xml").getroot().findall(".//testcase")
    found = {case.get("name"): [each.attrib for each in case.findall("properties/property")] for case in cases}
    names = [each["name"].removeprefix("overfit.copied.split_duplicates.") for each in found["test_copied"]]
    assert names == ["outcome", "summary", "seed", "exact_copies.test_in_train", "conflicting_labels.test_in_train", "near_copies.test_in_train", "diagnosis"]  # fmt: skip


def test_properties_of_three_splits_have_names_of_their_own(project: Any) -> None:
    source = "def test_it(overfit):\n    overfit.split_duplicates(Case(name='three', model=list, train=A[:150], val=A[150:], test=B))\n"
    run(project, source, "--junitxml=out.xml").assert_outcomes(passed=1)
    names = [each.get("name") for each in ElementTree.parse(project.path / "out.xml").getroot().iter("property")]
    assert len(names) == len(set(names)) > 6


def test_examples_of_every_kind_are_shown() -> None:
    def facts(which: str) -> str:
        return "\n".join(each.message for each in verdict(**FOUND[which][0]).findings if each.name == "fact")

    assert re.search(r"near: test\[\d+\] ~ train\[\d+\].*, p = \S+e-\d+", facts("near"))
    assert re.search(r"window: test\[\d+\] and train\[\d+\] share \d+ numbers, shifted by \d+", facts("windows"))
    assert facts("group") == "group 49: first of its rows test[0], train[196, 197, 198, 199]"
    assert facts("exact clean") == ""


def test_same_verdicts_in_two_workers(project: Any) -> None:
    pytest.importorskip("xdist")
    outcomes, forms = [], []
    for arguments in ((), ("-n", "2")):
        result = run(project, WAYS, "--overfit-json=out.json", *arguments)
        outcomes.append(result.parseoutcomes())
        found = json.loads((project.path / "out.json").read_text())["verdicts"]
        forms.append(sorted(({**each, "seconds": 0} for each in found), key=lambda each: str(each["test"])))
    assert outcomes[0] == outcomes[1] == {"passed": 2, "failed": 2, "xfailed": 1}
    assert len(forms[0]) == 5
    assert forms[0] == forms[1]


# --------------------------------------------------------------------------------------------------- limits and options


def test_limits_come_from_call_marker_case_and_ini(project: Any) -> None:
    project.ini("overfit_limits =", "    max_rate = 0.5", "    split_duplicates.max_near = 0.5")
    result = run(
        project,
        """
        def case(name, **limits):
            return Case(name=name, model=never, train=A, test=COPIED, limits=limits)

        def test_ini(overfit):
            overfit.split_duplicates(case("ini"))

        def test_case(overfit):
            overfit.split_duplicates(case("case", max_rate=0.01))

        @pytest.mark.overfit("split_duplicates", max_rate=0.02)
        def test_marker():
            return case("marker", max_rate=0.5)

        def test_call(overfit):
            overfit.split_duplicates(case("call", max_rate=0.01), max_rate=0.04)

        def test_call_below(overfit):
            overfit.split_duplicates(case("below", max_rate=0.5), max_rate=0.03)

        def test_wrong(overfit):
            overfit.split_duplicates(case("wrong"), max_rat=0.04)

        def test_whole(overfit):
            overfit.split_duplicates(case("whole"), max_windows=1)
        """,
    )
    result.assert_outcomes(passed=2, failed=5)
    result.stdout.fnmatch_lines_random(
        [
            "*0.04  <= 0.01  (case) *",
            "*0.04  <= 0.02  (marker) *",
            "*0.04  <= 0.03  (call) *",
            "*near_copies.test_in_train *<= 0.5 *(ini) *",
            "*CaseError: call: unknown limit 'max_rat'; did you mean 'max_rate'?",
            "*CaseError: call: max_windows: expected a number of 0 or more and below 1, got 1",
        ]
    )


LIMITED = {
    "max_rate": ("exact", 0.04),
    "max_near": ("near", 0.1),
    "max_groups": ("group", 0.01),
    "max_out_of_order": ("time", 0.05),
}


@pytest.mark.parametrize("limit", LIMITED)
def test_each_limit_decides_about_its_own_finding(limit: str) -> None:
    which, rate = LIMITED[limit]
    at, below = ({**FOUND[which][0], "limits": {limit: value}} for value in (rate, 0.99 * rate))
    assert verdict(**at).outcome == "passed"
    assert verdict(**below).outcome == "failed"


def test_the_limit_of_windows() -> None:
    found = verdict(**series(True))
    (share,) = (each.value for each in found.findings if each.name == "windows.test_in_train")
    assert isinstance(share, float)
    assert share > 0.9
    assert verdict(**series(True), limits={"max_windows": 0.05}).outcome == "failed"
    assert share < 1 or verdict(**series(True), limits={"max_windows": 0.999}).outcome == "failed"


def test_options_reach_the_search() -> None:
    reasons = {f"test:{row}": "a control sample" for row in range(96, 100)}
    allowed = verdict(train=A, test=COPIED, options={"allow": reasons})
    assert (allowed.outcome, allowed.data["allowed"]) == ("passed", {"used": sorted(reasons), "unused": []})
    assert (
        verdict(train=["Ä b", "c"], test=["a\u0308  B"], options={"text": "normalized", "near": False}).outcome
        == "failed"
    )
    assert verdict(train=["Ä b", "c"], test=["a\u0308  B"], options={"near": False}).outcome == "passed"
    by_first = {"key": lambda sample: sample[:1], "near": False}
    assert verdict(train=A, test=np.c_[A[:2, :1], B[:2, 1:]], options=by_first).outcome == "failed"
    assert verdict(**{**near(30), "options": {"near": False}}).outcome == "passed"
    table = {"x": A[:, 0], "patient": np.arange(200), "sick": np.arange(200) % 2}
    other = {"x": B[:, 0], "patient": np.arange(150, 250), "sick": np.arange(100) % 2}
    clinic = verdict(train=table, test=other, options={"group": "patient", "label": "sick"})
    assert clinic.summary.startswith("50 of 100 groups of test also occur in train")


def test_every_option_is_known_to_the_search() -> None:
    assert {"label", "group", "time", "key", "features", "allow", "executor", "max_samples"} <= set(OPTIONS)
    assert not {"given", "seed", "progress"} & set(OPTIONS)


REFUSED = {
    "option": ({"options": {"groups": "x"}}, "options['split_duplicates']: unknown option 'groups'; did you mean 'group'?"),
    "limit as option": ({"options": {"max_rate": 0.1}}, "options['split_duplicates']: 'max_rate' is a limit; write limits={'max_rate': ...}"),
    "value": ({"options": {"near": "yes"}}, "near='yes'; known: False, True, auto; in a Case: options={'split_duplicates': {'near': ...}}"),
    "column": ({"options": {"group": "patient"}}, "group='patient' names a column, but train= is numpy ndarray without names"),
    "length": ({"options": {"group": {"train": [1], "test": [2]}}}, "group={'train': ...} has 1 values, but the split has more samples"),
    "reason": ({"options": {"allow": {"test:3": " "}}}, "expected the reason in words"),
    "key": ({"options": {"key": lambda sample: 1 / 0}}, "the function given as key raised ZeroDivisionError: division by zero"),
    "empty": ({"test": B[:0]}, "test= is empty: it has no samples"),
    "empty list": ({"test": []}, "test= is empty: it has no samples"),
    "empty dataset": ({"train": Samples(A), "test": Samples(B[:0])}, "test= is empty: it has no samples"),
    "spent generator": ({"test": iter([])}, "test= is empty: it gave no samples; was it read before? give a function that returns it"),
    "width": ({"test": B[:, :3]}, "the samples have different shapes (train (5,), test (3,)), so no two samples can be equal"),
    "kinds": ({"test": [f"text {row}" for row in range(100)]}, "the samples are of different kinds (train numbers, test text)"),
    "complex": ({"test": B + 1j}, "the samples are of different kinds (train numbers, test complex numbers)"),
    "labels": ({"test": (B, [1, 2])}, "test=(x, y): x has 100 rows and y has 2"),
    "unhashable": ({"train": [{1, 2}, {3}], "test": [{1}]}, "a sample holds a set, which cannot be compared by value; give key="),
    "function": ({"test": lambda: 1 / 0}, "the function given as test raised ZeroDivisionError: division by zero"),
    "nothing": ({"test": lambda: None}, "test= is None; expected arrays, (x, y), a table"),
    "all broken": ({"train": Samples(A, broken=range(200)), "test": Samples(B)}, "train= is empty or cannot be read: OSError: truncated file 0"),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_compared_is_refused_with_the_case_and_the_way_out(fields: Any, message: str) -> None:
    with pytest.raises(CaseError) as caught:
        verdict("named", **{"train": A, "test": B, **fields})
    assert str(caught.value).startswith("Case 'named': ")
    assert message in str(caught.value)
    if isinstance(caught.value, ProgramError):
        assert isinstance(caught.value.__context__, (ZeroDivisionError, OSError))
        assert "test_split_duplicates.py" in str(caught.value)


def test_options_for_no_probe_are_refused() -> None:
    with pytest.raises(
        CaseError, match=r"Case 'x': options: unknown probe 'split_duplicate'; did you mean 'split_duplicates'\?"
    ):
        run_probes(Case(name="x", model=never, train=A, test=B, options={"split_duplicate": {}}), "split_duplicates")
    with pytest.raises(CaseError, match="is list of 1; expected a dict"):
        run_probes(
            Case(name="x", model=never, train=A, test=B, options={"split_duplicates": ["x"]}), "split_duplicates"
        )  # type: ignore[dict-item]


def test_misuse_has_no_traceback_through_our_code(project: Any) -> None:
    result = run(
        project,
        """
        def test_it(overfit):
            overfit.split_duplicates(given("width", B[:, :3]))

        def test_one(overfit):
            overfit.split_duplicates(Case(name="one", model=never, train=A))
        """,
        "-rs",
    )
    result.assert_outcomes(failed=1, skipped=1)
    result.stdout.fnmatch_lines(
        [
            ">*overfit.split_duplicates(given*",
            "E*CaseError: Case 'width': the samples have different shapes*",
            "SKIPPED*one: split_duplicates: the case has train= alone, and copies are looked for between two of *",
        ]
    )
    result.stdout.no_fnmatch_line("*pytest_overfit?probes*")


@pytest.mark.parametrize(
    "fields", [{"train": A}, {"batch": (A, A)}, {"batch": (A, A), "test": B}], ids=["train", "batch", "test"]
)
def test_one_split_is_not_applicable(fields: Any) -> None:
    found = verdict(**fields)
    assert (found.outcome, found.passed) == ("not_applicable", False)
    assert re.fullmatch(r"the case has (train|batch|test)= alone, and copies .*", found.summary)


# -------------------------------------------------------------------------------------------------- data that misbehave


def ragged(start: int, count: int) -> Any:
    rows = np.empty(count, object)
    rows[:] = [np.arange(1 + each % 7) + each for each in range(start, start + count)]
    return rows


def test_ragged_arrays_are_compared() -> None:
    assert verdict(train=ragged(0, 50), test=ragged(100, 20)).outcome == "passed"
    assert verdict(train=ragged(0, 50), test=ragged(45, 20)).summary.startswith("5 of 20 rows of test")


def test_samples_of_another_length_are_told() -> None:
    """Each may be of any length, as texts and signals are; that no two are alike is said beside the verdict."""
    found = verdict(train=Samples(A), test=[(row[:3], 0) for row in B])
    assert found.outcome == "passed"
    (told,) = (each.message for each in found.findings if each.name == "shape_differs")
    assert told.startswith("the first samples have different shapes (train (5,), test (3,))")
    assert not [
        each for each in verdict(train=ragged(0, 50), test=ragged(100, 20)).findings if each.outcome == "warning"
    ]


@pytest.mark.parametrize("error", [OSError, IndexError, KeyError, StopIteration])
def test_a_sample_that_raises_is_named_and_the_rest_is_compared(error: type[Exception]) -> None:
    broken = Samples(A, broken=(17,), error=error)
    clean = verdict(train=broken, test=Samples(B))
    assert clean.outcome == "inconclusive"
    assert f"sample 17 could not be read: {error.__name__}" in clean.summary
    found = verdict(train=broken, test=Samples(COPIED))
    assert found.summary.startswith("4 of 100 rows of test")
    assert any("sample 17 could not be read" in each.message for each in found.findings)


def test_many_samples_that_raise_are_counted_first() -> None:
    found = verdict(train=Samples(A, broken=range(30, 50)), test=Samples(B))
    assert found.summary == "cannot tell that train is clean: 20 samples could not be read; the others were compared"
    assert sum("could not be read: OSError" in each.message for each in found.findings) == 10


def test_samples_that_change_when_they_are_read_are_never_clean() -> None:
    class Counting(Samples):
        def __getitem__(self, index: int) -> Any:
            self.x[index] += 1
            return self.x[index], 0

    assert "changed by reading" in verdict(train=Counting(A.copy()), test=Samples(B)).summary


def test_streams_without_end_are_bounded_and_told() -> None:
    def endless() -> Iterator[Any]:
        return (np.array([each, each**2 % 97, 1.0]) for each in itertools.count())

    options = {"max_samples": 3_000, "near": False}
    found = verdict(train=endless, test=np.array([[5.0, 25.0, 1.0], [5.0, 26.0, 1.0]]), options=options)
    assert found.summary.startswith("1 of 2 rows of test")
    told = [each.message for each in found.findings if each.name == "remark"]
    assert told[0] == "train goes on: its first 3000 samples were read, by max_samples="
    again = verdict(train=lambda: itertools.cycle(list(A)), test=B)
    assert again.outcome == "passed"
    assert again.data["info"]["splits"]["train"]["samples"] == 200
    assert again.data["near"][0]["testable"]
    assert "train starts again after 200 samples: read once" in [each.message for each in again.findings]


def test_an_endless_stream_that_nobody_bounded_says_where_the_bound_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_overfit.duplicates.search.MAX_SAMPLES", 3_000)
    found = verdict(train=lambda: (np.full(3, each) for each in itertools.count()), test=np.ones((4, 3)) / 2)
    assert found.outcome == "inconclusive"
    assert "goes on after the first" in found.summary
    assert found.findings[-1].message == "in a Case: options={'split_duplicates': {'max_samples': ...}}"


def test_a_generator_is_read_once_and_its_copies_are_found() -> None:
    clean = verdict(train=iter(list(A)), test=iter(list(B)))
    assert clean.outcome == "inconclusive"
    assert "give a function that returns it" in clean.summary
    assert verdict(train=iter(list(A)), test=iter(list(COPIED))).summary.startswith("4 of 100 rows")
    assert verdict(train=lambda: iter(list(A)), test=lambda: iter(list(B))).outcome == "passed"


# ------------------------------------------------------------------------------------------------------ the user's state


class Drawing(Samples):
    """Draws from every generator there is at each sample, and from some of its own."""

    def __init__(self, x: Any, error: type[BaseException] | None = None) -> None:
        super().__init__(x)
        self.fails = error
        self.own = [np.random.default_rng(1), np.random.RandomState(2), random.Random(3)]
        self.generator = torch.Generator().manual_seed(4)

    def __getitem__(self, index: int) -> Any:
        random.random()
        np.random.rand()
        torch.rand(1)
        self.own[0].random(), self.own[1].rand(), self.own[2].random()
        torch.rand(1, generator=self.generator)
        if self.fails is not None and index == 60:
            raise self.fails
        return super().__getitem__(index)

    def state(self) -> list[Any]:
        return [
            random.getstate(),
            np.random.get_state(legacy=False)["state"]["key"].tobytes(),
            torch.get_rng_state().tolist(),
            self.own[0].bit_generator.state,
            self.own[1].get_state(legacy=False)["state"]["key"].tobytes(),
            self.own[1].get_state(legacy=False)["state"]["pos"],
            self.own[2].getstate(),
            self.generator.get_state().tolist(),
        ]


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize(
    "wrap",
    [lambda data: data, lambda data: DataLoader(data, 8, shuffle=True), lambda data: lambda: data],
    ids=["dataset", "loader", "function"],
)
def test_generators_are_afterwards_where_they_were(error: Any, wrap: Any) -> None:
    data, x, y = Drawing(A, error), A.copy(), B.copy()
    before = data.state()
    if error in (KeyboardInterrupt, SystemExit):
        with pytest.raises(error):
            verdict(train=wrap(data), test=y)
    else:
        assert verdict(train=wrap(data), test=y).outcome == ("passed" if error is None else "inconclusive")
    assert data.state() == before
    assert np.array_equal(data.x, x)
    assert np.array_equal(y, B)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([(torch.tensor(row), 0) for row in A])


@pytest.mark.parametrize("kind", ["own generator", "with replacement", "stream"])
def test_a_loader_goes_on_where_it_was(kind: str) -> None:
    def loader() -> Any:
        generator = torch.Generator().manual_seed(7)
        if kind == "stream":
            return DataLoader(Stream(), 8, generator=generator)
        data = Samples(A)
        if kind == "with replacement":
            return DataLoader(data, 8, sampler=RandomSampler(data, replacement=True, generator=generator))
        return DataLoader(data, 8, shuffle=True, generator=generator)

    def next_batches(loader: Any) -> list[Any]:
        return [x.tolist() for x, _ in loader] + [
            torch.rand(1, generator=loader.generator).item() if loader.generator else None
        ]

    read, other = loader(), loader()
    assert verdict(train=read, test=B).outcome == "passed"
    assert next_batches(read) == next_batches(other)


def test_data_that_functions_draw_are_the_same_in_every_run_and_not_the_same_twice() -> None:
    def drawn() -> Any:
        return np.random.normal(size=(50, 4))

    one, two = (verdict(train=drawn, test=drawn) for _ in range(2))
    assert one.outcome == "passed"
    assert one.data == two.data


# ----------------------------------------------------------------------------------------------------------- judgement


def measured(**changes: Any) -> dict[str, Any]:
    """A measurement of two clean splits of 1,000 rows, with changes by kind."""
    pair = {"in": "train", "of": "test"}
    form: dict[str, Any] = {
        "across": [{**pair, "rows": 0, "rate": 0.0, "sources": 0, "conflicts": 0, "samples": 1000}],
        "within": {
            name: {"rows": 0, "rate": 0.0, "groups": 0, "conflicts": 0, "clashing": 0, "sampled": False, "samples": 1000}
            for name in ("train", "test")
        },
        "near": [{**pair, "testable": True, "why": "", "rows": 0, "rate": 0.0, "expected": 0.0, "samples": 1000}],
        "windows": [], "groups": [], "time": [], "pairs": [], "allowed": {"used": [], "unused": []},
        "touched": {"train": {"exact": []}, "test": {"exact": []}},
        "info": {"splits": {"train": {"samples": 1000}, "test": {"samples": 1000}}, "differences": [], "missing": [], "notes": [],
                 "doubts": [], "unverified": 0},
    }  # fmt: skip
    for key, value in changes.items():
        if isinstance(form[key], list):
            form[key] = [{**(form[key][0] if form[key] else {**pair, "samples": 1000}), **value}]
        else:
            form[key] = {**form[key], **value}
    return form


def judged(form: dict[str, Any], **limits: Any) -> Any:
    return judge_duplicates(form, Resolved(SplitDuplicatesLimits(**limits), {}))


def repeating(rate: float) -> dict[str, Any]:
    return {"train": {**measured()["within"]["train"], "rows": round(1000 * rate), "rate": rate}}


AUGMENTED = {"doubts": [["train", "it is augmented"]]}
JUDGED = [
    ({}, "passed", "no exact copy, no near-copy between splits"),
    ({"across": {"rows": 1, "rate": 0.001}}, "failed", "a leak"),
    ({"across": {"rows": 100, "rate": 0.1}, "within": repeating(0.1)}, "failed", "the data repeat"),
    ({"across": {"rows": 100, "rate": 0.1}, "within": repeating(0.02)}, "failed", "a leak; 2.00% of train have one in train"),
    ({"across": {"rows": 15, "rate": 0.015}, "within": repeating(0.015)}, "failed", "so do 1.50% of train in train: the data repeat"),
    ({"across": {"rows": 1, "rate": 1 / 39, "samples": 39}, "within": repeating(0.03)}, "failed", "1 of 39 rows of test (2.56%) have an exact copy in train; so do 3.00% of train in train: the data repeat"),
    ({"across": {"rows": 1, "rate": 0.001}, "within": repeating(0)}, "failed", "a leak"),
    ({"across": {"rows": 40, "rate": 0.04}, "within": repeating(0.015)}, "failed", "a leak; 1.50% of train have one in train"),
    ({"near": {"rows": 3, "rate": 0.003}}, "passed", "3 near-copies"),
    ({"near": {"rows": 30, "rate": 0.03}}, "failed", "30 of 1000 rows of test (3.00%) have a near-copy"),
    ({"near": {"testable": False, "why": "two dimensions"}}, "passed", "near-copies not testable"),
    ({"windows": {"testable": True, "rows": 60, "rate": 0.06}}, "failed", "60 of 1000 windows"),
    ({"windows": {"testable": True, "rows": 6, "rate": 0.006}}, "passed", "no exact copy"),
    ({"windows": {"testable": False, "why": "short", "rows": 0, "rate": 0.0}}, "passed", "no exact copy"),
    ({"groups": {"shared": 1, "groups": 9, "rows": 3, "examples": [{"group": "p7", "test": [0], "train": [4]}]}}, "failed", "1 of 9 groups of test also occur in train (3 rows; first 'p7')"),
    ({"groups": {"shared": 0, "groups": 9, "rows": 0, "examples": []}}, "passed", "no exact copy"),
    ({"info": AUGMENTED}, "inconclusive", "cannot tell that train is clean"),
    ({"info": AUGMENTED, "across": {"rows": 1, "rate": 0.001}}, "failed", "a leak"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "wanted", "words"), JUDGED)
def test_judgement(changes: dict[str, Any], wanted: str, words: str) -> None:
    found = judged(measured(**changes))
    assert (found.outcome, words in found.summary) == (wanted, True), found.summary
    also = PROBE.judge(measured(**changes), Resolved(SplitDuplicatesLimits(), {}))
    assert (also.outcome, also.summary) == (found.outcome, found.summary)


def test_within_a_limit_is_passed_but_a_conflict_never_is() -> None:
    form = measured(across={"rows": 10, "rate": 0.01})
    assert judged(form, max_rate=0.01).outcome == "passed"
    form["across"][0]["conflicts"] = 1
    found = judged(form, max_rate=0.01)
    assert (found.outcome, found.summary) == ("failed", "1 row of test has a copy in train with another label")


@pytest.mark.parametrize(
    ("conflicts", "clashing", "outcome"), [(20, 20, "warning"), (20, 0, "failed"), (30, 4, "failed"), (1, 0, "warning")]
)
def test_conflicts_are_compared_with_those_within(conflicts: int, clashing: int, outcome: str) -> None:
    """Data that repeat with other labels by nature; and the same, but with labels of test that are not those of train."""
    within = {"train": {**repeating(0.1)["train"], "clashing": clashing}}
    form = measured(across={"rows": 100, "rate": 0.1, "conflicts": conflicts}, within=within)
    found = judged(form, max_rate=0.2)
    assert [each.outcome for each in found.findings if each.name == "conflicting_labels.test_in_train"] == [outcome]
    assert found.outcome == ("passed" if outcome == "warning" else "failed")


@pytest.mark.parametrize(
    "labels",
    [
        (None, None, ""),
        (None, 3, ", label 3 in train"),
        ("a", None, ", label 'a' in test"),
        (1, 1, ", label 1"),
        (1, 0, ", labels 1 and 0"),
    ],
)
def test_a_pair_is_told_with_the_labels_it_has(labels: tuple[Any, Any, str]) -> None:
    pair = {"kind": "exact", "split_a": "test", "i": 4, "split_b": "train", "j": 9, "label_a": labels[0], "label_b": labels[1], "copies": 2, "p": None, "view": "", "fingerprint": "ab"}  # fmt: skip
    (fact,) = (each.message for each in judged(measured(pairs=pair)).findings if each.name == "fact")
    assert fact == f"exact: test[4] = train[9]{labels[2]}, 2 times there [ab]"


def test_not_applicable_is_known_before_anything_is_read() -> None:
    def unread() -> Any:
        raise AssertionError("the data were read")

    assert "the case has train= alone" in str(PROBE.needs(Case(name="x", model=never, train=unread)))


@pytest.mark.parametrize("layout", ["h w", "h w 1", "1 h w", "3 h w"])
def test_mirrored_images_are_near_copies_in_every_layout(layout: str) -> None:
    x = load_digits().images / 16
    train, test = x[:1400], np.concatenate([x[1400:], x[:40, :, ::-1]])
    shape = {"h w": lambda a: a, "h w 1": lambda a: a[..., None], "1 h w": lambda a: a[:, None],
             "3 h w": lambda a: np.repeat(a[:, None], 3, 1)}[layout]  # fmt: skip
    case = Case(name="flips", model=object, train=(shape(train), np.arange(1400)), test=(shape(test), np.arange(437)))
    found = run_probes(case, ["split_duplicates"])[0]
    assert found.outcome == "failed"
    rows = {each["i"] for each in found.data["pairs"] if each["kind"] == "near"}
    assert len(rows & set(range(397, 437))) >= 36


def test_small_grids_are_no_images_and_no_error() -> None:
    x = np.random.default_rng(0).normal(size=(300, 3, 3))
    case = Case(name="grids", model=object, train=(x[:200], np.arange(200)), test=(x[200:], np.arange(100)))
    assert run_probes(case, ["split_duplicates"])[0].passed
