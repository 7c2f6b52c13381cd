"""A verdict that did not pass, with the reason why."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pytest_overfit.adapters.base import Learner
from pytest_overfit.adapters.programs import Origin, Program, program_of
from pytest_overfit.core.verdict import Diagnosis, Finding, Judgement
from pytest_overfit.diagnosis.families import FAMILIES
from pytest_overfit.diagnosis.hypotheses import Family, suspected
from pytest_overfit.diagnosis.ranking import diagnoses_of, ruled_out
from pytest_overfit.diagnosis.symptoms import Symptoms
from pytest_overfit.diagnosis.trials import Trials

#: steps within which the first number that is not finite is looked for
_FIRST_STEPS = 100


def explained(
    judgement: Judgement,
    measured: Mapping[str, Any],
    make_learner: Callable[[], Learner],
    task: str | None,
    limits: Any,
    families: Sequence[Family] = FAMILIES,
) -> Judgement:
    """The same outcome with diagnoses, the first of which is its summary.

    `measured`: a run on one batch, as the probe of it measures it. Where it was not made, because the batch could not
    tell, and where it fits and yet does not pass, nothing is tried: the state of data and program alone speaks.
    `make_learner`: a new learner of the same program. Cost: at most three times the updates of the run, and never more
    than 1,500.
    """
    if measured.get("stop") == "budget" or (measured.get("stop") == "fits" and judgement.diagnoses):
        return judgement
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the run itself has shown them
        try:
            return _explained(judgement, measured, make_learner(), task, limits, families)
        except Exception as error:  # a program may fail in any way when it is looked into; its verdict stands
            reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
            note = Finding.note(f"why it is so was not found out ({reason})")
            return dataclasses.replace(judgement, findings=(*judgement.findings, note))


def _explained(
    judgement: Judgement,
    measured: Mapping[str, Any],
    learner: Learner,
    task: str | None,
    limits: Any,
    families: Sequence[Family],
) -> Judgement:
    program = program_of(learner)
    if program is None:
        return judgement
    was_run = bool(measured.get("points"))
    symptoms = read(measured if was_run else without_a_run(measured), learner, program)
    hypotheses = suspected(symptoms, families)
    if not was_run or measured["stop"] == "fits":
        return with_diagnoses(judgement, diagnoses_of(hypotheses, ()), "")
    trials = Trials(symptoms, program, limits, task, judgement.outcome == "inconclusive").run(hypotheses)
    found = diagnoses_of(hypotheses, trials)
    return with_diagnoses(judgement, found, ruled_out(trials))


def read(measured: Mapping[str, Any], learner: Learner, program: Program) -> Symptoms:
    """What costs next to nothing."""
    first = learner.last_pass() or learner.read("fit")
    return Symptoms(
        measured=measured,
        anatomy=program.anatomy(),
        inputs=learner.inputs,
        targets=learner.targets,
        outputs=first.outputs,
        heads=first.heads,
        origin=_origin(measured, program),
    )


def without_a_run(measured: Mapping[str, Any], is_finite: bool = True) -> dict[str, Any]:
    """What is known where no run was made, or one of a few updates, in the form of a longer one; it has no curve."""
    losses = list(measured.get("losses", ()))
    return {
        "losses": losses,
        "steps": max(1, len(losses)),
        "points": [],
        "stop": "steps" if is_finite else "non_finite",
        "reference": {"constant": None, "best": None, "how": ""},
        "parameters": {},
    }


def _origin(measured: Mapping[str, Any], program: Program) -> Origin | None:
    broken = measured["stop"] == "non_finite" or measured["parameters"].get("not_finite")
    return program.origin(min(_FIRST_STEPS, max(1, int(measured["steps"])))) if broken else None


def with_diagnoses(judgement: Judgement, found: Sequence[Diagnosis], without: str) -> Judgement:
    """The first proved, or shown, reason is the first line; the findings stay as they are."""
    notes = (Finding.note(without),) if without and not found else ()
    named = {each.fault for each in found}
    summary = found[0].evidence if found else judgement.summary
    return dataclasses.replace(
        judgement,
        summary=summary,
        findings=(*judgement.findings, *notes),
        diagnoses=(*found, *(each for each in judgement.diagnoses if each.fault not in named)),
    )
