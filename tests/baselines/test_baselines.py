"""Baselines: what is saved, what is compared, and that nothing is written that was not asked for."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_overfit import CaseError
from pytest_overfit.__main__ import main
from pytest_overfit.baselines import case_files
from pytest_overfit.baselines.files import SCHEMA, read_case
from pytest_overfit.baselines.numbers import Rule, kept, rule_of
from pytest_overfit.core.verdict import Better, Finding, Verdict
from pytest_overfit.probes import built_in

#: a test whose speed of learning a file decides, so that one project can be healthy today and slower tomorrow
SOURCE = """
from pathlib import Path

def speed():
    file = Path(__file__).parent / "speed"
    return float(file.read_text()) if file.exists() else 1.0

def test_it(overfit):
    pace = speed()
    overfit.batch(good(way=lambda step: memorising(step * pace)))
"""

SLOWER = "0.2"

pytestmark = pytest.mark.usefixtures("every_probe")


def baseline(project: Any, name: str = "baseline", case: str = "good") -> Path:
    return Path(project.path / ".overfit" / name / f"{case}.json")


def saved(project: Any, **more: Any) -> Any:
    return json.loads(baseline(project, **more).read_text())


def slow_down(project: Any) -> None:
    (project.path / "speed").write_text(SLOWER)


# -------------------------------------------------------------------------------------------------------------- numbers


def numbers_of(probe: str = "overfit_batch", findings: Sequence[Finding] = (), **more: Any) -> dict[str, float]:
    given_: dict[str, Any] = {
        "case": "mlp",
        "outcome": "passed",
        "framework": "torch",
        "summary": "",
        "steps": 75,
        **more,
    }
    verdict = Verdict(probe=probe, findings=tuple(findings), **given_)
    return kept(built_in()[probe].numbers(verdict))["quantities"]


def finding(name: str, value: Any, limit: Any = 1.0) -> Finding:
    return Finding(name=name, value=value, limit=limit)


def test_only_finite_numbers_with_a_limit_and_none_of_a_clock() -> None:
    findings = [
        finding("loss_ratio", 0.0123456789),
        finding("constant_loss", 2.3, None),
        finding("bad", math.nan),
        finding("missing", None),
    ]
    assert numbers_of(findings=findings) == {"steps_to_memorise": 75.0, "loss_ratio": 0.0123457}
    assert numbers_of("bounds", [finding("gap", 0.1), finding("step_time_ratio", 0.7)]) == {"gap": 0.1}


def test_counts_are_kept_to_the_last_digit() -> None:
    findings = [finding("parameters_trainable", 123456789.0), finding("huge", 1e300)]
    wanted = {"steps_to_memorise": 75, "parameters_trainable": 123456789, "huge": 1e300}
    assert numbers_of(findings=findings) == wanted
    assert rule_of("parameters_trainable:0").broken_by(123456789, 123456790, "")
    assert rule_of("parameters_trainable:0").broken_by(123456789, 123456788, "")


def test_what_each_probe_sums_up() -> None:
    run = {"train": {"score": 0.9, "loss": 0.2}, "val": {"score": 0.8, "loss": None}}
    other = {"train": {"score": 1.0, "loss": 0.4}, "val": {"score": 0.8, "loss": None}}
    gap = numbers_of("generalization_gap", data={"runs": [run, other]})
    assert gap == {"train_score": 0.95, "train_loss": 0.3, "val_score": 0.8, "gap": 0.15}
    assert numbers_of("regularization", data={"regularized": [run]})["gap"] == 0.1
    copies = {"across": [{"in": "train", "of": "test", "rows": 3}], "near": [{"testable": False}]}
    assert numbers_of("split_duplicates", data=copies) == {"exact_copies_count.train.test": 3.0}
    curves = {"train": [0.1, 0.5], "val": [0.1, 0.4], "train_loss": [2.0, 1.0], "val_loss": []}
    early = numbers_of("early_accuracy", data={"curves": curves})
    assert early == {"train_score": 0.5, "val_score": 0.4, "train_loss": 1.0}


WAYS: dict[str, Better] = {"steps_to_memorise": "lower", "gap": "lower", "exact_copies_count.train.test": "lower",
                           "val_score": "higher", "score": "higher", "parameters_trainable": ""}  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "before", "now", "broken"),
    [
        ("steps_to_memorise:50%", 100, 150, False),
        ("steps_to_memorise:50%", 100, 151, True),
        ("steps_to_memorise:50%", 100, 10, False),
        ("steps_to_memorise:20", 100, 120, False),
        ("steps_to_memorise:20", 100, 121, True),
        ("val_score:0.02", 0.9, 0.88, False),
        ("val_score:0.02", 0.9, 0.87, True),
        ("val_score:0.02", 0.9, 0.99, False),
        ("score:2%", -0.5, -0.52, True),
        ("gap:0%", 0.1, 0.1, False),
        ("gap:0%", 0.1, 0.2, True),
        ("exact_copies_count.train.test:0%", 0, 1, True),
        ("parameters_trainable:0", 100, 101, True),
        ("parameters_trainable:0", 100, 99, True),
    ],
)
def test_a_rule_looks_at_what_became_worse(rule: str, before: float, now: float, broken: bool) -> None:
    assert rule_of(rule).broken_by(before, now, WAYS[rule.partition(":")[0]]) is broken


@given(st.floats(-1e6, 1e6), st.floats(0, 100), st.sampled_from(["gap", "val_score", "parameters_trainable"]))
@settings(deadline=None)
def test_what_did_not_change_breaks_no_rule(value: float, amount: float, name: str) -> None:
    assert not Rule(name, amount, relative=True).broken_by(value, value, WAYS[name])
    assert not Rule(name, amount, relative=False).broken_by(value, value, WAYS[name])


def test_a_rule_names_a_quantity_of_every_probe_or_of_one() -> None:
    assert rule_of("gap:1").names("bounds", "gap")
    assert rule_of("bounds.gap:1").names("bounds", "gap")
    assert not rule_of("bounds.gap:1").names("regularization", "gap")
    assert rule_of("gradient_norm[fc 1]:5%").names("bounds", "gradient_norm[fc 1]")
    assert str(rule_of("gap:12.5%")) == "gap:12.5%"
    assert str(rule_of("gap:0.01")) == "gap:0.01"


@pytest.mark.parametrize("text", ["gap", "gap:", ":5%", "gap:x", "gap:-5%", "gap:nan", "gap:inf", "gap:5%%"])
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(CaseError, match=r"write steps_to_memorise:50% or val_score:0\.02"):
        rule_of(text)


def ways_of(probe: str, data: Any, *findings: Finding) -> dict[str, str]:
    verdict = Verdict(
        probe=probe, case="mlp", framework="torch", outcome="passed", summary="", findings=findings, data=data, steps=3
    )
    return {number.name: number.better for number in built_in()[probe].numbers(verdict)}


def test_a_probe_says_which_way_its_numbers_are_better() -> None:
    run = {split: {"score": 0.9, "loss": 0.2} for split in ("train", "val")}
    of_runs = {
        "train_score": "higher",
        "train_loss": "lower",
        "val_score": "higher",
        "val_loss": "lower",
        "gap": "lower",
    }
    assert ways_of("generalization_gap", {"runs": [run]}) == of_runs
    assert ways_of("regularization", {"regularized": [run]}) == of_runs
    assert ways_of("early_accuracy", {}) == {name: way for name, way in of_runs.items() if name != "gap"}
    assert ways_of("overfit_batch", {}) == {"steps_to_memorise": "lower"}
    assert ways_of("overfit_batch", {}, finding("mine", 1)) == {"steps_to_memorise": "lower", "mine": ""}
    copies = {kind: [{"in": "train", "of": "test", "rows": 3}] for kind in ("across", "near")}
    names = ("exact_copies_count.train.test", "near_copies_count.train.test")
    assert ways_of("split_duplicates", copies) == dict.fromkeys(names, "lower")


#: of the 31 quantities that can be bounded
LOWER = ("initial_loss", "loss_after_k_steps", "steps_to_memorise", "train_loss", "val_loss", "best_train_loss",
         "best_val_loss", "gap", "calibration_error", "dead_units", "saturated_units", "memory_peak")  # fmt: skip
HIGHER = ("train_score", "val_score", "best_train_score", "best_val_score", "samples_per_parameter", "determinism",
          "eval_twice", "save_load", "batch_size_invariance", "accumulation", "float64_agrees")  # fmt: skip


def test_every_quantity_that_can_be_bounded_is_better_the_way_the_list_says() -> None:
    import pytest_overfit.probes.bounds  # noqa: F401 - fills the list
    from pytest_overfit.probes.bounds.quantities.registry import QUANTITIES

    wanted = {name: "lower" if name in LOWER else "higher" if name in HIGHER else "" for name in QUANTITIES}
    del wanted["step_time_ratio"]  # of a clock
    assert ways_of("bounds", {}, *(finding(name, 1) for name in QUANTITIES)) == wanted
    assert (len(QUANTITIES), QUANTITIES["step_time_ratio"].better) == (31, "lower")


# -------------------------------------------------------------------------------------------------------- save, compare


def test_saved_numbers_are_plain_readable_json(project: Any) -> None:
    result = project.run(SOURCE, "--overfit-save")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*overfit: baselines*", "saved: 1 case in *.overfit?baseline"])
    found = saved(project)
    assert (found["schema"], found["case"]) == (SCHEMA, "good")
    entry = found["probes"]["overfit_batch"]
    assert set(entry["quantities"]) >= {"steps_to_memorise", "loss_ratio"}
    assert "seconds" not in json.dumps(found)
    text = baseline(project).read_text()
    assert text == json.dumps(found, indent=2, sort_keys=True) + "\n"
    project.again("--overfit-save")
    assert baseline(project).read_text() == text  # nothing changes where nothing changed


def test_a_change_is_one_line_of_a_diff(project: Any) -> None:
    project.run(SOURCE, "--overfit-save")
    before = baseline(project).read_text().splitlines()
    slow_down(project)
    project.again("--overfit-save")
    after = baseline(project).read_text().splitlines()
    assert len(before) == len(after)
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert any(each.strip().startswith('"steps_to_memorise": ') for each in changed)
    assert all(each.startswith(" " * 8 + '"') for each in changed)  # numbers, one a line


def test_the_same_again_passes_and_slower_fails_where_it_was_asked(project: Any) -> None:
    project.run(SOURCE, "--overfit-save")
    asked = ("--overfit-compare", "--overfit-compare-fail=steps_to_memorise:50%", "--overfit-compare-fail=loss_ratio:1")
    same = project.again(*asked)
    same.assert_outcomes(passed=1)
    same.stdout.fnmatch_lines(["*numbers unchanged"])
    slow_down(project)
    slower = project.again(*asked)
    slower.assert_outcomes(failed=1)
    slower.stdout.fnmatch_lines(
        [
            "good: overfit_batch: steps_to_memorise is *, was * in baseline (--overfit-compare-fail=steps_*:50%)",
            "case-probe *quantity *baseline *now *change",
            "good-overfit_batch *steps_to_memorise *+*% *WORSE",
        ]
    )
    told = project.again("--overfit-compare")  # compared, but nothing was asked to fail
    told.assert_outcomes(passed=1)
    told.stdout.fnmatch_lines(["good-overfit_batch *steps_to_memorise *+*% *worse"])


def test_a_worse_number_does_not_replace_the_baseline_that_it_failed_against(project: Any) -> None:
    project.run(SOURCE, "--overfit-save")
    text = baseline(project).read_text()
    slow_down(project)
    result = project.again("--overfit-compare", "--overfit-save", "--overfit-compare-fail=steps_to_memorise:50%")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["not saved: good-overfit_batch (worse than what it was compared with)"])
    assert baseline(project).read_text() == text


def test_a_missing_baseline_fails_with_the_command_that_makes_it(project: Any) -> None:
    result = project.run(SOURCE, "--overfit-compare=main")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["no baseline *main?good.json to compare with; make it with: pytest test_it.py::test_it --overfit-save=main"]
    )
    assert not (project.path / ".overfit").exists()
    project.again("--overfit-save=main")
    project.again("--overfit-compare=main").assert_outcomes(passed=1)


def test_a_probe_that_the_baseline_does_not_have_fails_as_well(project: Any) -> None:
    project.run(SOURCE, "--overfit-save")
    result = project.run(
        "def test_it(overfit):\n    overfit.within(good(), initial_loss=(1, 2))\n", "--overfit-compare"
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["baseline *good.json has nothing of bounds; make it with: pytest *--overfit-save=*"])
    project.again("--overfit-save")
    assert sorted(saved(project)["probes"]) == ["bounds", "overfit_batch"]  # the other probe's part stays
    project.again("--overfit-compare").assert_outcomes(passed=1)


def test_a_number_that_is_gone_or_new_is_named(project: Any) -> None:
    bounded = "def test_it(overfit):\n    overfit.within(good(), {}=({}, None))\n"
    project.run(bounded.format("initial_loss", 0), "--overfit-save")
    rules = ("--overfit-compare", "--overfit-compare-fail=initial_loss:5%", "--overfit-compare-fail=output_std:5%")
    result = project.run(bounded.format("output_std", -1), *rules)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "good: bounds: initial_loss was 1.38629 in baseline and is not measured any more",
            "good: bounds: output_std is not in the baseline baseline; save it again with --overfit-save=baseline",
        ]
    )


def test_a_verdict_that_did_not_pass_is_not_saved(project: Any) -> None:
    result = project.run("def test_it(overfit):\n    overfit.batch(broken())\n", "--overfit-save")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["not saved: broken-overfit_batch (failed)"])
    assert not (project.path / ".overfit").exists()


def test_a_rule_that_nothing_measures_fails_the_run(project: Any) -> None:
    project.run(SOURCE, "--overfit-save")
    result = project.again("--overfit-compare", "--overfit-compare-fail=steps_to_memorize:50%")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["ERROR: --overfit-compare-fail=steps_to_memorize:50%: no verdict *has it; *"])


# ---------------------------------------------------------------------------------------------------- what stands there

CORRUPT = {
    "half": ('{"schema": 1, "case": "go', "cannot be read: no JSON"),
    "empty": ("", "cannot be read: no JSON"),
    "binary": (b"\xff\xfe\x00", "cannot be read: no JSON"),
    "newer": ('{"schema": 99, "pytest_overfit": "9.9"}', "has schema 99, this version of pytest-overfit reads up to 1"),
    "list": ("[1, 2]", "is not a pytest-overfit baseline"),
    "other": ('{"schema": 1, "case": "other", "probes": {}}', "is of case 'other', not of 'good'"),
    "words": (
        '{"schema": 1, "case": "good", "probes": {"overfit_batch": {"quantities": {"a": "b"}}}}',
        "is not a pytest-overfit baseline",
    ),
}


@pytest.mark.parametrize("option", ["--overfit-save", "--overfit-compare"])
@pytest.mark.parametrize("kind", CORRUPT)
def test_a_file_that_cannot_be_used_is_named_and_left_untouched(project: Any, kind: str, option: str) -> None:
    content, words = CORRUPT[kind]
    raw = content if isinstance(content, bytes) else content.encode()
    baseline(project).parent.mkdir(parents=True)
    baseline(project).write_bytes(raw)
    result = project.run(SOURCE, option)
    assert result.ret == 1
    result.stdout.fnmatch_lines([f"*baseline *good.json {words}*it was left as it is*"])
    assert baseline(project).read_bytes() == raw
    assert [each.name for each in baseline(project).parent.iterdir()] == ["good.json"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--overfit-save", "test_it.py"), "--overfit-save=test_it.py: expected a name *put --overfit-save after*"),
        (("--overfit-save=../up",), "--overfit-save=../up: expected a name of letters*"),
        (("--overfit-compare=",), "--overfit-compare=: expected a name of letters*"),
        (
            ("--overfit-compare-fail=gap:5%",),
            "--overfit-compare-fail=gap:5%: nothing is compared; *",
        ),
        (("--overfit-compare", "--overfit-compare-fail=gap"), "--overfit-compare-fail=gap: expected a quantity *"),
    ],
)
def test_a_wrong_option_is_refused_before_any_test(project: Any, arguments: tuple[str, ...], words: str) -> None:
    result = project.run(SOURCE, *arguments)
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"*{words}"])


def test_a_place_that_cannot_be_written_is_refused_before_any_test(project: Any) -> None:
    (project.path / ".overfit").write_text("a file")
    result = project.run(SOURCE, "--overfit-save")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*--overfit-save: cannot write to *baseline: *.overfit: *"])
    assert (project.path / ".overfit").read_text() == "a file"


def test_a_file_that_becomes_unwritable_is_one_line_and_no_lost_result(project: Any) -> None:
    result = project.run(
        SOURCE
        + """
