"""Inputs and targets that are missing, all alike, or off unit scale."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pytest_overfit.adapters.programs import Change
from pytest_overfit.core.arrays import Array
from pytest_overfit.diagnosis.hypotheses import BROKEN, COMMON, SUSPECT, Hypothesis
from pytest_overfit.diagnosis.levels import level
from pytest_overfit.diagnosis.symptoms import Scale, Symptoms

#: healthy programs take inputs of a size up to about ten; beyond it, and where columns differ so much, few train well
_LARGE, _UNEVEN, _SHIFTED = 10.0, 30.0, 10.0

#: what needs no thought
_MILD = (0.2, 3.0)

#: inputs that were scaled down twice
_TINY = 0.05

#: targets of a regression
_TARGETS_LARGE, _TARGETS_TINY = 10.0, 0.02


def suspected(symptoms: Symptoms) -> Iterator[Hypothesis]:
    """Whatever is missing, all alike, or off scale; what is a little off, late."""
    yield from _missing(symptoms)
    yield from _alike(symptoms)
    yield from _lost(symptoms)
    yield from _scales(symptoms)
    yield from _targets(symptoms)


def _missing(symptoms: Symptoms) -> Iterator[Hypothesis]:
    floats = [each for each in symptoms.inputs if each.dtype.kind in "fc"]
    missing = sum(int((~np.isfinite(each)).sum()) for each in floats)
    if missing:
        yield Hypothesis(
            fault="nan_in_input",
            family="missing values",
            what=f"{missing} of {sum(each.size for each in floats)} input numbers are NaN or infinite",
            cure="impute or drop missing values before the batch is made",
            rank=BROKEN,
            broken=True,
        )


def _alike(symptoms: Symptoms) -> Iterator[Hypothesis]:
    """One row over and over is data that something has flattened, unless the batch was cut out of sorted ones."""
    rows = len(symptoms.inputs[0]) if symptoms.inputs else 0
    if rows > 1 and not any(map(varies, symptoms.inputs)):
        yield _all_one(
            "constant_input",
            f"all {rows} inputs of the batch are equal",
            "look at what reads, casts or scales the inputs: every row that comes out of it is the same",
        )
    elif rows > 1 and symptoms.targets and not any(map(varies, symptoms.targets)):
        value = ", ".join(str(each) for each in symptoms.targets[0].reshape(len(symptoms.targets[0]), -1)[0][:3])
        yield _all_one(
            "labels_collapsed",
            f"all {rows} targets of the batch are {value}",
            "look at what casts, scales or decodes the targets; if the data are sorted, shuffle them",
        )


def varies(values: Array) -> bool:
    """Some row differs from the first."""
    return bool((values != values[:1]).any())


def _all_one(fault: str, what: str, cure: str) -> Hypothesis:
    return Hypothesis(fault=fault, family="data", what=what, cure=cure, rank=BROKEN, broken=True, confidence="likely")


def _lost(symptoms: Symptoms) -> Iterator[Hypothesis]:
    """Rows differ, and what is left of them at the first layer with weights does not."""
    given = symptoms.anatomy.given
    if given and not any(each.varies for each in given) and any(map(varies, symptoms.inputs)):
        yield Hypothesis(
            fault="input_ignored",
            family="data",
            what=f"what comes to {given[0].where} is the same for every row, and the inputs are not",
            observed=level(symptoms),
            cure="look at what crops, masks or replaces the inputs before the first layer",
            rank=BROKEN,
            broken=True,
        )


def _scales(symptoms: Symptoms) -> Iterator[Hypothesis]:
    scales = list(symptoms.scales())
    words = next((found for each in scales if (found := _off(each))), "")
    tiny = next((each for each in scales if 0 < each.size < _TINY), None)
    if tiny is not None:
        what = f"the inputs are as small as {tiny.size:.2g}: scaled down twice?"
        yield _inputs(symptoms, "double_normalised", what, BROKEN + 4)
        return
    if words:
        yield _inputs(symptoms, "unnormalised_input", f"the inputs are not at unit scale: {words}", BROKEN + 4)
        return
    yield from _at_the_first_layer(symptoms)
    if any(not _MILD[0] < each.size < _MILD[1] or each.uneven > _MILD[1] for each in scales):
        size = next(iter(scales)).size
        what = f"the inputs are not at unit scale: their size is {size:.2g}"
        yield _inputs(symptoms, "unnormalised_input", what, COMMON + 3)


def _at_the_first_layer(symptoms: Symptoms) -> Iterator[Hypothesis]:
    """The batch is at unit scale, and what the model makes of it is not."""
    given = symptoms.anatomy.given
    far = next((each for each in given if not _TINY < each.size < _LARGE and each.size > 0), None)
    if far is None:
        return
    small = far.size < _TINY
    fault = "double_normalised" if small else "unnormalised_input"
    more = ": scaled down twice?" if small else ", and the batch's own are not"
    yield Hypothesis(
        fault=fault,
        family="scale",
        what=f"the inputs that come to {far.where} are of size {far.size:.2g}{more}",
        observed=level(symptoms),
        change=Change(kind="standardised", value="given"),
        changed="with standardised ones",
        cure="look at what scales the inputs inside the model, and scale them once",
        rank=BROKEN + 4,
    )


def _off(scale: Scale) -> str:
    if scale.largest > _LARGE and scale.size > _LARGE / 2:
        return f"they reach {scale.largest:.4g}"
    if scale.uneven > _UNEVEN:
        return f"one column spreads {scale.uneven:.3g} times as far as the usual one"
    return f"one column's mean is {scale.shifted:.3g} times its spread" if scale.shifted > _SHIFTED else ""


def _inputs(symptoms: Symptoms, fault: str, what: str, rank: int) -> Hypothesis:
    return Hypothesis(
        fault=fault,
        family="scale",
        what=what,
        observed=level(symptoms),
        change=Change(kind="standardised", value="inputs"),
        changed="with standardised inputs",
        cure="standardise the inputs: (x - mean) / std of each column, from the training rows",
        rank=rank,
    )


def _targets(symptoms: Symptoms) -> Iterator[Hypothesis]:
    scale = symptoms.target_scale()
    head = symptoms.head
    if scale is None or (head is not None and head.kind != "values"):
        return
    large = scale.size > _TARGETS_LARGE or scale.shifted > _SHIFTED
    if not large and not 0 < scale.size < _TARGETS_TINY:
        return
    far = f"they reach {scale.largest:.4g}" if large else f"they are as small as {scale.size:.2g}"
    yield Hypothesis(
        fault="unnormalised_target",
        family="scale of targets",
        what=f"the targets are not at unit scale: {far}",
        observed=level(symptoms),
        change=Change(kind="standardised", value="targets"),
        changed="with standardised targets",
        cure="standardise the targets, and scale predictions back",
        rank=BROKEN + 4 if large else SUSPECT,
    )
