"""Limits, seed and budget: where they can be written, which one wins, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_overfit import Case, CaseError
from pytest_overfit.core.limits import parse_ini, resolve, split_by_probe
from pytest_overfit.probes.overfit_batch import OverfitBatchLimits
from pytest_overfit.run import resolved_limits

PROBES = {"overfit_batch": OverfitBatchLimits}


# ---------------------------------------------------------------------------------------------------------- precedence


def test_the_first_layer_that_has_a_name_wins() -> None:
    layers = [("call", {"steps": 1}), ("marker", {"steps": 2, "min_accuracy": 0.2}), ("ini", {"steps": 3, "budget": 3})]
    found = resolve(OverfitBatchLimits, layers)
    assert (found.values.steps, found.values.min_accuracy, found.values.budget) == (1, 0.2, 3.0)
    sources = [found.source(each) for each in ("steps", "min_accuracy", "budget", "max_loss_ratio")]
    assert sources == ["call", "marker", "ini", "default"]
    assert found.values.max_loss_ratio == OverfitBatchLimits().max_loss_ratio


def test_every_source_is_shown_beside_its_limit(project: Any) -> None:
    project.ini("overfit_limits = max_loss_ratio = 0.03")
    result = project.run(
        """
        def test_call(overfit):
            overfit.batch(broken("call", limits={"max_loss_ratio": 0.02, "steps": 30}), max_loss_ratio=0.01)

        @pytest.mark.overfit("overfit_batch", max_loss_ratio=0.04)
        def test_marker():
            return broken("marker", limits={"max_loss_ratio": 0.02, "steps": 30})

        def test_case(overfit):
            overfit.batch(broken("case", limits={"max_loss_ratio": 0.02, "steps": 30}))

        def test_ini(overfit):
            overfit.batch(broken("ini", limits={"steps": 30}))
        """
    )
    result.assert_outcomes(failed=4)
    result.stdout.fnmatch_lines(
        [
            "*FAIL  loss_ratio *<= 0.01  (call) *",
            "*FAIL  accuracy *>= 1 *(default) *",
            "*FAIL  loss_ratio *<= 0.04  (marker) *",
            "*FAIL  loss_ratio *<= 0.02  (case) *",
            "*FAIL  loss_ratio *<= 0.03  (ini) *",
        ]
    )


def test_a_limit_can_be_written_for_one_probe() -> None:
    for written in ({"overfit_batch": {"steps": 7}, "steps": 3}, {"steps": 3, "overfit_batch.steps": 7}):
        assert split_by_probe(written, PROBES, "case") == {"overfit_batch": {"steps": 7}}


# ------------------------------------------------------------------------------------------------------------- refusal


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"step": 3}, r"call: unknown limit 'step'; did you mean 'steps'\?"),
        ({"max_loss": 3}, r"call: unknown limit 'max_loss'; did you mean 'max_loss_ratio'\?"),
        (
            {"zzz": 3},
            "call: unknown limit 'zzz'; known: .*budget, .*max_groups, max_loss_ratio, max_near, ",
        ),
        ({"overfit_bach.steps": 3}, r"call: unknown probe 'overfit_bach'; did you mean 'overfit_batch'\?"),
        ({"overfit_bach": {"steps": 3}}, r"call: unknown probe 'overfit_bach'; did you mean 'overfit_batch'\?"),
        ({"overfit_batch.stps": 3}, r"call: unknown limit of overfit_batch 'stps'; did you mean 'steps'\?"),
        ({"overfit_batch": {"stps": 3}}, r"call: unknown limit of overfit_batch 'stps'; did you mean 'steps'\?"),
        ({"steps": "300"}, "call: steps: expected a whole number, got '300'"),
        ({"steps": 2.5}, "call: steps: expected a whole number, got 2.5"),
        ({"steps": True}, "call: steps: expected a whole number, got True"),
        ({"steps": -1}, "call: steps: expected a whole number of 0 or more, got -1"),
        ({"steps": 0}, "call: steps: expected 1 or more, got 0"),
        ({"max_loss_ratio": "5%"}, "call: max_loss_ratio: expected a number, got '5%'"),
        ({"max_loss_ratio": False}, "call: max_loss_ratio: expected a number, got False"),
        ({"max_loss_ratio": -0.1}, "call: max_loss_ratio: expected a number of 0 or more, got -0.1"),
        ({"max_loss_ratio": float("nan")}, "call: max_loss_ratio: expected a number of 0 or more, got nan"),
        ({"max_loss_ratio": float("inf")}, "call: max_loss_ratio: expected a number of 0 or more, got inf"),
        ({"max_loss_ratio": 1}, "call: max_loss_ratio: expected a number above 0 and below 1, got 1"),
        ({"min_accuracy": 1.5}, "call: min_accuracy: expected a number above 0 and at most 1, got 1.5"),
        ({"min_token_accuracy": 0}, "call: min_token_accuracy: expected a number above 0"),
        ({"budget": -1}, "call: budget: expected a number of 0 or more, got -1"),
    ],
)
def test_refused_limits(written: dict[str, Any], message: str) -> None:
    case = Case(name="mlp", model=object, batch=([[1.0]], [1]))
    with pytest.raises(CaseError, match=message):
        resolved_limits(case, "overfit_batch", [("call", written)])
    also = Case(name="mlp", model=object, batch=([[1.0]], [1]), limits=written)
    with pytest.raises(CaseError, match=message.replace("call", "Case 'mlp': limits")):
        resolved_limits(also, "overfit_batch", [])


def test_budget_may_be_none() -> None:
    assert resolve(OverfitBatchLimits, [("call", {"budget": None}), ("ini", {"budget": 3})]).values.budget is None


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ("stepps=3", "marker: unknown limit 'stepps'; did you mean 'steps'?"),
        ("steps=-3", "marker: steps: expected a whole number of 0 or more, got -3"),
        ("steps=0", "marker: steps: expected 1 or more, got 0"),
        ("'overfit_bach'", "unknown probe 'overfit_bach'; did you mean 'overfit_batch'?"),
        ("3", "unknown probe 3; known: overfit_batch, split_duplicates"),
    ],
)
def test_a_wrong_marker_stops_collection_with_one_line(project: Any, mark: str, message: str) -> None:
    result = project.run(f"@pytest.mark.overfit({mark})\ndef test_it():\n    return good()\n")
    result.assert_outcomes(errors=1)
    assert f"test_it.py::test_it: {message}" in result.stdout.lines
    result.stdout.no_fnmatch_line("*During handling*")


# ----------------------------------------------------------------------------------------------------------------- ini


def test_ini_lines() -> None:
    lines = ["steps = 300", "overfit_batch.max_loss_ratio=0.02", " min_accuracy =  1e-1 ", "budget=+5"]
    assert parse_ini(lines) == {"steps": 300, "overfit_batch.max_loss_ratio": 0.02, "min_accuracy": 0.1, "budget": 5}


INI_ERRORS = [
    (
        "overfit_limits = steps",
        "ini overfit_limits: expected 'limit = number' or 'probe.limit = number', got 'steps'",
    ),
    ("overfit_limits = steps = many", "ini overfit_limits: 'steps = many': expected a number, got 'many'"),
    ("overfit_limits = stps = 3", "ini: unknown limit 'stps'; did you mean 'steps'?"),
    ("overfit_limits = steps = -3", "ini: steps: expected a whole number of 0 or more, got -3"),
    ("overfit_limits = steps = 2.5", "ini: steps: expected a whole number, got 2.5"),
    ("overfit_limits = steps = 0", "ini: steps: expected 1 or more, got 0"),
    ("overfit_limits = overfit_bach.steps = 3", "ini: unknown probe 'overfit_bach'; did you mean 'overfit_batch'?"),
    ("overfit_budget = -2", "ini: budget: expected a number of 0 or more, got -2.0"),
    ("overfit_budget = nan", "ini: budget: expected a number of 0 or more, got nan"),
    ("overfit_budget = long", "ini overfit_budget: *long*"),
    ("overfit_seed = -1", "ini overfit_seed: expected a whole number of 0 or more, got -1"),
    ("overfit_seed = x", "ini overfit_seed: *x*"),
    ("overfit_sed = 1", "ini: unknown option 'overfit_sed'; did you mean 'overfit_seed'?"),
    ("overfit_limit = steps = 3", "ini: unknown option 'overfit_limit'; did you mean 'overfit_limits'?"),
]


@pytest.mark.parametrize("way", ["file", "-o"])
@pytest.mark.parametrize(("line", "message"), INI_ERRORS)
def test_a_wrong_ini_is_a_usage_error_before_any_test(project: Any, line: str, message: str, way: str) -> None:
    if way == "file":
        project.ini(line)
    arguments = () if way == "file" else ("-o", line.replace(" = ", "=", 1))
    result = project.run("def test_it():\n    raise RuntimeError('a test ran')\n", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {message}"])
    assert "a test ran" not in str(result.stdout)


def test_ini_limits_apply_and_several_lines_are_read(project: Any) -> None:
    project.ini("overfit_limits =", "    steps = 10", "    overfit_batch.min_accuracy = 0.5")
    result = project.run("def test_it(overfit):\n    overfit.batch(broken(limits={}))\n")
    result.stdout.fnmatch_lines(["*>= 0.5 *(ini)*", "* 10 steps, *"])


# ---------------------------------------------------------------------------------------------------------------- seed


@pytest.mark.parametrize("value", ["x", "1.5", "-1", "nan"])
def test_a_wrong_seed_option_is_a_usage_error(project: Any, value: str) -> None:
    result = project.run("def test_it():\n    pass\n", f"--overfit-seed={value}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: --overfit-seed: expected a whole number of 0 or more, got {value}"])


SEEDED = """
def noisy(name="noisy", seed=None):
    def make():
        return {"w": np.random.normal(), "rng": np.random.default_rng(np.random.randint(2**31))}

    def step(model, x, y):
        return float(model["w"] ** 2 + model["rng"].random())

    return Case(name=name, model=make, step=step, batch=(X, Y), seed=seed)

