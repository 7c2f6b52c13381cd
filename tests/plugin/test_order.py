"""Verdicts in company: other plugins shuffle, repeat, rerun, time, measure and report, and may not change a verdict.

The plugins are asked for by name; where one is not installed its tests are skipped. `.ci/matrix` does the same with
real models. Each run is a process of its own, as plugins of this kind change the one they are in.
"""

from __future__ import annotations

import html
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import pytest

#: real training of two numbers whose path depends on both generators that the standard seeding reaches
RANDOM_CASES = """
import random

import numpy as np

def make():
    return {"w": np.random.normal(size=(3, 4)), "b": np.zeros(4)}

def step(model, x, y):
    logits = x @ model["w"] + model["b"]
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    error = (p - np.eye(4)[y]) / len(x)
    rate = 0.3 + 0.4 * random.random() + 0.1 * np.random.random()
    model["w"] -= rate * x.T @ error
    model["b"] -= rate * error.sum(0)
    return float(-np.log(p[np.arange(len(x)), y] + 1e-12).mean())

NOISE = np.random.default_rng(0).normal(size=(8, 3))

def noisy(name):
    return Case(name=name, model=make, step=step, batch=(NOISE, np.arange(8) % 4), limits={"steps": 40})

@pytest.mark.parametrize("name", ["one", "two", "three"])
def test_noisy(name):
    run_probes(noisy(name), ["overfit_batch"])

@pytest.mark.overfit("overfit_batch")
def test_good():
    return good()

def test_broken(overfit):
    overfit.batch(broken())

class TestSlow:
    def test_slow(self, overfit):
        overfit.batch(slow())
"""
REAL = "from pytest_overfit.testing import FakeLearner\n" + (
    "def pytest_overfit_make_learner(case, batch, seed):\n"
    "    return None if case.step else FakeLearner(**case.fit_kwargs)\n"
)


def run(project: Any, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(arguments),
        cwd=project.path,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def command(arguments: Sequence[str]) -> list[str]:
    shuffled = any("randomly" in each for each in arguments)
    return [sys.executable, "-m", "pytest", *([] if shuffled else ["-p", "no:randomly"]), *arguments]


def document(project: Any, name: str = "out.json") -> dict[str, Any]:
    return dict(json.loads((project.path / name).read_text(encoding="utf-8")))


def verdicts(project: Any, name: str = "out.json") -> dict[str, dict[str, Any]]:
    """The verdicts by case, without what may differ: the time, and how often the test was tried."""
    found = document(project, name)["verdicts"]
    return {each["case"]: {**each, "seconds": 0, "attempts": 0, "test": ""} for each in found}


#: the report of a plain run, which is the same for every test here
PLAIN: list[str] = []


@pytest.fixture
def company(project: Any) -> Any:
    """The project with its tests and the verdicts of a plain run."""
    project.pytester.makeconftest(REAL)
    project.write(RANDOM_CASES)
    if not PLAIN:
        done = run(project, "--overfit-json=plain.json")
        assert "2 failed, 4 passed" in done.stdout, done.stdout
        PLAIN.append((project.path / "plain.json").read_text(encoding="utf-8"))
    (project.path / "plain.json").write_text(PLAIN[0], encoding="utf-8")
    return project


SHUFFLE = ("-p", "randomly", "--randomly-seed")
WAYS = {
    "shuffled": (["pytest_randomly"], [*SHUFFLE, "1"]),
    "shuffled otherwise": (["pytest_randomly"], [*SHUFFLE, "2"]),
    "two workers": (["xdist"], ["-n", "2"]),
    "two workers by file, shuffled": (["xdist", "pytest_randomly"], ["-n", "2", "--dist=loadfile", *SHUFFLE, "3"]),
    "each twice": (["pytest_repeat"], ["--count=2"]),
    "failures three times": (["pytest_rerunfailures"], ["--reruns=2"]),
    "failures twice in two workers": (["pytest_rerunfailures", "xdist"], ["--reruns=1", "-n", "2"]),
    "timeout by signal": (["pytest_timeout"], ["--timeout=300", "--timeout-method=signal"]),
    "timeout by thread": (["pytest_timeout"], ["--timeout=300", "--timeout-method=thread"]),
    "coverage": (["pytest_cov"], ["--cov=.", "--cov-branch", "--cov-report="]),
    "coverage in two workers": (["pytest_cov", "xdist"], ["--cov=.", "--cov-report=", "-n", "2"]),
    "reports": (["pytest_html"], ["--html=out.html", "--junitxml=out.xml"]),
    "no reports": ([], ["-p", "no:junitxml", "-p", "no:logging", "-s"]),
}


@pytest.mark.parametrize(("plugins", "options"), WAYS.values(), ids=WAYS)
def test_same_verdicts_in_any_company(company: Any, plugins: list[str], options: list[str]) -> None:
    for plugin in plugins:
        pytest.importorskip(plugin)
    done = run(company, "--overfit-json=out.json", *options)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    plain = verdicts(company, "plain.json")
    assert {name: each["outcome"] for name, each in plain.items()} == {
        "one": "inconclusive",
        "two": "inconclusive",
        "three": "inconclusive",
        "good": "passed",
        "broken": "failed",
        "slow": "inconclusive",
    }
    assert plain["one"]["losses"] != plain["two"]["losses"]  # the names are seeds too
    assert verdicts(company) == plain
    copies = 2 if "--count=2" in options else 1
    assert len(document(company)["verdicts"]) == copies * len(plain)


# -------------------------------------------------------------------------------------------------------------- reruns


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "workers"])
def test_every_attempt_counts_and_the_last_one_is_kept(project: Any, workers: list[str]) -> None:
    pytest.importorskip("pytest_rerunfailures")
    if workers:
        pytest.importorskip("xdist")
    project.write(
        """
        @pytest.fixture
        def attempt(request):
            return request.node.execution_count

        def test_recovers(overfit, attempt):
            overfit.batch(good("recovers") if attempt == 3 else broken("recovers"))

        def test_worsens(overfit, attempt):
            assert overfit.batch(good("worsens") if attempt == 1 else broken("worsens")) and attempt > 1

        def test_misuse_first(overfit, attempt):
            overfit.batch(good("misuse"), **({"stepps": 1} if attempt == 1 else {}))
        """
    )
    done = run(project, "--reruns=2", "--overfit-json=out.json", "--junitxml=out.xml", *workers)
    assert "1 failed, 2 passed, 5 rerun" in done.stdout, done.stdout
    found = document(project)
    seen = {each["case"]: (each["outcome"], each["attempts"]) for each in found["verdicts"]}
    assert seen == {"recovers": ("passed", 3), "worsens": ("failed", 3), "misuse": ("passed", 2)}
    assert found["errors"] == []
    last = {}
    for case in ElementTree.parse(project.path / "out.xml").getroot().iter("testcase"):
        found = [each.get("value") for each in case.iter("property") if str(each.get("name")).endswith("outcome")]
        assert len(found) <= 1
        last[case.get("name")] = found
    assert last == {"test_recovers": ["passed"], "test_worsens": ["failed"], "test_misuse_first": ["passed"]}


