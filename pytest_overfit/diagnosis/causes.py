"""A symptom that a few updates show, and the cause behind it: the state of the program that explains it.

That no gradient arrives, or that an input moves nothing, is true and no reason: weights that start at zero, units that
are never on, or a graph that is cut make it so. Where the state of the program shows such a cause, it stands first. It
is confirmed by its change, in which the symptom is gone, or breaks a rule that every healthy program keeps.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pytest_overfit.adapters.base import Learner
from pytest_overfit.adapters.programs import Program, program_of
from pytest_overfit.core.verdict import Diagnosis, Judgement
from pytest_overfit.diagnosis.explain import read, without_a_run
from pytest_overfit.diagnosis.families import FAMILIES
from pytest_overfit.diagnosis.hypotheses import Family, Hypothesis, suspected

#: judges the same question on another program
Again = Callable[[Callable[..., Learner]], Judgement]

_DATA = ("constant_input", "nan_in_input", "input_ignored")
_STARTS = ("zero_init", "dead_relu", "too_small_init", "too_large_init")
_SCALES = ("unnormalised_input", "unnormalised_target", "double_normalised")
_CUTS = ("non_differentiable", "detached_graph")
_NUMBERS = ("nan_in_input", "log_of_zero", "sqrt_zero_gradient", "division_by_zero")
_HEADS = (
    "wrong_loss",
    "wrong_output_units",
    "softmax_single_unit",
    "relu_on_logits",
    "missing_softmax",
    "missing_sigmoid",
    "softmax_wrong_axis",
)

#: what a symptom may come of
EXPLAINED_BY: Mapping[str, tuple[str, ...]] = {
    "update_skipped": (*_DATA, *_NUMBERS, *_CUTS, *_HEADS, *_STARTS, *_SCALES, "frozen_parameters"),
    "cut_gradient": (*_DATA, *_CUTS, *_HEADS, *_STARTS, *_SCALES),
    "input_unused": (
        *_DATA,
        *_STARTS,
        *_SCALES,
        *_HEADS,
        "constant_init",
        "wrong_hidden_activation",
        "vanishing_gradient",
    ),
    "unused_parameters": (*_DATA, *_STARTS, *_SCALES, "constant_init"),
    "nan_parameter": (*_NUMBERS, *_HEADS, "too_large_init", "lr_too_high", "lr_negative", *_SCALES),
    "lr_too_high": (*_NUMBERS, "too_large_init", *_SCALES),
    "lr_too_low": ("grad_clip_too_small", "bad_adam_epsilon", "schedule_kills_rate", *_STARTS, *_SCALES),
    "over_confident_start": ("too_large_init",),
    "batch_mixing": ("softmax_wrong_axis",),
}

#: changed programs that are asked, at most
_MOST = 4


def with_causes_first(
    judgement: Judgement,
    measured: Mapping[str, Any],
    make_learner: Callable[..., Learner],
    again: Again,
    families: Sequence[Family] = FAMILIES,
) -> Judgement:
    """The same outcome; where its first diagnosis is a symptom, what explains it stands before it."""
    if not judgement.diagnoses or judgement.diagnoses[0].fault not in EXPLAINED_BY:
        return judgement
    if judgement.outcome == "passed":  # warnings carry what their own measurement shows
        return _ordered(judgement, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the measurement itself has shown them
        try:
            found = _cause(judgement, measured, make_learner, again, families)
        except Exception:  # a program may fail in any way when it is looked into; its verdict stands
            found = None
    return _ordered(judgement, found)


def _ordered(judgement: Judgement, cause: Diagnosis | None) -> Judgement:
    """Causes that the measurement itself shows come next; symptoms of each other keep their order."""
    own = judgement.diagnoses
    others = [each for each in own if each.fault not in EXPLAINED_BY]
    symptoms = [each for each in own if each.fault in EXPLAINED_BY]
    if cause is None and not _explains_one(others, symptoms):
        return judgement
    first = [] if cause is None else [cause]
    rest = [each for each in (*others, *symptoms) if cause is None or each.fault != cause.fault]
    diagnoses = (*first, *rest)
    summary = judgement.summary if judgement.outcome == "passed" else diagnoses[0].evidence
    return dataclasses.replace(judgement, summary=summary, diagnoses=diagnoses)


def _explains_one(causes: Sequence[Diagnosis], symptoms: Sequence[Diagnosis]) -> bool:
    explained = {fault for each in symptoms for fault in EXPLAINED_BY[each.fault]}
    return any(each.fault in explained or each.fault == "gradient_ascent" for each in causes)


def _cause(
    judgement: Judgement,
    measured: Mapping[str, Any],
    make_learner: Callable[..., Learner],
    again: Again,
    families: Sequence[Family],
) -> Diagnosis | None:
    learner = make_learner()
    program = program_of(learner)
    if program is None:
        return None
    losses = measured.get("losses", ())
    is_finite = all(map(math.isfinite, losses)) and judgement.diagnoses[0].fault != "nan_parameter"
    symptoms = read(without_a_run(measured, is_finite), learner, program)
    names = {each.fault for each in judgement.diagnoses} & EXPLAINED_BY.keys()
    causes = [each for each in suspected(symptoms, families) if each.is_of_state and _may_explain(each, names)]
    for hypothesis in causes[:_MOST]:
        gone = _gone(hypothesis, program, again, names)
        if gone or hypothesis.broken:
            return _diagnosis(hypothesis, judgement.diagnoses[0], bool(gone))
    return None


def _may_explain(hypothesis: Hypothesis, symptoms: set[str]) -> bool:
    return any(hypothesis.fault in EXPLAINED_BY[each] for each in symptoms)


def _gone(hypothesis: Hypothesis, program: Program, again: Again, symptoms: set[str]) -> bool | None:
    """None: the change cannot be made."""
    change = hypothesis.change
    if change is None:
        return None
    try:
        after = again(lambda *_: program.changed(change))
    except Exception:  # a changed program may fail in any way
        return None
    return not symptoms & {each.fault for each in after.diagnoses}


def _diagnosis(hypothesis: Hypothesis, symptom: Diagnosis, gone: bool) -> Diagnosis:
    after = f"; {hypothesis.changed} that is not so" if gone else ""
    evidence = f"{hypothesis.opening}: {symptom.evidence}{after}"
    return Diagnosis(fault=hypothesis.fault, evidence=evidence, cure=hypothesis.cure, confidence="shown")
