"""Would answers be far better with the classes under other numbers? Measured, and judged on plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.core.figures import hundredths
from pytest_overfit.core.verdict import Cause, Finding
from pytest_overfit.probes.early_accuracy import symptoms
from pytest_overfit.probes.early_accuracy.estimates import Predictions, clearly_above, shrunk

Measured = Mapping[str, Any]

#: share of the rows that other numbers must bring before they are looked for: fewer do not show a change of numbers
_GAIN = 0.05


def relabelling(answers: Predictions) -> dict[str, Any] | None:
    """The exchange of class numbers that fits one half of the rows best, judged on the other half.

    Keys: pairs of (number in the targets, number in the answers), score as it is and relabelled. None: targets are no
    classes, one a row, or the numbers are best as they are.
    """
    if answers.kind == "values" or answers.target.shape[1] != 1 or answers.rows < 4:
        return None
    target, predicted = answers.target[:, 0].astype(int), answers.predicted[:, 0].astype(int)
    if min(target.min(), predicted.min()) < 0:
        return None
    order = np.random.default_rng(0).permutation(answers.rows)
    fitted, asked = order[: len(order) // 2], order[len(order) // 2 :]
    table = np.zeros((2 * [max(target.max(), predicted.max()) + 1]), int)
    np.add.at(table, (target[fitted], predicted[fitted]), 1)
    if table.max(axis=1).sum() - np.trace(table) < _GAIN * len(fitted):
        return None
    meant = _assigned(table)
    pairs = [(each, int(given)) for each, given in enumerate(meant) if each != given and table[each, given]]
    return {
        "pairs": pairs,
        "as_it_is": _share(predicted[asked] == target[asked]),
        "relabelled": _share(predicted[asked] == meant[target[asked]]),
    }


def _assigned(table: Array) -> Array:
    """For each class of the targets the class of the answers that it is called, each once."""
    from scipy.optimize import linear_sum_assignment

    return np.asarray(linear_sum_assignment(table, maximize=True)[1])


def _share(right: Array) -> dict[str, float]:
    score = float(right.mean())
    centre, error = shrunk(score, len(right))
    return {"score": score, "centre": centre, "error": error}


def better(found: Measured | None, alpha: float) -> bool:
    """Clearly more rows are right under the other numbers."""
    return found is not None and clearly_above(found["relabelled"], found["as_it_is"], alpha)


def renumbered(measured: Measured, alpha: float) -> Finding | None:
    """Other numbers are clearly better on validation, and those of train are right inside train.

    What answers know inside train must have been learnt from labels: a random function may be right about classes that
    are called otherwise.
    """
    for who, found, kept in _asked(measured, alpha):
        worse = found is not None and better(found, alpha) and clearly_above(kept, found["as_it_is"], alpha)
        if worse and not better(kept["relabelled"], alpha):
            return _finding(who, found, kept["score"], measured["split"])
    return None


def _asked(measured: Measured, alpha: float) -> Iterator[tuple[str, Any, Measured]]:
    """Who answered, what other numbers bring on validation, and the estimate inside train."""
    for who, name in (("a linear model", "linear"), ("the nearest neighbour", "nearest")):
        kept = measured["inside"].get(name)
        if kept is not None and symptoms.signal(kept, alpha):
            yield who, measured["baselines"][name]["relabelled"], kept
    own = measured["relabelled"]
    if symptoms.teaches(measured, alpha):
        yield "this model", own["val"], {**measured["after"]["train"], "relabelled": own["train"]}


def _finding(who: str, found: Measured, inside: float, split: str) -> Finding:
    shown = ", ".join(f"{theirs} is {ours}" for theirs, ours in found["pairs"][:3])
    more = f" and {len(found['pairs']) - 3} more" if len(found["pairs"]) > 3 else ""
    before, after = found["as_it_is"]["score"], found["relabelled"]["score"]
    message = (
        f"classes have other numbers in {split} than in train ({shown}{more}): so read, {who} goes from "
        f"{hundredths(before)} to {hundredths(after)} on rows that the numbers were not fitted to; inside train it has "
        f"{hundredths(inside)}"
    )
    cure = f"number the classes once for train and {split}: one fitted LabelEncoder, or one dict of names"
    return Finding.failed("classes_renumbered", before, message, Cause("classes_renumbered", cure))
