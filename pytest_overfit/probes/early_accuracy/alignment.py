"""Do the labels of each split belong to the rows of that split? On plain values alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_overfit.core.figures import hundredths
from pytest_overfit.core.verdict import Cause, Finding
from pytest_overfit.probes.early_accuracy import symptoms
from pytest_overfit.probes.early_accuracy.estimates import clearly_above

Measured = Mapping[str, Any]


def misaligned(measured: Measured, alpha: float) -> Finding | None:
    """Simple models learn inside one split, and neither inside the other nor from train for validation.

    None as well where the model itself learns what they do not: from train for validation, or from one part of train
    for another.
    """
    if symptoms.baselines_signal(measured["baselines"], alpha) is not False:
        return None
    if symptoms.baselines_signal(measured["inside"], alpha):
        return None if symptoms.signal(measured["after"]["val"], alpha) else _in_val(measured, alpha)
    apart = measured["kept_apart"]
    return None if apart is not None and symptoms.signal(apart, alpha) else _in_train(measured, alpha)


def _in_val(measured: Measured, alpha: float) -> Finding | None:
    split = measured["split"]
    inside, outside = (symptoms.best_baseline(measured[each]) for each in ("inside", "baselines"))
    if inside is None or outside is None or not clearly_above(inside[1], outside[1], alpha):
        return None
    numbers = (
        f"{hundredths(inside[1]['score'])} on rows of train kept apart, {hundredths(outside[1]['score'])} on {split}"
    )
    message = f"what holds in train does not hold in {split}: a simple model reaches {numbers}"
    message = f"{message}; are its labels those of its rows?"
    return Finding.failed("misaligned_labels", outside[1]["score"], message, _apart(split))


def _in_train(measured: Measured, alpha: float) -> Finding | None:
    both, split = measured["inside_both"], measured["split"]
    train, val = (symptoms.best_baseline(both.get(each, {})) for each in ("train", "val"))
    if train is None or val is None or not symptoms.baselines_signal(both["val"], alpha):
        return None
    if not clearly_above(val[1], train[1], alpha):
        return None
    numbers = (
        f"{hundredths(val[1]['score'])} inside {split}, {hundredths(train[1]['score'])} inside as many rows of train"
    )
    message = f"what holds in {split} does not hold in train: a simple model reaches {numbers}"
    message = f"{message}; are train's labels those of its rows?"
    return Finding.failed("misaligned_labels", train[1]["score"], message, _apart("train"))


def _apart(split: str) -> Cause:
    """Data of another kind look the same, so that this is likely and no more."""
    cure = f"put inputs and labels of {split} in one order: order = rng.permutation(len(x)); x, y = x[order], y[order]"
    return Cause("misaligned_labels", cure, "likely")


def unrelated(measured: Measured, epochs: str, alpha: float) -> Finding:
    """Nothing that was asked learns from the labels of train."""
    after, split, tables = measured["after"]["val"], measured["split"], bool(measured["inside"])
    if symptoms.signal(after, alpha):
        who = "this model, a linear model and the nearest neighbour are" if tables else "this model is"
        message = (
            f"{split} {measured['metric']} {hundredths(after['score'])} was not learnt from the labels of train: "
            f"fitted to a part of train, {who} at chance on the rest of it"
        )
    else:
        who = f"this model after {epochs}, a linear model and the nearest neighbour"
        message = f"labels do not depend on inputs as far as {who} can tell: all are at chance on {split}"
    message = f"{message}; look for labels shuffled against inputs, or give epochs="
    return Finding(name="signal", value=None, outcome="inconclusive", message=message, cause=_apart("train"))