def test_it():
    run_probes(noisy(), ["overfit_batch"], steps=10)

def test_own():
    run_probes(noisy("own", seed=3), ["overfit_batch"], steps=10)
"""


def seeded(project: Any, *arguments: str) -> dict[str, tuple[list[int], list[float]]]:
    project.again("--overfit-json=out.json", *arguments).assert_outcomes(passed=2)
    verdicts = json.loads((project.path / "out.json").read_text())["verdicts"]
    return {each["case"]: (each["seeds"], each["losses"]) for each in verdicts}


def test_seed_of_option_case_and_ini(project: Any) -> None:
    project.pytester.makeconftest("")  # the real adapter for a step
    project.write(SEEDED)
    plain, again = seeded(project), seeded(project)
    assert plain == again
    assert (plain["noisy"][0], plain["own"][0]) == ([0], [3])

    option = seeded(project, "--overfit-seed=5")
    assert (option["noisy"][0], option["own"][0]) == ([5], [5])
    assert option["noisy"][1] != plain["noisy"][1]

    ini = seeded(project, "-o", "overfit_seed=5")
    assert (ini["noisy"], ini["own"]) == (option["noisy"], plain["own"])
    assert seeded(project, "-o", "overfit_seed=9", "--overfit-seed=5") == option


# -------------------------------------------------------------------------------------------------------------- budget


def test_a_spent_budget_is_inconclusive(project: Any) -> None:
    project.ini("overfit_budget = 0")
    result = project.run(
        """
        def test_ini(overfit):
            overfit.batch(broken())

        def test_none(overfit):
            overfit.batch(good("free"), budget=None)
        """
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*broken: INCONCLUSIVE (not refuted): the budget was spent at step 3*"])