# ------------------------------------------------------------------------------------------------------------- reports

TEXTS = {
    "broken": "broken: FAILED: loss ratio 1.00 after 60 steps and no longer falling",
    "slow": "slow: INCONCLUSIVE (not refuted): still falling at step 500",
    "good": "good: passed: memorised 16 rows in ",
}


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "workers"])
def test_html_holds_the_text_of_every_verdict(company: Any, workers: list[str]) -> None:
    pytest.importorskip("pytest_html")
    if workers:
        pytest.importorskip("xdist")
    run(company, "--html=out.html", "--self-contained-html", *workers)
    page = html.unescape(html.unescape((company.path / "out.html").read_text(encoding="utf-8")))  # HTML inside JSON
    for text in TEXTS.values():
        assert text in page


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "workers"])
def test_junit_holds_every_verdict(company: Any, workers: list[str]) -> None:
    if workers:
        pytest.importorskip("xdist")
    run(company, "--junitxml=out.xml", *workers)
    cases = {
        str(each.get("name")): each for each in ElementTree.parse(company.path / "out.xml").getroot().iter("testcase")
    }
    for name, case in (("broken", "test_broken"), ("slow", "test_slow"), ("good", "test_good[overfit_batch]")):
        properties = [(each.get("name"), each.get("value")) for each in cases[case].iter("property")]
        assert len(properties) == len(dict(properties))
        summary = dict(properties)[f"overfit.{name}.overfit_batch.summary"]
        assert summary is not None
        assert TEXTS[name].rpartition(": ")[2] in summary
    for name in ("broken", "slow"):
        failure = cases[f"test_{name}"].find("failure")
        assert failure is not None
        assert TEXTS[name] in str(failure.text)
        assert TEXTS[name].rpartition(": ")[2] in str(failure.get("message"))


def test_a_passed_verdict_can_be_read_in_the_terminal(project: Any) -> None:
    project.write("def test_good(overfit):\n    overfit.batch(good())\n")
    shown = run(project, "-rP").stdout
    assert TEXTS["good"] in shown
    assert "constant_loss" in shown
    assert TEXTS["good"] not in run(project).stdout


# ------------------------------------------------------------------------------------------------------- interruptions

