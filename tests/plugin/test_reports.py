"""What people and machines read: failure text, summary, JSON, JUnit, the progress line."""

from __future__ import annotations

import json
import math
import re
import shlex
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_overfit import Diagnosis, Finding, Verdict
from pytest_overfit import plugin as our_plugin
from pytest_overfit.report.json_file import write_json
from pytest_overfit.report.progress import ProgressLine
from pytest_overfit.report.summary import summary_lines
from pytest_overfit.report.text import failure_text, sparkline

# -------------------------------------------------------------------------------------------------------- failure text

FAILING = """
def test_fixture(overfit):
    overfit.batch(broken("net", unchanged=("weight",), without_gradient=("head",), remarks=("read apart",)))

@pytest.mark.overfit("overfit_batch", steps=60)
def test_marker():
    return case("nan.net", nan_from=7)
"""


def test_failure_text_has_all_its_parts(project: Any) -> None:
    result = project.run(FAILING)
    result.assert_outcomes(failed=2)
    lines = [re.sub(r"^E {3}(?:    )?", "", line) for line in result.stdout.lines]
    first = next(line for line in lines if "net: FAILED:" in line).removeprefix("pytest_overfit.ProbeFailed: ").strip()
    assert re.fullmatch(
        r"net: FAILED: loss ratio 1\.00 after 60 steps and .*: the outputs do not depend on the input .*", first
    )
    text = "\n".join(lines)
    assert re.search(r"FAIL +loss_ratio +1 +<= 0\.05 +\(default\) +see above", text)
    assert re.search(r"FAIL +accuracy +0\.25 +>= 1 +\(default\) +wrong predictions", text)
    assert re.search(r"loss +1\.386 [▁▂▃▄▅▆▇█]{40} 1\.386 +60 steps, [\d.]+ s, fake", text)
    assert "note  read apart" in text
    assert "probe overfit_batch, seed 0" in text
    assert re.search(r"^nan\.net: FAILED: the loss is nan from step 8 on$", text, re.MULTILINE)
    assert "xx nan" in text  # gaps of the curve


def test_columns_line_up(project: Any) -> None:
    text = failure_text(project_verdict().to_dict())
    rows = [line for line in text.splitlines() if "(" in line and "=" in line]
    assert len(rows) == 2
    assert len({line.index("(") for line in rows}) == 1


def project_verdict(**more: Any) -> Verdict:
    findings = (
        Finding(
            name="loss_ratio", value=0.5, limit=0.05, relation="<=", source="marker", outcome="failed", message="m"
        ),
        Finding(name="a_much_longer_name", value=12345.678, limit=1.0, relation=">=", source="case", outcome="passed"),
    )
    form = {"probe": "p", "case": "c", "framework": "f", "outcome": "failed", "summary": "s", "findings": findings}
    return Verdict(**{**form, **more})


def test_at_most_three_facts(project: Any) -> None:
    result = project.run(FAILING, "-k", "fixture")
    facts = [line for line in result.stdout.lines if line.startswith("E         fact")]
    assert 1 <= len(facts) <= 3
    assert "1 of 2 trainable parameters never changed: weight" in facts[0]


def test_diagnoses_are_shown() -> None:
    found = Diagnosis(fault="lr_zero", evidence="nothing moves", cure="lr=0.1 fits", confidence="proved")
    text = failure_text(project_verdict(diagnoses=(found,)).to_dict())
    assert "cause lr_zero (proved): nothing moves" in text
    assert "cure  lr=0.1 fits" in text