def test_in_the_way(overfit):
    (Path(__file__).parent / ".overfit" / "baseline" / "second.json").mkdir()
    overfit.batch(good("second"))
""",
        "--overfit-save",
    )
    assert result.ret == 1
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["saved: 1 case in *", "ERROR: baseline *second.json cannot be read: *"])


def test_storage_is_an_ini_value(project: Any) -> None:
    project.ini("overfit_storage = kept/numbers")
    project.run(SOURCE, "--overfit-save=main")
    assert (project.path / "kept" / "numbers" / "main" / "good.json").is_file()
    project.again("--overfit-compare=main").assert_outcomes(passed=1)


# ------------------------------------------------------------------------------------------------- workers, killed runs


def test_workers_compare_and_only_the_controller_writes(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xdist")
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # of the run that this test is part of
    monkeypatch.setattr(case_files, "write_json", case_files.write_json)  # the conftest below puts another there
    project.conftest(
        """
        import os
        from pytest_overfit.baselines import case_files

        real = case_files.write_json

        def watched(path, document, **more):
            assert "PYTEST_XDIST_WORKER" not in os.environ
            real(path, document, **more)

        case_files.write_json = watched
        """
    )
    source = SOURCE + "\ndef test_other(overfit):\n    overfit.batch(good('second'))\n"
    project.write(source)
    run = lambda *arguments: project.pytester.runpytest_subprocess("-n", "2", *arguments)  # noqa: E731
    run("--overfit-save").assert_outcomes(passed=2)
    alone = {name: baseline(project, case=name).read_text() for name in ("good", "second")}
    project.again("--overfit-save=alone")
    assert {name: baseline(project, "alone", name).read_text() for name in alone} == alone
    slow_down(project)
    result = run("--overfit-compare", "--overfit-compare-fail=steps_to_memorise:50%")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["good-overfit_batch *steps_to_memorise *WORSE", "* unchanged"])


def test_a_killed_run_keeps_what_was_done(project: Any) -> None:
    project.write(
        """
        import os, signal

        def test_first(overfit):
            overfit.batch(good("first"))

        def test_second(overfit):
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--overfit-save"],
        cwd=project.path,
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": f"{project.path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
    )
    assert done.returncode == -signal.SIGKILL
    assert [each.name for each in baseline(project).parent.iterdir()] == ["first.json"]
    assert read_case(baseline(project).parent, "first")["probes"]["overfit_batch"]["quantities"]