ENDLESS = """
import os, random, sys

STATE = random.getstate(), np.random.get_state()[1].tolist(), dict(os.environ)

def disturb():
    random.random()
    np.random.random()
    os.environ["OVERFIT_TRIED"] = "1"

def endless(model, x, y):
    disturb()
    {started}
    while True:
        pass

def net():
    return Case(name="net", model=list, step=endless, batch=(X, Y))

def test_good(overfit):
    overfit.batch(good())

def test_endless(overfit):
    overfit.batch(net())

def test_after(overfit):
    now = random.getstate(), np.random.get_state()[1].tolist(), dict(os.environ)
    now[2]["PYTEST_CURRENT_TEST"] = STATE[2].get("PYTEST_CURRENT_TEST")
    assert now[:2] == STATE[:2]
    assert "OVERFIT_TRIED" not in now[2]
    overfit.batch(good("after"))
"""


def test_a_timeout_within_training_is_an_error_of_its_own_and_leaves_nothing_behind(project: Any) -> None:
    pytest.importorskip("pytest_timeout")
    project.pytester.makeconftest(REAL)
    project.write(ENDLESS.format(started=""))
    done = run(project, "--timeout=4", "--timeout-method=signal", "--overfit-json=out.json", "-p", "no:xdist")
    assert "1 failed, 2 passed" in done.stdout, done.stdout
    assert "Failed: Timeout (>4.0s) from pytest-timeout." in done.stdout
    assert "in endless" in done.stdout or "def endless" in done.stdout  # the user sees where it was
    assert "ProgramError" not in done.stdout
    assert "INTERNALERROR" not in done.stdout + done.stderr
    assert list(verdicts(project)) == ["good", "after"]


def test_a_timeout_that_ends_the_process_leaves_the_old_file(project: Any) -> None:
    """The thread method calls `os._exit`: nothing of ours can run, and half a file would be worse than none."""
    pytest.importorskip("pytest_timeout")
    project.pytester.makeconftest(REAL)
    project.write(ENDLESS.format(started=""))
    (project.path / "out.json").write_text("old")
    done = run(project, "--timeout=4", "--timeout-method=thread", "--overfit-json=out.json", "-p", "no:xdist")
    assert done.returncode != 0
    assert "Timeout" in done.stdout + done.stderr
    assert (project.path / "out.json").read_text() == "old"
    (journal,) = project.path.glob(".out.json*")  # the next run makes the report of it
    assert '"good"' in journal.read_text()


def test_a_worker_that_dies_in_a_probe_costs_only_its_own_verdict(project: Any) -> None:
    pytest.importorskip("pytest_timeout")
    pytest.importorskip("xdist")
    project.pytester.makeconftest(REAL)
    project.write(ENDLESS.format(started=""))
    done = run(project, "--timeout=4", "--timeout-method=thread", "--overfit-json=out.json", "-n", "2")
    assert "1 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert sorted(verdicts(project)) == ["after", "good"]


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGINT to send")
@pytest.mark.parametrize("style", ["signal", "raised in a worker"])
def test_ctrl_c_within_training(project: Any, style: str) -> None:
    project.pytester.makeconftest(REAL)
    if style == "signal":
        project.write(ENDLESS.format(started="print('started', file=sys.__stdout__, flush=True)"))
        # a gate in the background of a shell would hand down that SIGINT is ignored
        before = signal.signal(signal.SIGINT, signal.SIG_DFL)
        process = subprocess.Popen(
            command(["--overfit-json=out.json", "-s"]),
            cwd=project.path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        signal.signal(signal.SIGINT, before)
        assert process.stdout is not None
        for line in process.stdout:
            if "started" in line:
                break
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[0]
        code = process.returncode
    else:
        pytest.importorskip("xdist")
        project.write(ENDLESS.format(started="raise KeyboardInterrupt"))
        done = run(project, "--overfit-json=out.json", "-n", "1")
        rest, code = done.stdout + done.stderr, done.returncode
    assert code == pytest.ExitCode.INTERRUPTED, rest
    assert "INTERNALERROR" not in rest
    assert "ProgramError" not in rest
    assert list(verdicts(project)) == ["good"]
    assert document(project)["errors"] == []


# ------------------------------------------------------------------------------------------------------------ coverage


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "workers"])
def test_the_users_code_in_a_probe_is_covered(company: Any, workers: list[str]) -> None:
    pytest.importorskip("pytest_cov")
    if workers:
        pytest.importorskip("xdist")
    done = run(company, "--cov=test_it", "--cov-report=json", *workers)
    measured = json.loads((company.path / "coverage.json").read_text(encoding="utf-8"))
    (lines,) = (each["executed_lines"] for name, each in measured["files"].items() if name.endswith("test_it.py"))
    source = (company.path / "test_it.py").read_text(encoding="utf-8").splitlines()
    wanted = next(number for number, line in enumerate(source, 1) if "rate = 0.3" in line)
    assert wanted in lines, done.stdout
