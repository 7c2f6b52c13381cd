"""No verdict is lost, and nothing is damaged: kills, odd targets, strings, hooks and disks."""

from __future__ import annotations

import json
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pytest_overfit.report.files import is_stream, write_text
from pytest_overfit.report.journal import Journal, abandoned

TWO = "def test_it(overfit):\n    overfit.batch(good())\n\ndef test_other(overfit):\n    overfit.batch(broken())\n"


def cases(path: Path) -> list[str]:
    return [each["case"] for each in json.loads(path.read_text(encoding="utf-8"))["verdicts"]]


# ------------------------------------------------------------------ targets


def test_a_link_stays_one_and_its_target_keeps_its_mode(project: Any) -> None:
    target, link = project.path / "kept.json", project.path / "link.json"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target.name)
    project.run(TWO, "--overfit-json=link.json")
    assert link.is_symlink()
    assert cases(target) == ["good", "broken"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert sorted(each.name for each in project.path.glob(".*json*")) == []


def test_a_new_file_has_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "new.json", "{}")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new.json").stat().st_mode) == 0o640


def test_a_device_is_written_and_stays_one(project: Any) -> None:
    result = project.run(TWO, "--overfit-json=/dev/null")
    result.stdout.fnmatch_lines(["overfit: 2 verdicts in /dev/null"])
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_named_pipe_is_written_once_and_one_that_nobody_reads_is_no_hang(project: Any) -> None:
    pipe, read = project.path / "pipe", []
    os.mkfifo(pipe)
    thread = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    thread.start()
    project.run(TWO, "--overfit-json=pipe")
    thread.join(timeout=20)
    assert [each["case"] for each in json.loads(read[0])["verdicts"]] == ["good", "broken"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    result = project.run(TWO, "--overfit-json=pipe")
    result.stdout.fnmatch_lines(["overfit: --overfit-json=pipe: not written: *"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_what_stdout_leads_to_is_not_cut(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = "from pathlib import Path; from pytest_overfit.report.files import write_text; print('first', flush=True); "
    with log.open("w") as file:
        run = f"{code}write_text(Path('/dev/stdout'), 'second\\n')"
        subprocess.run([sys.executable, "-c", run], stdout=file, check=True)
    assert log.read_text() == "first\nsecond\n"
    assert is_stream(Path("/dev/stdout"))
    assert is_stream(Path("/dev/fd/1"))
    assert not is_stream(log)


def test_a_full_disk_costs_one_line_and_no_verdict(project: Any) -> None:
    (project.path / "full.json").symlink_to("/dev/full")
    result = project.run(TWO, "--overfit-json=full.json")
    result.stdout.fnmatch_lines(["overfit: --overfit-json=full.json: not written: No space left on device"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_a_deleted_folder_costs_one_line(project: Any) -> None:
    (project.path / "sub").mkdir()
    source = "import shutil\n\ndef test_it(overfit):\n    overfit.batch(good())\n    shutil.rmtree('sub')\n"
    result = project.run(source, "--overfit-json=sub/out.json")
    result.stdout.fnmatch_lines(["overfit: --overfit-json=sub/out.json: not written: No such file or directory"])
    assert result.ret == 0


def test_a_path_that_is_too_long_is_a_usage_error(project: Any) -> None:
    result = project.run(TWO, f"--overfit-json={'x' * 400}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --overfit-json=xxx*: File name too long"])


# ------------------------------------------------------------------ strings and hooks


def test_half_a_character_is_written_as_its_escape(project: Any) -> None:
    source = """
    def test_it(overfit):
        def factory():
            raise ValueError("half \\udc80 of one")

        overfit.batch(Case(name="odd", model=factory, step=lambda *_: 0.0, batch=(X, Y)))
    """
    project.pytester.makeconftest("")
    project.run(source, "--overfit-json=out.json", "--junitxml=out.xml")
    (error,) = json.loads((project.path / "out.json").read_text(encoding="utf-8"))["errors"]
    assert "half" in error["message"]
    assert (project.path / "out.xml").read_text(encoding="utf-8")


def test_a_hook_that_raises_loses_nothing_else(project: Any) -> None:
    project.conftest("""
    def pytest_overfit_verdict(verdict):
        raise ValueError("no connection")

    def pytest_overfit_update_json(document):
        del document["verdicts"]
        raise KeyError("half-way")
    """)
    result = project.run("def test_it(overfit):\n    overfit.batch(good())\n", "--overfit-json=out.json")
    result.stdout.fnmatch_lines([
        "overfit: hook pytest_overfit_verdict raised ValueError: no connection",
        "overfit: hook pytest_overfit_update_json raised KeyError: 'half-way'; the file is written without its changes",
    ])  # fmt: skip
    assert (result.ret, cases(project.path / "out.json")) == (0, ["good"])


def test_a_hook_that_raises_in_a_worker_is_told(project: Any) -> None:
    pytest.importorskip("xdist")
    project.conftest("def pytest_overfit_verdict(verdict):\n    raise ValueError('no connection')\n")
    project.write("def test_it(overfit):\n    overfit.batch(good())\n")
    result = project.pytester.runpytest_subprocess("-n", "1", "--overfit-json=out.json")
    result.stdout.fnmatch_lines(["overfit: hook pytest_overfit_verdict raised ValueError: no connection"])
    assert (result.ret, cases(project.path / "out.json")) == (0, ["good"])


def test_what_json_cannot_hold_is_named(project: Any) -> None:
    project.conftest("""
    def pytest_overfit_update_json(document):
        document["team"] = {"model": object(), "score": float("nan"), "name": "\\ud800"}
        document["self"] = document
    """)
    result = project.run("def test_it(overfit):\n    overfit.batch(good())\n", "--overfit-json=out.json")
    what = "document['team']['model'] (object), document['self'] (dict)"
    assert f"out.json: only the type is written of what JSON cannot hold: {what}" in str(result.stdout)
    written = json.loads((project.path / "out.json").read_text(encoding="utf-8"))
    assert written["team"] == {"model": "(object)", "score": "nan", "name": "\\ud800"}
    assert cases(project.path / "out.json") == ["good"]


@pytest.mark.parametrize("hook", ["pytest_overfit_probes", "pytest_overfit_diagnosis_families"])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise RuntimeError('not installed')", "hook {}: raised RuntimeError: not installed"),
        ("return 5", "hook {}: expected a list, got int"),
        ("return [5]", "hook {}: 5 is not a *"),
    ],
)
def test_a_hook_that_gives_nothing_usable_is_a_usage_error(project: Any, hook: str, body: str, message: str) -> None:
    project.conftest(f"def {hook}():\n    {body}\n")
    result = project.run(TWO)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {message.format(hook)}*"])
    assert "INTERNALERROR" not in str(result.stderr) + str(result.stdout)


# ------------------------------------------------------------------ kills


def test_the_journal_of_a_killed_run_becomes_its_report(project: Any) -> None:
    killed = "import os, signal\n\ndef test_it(overfit):\n    overfit.batch(good())\n\ndef test_kill():\n"
    project.write(f"{killed}    os.kill(os.getpid(), signal.SIGKILL)\n")
    assert project.pytester.runpytest_subprocess("--overfit-json=out.json").ret == -signal.SIGKILL
    assert not (project.path / "out.json").exists()
    assert len(list(project.path.glob(".out.json.*.journal"))) == 1
    listing = project.pytester.runpytest("--overfit-json=out.json", "--collect-only", "-q", "--deselect=test_it.py")
    assert listing.ret in (0, 5)
    assert list(project.path.glob(".out.json.*.journal")) == []


def test_a_journal_is_read_like_the_run_itself_keeps_it(tmp_path: Path) -> None:
    report = tmp_path / "a[b]*.json"
    journal = Journal(report)
    journal.append(("test", "call", "one"), {"case": "one", "outcome": "failed", "probe": "p"})
    journal.append(("test", "call", "two"), {"case": "two", "outcome": "passed", "probe": "p"})
    journal.append(("test", "call", "one"), {"case": "one", "outcome": "passed", "probe": "p"})
    assert list(abandoned(report)) == []  # its run is under way
    journal.close(keep=True)
    with journal.path.open("ab") as file:
        file.write(b'[["torn", "call"')
    assert [[(each["case"], each["outcome"]) for each in run] for run in abandoned(report)] == [
        [("two", "passed"), ("one", "passed")]
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_journal_older_than_the_report_is_not_put_over_it(tmp_path: Path) -> None:
    report = tmp_path / "out.json"
    journal = Journal(report)
    journal.append(("test",), {"case": "one", "outcome": "passed", "probe": "p"})
    journal.close(keep=True)
    report.write_text("{}")
    later = time.time() + 10
    os.utime(report, (later, later))
    assert list(abandoned(report)) == []
    assert list(tmp_path.iterdir()) == [report]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_many_kills_leave_whole_files(project: Any, workers: int) -> None:
    tests = "@pytest.mark.parametrize('number', range(60))\ndef test_it(overfit, number):\n"
    project.write(f"{tests}    overfit.batch(good(f'case_{{number}}'))\n")
    arguments = [sys.executable, "-m", "pytest", "-q", "--overfit-json=out.json", *(["-n", "2"] if workers else [])]
    subprocess.run(arguments, cwd=project.path, check=False, capture_output=True)
    kept = set()
    for seed in range(15):
        child = subprocess.Popen(arguments, cwd=project.path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(random.Random(seed).uniform(0.8, 4.0))
        child.send_signal(signal.SIGKILL)
        child.wait()
        kept.add(len(cases(project.path / "out.json")))
    subprocess.run(arguments, cwd=project.path, check=False, capture_output=True)
    assert len(cases(project.path / "out.json")) == 60
    assert list(project.path.glob(".out.json.*")) == []
    assert all(0 < each <= 60 for each in kept)
