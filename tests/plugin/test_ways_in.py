"""The four ways in: fixture, marker, parametrized matrix, and `run_probes` without pytest."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import Any

import pytest

import pytest_overfit
from pytest_overfit import Case, CaseError, Overfit, ProbeFailed, parametrize_with_probes
from pytest_overfit.probes import built_in

ONE_LINE = {"batch": ([[1.0], [2.0]], [0, 1])}


def a_case(name: str = "mlp") -> Case:
    return Case(name=name, model=object, **ONE_LINE)


# ------------------------------------------------------------------------------------------------------------- fixture


def test_fixture_returns_the_verdict(project: Any) -> None:
    result = project.run(
        """
        def test_it(overfit: Overfit):
            verdict = overfit.batch(good())
            assert isinstance(verdict, Verdict) and verdict.passed
            assert (verdict.case, verdict.probe, verdict.framework) == ("good", "overfit_batch", "fake")
        """
    )
    result.assert_outcomes(passed=1)


def test_fixture_raises_probe_failed_with_the_verdict(project: Any) -> None:
    result = project.run(
        """
        def test_it(overfit):
            with pytest.raises(ProbeFailed) as caught:
                overfit.batch(broken())
            assert isinstance(caught.value, AssertionError)
            assert caught.value.verdict.outcome == "failed"
        """
    )
    result.assert_outcomes(passed=1)


def test_a_refuted_model_shows_the_users_line_and_no_frame_of_ours(project: Any) -> None:
    result = project.run("def test_it(overfit):\n    overfit.batch(broken())\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([">*overfit.batch(broken())", "E*pytest_overfit.ProbeFailed: broken: FAILED: *"])
    result.stdout.no_fnmatch_line("*fixture.py*")
    result.stdout.fnmatch_lines(["test_it.py:3: ProbeFailed"])


def test_given_takes_the_fixture(project: Any) -> None:
    """Hypothesis refuses function-scoped fixtures; ours is session-scoped and stateless."""
    pytest.importorskip("hypothesis")
    result = project.run(
        """
        from hypothesis import given, settings, strategies as st

        @settings(max_examples=5, deadline=None, database=None)
        @given(rows=st.integers(8, 16))
        def test_it(overfit, rows):
            assert overfit.batch(good(rows=rows)).passed
        """,
        "--overfit-json=out.json",
    )
    result.assert_outcomes(passed=1)
    verdicts = json.loads((project.path / "out.json").read_text())["verdicts"]
    assert [each["attempts"] for each in verdicts] == [1] * 5  # of one attempt, and none is lost


def test_module_scoped_fixtures_may_use_it(project: Any) -> None:
    result = project.run(
        """
        @pytest.fixture(scope="module")
        def verdict(overfit):
            return overfit.batch(good())

        def test_it(verdict):
            assert verdict.passed
        """
    )
    result.assert_outcomes(passed=1)


# -------------------------------------------------------------------------------------------------------------- marker


def test_bare_marker_runs_the_default_set_a_test_a_probe(project: Any) -> None:
    result = project.run(
        """
        @pytest.mark.overfit
        def test_good():
            return splits("good")

        @pytest.mark.overfit
        def test_copied():
            return splits("copied", copied=True)

        @pytest.mark.overfit
        def test_broken():
            return broken()
        """,
        "-v",
        "-rs",
    )
    result.assert_outcomes(passed=3, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*::test_good?split_duplicates? PASSED*",
            "*::test_good?overfit_batch? PASSED*",
            "*::test_copied?split_duplicates? FAILED*",
            "*::test_copied?overfit_batch? PASSED*",
            "*::test_broken?split_duplicates? NOT APPLICABLE*",
            "*::test_broken?overfit_batch? FAILED*",
            "copied: FAILED: *",  # nothing of the user's is on the way, so the message is all
            "broken: FAILED: *",
            "-  *broken-split_duplicates: the case has batch= alone, *",
        ]
    )
    result.stdout.no_fnmatch_line("*def pytest_pyfunc_call*")
    result.stdout.no_fnmatch_line("SKIPPED*")


def test_marker_with_names_and_limits(project: Any) -> None:
    result = project.run(
        """
        @pytest.mark.overfit("overfit_batch", steps=5)
        def test_it():
            return good()
        """
    )
    result.assert_outcomes(failed=1)  # five steps are not enough
    result.stdout.fnmatch_lines(["*<= 0.05*(default)*", "* 5 steps, *"])


@pytest.mark.parametrize("where", ["method", "class", "module"])
def test_marker_on_methods_classes_and_modules(project: Any, where: str) -> None:
    mark = "@pytest.mark.overfit('overfit_batch', steps=300)"
    result = project.run(
        f"""
        {"pytestmark = pytest.mark.overfit('overfit_batch', steps=300)" if where == "module" else ""}

        {mark if where == "class" else ""}
        class TestModels:
            {mark if where == "method" else ""}
            def test_it(self):
                return good()
        """,
        "-v",
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*TestModels::test_it?overfit_batch? PASSED*"])


def test_the_closest_marker_counts(project: Any) -> None:
    result = project.run(
        """
        pytestmark = pytest.mark.overfit("overfit_batch", steps=5)

        @pytest.mark.overfit("overfit_batch", steps=300)
        def test_near():
            return good()

        def test_far():
            return good()
        """
    )
    result.assert_outcomes(passed=1, failed=1)


def test_marker_beside_fixtures_and_parametrize(project: Any) -> None:
    result = project.run(
        """
        @pytest.fixture
        def name():
            return "with_fixture"

        @pytest.fixture(autouse=True)
        def unasked():
            yield

        @pytest.mark.overfit("overfit_batch")
        @pytest.mark.parametrize("rows", [8, 12])
        def test_it(name, tmp_path, rows, default="x"):
            assert tmp_path.is_dir() and default == "x"
            return good(f"{name}.{rows}", rows=rows)
        """,
        "-v",
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["ok *with_fixture.8:*", "ok *with_fixture.12:*"])


def test_marked_test_that_returns_something_else(project: Any) -> None:
    result = project.run(
        """
        @pytest.mark.overfit("overfit_batch")
        def test_none():
            good()

        @pytest.mark.overfit("overfit_batch")
        def test_number():
            return 3
        """
    )
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "a test marked `overfit` returns its Case, this one returned None; end it with `return Case(...)`",
            "expected a Case, got 3; write Case(name='mlp', model=make_model, batch=(x, y), ...)",
        ]
    )


def test_an_exception_in_a_marked_test_keeps_its_traceback(project: Any) -> None:
    result = project.run(
        """
        @pytest.mark.overfit("overfit_batch")
        def test_it():
            return {}["missing"]
        """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([">*return {}?*missing*", "E*KeyError*"])
    result.stdout.no_fnmatch_line("*fixture.py*")


def test_a_case_refused_in_a_marked_test_shows_where_it_was_written(project: Any) -> None:
    result = project.run(
        """
        @pytest.mark.overfit("overfit_batch")
        def test_it():
            return Case(name="no name", model=object, batch=(X, Y))
        """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [">*return Case(name=*", "E*CaseError: Case name='no name': a name is made of letters*"]
    )
    result.stdout.no_fnmatch_line("*core?case.py*")
    result.stdout.no_fnmatch_line("*<string>*")


def test_full_trace_shows_everything(project: Any) -> None:
    result = project.run("def test_it(overfit):\n    overfit.batch(broken())\n", "--full-trace")
    result.stdout.fnmatch_lines(["*fixture.py*"])


# -------------------------------------------------------------------------------------------------------------- matrix

MATRIX = """
@parametrize_with_probes([good("mlp"), broken("cnn")], ["overfit_batch"]{more})
def test_model(case, probe):
    assert repr(probe) == "BoundProbe('overfit_batch')"
    assert probe(case).passed