# ----------------------------------------------------------------------------------------------------- the command line


def written(folder: Path, case: str, **numbers: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    better = {"steps_to_memorise": "lower", "loss_ratio": "lower"}
    entry = {"framework": "torch", "seeds": [0], "versions": {}, "quantities": numbers, "better": better}
    document = {"schema": 1, "pytest_overfit": "0", "case": case, "probes": {"overfit_batch": entry}}
    (folder / f"{case}.json").write_text(json.dumps(document))


def test_compare_prints_the_table_without_running_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / ".overfit" / "old", "mlp", steps_to_memorise=50, loss_ratio=0.01, gone=1)
    written(tmp_path / ".overfit" / "new", "mlp", steps_to_memorise=75, loss_ratio=0.01)
    written(tmp_path / ".overfit" / "new", "v1.2", steps_to_memorise=75)
    assert main(["compare", "old", "new"]) == 0
    wanted = """\
        case-probe          quantity           old  new  change
        mlp-overfit_batch   gone               1    -
        mlp-overfit_batch   steps_to_memorise  50   75   +50.0%  worse
        v1.2-overfit_batch  steps_to_memorise  -    75
        1 number unchanged
        """
    assert capsys.readouterr().out == textwrap.dedent(wanted)
    assert main(["compare", str(tmp_path / ".overfit" / "old"), "old"]) == 0
    assert capsys.readouterr().out == "3 numbers unchanged\n"


