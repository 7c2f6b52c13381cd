"""Markers on tests that are no plain functions, several verdicts in one test, threads, and what ends them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

CASE = "import unittest\n{}class TestIt(unittest.TestCase):\n    {}def test_it(self):\n        return good()\n"
MARK = "@pytest.mark.overfit\n"


def cases(path: Path) -> list[str]:
    return [each["case"] for each in json.loads(path.read_text(encoding="utf-8"))["verdicts"]]


@pytest.mark.parametrize(
    "source",
    [
        CASE.format("", f"{MARK}    "),
        CASE.format(MARK, ""),
        CASE.format("pytestmark = pytest.mark.overfit\n", ""),
        "@pytest.mark.overfit('overfit_batch')\nasync def test_it():\n    return good()\n",
        "pytestmark = [pytest.mark.overfit]\nasync def test_it():\n    yield good()\n",
    ],
)
def test_a_marker_that_would_have_no_effect_is_an_error_at_collection(project: Any, source: str) -> None:
    result = project.run(source)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.assert_outcomes(errors=1)
    assert "the marker overfit has no effect here" in str(result.stdout) or "got an async one" in str(result.stdout)


def test_other_tests_of_these_kinds_are_left_alone(project: Any) -> None:
    source = """
    import unittest

    class TestIt(unittest.TestCase):
        def test_it(self):
            pass

    async def helper():
        pass

    @pytest.mark.overfit("overfit_batch")
    def test_plain():
        return good()
    """
    project.run(source).assert_outcomes(passed=2)


def test_two_verdicts_of_one_case_and_probe_are_both_kept(project: Any) -> None:
    from xml.etree import ElementTree

    source = "def test_it(overfit):\n    overfit.batch(good())\n    overfit.batch(good(), steps=300)\n"
    result = project.run(source, "--overfit-json=out.json", "--junitxml=out.xml", "-v")
    assert cases(project.path / "out.json") == ["good", "good"]
    assert str(result.stdout).count("ok            good: memorised") == 2
    names = [each.get("name") for each in ElementTree.parse(project.path / "out.xml").iter("property")]
    assert {"overfit.good.overfit_batch.outcome", "overfit.good.overfit_batch.2.outcome"} <= set(names)


def test_a_rerun_replaces_all_verdicts_of_its_test(project: Any) -> None:
    pytest.importorskip("pytest_rerunfailures")
    project.write("def test_it(overfit):\n    overfit.batch(good())\n    overfit.batch(good())\n    assert False\n")
    project.pytester.runpytest_subprocess("--reruns=1", "--overfit-json=out.json")
    verdicts = json.loads((project.path / "out.json").read_text(encoding="utf-8"))["verdicts"]
    assert [each["attempts"] for each in verdicts] == [2, 2]


def test_verdicts_of_a_thread_are_kept_and_see_the_settings(project: Any) -> None:
    project.ini("overfit_limits = overfit_batch.steps = 7")
    source = """
    import threading

    def test_it():
        run = lambda: run_probes(slow(limits={}), ["overfit_batch"])
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    """
    project.run(source, "--overfit-json=out.json", "--overfit-seed=3")
    (kept,) = json.loads((project.path / "out.json").read_text(encoding="utf-8"))["verdicts"]
    assert (kept["steps"], kept["seeds"]) == (7, [3])


@pytest.mark.parametrize("place", ["model", "step", "score"])
@pytest.mark.parametrize(
    ("leaves", "code"), [("pytest.exit('stop', 3)", 3), ("pytest.skip('no data')", 0), ("sys.exit(4)", 1)]
)
def test_what_ends_a_test_or_the_run_passes_through(project: Any, place: str, leaves: str, code: int) -> None:
    source = f"""
    import sys
    import random

    def leave(*_):
        {leaves}

    class Model:
        def predict(self, x):
            return x[:, :1]

    def test_it(overfit):
        before = random.getstate()
        fields = {{"model": Model, "step": lambda *_: 0.5}}
        try:
            overfit.batch(Case(**{{"name": "own", "batch": (X, Y), **fields, {place!r}: leave}}))
        finally:
            assert random.getstate() == before
    """
    project.pytester.makeconftest("")
    result = project.run(source)
    assert result.ret == code, str(result.stdout)
    assert "INTERNALERROR" not in str(result.stdout) + str(result.stderr)
    assert "ProgramError" not in str(result.stdout)