"""


def test_matrix_ids_and_verdicts(project: Any) -> None:
    result = project.run(MATRIX.format(more=""), "-v")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["*::test_model?mlp-overfit_batch? PASSED*", "*::test_model?cnn-overfit_batch? FAILED*"]
    )


EVERY_PROBE = """
CASES = [splits("mlp"), splits("copied", True), broken("cnn"), splits("both", True, way=standing)]

@parametrize_with_probes(CASES{more})
def test_model(case, probe):
    assert repr(probe) in ("BoundProbe('overfit_batch')", "BoundProbe('split_duplicates')")
    assert probe(case).passed
"""


NAMED = ", ['split_duplicates', 'overfit_batch']"


def test_matrix_of_the_default_set_leaves_out_what_a_case_rules_out(project: Any) -> None:
    result = project.run(EVERY_PROBE.format(more=""), "-v")
    result.assert_outcomes(passed=3, failed=4)
    result.stdout.fnmatch_lines(
        [
            "*::test_model?mlp-split_duplicates? PASSED*",
            "*::test_model?mlp-overfit_batch? PASSED*",
            "*::test_model?copied-split_duplicates? FAILED*",
            "*::test_model?copied-overfit_batch? PASSED*",
            "*::test_model?cnn-overfit_batch? FAILED*",
            "*::test_model?both-split_duplicates? FAILED*",
            "*::test_model?both-overfit_batch? FAILED*",
            "left out, as their cases rule them out: 1",
        ]
    )
    project.again().stdout.fnmatch_lines(["not applicable: 1"])


def test_what_a_matrix_names_is_a_test_of_each_case(project: Any) -> None:
    result = project.run(EVERY_PROBE.format(more=NAMED), "-v", "-rs")
    result.assert_outcomes(passed=3, failed=4, skipped=1)
    result.stdout.fnmatch_lines(
        ["*::test_model?cnn-split_duplicates? SKIPPED*", "SKIPPED*cnn: split_duplicates: the case has batch= alone, *"]
    )


def test_options_that_cannot_be_used_are_not_left_out(project: Any) -> None:
    result = project.run(
        """
        WRONG = Case(name="wrong", model=object, batch=(X, Y), options={"split_duplicates": {"grup": 1}})

        @parametrize_with_probes([WRONG])
        def test_model(case, probe):
            probe(case)
        """
    )
    result.stdout.fnmatch_lines(["*unknown option 'grup'*"])


def test_an_expected_failure_by_case_is_for_all_its_probes_that_apply(project: Any) -> None:
    expected = "{'copied-split_duplicates': 'until #7', 'cnn': 'no head', 'both': 'no head, and until #7'}"
    result = project.run(EVERY_PROBE.format(more=f", expected_failures={expected}"), "-rx")
    result.assert_outcomes(passed=3, xfailed=4)
    result.stdout.fnmatch_lines_random(["XFAIL *both-split_duplicates* no head, and until #7"])
    named = project.run(EVERY_PROBE.format(more=f"{NAMED}, expected_failures={expected}"), "-rxs")
    named.assert_outcomes(passed=3, xfailed=4, skipped=1)
    named.stdout.fnmatch_lines_random(["SKIPPED*cnn: split_duplicates: the case has batch= *"])
    too_wide = project.run(EVERY_PROBE.format(more=", expected_failures={'copied': 'until #7'}"))
    too_wide.assert_outcomes(passed=2, failed=4, xfailed=1)
    too_wide.stdout.fnmatch_lines(["*copied-overfit_batch*", "?XPASS(strict)? until #7"])


@pytest.mark.parametrize("key", ["cnn", "cnn-overfit_batch"])
def test_expected_failures_by_case_and_by_id(project: Any, key: str) -> None:
    result = project.run(MATRIX.format(more=f", expected_failures={{{key!r}: 'no head until #42'}}"), "-rx")
    result.assert_outcomes(passed=1, xfailed=1)
    result.stdout.fnmatch_lines(["XFAIL *cnn-overfit_batch* no head until #42"])


def test_an_expected_failure_that_passes_fails_the_run(project: Any) -> None:
    project.pytester.makeini("[pytest]\n")  # without xfail_strict of the project's own
    result = project.run(MATRIX.format(more=", expected_failures={'mlp': 'is fixed by now', 'cnn': 'is not'}"))
    result.assert_outcomes(failed=1, xfailed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["?XPASS(strict)? is fixed by now"])


def test_misuse_is_no_expected_failure(project: Any) -> None:
    result = project.run(
        """
        @parametrize_with_probes(
            [good("mlp", limits={"stepps": 3})], ["overfit_batch"], expected_failures={"mlp": "known"}
        )
        def test_model(case, probe):
            probe(case)
        """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*CaseError: Case 'mlp': limits: unknown limit 'stepps'; did you mean 'steps'?"])


def test_a_crash_of_the_program_is_an_expected_failure(project: Any) -> None:
    project.pytester.makeconftest("")  # the real adapters
    result = project.run(
        """
        def crashes(model, x, y):
            raise RuntimeError("no kernel")

        @parametrize_with_probes(
            [Case(name="net", model=list, step=crashes, batch=(X, Y))],
            ["overfit_batch"],
            expected_failures={"net": "crashes until #7"},
        )
        def test_model(case, probe):
            probe(case)
        """
    )
    result.assert_outcomes(xfailed=1)


def test_matrix_limits_of_the_call(project: Any) -> None:
    result = project.run(
        """
        @parametrize_with_probes([good()], probes=["overfit_batch"])
        def test_model(case, probe):
            probe(case, steps=5)
        """
    )
    result.assert_outcomes(failed=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([a_case(), a_case()],), "two cases are called 'mlp'; names make the test ids"),
        ((a_case(),), r"cases: expected a list of cases, got a Case; write parametrize_with_probes\(\[case\]\)"),
        ((["mlp"],), "expected a Case, got 'mlp'"),
        (([a_case()], ["overfit_bach"]), "unknown probe 'overfit_bach'; did you mean 'overfit_batch'"),
        (([a_case()], [3]), "unknown probe 3; known: .*overfit_batch.*split_duplicates"),
    ],
)
def test_matrix_refuses(arguments: Any, message: str) -> None:
    with pytest.raises(CaseError, match=message):
        parametrize_with_probes(*arguments)


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"mpl": "x"}, "there is no test 'mpl'; did you mean 'mlp'"),
        ({"mlp-overfit_bach": "x"}, "there is no test 'mlp-overfit_bach'; did you mean 'mlp-overfit_batch'"),
        ({"mlp": " "}, "expected the reason, in words"),
        ({"mlp": None}, "expected the reason, in words"),
        (["mlp"], "expected_failures: expected a dict of ids and reasons, got list of 1"),
    ],
)
def test_matrix_refuses_expected_failures(expected: Any, message: str) -> None:
    with pytest.raises(CaseError, match=message):
        parametrize_with_probes([a_case()], expected_failures=expected)


def test_one_probe_by_its_plain_name_and_twice_is_once() -> None:
    assert len(parametrize_with_probes([a_case()], "overfit_batch").args[1]) == 1
    assert len(parametrize_with_probes([a_case()], ["overfit_batch", "overfit_batch"]).args[1]) == 1


# ------------------------------------------------------------------------------------------------------ without pytest


def test_run_probes_in_a_script(pytester: pytest.Pytester) -> None:
    script = """
        import sys
        from pytest_overfit import Case, CaseError, run_probes

        def make():
            return {"w": 0.0}

        def step(model, x, y):
            loss = float(((model["w"] * x[:, 0] - y) ** 2).mean())
            model["w"] -= 0.1 * float((2 * (model["w"] * x[:, 0] - y) * x[:, 0]).mean())
            return loss

        x = [[-1.0], [0.5], [1.0], [2.0]]
        def case(step): return Case(name="line", model=make, step=step, batch=(x, [-2.0, 1.0, 2.0, 4.0]),
                                    score=lambda model, x, y: 1.0 if abs(model["w"] - 2) < 0.1 else 0.0)
        good, splits = run_probes(case(step), ["overfit_batch", "split_duplicates"])
        assert (splits.probe, splits.outcome, splits.passed) == ("split_duplicates", "not_applicable", False)
        (bad,) = run_probes(case(lambda model, x, y: 1.0), ["overfit_batch"], steps=50)
        print(good.outcome, bad.outcome, bad.steps)
        try:
            run_probes(case(step), "overfit_bach")
        except CaseError as error:
            print(error)
        try:
            run_probes(case(step), step=3)
        except CaseError as error:
            print(error)
        assert "pytest" not in sys.modules and "_pytest" not in sys.modules
    """
    path = pytester.path / "script.py"
    path.write_text(textwrap.dedent(script))
    done = subprocess.run([sys.executable, "-W", "error", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "passed failed 50",
        "unknown probe 'overfit_bach'; did you mean 'overfit_batch'?",
        "call: unknown limit 'step'; did you mean 'steps'?",
    ]


def test_run_probes_wants_a_case() -> None:
    with pytest.raises(CaseError, match="expected a Case, got 3; write "):
        pytest_overfit.run_probes(3)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------------- all of them

THREE_STYLES = """
{mark}
def test_fixture(overfit):
    overfit.batch({case})

