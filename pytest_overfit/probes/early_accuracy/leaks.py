"""What the controls for leaks and pipeline faults show, on plain values alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pytest_overfit.core.figures import hundredths
from pytest_overfit.core.limits import Resolved
from pytest_overfit.core.verdict import Cause, Finding, FindingOutcome
from pytest_overfit.probes.early_accuracy import symptoms
from pytest_overfit.probes.early_accuracy.estimates import clearly_above
from pytest_overfit.probes.early_accuracy.words import interval, listed

Measured = Mapping[str, Any]


def of_copies(measured: Measured, limits: Resolved[Any]) -> Iterator[Finding]:
    """Rows that train holds too: a leak beyond `max_copies` and beyond what the data repeat by themselves."""
    found, split, alpha, most = measured["copies"], measured["split"], limits.values.alpha, limits.values.max_copies
    rows, exact = found["rows"], found["exact"]["rows"]
    near = found["near"]["rows"] - exact
    for kind, count, word in (("exact", exact, "copy"), ("near", near, "near-copy")):
        if not count:
            continue
        many = count / rows > most
        leak = many and (_by_luck(measured, kind, count) <= alpha or _inflated(found[kind], alpha))
        message = f"{count} of {rows} rows of {split} have a {word} in train{_scores(found[kind])}"
        outcome: FindingOutcome = "failed" if leak else "warning"
        few = many and not leak and kind == "exact" and rows - count < limits.values.min_rows
        if few and _unexplained(found, alpha):
            outcome, message = "inconclusive", f"{message}: too few rows are new to say how good it is on new ones"
        yield Finding(name=f"{kind}_copies", value=count / rows, limit=most, relation="<=",
                      source=limits.source("max_copies"), outcome=outcome,
                      message=f"leak: {message}" if leak else message, better="lower",
                      cause=_COPIED.get(outcome))  # fmt: skip


_CLEAN = "drop these rows: split_duplicates lists them, and Duplicates(verdict.data).clean(...) names those to keep"
_COPIED: dict[FindingOutcome, Cause] = {
    "failed": Cause("split_leak", _CLEAN), "inconclusive": Cause("split_leak", _CLEAN, "likely")
}  # fmt: skip


def _by_luck(measured: Measured, kind: str, count: int) -> float:
    """The chance of so many copies where none was made."""
    found = measured["copies"]
    if kind == "near":
        return _poisson_tail(count, found["near_expected"])
    return _binomial_tail(count, found["rows"], _repetition(measured))


def _scores(each: Measured) -> str:
    if each["with"] is None:
        return ""
    alone = "there are no others" if each["without"] is None else f"{interval(each['without'])} on the others"
    taught = f" ({interval(each['unknown'])} without their copies)" if each.get("unknown") else ""
    return f"; the score is {interval(each['with'])} on them{taught}, {alone}"


def _inflated(each: Measured, alpha: float) -> bool:
    """The score is clearly higher on rows that train holds than on the others, and than it is without their copies.

    Rows that repeat by themselves are common ones, which are easier as well.
    """
    if each["with"] is None or each["without"] is None:
        return False
    unknown = each.get("unknown")
    easier = unknown is not None and not clearly_above(each["with"], unknown, alpha)
    return clearly_above(each["with"], each["without"], alpha) and not easier


def only_inflated(measured: Measured, limits: Any) -> bool:
    """Exact copies that the data explain, but for the score on them."""
    found = measured["copies"]["exact"]
    many = found["rows"] / max(1, measured["copies"]["rows"]) > limits.max_copies
    return many and _by_luck(measured, "exact", found["rows"]) > limits.alpha and _inflated(found, limits.alpha)


def _repetition(measured: Measured) -> float:
    """How often rows repeat among those of train; one more than seen, because none seen is not none.

    Rows with a measurement in them do not repeat by themselves: where those of train do, they were copied.
    """
    rows, found = measured["rows"]["train"], measured["copies"]
    return float(((0.0 if found["identified"] else found["within"]) * rows + 1) / (rows + 1))


def _unexplained(found: Measured, alpha: float) -> bool:
    """More copies than columns with so few values would give by themselves."""
    return _binomial_tail(found["exact"]["rows"], found["rows"], found["by_columns"]) <= alpha


def _binomial_tail(rows: int, of: int, share: float) -> float:
    """The chance of so many copies or more, if rows repeat as often as those of train do among themselves."""
    from scipy.special import bdtrc

    return float(bdtrc(rows - 1, of, share)) if 0 < share < 1 else float(share >= 1)


def _poisson_tail(rows: int, expected: float) -> float:
    """The chance of so many, 1 or more, where `expected` are."""
    from scipy.special import pdtrc

    return float(pdtrc(rows - 1, expected)) if expected > 0 else 0.0


_SPELT = {
    "code": "spells out the label: one value a class",
    "one_hot": "spell out the label: one column a class",
    "copy": "is the target in other units",
    "encoded": "holds the target's mean over all rows with its value, validation rows included",
}


def of_columns(measured: Measured, limits: Resolved[Any]) -> Iterator[Finding]:
    """The label inside the input."""
    del limits
    for found in measured["label_columns"]:
        message = f"leak: {listed(found['columns'])} of the input {_SPELT[found['kind']]}"
        if found["without"]:
            before, after = measured["after"]["val"]["score"], found["without"]["score"]
            message = f"{message}; with it permuted the score goes from {hundredths(before)} to {hundredths(after)}"
        cure = f"leave the target out of the input: numpy.delete(x, {list(found['columns'])}, axis=1)"
        yield Finding.failed("label_in_input", found["columns"][0], message, Cause("label_in_input", cure))


def of_pipeline(measured: Measured, limits: Resolved[Any]) -> Iterator[Finding]:
    """A model that was trained on permuted labels must know nothing of the true ones."""
    runs, most = measured["permuted"], limits.values.repeats
    if not runs:
        return
    scores = [each["val"]["score"] for each in runs]
    last = runs[-1]["val"]
    fault = len(runs) >= most and symptoms.random_labels_beat_chance(runs, limits.values.alpha)
    message = f"trained on permuted labels, {measured['split']} is at {interval(last)}"
    if fault:
        message = (
            f"pipeline fault: trained on permuted labels {len(runs)} times, {measured['split']} beat chance each time "
            f"({hundredths(min(scores))} to {hundredths(max(scores))}); by luck at most {2.0**-most:.2g}"
        )
    yield Finding(name="permuted_labels", value=last["score"], outcome="failed" if fault else "passed", message=message)


def of_knowledge(measured: Measured, alpha: float) -> Iterator[Finding]:
    """What the weights knew before any training."""
    if not symptoms.suspected_before(measured, alpha):
        return
    before, train, split = measured["before"]["val"], measured["before"]["train"], measured["split"]
    if symptoms.known_before(measured, alpha):
        message = f"leak: before any training {split} was at {interval(before)}, train at {interval(train)}"
        cause = Cause("split_leak", "start from weights that were not fitted to these rows", "likely")
        yield Finding.failed("known_before", before["score"], f"{message}: it was learnt from", cause)
    elif symptoms.beyond_redrawn(measured, alpha):
        drawn = f"at most {hundredths(max(measured['redrawn']))} with the same weights in another order"
        message = f"{split} was at {interval(before)} before any training, {drawn}: the weights it starts from know it"
        yield Finding(name="known_before", value=before["score"], outcome="warning", message=message)


def of_own_score(measured: Measured) -> Iterator[Finding]:
    """A score of the user's that is the same before and after training, and for other targets, scores neither."""
    own = measured["own"]
    if own is None or not own["other_targets"]:
        return
    if not all(_same(score, own["after"]) for score in own["other_targets"]):
        return
    blind = _same(own["before"], own["after"])
    message = "score= gives the same for targets of other rows: it does not look at which row has which"
    if blind:
        message = (
            f"pipeline fault: score= gives {own['after']:.4g} before and after training, and for targets of other rows"
        )
    yield Finding(name="own_score", value=own["after"], outcome="failed" if blind else "warning", message=message)