def test_a_file_that_does_not_say_which_way_is_better_is_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As version 0.1.0 wrote them at first."""
    monkeypatch.chdir(tmp_path)
    for name, steps in (("old", 50), ("new", 75)):
        written(tmp_path / ".overfit" / name, "mlp", steps_to_memorise=steps)
        file = tmp_path / ".overfit" / name / "mlp.json"
        form = json.loads(file.read_text())
        del form["probes"]["overfit_batch"]["better"]
        file.write_text(json.dumps(form))
    assert main(["compare", "old", "new"]) == 0
    assert "steps_to_memorise  50   75   +50.0%\n" in capsys.readouterr().out


def test_compare_says_what_it_cannot_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / ".overfit" / "old", "mlp", steps_to_memorise=50)
    assert main(["compare", "old", "other"]) == 2
    assert "there is no folder of baselines" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["compare", "old", "empty"]) == 2
    assert "holds no baselines; make some with pytest --overfit-save=empty" in capsys.readouterr().err
    (tmp_path / ".overfit" / "old" / "bad.json").write_text("{")
    assert main(["compare", "old", "old"]) == 2
    assert "bad.json cannot be read: no JSON" in capsys.readouterr().err


def test_the_command_imports_no_framework(tmp_path: Path) -> None:
    written(tmp_path / "a", "mlp", steps_to_memorise=50)
    program = (
        "import sys; from pytest_overfit.__main__ import main; main(['compare', 'a', 'a']); "
        "print([each for each in ('torch', 'tensorflow', 'keras', 'numpy', 'pytest') if each in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "1 number unchanged\n[]\n"