{mark}
@pytest.mark.overfit("overfit_batch")
def test_marker():
    return {case}

{mark}
@parametrize_with_probes([{case}], ["overfit_batch"])
def test_matrix(case, probe):
    probe(case)
"""


def test_xfail_raises_probe_failed(project: Any) -> None:
    mark = "@pytest.mark.xfail(raises=ProbeFailed, strict=True)"
    project.run(THREE_STYLES.format(mark=mark, case="broken()")).assert_outcomes(xfailed=3)
    wrong = project.run(THREE_STYLES.format(mark=mark, case="good(limits={'stps': 1})"))
    wrong.assert_outcomes(failed=3)


def test_inconclusive_fails_and_says_so(project: Any) -> None:
    result = project.run(THREE_STYLES.format(mark="", case="slow()"))
    result.assert_outcomes(failed=3)
    assert str(result.stdout).count("slow: INCONCLUSIVE (not refuted): still falling at step 500") == 3
    result.stdout.no_fnmatch_line("*slow: FAILED*")


def test_not_applicable_is_a_skip_with_its_reason(project: Any) -> None:
    project.conftest(
        """
        import dataclasses
        from pytest_overfit import NotApplicable

        @dataclasses.dataclass(frozen=True)
        class Limits:
            pass

        class Never:
            name, limits = "never", Limits

            def measure(self, bench, limits):
                raise NotApplicable("the model has no regulariser")

            def judge(self, measured, limits):
                raise AssertionError

        def pytest_overfit_probes():
            return [Never()]
        """
    )
    result = project.run(
        """
        @pytest.mark.overfit("never")
        def test_marker():
            return good()

        @parametrize_with_probes([good()], ["never"])
        def test_matrix(case, probe):
            probe(case)

        def test_outside():
            (verdict,) = run_probes(good(), "never")
            assert verdict.outcome == "not_applicable" and not verdict.passed
        """,
        "-rs",
    )
    result.assert_outcomes(skipped=2, passed=1)
    result.stdout.fnmatch_lines(["SKIPPED*test_it.py:*good: never: the model has no regulariser"])


def test_public_names_are_short() -> None:
    assert ProbeFailed.__module__ == CaseError.__module__ == "pytest_overfit"
    assert repr(a_case()) == "Case('mlp')"
    assert repr(Overfit()) == "Overfit()"
    assert set(dir(pytest_overfit)) == set(pytest_overfit.__all__)
    for name in pytest_overfit.__all__:
        public = getattr(pytest_overfit, name)
        assert getattr(public, "__name__", repr(public)) == name
    with pytest.raises(AttributeError, match="has no attribute 'Overfitt'"):
        pytest_overfit.Overfitt  # noqa: B018


def test_probe_failed_survives_pickling() -> None:
    import pickle

    error = ProbeFailed(
        "why", pytest_overfit.Verdict(probe="p", case="c", framework="f", outcome="failed", summary="s")
    )
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.verdict) == (ProbeFailed, "why", error.verdict)


def test_collect_only_shows_ids_and_runs_nothing(project: Any) -> None:
    result = project.run(
        MATRIX.format(more="") + "\n@pytest.mark.overfit\ndef test_m():\n    raise 1\n", "--collect-only", "-q"
    )
    result.stdout.fnmatch_lines(
        [
            "test_it.py::test_model?mlp-overfit_batch?",
            "test_it.py::test_model?cnn-overfit_batch?",
            "test_it.py::test_m?split_duplicates?",
            "test_it.py::test_m?overfit_batch?",
        ]
    )


def test_select_by_probe_name_and_by_marker(project: Any) -> None:
    source = "\n@pytest.mark.overfit\ndef test_m():\n    return splits()\n\ndef test_other():\n    pass\n"
    project.run(source, "-k", "overfit_batch").assert_outcomes(passed=1, deselected=2)
    project.again("-k", "split_duplicates").assert_outcomes(passed=1, deselected=2)
    project.again("-m", "overfit").assert_outcomes(passed=2, deselected=1)


def test_a_bare_marker_asks_for_the_default_set(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import pytest\n\n@pytest.mark.overfit\ndef test_m():\n    raise AssertionError\n")
    result = pytester.runpytest_inprocess("--collect-only", "-q")
    asked = [line.removesuffix("]").partition("[")[2] for line in result.outlines if "::test_m[" in line]
    assert sorted(asked) == sorted(name for name, probe in built_in().items() if probe.default)
    assert len(asked) > 2


def test_marker_and_fixture_document_themselves(project: Any) -> None:
    project.run("", "--markers").stdout.fnmatch_lines(["@pytest.mark.overfit(?probes, ??limits): the test returns*"])
    project.again("--fixtures", "-q").stdout.fnmatch_lines(["overfit ?session scope?*", "*Run probes on a case*"])


def test_same_verdicts_under_xdist(project: Any) -> None:
    pytest.importorskip("xdist")
    source = MATRIX.format(more=", expected_failures={'cnn': 'known'}") + THREE_STYLES.format(mark="", case="broken()")
    one = project.run(source, "--overfit-json=one.json")
    two = project.again("--overfit-json=two.json", "-n", "2")
    assert one.parseoutcomes() == two.parseoutcomes() == {"passed": 1, "failed": 3, "xfailed": 1}
    verdicts = []
    for name in ("one.json", "two.json"):
        found = json.loads((project.path / name).read_text())["verdicts"]
        verdicts.append(sorted(({**each, "seconds": 0} for each in found), key=lambda each: each["test"]))
    assert len(verdicts[0]) == 5
    assert verdicts[0] == verdicts[1]
    two.stdout.fnmatch_lines(["*= overfit: overfit_batch =*", "passed: 1 (-v lists them)"])


def test_a_rerun_counts_an_attempt_and_the_last_one_counts(project: Any) -> None:
    pytest.importorskip("pytest_rerunfailures")
    result = project.run(
        """
        TRIES = []

        @pytest.mark.overfit("overfit_batch")
        def test_it():
            TRIES.append(1)
            return broken("net") if len(TRIES) == 1 else good("net")
        """,
        "--reruns=1",
        "--overfit-json=out.json",
        "--junitxml=out.xml",
    )
    assert result.parseoutcomes() == {"passed": 1, "rerun": 1}
    (verdict,) = json.loads((project.path / "out.json").read_text())["verdicts"]
    assert (verdict["attempts"], verdict["outcome"]) == (2, "passed")
    last = (project.path / "out.xml").read_text().rpartition("<testcase")[2]
    assert last.count('name="overfit.net.overfit_batch.outcome"') == 1
    assert 'name="overfit.net.overfit_batch.outcome" value="passed"' in last