def _same(first: float, second: float) -> bool:
    return first == second or (math.isnan(first) and math.isnan(second))


def of_classes(measured: Measured, limits: Resolved[Any]) -> Iterator[Finding]:
    """Classes that train has none of."""
    rows = measured["rows"]["val"]
    classes = max(1, len(measured["unseen"]))
    for unseen in measured["unseen"]:
        unlikely = unseen["p"] * classes <= limits.values.alpha
        message = (
            f"{unseen['rows']} of {rows} rows of {measured['split']} are of class {unseen['class']}, which train has "
            f"none of; a random cut would do that with p = {unseen['p']:.2g}"
        )
        yield Finding(name="unseen_class", value=unseen["rows"], limit=0, relation="<=", source="theory",
                      outcome="failed" if unlikely else "warning", message=message,
                      cause=Cause("unseen_class", _STRATIFY))  # fmt: skip


_STRATIFY = "cut by class: train_test_split(..., stratify=y), or leave the class out of both splits"


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
            f"column {best['column']} of the input alone reaches {interval(alone)}, and with it permuted the model "
            f"falls from {hundredths(after['score'])} to {hundredths(without['score'])}: is it known when the model is "
            "used?"
        )
        yield Finding(name="best_column", value=alone["score"], outcome="warning", message=message)
