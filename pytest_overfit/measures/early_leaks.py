"""What the controls for leaks and pipeline faults show, on plain values alone.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pytest_overfit.core.limits import Resolved
from pytest_overfit.core.verdict import Finding
from pytest_overfit.measures import early_symptoms as symptoms
from pytest_overfit.measures.answers import clearly_above
from pytest_overfit.measures.early_words import interval, listed

Measured = Mapping[str, Any]


def of_copies(measured: Measured, limits: Resolved[Any]) -> Iterator[Finding]:
    """Rows that train holds too: a leak beyond `max_copies` and beyond what the data repeat by themselves."""
    found, split, alpha = measured["copies"], measured["split"], limits.values.alpha
    for kind in ("exact", "near"):
        each = found[kind]
        count = each["rows"] - (found["exact"]["rows"] if kind == "near" else 0)
        if not count:
            continue
        share, inflated = each["rows"] / found["rows"], _inflated(each, alpha)
        beyond = _beyond(each["rows"], found["rows"], found["within"], alpha) if kind == "exact" else (
            count > 2 * found["near_expected"] and each["without"] is None)  # fmt: skip
        leak = share > limits.values.max_copies and (beyond or inflated)
        word = "copy" if kind == "exact" else "copy or near-copy"
        message = f"{each['rows']} of {found['rows']} rows of {split} have a {word} in train{_scores(each)}"
        yield Finding(name=f"{kind}_copies", value=share, limit=limits.values.max_copies, relation="<=",
                      source=limits.source("max_copies"), outcome="failed" if leak else "warning",
                      message=f"leak: {message}" if leak else message)  # fmt: skip


def _scores(each: Measured) -> str:
    if each["with"] is None:
        return ""
    alone = "there are no others" if each["without"] is None else f"{interval(each['without'])} on the others"
    return f"; the score is {interval(each['with'])} on them, {alone}"


def _inflated(each: Measured, alpha: float) -> bool:
    """The score is clearly higher on rows that train holds than on the others."""
    if each["with"] is None or each["without"] is None:
        return False
    return clearly_above(each["with"], each["without"], alpha)


def _beyond(rows: int, of: int, within: float, alpha: float) -> bool:
    """More copies than the data repeat: the binomial tail of at least so many at train's own rate of repetition."""
    if within <= 0 or rows == 0:
        return rows > 0
    if within >= 1:
        return False
    logs = (
        math.lgamma(of + 1) - math.lgamma(k + 1) - math.lgamma(of - k + 1)
        + k * math.log(within) + (of - k) * math.log1p(-within)
        for k in range(rows, of + 1)
    )  # fmt: skip
    return sum(map(math.exp, logs)) <= alpha


_SPELT = {
    "code": "spells out the label: one value a class",
    "one_hot": "spell out the label: one column a class",
    "copy": "is the target in other units",
    "encoded": "holds the target's mean over all rows with its value, validation rows included",
}


def of_columns(measured: Measured, limits: Resolved[Any]) -> Iterator[Finding]:
    """The label inside the input."""
    del limits
    for each in measured["label_columns"]:
        where = f"{listed(each['columns'])} of the input"
        after = measured["after"]["val"]
        lost = f"; with it permuted the score goes from {after['score']:.2f} to {each['without']['score']:.2f}"
        message = f"leak: {where} {_SPELT[each['kind']]}{lost if each['without'] else ''}"
        yield Finding(name="label_in_input", value=each["columns"][0], outcome="failed", message=message)


def of_pipeline(measured: Measured, limits: Resolved[Any]) -> Iterator[Finding]:
    """A model that was trained on permuted labels must know nothing of the true ones."""
    runs, most = measured["permuted"], limits.values.repeats
    if not runs:
        return
    scores = [each["val"]["score"] for each in runs]
    last = runs[-1]["val"]
    fault = len(runs) >= most and symptoms.random_labels_beat_chance(runs, limits.values.alpha)
    told = f"trained on permuted labels, {measured['split']} is at {interval(last)}"
    message = (
        f"pipeline fault: trained on permuted labels {len(runs)} times, {measured['split']} beat chance each time "
        f"({min(scores):.2f} to {max(scores):.2f}); by luck at most {2.0**-most:.2g}"
        if fault
        else told
    )
    yield Finding(name="permuted_labels", value=last["score"], outcome="failed" if fault else "passed", message=message)


def of_own_score(measured: Measured) -> Iterator[Finding]:
    """A score of the user's that is the same before and after training, and for other targets, scores neither."""
    own = measured["own"]
    if own is None or not own["other_targets"]:
        return
    values = [own["before"], own["after"], *own["other_targets"]]
    blind = all(each == own["after"] for each in values)
    if not blind and any(each != own["after"] for each in own["other_targets"]):
        return
    if blind:
        message = (
            f"pipeline fault: score= gives {own['after']:.4g} before and after training, and for targets of other rows"
        )
    else:
        message = "score= gives the same for targets of other rows: it does not look at the targets"
    yield Finding(name="own_score", value=own["after"], outcome="failed" if blind else "warning", message=message)


def of_classes(measured: Measured, limits: Resolved[Any]) -> Iterator[Finding]:
    """Classes that train has none of."""
    rows = measured["rows"]["val"]
    classes = max(1, len(measured["unseen"]))
    for each in measured["unseen"]:
        unlikely = each["p"] * classes <= limits.values.alpha
        message = (
            f"{each['rows']} of {rows} rows of {measured['split']} are of class {each['class']}, which train has none of; a "
            f"random cut would do that with p = {each['p']:.2g}"
        )
        yield Finding(name="unseen_class", value=each["rows"], limit=0, relation="<=", source="theory",
                      outcome="failed" if unlikely else "warning", message=message)  # fmt: skip


def of_best_column(measured: Measured, alpha: float) -> Iterator[Finding]:
    """One column that predicts as well as the model: a fact, because a good feature and a noisy label look alike."""
    best, after = measured["best_column"], measured["after"]["val"]
    if best is None or measured["label_columns"]:
        return
    alone, without = best["estimate"], best.get("without")
    rest = measured["baselines"].get("constant", alone)
    carries = not clearly_above(after, alone, alpha) and clearly_above(alone, rest, alpha)
    if carries and without is not None and clearly_above(after, without, alpha):
        message = (
            f"column {best['column']} of the input alone reaches {interval(alone)}, and with it permuted the model falls from "
            f"{after['score']:.2f} to {without['score']:.2f}: is it known when the model is used?"
        )
        yield Finding(name="best_column", value=alone["score"], outcome="warning", message=message)
