"""The reason is one line, and the same one in pytest's summary, in JUnit and in JSON; three causes below it at most."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import pytest

CONFTEST = """
    from pytest_overfit.diagnosis.hypotheses import BROKEN, Hypothesis

    def suspected(symptoms):
        return [Hypothesis(fault=f"house_{n}", family=f"house {n}", what=f"rule {n} is broken", cure="keep it",
                           broken=True, rank=BROKEN + 1) for n in range(5)]

    def pytest_overfit_diagnosis_families():
        return [suspected]
"""

TESTS = """
    import pytest
    import torch
    from torch import nn
    from pytest_overfit import Case

    def case(rate=0.02, last=nn.Identity):
        torch.manual_seed(0)
        x, y = torch.randn(24, 6), torch.arange(24) % 3
        return Case(name="net", model=lambda: nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 3), last()),
                    loss=nn.CrossEntropyLoss(), optimizer=lambda p: torch.optim.Adam(p, rate), batch=(x, y))

    class Shares(nn.Module):
        def forward(self, scores):
            return scores.softmax(1)

    def test_twice(overfit):
        overfit.batch(case(last=Shares), steps=200)

    @pytest.mark.overfit("overfit_batch", steps=60)
    def test_slow():
        return case(rate=1e-5)
"""


@pytest.mark.parametrize("arguments", [(), pytest.param(("-n1",), marks=pytest.mark.slow)])
def test_one_line_in_every_report(project: Any, arguments: tuple[str, ...]) -> None:
    project.pytester.makeconftest(CONFTEST)
    project.pytester.makepyfile(test_it=TESTS)
    run = project.pytester.runpytest_subprocess if arguments else project.pytester.runpytest_inprocess
    result = run("-p", "no:cacheprovider", "--overfit-json=found.json", "--junitxml=found.xml", *arguments)
    result.assert_outcomes(failed=2)
    document = json.loads((project.pytester.path / "found.json").read_text(encoding="utf-8"))
    cases = {each.get("name"): each for each in ElementTree.parse(project.pytester.path / "found.xml").iter("testcase")}
    assert {each["outcome"] for each in document["verdicts"]} <= {"failed", "inconclusive"}
    for form in document["verdicts"]:
        found = cases[form["test"].partition("::")[2]]
        refuted = form["outcome"] == "failed"
        line = form["summary"] if refuted else f"inconclusive: {form['summary']}"
        assert form["diagnoses"][0]["evidence"] == form["summary"]
        (failure,) = found.iter("failure")
        assert failure.get("message") == line
        word = "FAILED" if refuted else "INCONCLUSIVE (not refuted)"
        assert f"net: {word}: {form['summary']}" in (failure.text or "")
        properties = {each.get("name"): each.get("value") for each in found.iter("property")}
        assert properties["overfit.net.overfit_batch.summary"] == form["summary"]
        assert properties["overfit.net.overfit_batch.diagnosis"].split(",")[0] == form["diagnoses"][0]["fault"]
        printed = str(result.stdout)
        assert f"{form['test']} - {line}"[:60] in printed
        assert sum(each["fault"].startswith("house_") for each in form["diagnoses"]) == 5
    assert str(result.stdout).count("cause ") == 3 * len(document["verdicts"])