@pytest.mark.parametrize("folder", [".", "sub"])
@pytest.mark.parametrize("seed", [(), ("--overfit-seed=7",)])
def test_the_command_reruns_just_that_test(
    project: Any, folder: str, seed: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
        @pytest.mark.parametrize("name", ["it's", "a b"])
        def test_fixture(overfit, name):
            overfit.batch(broken())

        class TestModels:
            @pytest.mark.overfit("overfit_batch")
            def test_marker(self):
                return broken()
    """
    project.write(source)
    (project.path / "sub").mkdir()
    monkeypatch.chdir(project.path / folder)
    result = project.again(*seed, str(project.path))
    result.assert_outcomes(failed=3)
    commands = [line.partition(" rerun ")[2] for line in result.stdout.lines if " rerun pytest" in line]
    assert len(commands) == 3
    for command in commands:
        name, *arguments = shlex.split(command)
        assert name == "pytest"
        assert set(seed) <= set(arguments)
        project.again(*arguments).assert_outcomes(failed=1)


def test_one_line_styles(project: Any) -> None:
    result = project.run(FAILING, "--tb=line")
    result.stdout.fnmatch_lines(["*: loss ratio 1.00*", "*: the loss is nan*"])


# ------------------------------------------------------------------------------------------------------------- summary


def test_terminal_summary(project: Any) -> None:
    source = FAILING + "\ndef test_good(overfit):\n    overfit.batch(good())\n"
    result = project.run(source)
    result.stdout.fnmatch_lines(
        [
            "*== overfit: overfit_batch ==*",
            "FAILED        net: loss ratio 1.00 after 60 steps and no longer falling: the",
            "              outputs do not depend on the input *",
            "FAILED        nan.net: the loss is nan from step 8 on",
            "passed: 1 (-v lists them)",
        ]
    )
    project.again("-v").stdout.fnmatch_lines(["ok            good: memorised 16 rows in 1? steps: loss ratio *"])


def test_the_last_lines_of_pytest_are_the_reason(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "1")  # nothing is cut
    source = (
        FAILING
        + """
def test_slow(overfit):
    overfit.batch(slow())

def test_misuse(overfit):
    overfit.batch(Case(name="net", model=object))
"""
    )
    result = project.run(source)
    result.stdout.fnmatch_lines(
        [
            "FAILED test_it.py::test_fixture - loss ratio 1.00 after 60 steps and no longer falling: *",
            "FAILED test_it.py::test_marker[[]overfit_batch] - the loss is nan from step 8 on",
            "FAILED test_it.py::test_slow - inconclusive: still falling at step 500 *",
            "FAILED test_it.py::test_misuse - it has no data; *",
        ]
    )


def test_quiet_and_silent(project: Any) -> None:
    project.run(FAILING, "-q").stdout.no_fnmatch_line("*== overfit: overfit_batch ==*")
    project.run("def test_it():\n    pass\n").stdout.no_fnmatch_line("*overfit ==*")


def test_reasons_are_wrapped_not_cut() -> None:
    reason = "loss ratio 0.64 after 500 steps " + "word " * 40
    lines = summary_lines([project_verdict(summary=reason).to_dict()], 60)
    assert len(lines) > 3
    assert all(len(line) <= 60 for line in lines)
    assert " ".join(" ".join(lines).split()) == f"FAILED c: {reason.strip()}"
    assert summary_lines([]) == []


WARNED = Finding(name="slow_to_fit", value=1200, outcome="warning", message="it took 1200 steps")


def test_warnings_of_what_passed_are_shown() -> None:
    found = Diagnosis(fault="slow_to_fit", evidence="it took 1200 steps", cure="scale inputs", confidence="shown")
    forms = [
        project_verdict(outcome="passed", findings=(WARNED, WARNED), diagnoses=(found,)).to_dict(),
        project_verdict(outcome="passed", findings=(), probe="q").to_dict(),
        project_verdict(outcome="inconclusive", findings=(WARNED,)).to_dict(),
        project_verdict(outcome="not_applicable", findings=()).to_dict(),
    ]
    assert summary_lines(forms, left_out=2) == [
        "inconclusive  c-p: s",
        "warning       c-p: slow_to_fit: it took 1200 steps",
        "passed: 2 (-v lists them)",
        "not applicable: 3 (-v lists them)",
    ]
    assert summary_lines(forms, verbose=True, left_out=2)[2:] == [
        "ok            c-p: s",
        "ok            c-q: s",
        "-             c-p: s",
        "left out, as their cases rule them out: 2",
    ]


# ---------------------------------------------------------------------------------------------------------------- JSON


def strict(text: str) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


def test_json_file(project: Any) -> None:
    source = (
        FAILING
        + """
def test_good(overfit):
    overfit.batch(good())

def test_misuse(overfit):
    overfit.batch(good("wrong"), stepps=3)
"""
    )
    result = project.run(source, "--overfit-json=out.json")
    result.assert_outcomes(failed=3, passed=1)
    result.stdout.fnmatch_lines([f"overfit: 3 verdicts in {project.path / 'out.json'}"])
    document = strict((project.path / "out.json").read_text(encoding="utf-8"))
    assert list(document) == ["schema", "pytest_overfit", "verdicts", "errors"]
    assert document["schema"] == 1
    assert [each["test"] for each in document["verdicts"]] == [
        "test_it.py::test_fixture",
        "test_it.py::test_marker[overfit_batch]",
        "test_it.py::test_good",
    ]
    for form in document["verdicts"]:
        again = Verdict.from_dict(form).to_dict()
        assert again == {key: value for key, value in form.items() if key not in ("test", "attempts")}
    nan = Verdict.from_dict(document["verdicts"][1])
    assert math.isnan(nan.losses[-1])
    (error,) = document["errors"]
    assert error["message"] == "call: unknown limit 'stepps'; did you mean 'steps'?"
    assert (error["case"], error["probe"], error["error"]) == ("wrong", "overfit_batch", "CaseError")
    assert error["test"] == "test_it.py::test_misuse"


def test_json_of_a_run_without_verdicts(project: Any) -> None:
    project.run("def test_it():\n    pass\n", "--overfit-json=out.json")
    assert strict((project.path / "out.json").read_text())["verdicts"] == []


def test_json_is_written_after_ctrl_c(project: Any) -> None:
    source = "def test_a(overfit):\n    overfit.batch(good())\n\ndef test_b():\n    raise KeyboardInterrupt\n"
    result = project.run(source, "--overfit-json=out.json")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert len(strict((project.path / "out.json").read_text())["verdicts"]) == 1


def test_write_json_leaves_the_old_file_or_the_new_one(tmp_path: Any) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"value": math.nan})
    with pytest.raises(TypeError):
        write_json(path, {"value": object()})
    assert path.read_text() == "old"
    write_json(path, {"value": "ä"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"value": "ä"}
    assert [each.name for each in tmp_path.iterdir()] == ["out.json"]


def test_write_json_cleans_up_when_it_is_interrupted(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pathlib import Path

    path = tmp_path / "out.json"
    path.write_text("old")

    def interrupted(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {})
    assert [each.name for each in tmp_path.iterdir()] == ["out.json"]
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing/out.json", "there is no folder *missing; create it first"),
        (".", "that is a folder; name a file in it"),
        ("/proc/out.json", "cannot write there: *"),
    ],
)
def test_unusable_json_paths_are_usage_errors(project: Any, path: str, message: str) -> None:
    result = project.run("def test_it():\n    raise RuntimeError('a test ran')\n", f"--overfit-json={path}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: --overfit-json={path}: {message}"])
    assert "a test ran" not in str(result.stdout)


def test_json_path_is_relative_to_where_pytest_was_called(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write("def test_it(overfit):\n    overfit.batch(good())\n")
    (project.path / "sub").mkdir()
    monkeypatch.chdir(project.path / "sub")
    project.again("--overfit-json=out.json", "..").assert_outcomes(passed=1)
    assert (project.path / "sub" / "out.json").is_file()


# --------------------------------------------------------------------------------------------------------------- JUnit


@pytest.mark.parametrize("family", ["xunit1", "xunit2"])
def test_junit_properties(project: Any, family: str) -> None:
    project.run(FAILING, "--junitxml=out.xml", "-o", f"junit_family={family}")
    cases = ElementTree.parse(project.path / "out.xml").getroot().findall(".//testcase")
    first, second = (
        {each.get("name"): each.get("value") for each in case.findall("properties/property")} for case in cases
    )
    assert first["overfit.net.overfit_batch.outcome"] == "failed"
    assert first["overfit.net.overfit_batch.summary"].startswith("loss ratio 1.00")
    assert first["overfit.net.overfit_batch.seed"] == "0"
    assert first["overfit.net.overfit_batch.steps"] == "60"
    assert float(first["overfit.net.overfit_batch.loss_ratio"]) == 1.0
    assert second["overfit.nan.net.overfit_batch.first_non_finite_step"] == "8"
    assert cases[0].find("failure").get("message").startswith("loss ratio 1.00 after 60 steps")


# ------------------------------------------------------------------------------------------------------------ progress


class Screen:
    """A terminal's line, and a clock that is set by hand."""

    def __init__(self, before: str = "") -> None:
        self.line, self.column, self.now, self.writes = before, len(before), 100.0, 0

    def write(self, text: str) -> None:
        self.writes += 1
        for each in text:
            if each == "\b":
                self.column -= 1
                assert self.column >= 0
            else:
                self.line = self.line[: self.column] + each + self.line[self.column + 1 :]
                self.column += 1

    def progress(self, room: int = 79) -> ProgressLine:
        return ProgressLine(self.write, lambda: self.now, lambda: room)


def test_progress_is_silent_for_two_seconds_then_shows_and_is_wiped() -> None:
    screen = Screen("test_it.py ..")
    progress = screen.progress()
    progress("net", "overfit_batch", 5, 500, 1.5)
    screen.now += 1.9
    progress("net", "overfit_batch", 25, 500, 1.25)
    assert screen.writes == 0
    screen.now += 0.2
    progress("net", "overfit_batch", 50, 500, 1.0)
    assert screen.line == "test_it.py .. overfit_batch net: step 50 of 500, loss 1"
    screen.now += 0.1
    progress("net", "overfit_batch", 60, 500, 0.5)
    assert screen.writes == 1  # not more often than people can read
    screen.now += 0.2
    progress("net", "overfit_batch", 7, 500, 0.5)
    assert screen.line.rstrip() == "test_it.py .. overfit_batch net: step 7 of 500, loss 0.5"
    progress.clear()
    assert (screen.line.rstrip(), screen.column) == ("test_it.py ..", len("test_it.py .."))
    progress.clear()
    assert screen.writes == 3


def test_progress_starts_over_with_the_next_probe() -> None:
    screen = Screen()
    progress = screen.progress()
    progress("a", "p", 1, 10, 1.0)
    screen.now += 3
    progress("a", "p", 2, 10, 1.0)
    progress("b", "p", 1, 10, 1.0)
    assert screen.line.strip() == ""
    screen.now += 1
    progress("b", "p", 2, 10, 1.0)
    assert screen.line.strip() == ""


@pytest.mark.parametrize("room", [20, 3, 0, -5])
def test_progress_never_wraps(room: int) -> None:
    screen = Screen()
    progress = screen.progress(room)
    for step in (1, 2):
        progress("net", "overfit_batch", step, 500, math.nan)
        screen.now += 3
    assert len(screen.line) <= max(0, room)
    progress.clear()
    assert screen.line.strip() == ""


PATIENT = "\nimport pytest_overfit.report.progress as progress\nprogress._PATIENCE = 0.0\n"


@pytest.mark.parametrize("watched", [True, False])
def test_progress_is_shown_where_a_person_watches(
    project: Any, watched: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    written: list[str] = []
    monkeypatch.setattr(our_plugin.options, "on_terminal", lambda config: watched)
    monkeypatch.setattr("pytest_overfit.report.progress._PATIENCE", 0.0)
    monkeypatch.setattr(our_plugin.OverfitRun, "_write", lambda self, text: written.append(text))
    result = project.run("def test_it(overfit):\n    overfit.batch(broken())\n")
    result.assert_outcomes(failed=1)
    assert any("overfit_batch broken: step 3 of 60, loss 1.386" in each for each in written) is watched
    if watched:
        assert set(written[-1]) == {"\b", " "}


def test_where_a_person_watches(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    class Worker:
        workerinput: Any = None

    class Controller:
        pass

    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.__stdout__", Terminal())
    assert our_plugin.options.on_terminal(Controller())  # type: ignore[arg-type]
    assert not our_plugin.options.on_terminal(Worker())  # type: ignore[arg-type]
    monkeypatch.setenv("CI", "true")
    assert not our_plugin.options.on_terminal(Controller())  # type: ignore[arg-type]
    monkeypatch.delenv("CI")
    monkeypatch.setattr("sys.__stdout__", None)
    assert not our_plugin.options.on_terminal(Controller())  # type: ignore[arg-type]


def test_progress_on_a_real_terminal(project: Any) -> None:
    """A pseudo-terminal: the line appears behind pytest's own dots, which are there in the end."""
    pty = pytest.importorskip("pty")
    import os
    import subprocess
    import sys

    project.conftest(PATIENT)
    project.write("def test_it(overfit):\n    overfit.batch(good())\n")
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "dumb", "COLUMNS": "120"}
    environment.pop("CI", None)
    run = subprocess.Popen(
        [sys.executable, "-m", "pytest"], stdout=theirs, stderr=theirs, env=environment, cwd=project.path
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        seen += part
    assert run.wait() == 0
    os.close(ours)
    (line,) = (each for each in seen.decode().splitlines() if "overfit_batch good: step" in each)
    assert "\b" in line
    screen = Screen()
    screen.write(line)
    assert re.fullmatch(r"test_it\.py \. +\[100%\] *", screen.line), screen.line


# ---------------------------------------------------------------------------------------------------------- properties

NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
FINDINGS = st.builds(
    Finding,
    name=st.text(max_size=8),
    value=st.none() | NUMBERS,
    limit=st.none() | NUMBERS,
    relation=st.sampled_from(["<=", ">=", "=", ""]),
    outcome=st.sampled_from(["passed", "failed", "inconclusive", "warning", "note"]),
    message=st.text(max_size=20),
)
VERDICTS = st.builds(
    Verdict,
    probe=st.text(max_size=5),
    case=st.text(max_size=5),
    framework=st.text(max_size=5),
    outcome=st.sampled_from(["passed", "failed", "inconclusive", "not_applicable"]),
    summary=st.text(max_size=20),
    findings=st.lists(FINDINGS, max_size=3).map(tuple),
    seeds=st.lists(st.integers(0, 2**32), max_size=3).map(tuple),
    steps=st.integers(0),
    losses=st.lists(NUMBERS, max_size=5).map(tuple),
    data=st.dictionaries(st.text(max_size=3), PLAIN, max_size=3),
)


@given(VERDICTS)
@settings(deadline=None)
def test_a_verdict_survives_strict_json(verdict: Verdict) -> None:
    form = verdict.to_dict()
    text = json.dumps(form, allow_nan=False)
    again = Verdict.from_dict(json.loads(text))
    assert again.to_dict() == form
    assert repr(again.findings) == repr(verdict.findings)  # nan is not equal to itself
    assert repr(again.losses) == repr(verdict.losses)
    assert (again.seeds, again.outcome, again.passed) == (verdict.seeds, verdict.outcome, verdict.passed)


@given(VERDICTS)
@settings(deadline=None)
def test_every_verdict_can_be_printed(verdict: Verdict) -> None:
    assert failure_text(verdict.to_dict(), "pytest x").endswith("rerun pytest x")
    assert all(len(line.split()) > 1 for line in summary_lines([verdict.to_dict()], 60))


def test_a_newer_form_is_refused() -> None:
    with pytest.raises(ValueError, match="verdict has schema 3, this version reads up to 2"):
        Verdict.from_dict({**project_verdict().to_dict(), "schema": 3})


@pytest.mark.parametrize(("share", "word"), [(1.0, "shown"), (0.5, "shown"), (0.2, "likely")])
def test_a_confidence_of_schema_1_was_a_number(share: float, word: str) -> None:
    diagnosis = {"fault": "double_softmax", "evidence": "e", "cure": "c", "confidence": share}
    old = {**project_verdict().to_dict(), "schema": 1, "diagnoses": [diagnosis]}
    (read,) = Verdict.from_dict(old).diagnoses
    assert (read.fault, read.confidence) == ("double_softmax", word)
    assert Verdict.from_dict(Verdict.from_dict(old).to_dict()).diagnoses == (read,)


def test_of_what_is_not_plain_the_type_is_kept() -> None:
    inside: list[Any] = []
    inside.append(inside)
    plain = project_verdict(data={"x": object(), "y": (each for each in ()), "z": inside}).to_dict()
    assert plain["data"] == {"x": "(object)", "y": "(generator)", "z": ["(list)"]}


@given(st.lists(NUMBERS, max_size=200), st.integers(1, 60))
@settings(deadline=None)
def test_sparkline(values: list[float], width: int) -> None:
    line = sparkline(values, width)
    assert len(line) == min(len(values), width)
    assert set(line) <= set("▁▂▃▄▅▆▇█x")
    if len(values) <= width:
        assert [each == "x" for each in line] == [not math.isfinite(each) for each in values]


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40))
@settings(deadline=None)
def test_sparkline_keeps_order(values: list[float]) -> None:
    line = sparkline(values)
    for i, j in ((i, j) for i in range(len(values)) for j in range(len(values)) if values[i] <= values[j]):
        assert line[i] <= line[j]
