"""What the model's last layer makes is not what the loss takes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pytest_overfit.adapters.base import Head
from pytest_overfit.adapters.programs import Activation, Change
from pytest_overfit.core.arrays import Array
from pytest_overfit.diagnosis.hypotheses import BROKEN, COMMON, SUSPECT, Hypothesis
from pytest_overfit.diagnosis.levels import level
from pytest_overfit.diagnosis.symptoms import Symptoms

#: what a function can give at most and at least
_RANGE = {
    "relu": (0.0, np.inf),
    "softplus": (0.0, np.inf),
    "sigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "log_softmax": (-np.inf, 0.0),
    "log_sigmoid": (-np.inf, 0.0),
}

#: more whole numbers than this are quantities, not names of classes
_MOST_CLASSES = 1000


def suspected(symptoms: Symptoms) -> Iterator[Hypothesis]:
    """In the order of what is most telling."""
    last, head = symptoms.last_activation, symptoms.head
    if last is not None:
        yield from _wrong_axis(symptoms, *last)
    if head is not None:
        yield from _of_one_unit(symptoms, head)
        if last is not None:
            yield from _before_the_last(symptoms, head, last[1])
            yield from _twice(symptoms, head, *last)
            yield from _out_of_range(symptoms, head, *last)
        yield from _missing(symptoms, head, last[1] if last is not None else None)
    yield from _shapes(symptoms)
    yield from _other_losses(symptoms)
    yield from _dropped(symptoms)


def _loss(symptoms: Symptoms) -> str:
    return symptoms.loss_name or "the loss"


def _off(at: int) -> Change:
    return Change(kind="activation", at=at)


def _wrong_axis(symptoms: Symptoms, at: int, last: Activation) -> Iterator[Hypothesis]:
    rows = len(symptoms.inputs[0]) if symptoms.inputs else 0
    if last.function in ("softmax", "log_softmax") and last.axis == 0 and rows > 1:
        yield Hypothesis(
            fault="softmax_wrong_axis",
            family="last activation",
            what=f"{last.where} goes over the rows (axis 0), not over the classes",
            observed=level(symptoms),
            change=Change(kind="activation", at=at, value=last.function, factor=-1),
            changed="over the last axis",
            cure=f"write dim=-1 (axis=-1) in {last.where}, or leave it out where the loss has its own softmax",
            rank=BROKEN,
            broken=True,
        )
    if last.function == "softmax" and last.units == 1:
        scores = symptoms.head is not None and symptoms.head.domain == "unbounded" and symptoms.head.kind == "binary"
        yield Hypothesis(
            fault="softmax_single_unit",
            family="last activation",
            what=f"{last.where} goes over one unit, so that it is always 1",
            observed=level(symptoms),
            change=Change(kind="activation", at=at, value="" if scores else "sigmoid"),
            changed="without it" if scores else "with a sigmoid in its place",
            cure=f"put a sigmoid in the place of {last.where}, or give it a unit for each class",
            rank=BROKEN,
            broken=True,
        )


def _twice(symptoms: Symptoms, head: Head, at: int, last: Activation) -> Iterator[Hypothesis]:
    """A loss that takes scores gets what a function has made of them."""
    if head.domain == "log_probabilities" and last.function == "softmax":
        yield Hypothesis(
            fault="softmax_without_log",
            family="last activation",
            what=f"{_loss(symptoms)} takes log-probabilities and gets the probabilities of {last.where}",
            observed=level(symptoms),
            change=Change(kind="activation", at=at, value="log_softmax", factor=-1 if last.axis is None else last.axis),
            changed="with log_softmax in its place",
            cure=f"put log_softmax in the place of {last.where}",
            rank=BROKEN,
            broken=True,
        )
    if head.domain != "unbounded" or head.kind == "values":
        return
    doubled = {("classes", "softmax"): "double_softmax", ("binary", "sigmoid"): "double_sigmoid"}
    fault = doubled.get((head.kind, last.function))
    if fault is not None:
        name = last.function
        yield Hypothesis(
            fault=fault,
            family="last activation",
            what=f"{name} in the model and again in {_loss(symptoms)}",
            observed=level(symptoms),
            change=_off(at),
            changed="without it",
            cure=f"remove {last.where}: {_loss(symptoms)} takes raw scores",
            rank=BROKEN,
            broken=True,
        )
    elif last.function == "relu":
        yield _on_scores(symptoms, at, last, "relu_on_logits", "takes away every score below 0")
    elif last.function in ("tanh", "sigmoid", "softmax", "softplus"):
        yield _on_scores(symptoms, at, last, "bounded_logits", "keeps the scores in a range, so the loss has a floor")


def _of_one_unit(symptoms: Symptoms, head: Head) -> Iterator[Hypothesis]:
    """A softmax over one class is always 1: the loss is 0 for any output."""
    if head.kind != "classes" or head.domain != "unbounded" or head.outputs.shape[head.class_axis] != 1:
        return
    targets = np.unique(head.targets)
    quantities = bool((targets != np.round(targets)).any())
    name = "squared_error" if quantities else "binary_cross_entropy"
    yield Hypothesis(
        fault="wrong_loss" if quantities else "wrong_output_units",
        family="loss",
        what=f"{_loss(symptoms)} takes one unit for each class and gets one unit in all, of which it makes 1",
        observed=level(symptoms),
        change=Change(kind="loss", value=name),
        changed=f"with {name}",
        cure=f"use {name} in place of {_loss(symptoms)}" if quantities else "give the model a unit for each class",
        rank=BROKEN,
        broken=True,
    )


def _before_the_last(symptoms: Symptoms, head: Head, last: Activation) -> Iterator[Hypothesis]:
    """What a softmax or sigmoid of the model's own takes are scores as well."""
    if last.function not in ("softmax", "log_softmax", "sigmoid", "log_sigmoid") or head.kind == "values":
        return
    for number, each in enumerate(symptoms.anatomy.activations):
        if not each.feeds_last:
            continue
        if each.function == "relu":
            yield _on_scores(symptoms, number, each, "relu_on_logits", "takes away every score below 0", last.where)
        elif each.function == last.function.removeprefix("log_"):
            fault = "double_softmax" if each.function == "softmax" else "double_sigmoid"
            yield _on_scores(symptoms, number, each, fault, "is one too many", last.where)
        elif each.function in ("tanh", "sigmoid", "softmax", "softplus"):
            does = "keeps the scores in a range, so the loss has a floor"
            yield _on_scores(symptoms, number, each, "bounded_logits", does, last.where)


def _on_scores(symptoms: Symptoms, at: int, last: Activation, fault: str, does: str, taker: str = "") -> Hypothesis:
    taker = taker or _loss(symptoms)
    return Hypothesis(
        fault=fault,
        family="last activation",
        what=f"{last.where} between the last layer and {taker} {does}",
        observed=level(symptoms),
        change=_off(at),
        changed="without it",
        cure=f"remove {last.where}: {taker} takes raw scores",
        rank=BROKEN + 1,
        broken=True,
    )


def _out_of_range(symptoms: Symptoms, head: Head, at: int, last: Activation) -> Iterator[Hypothesis]:
    if head.kind != "values" or last.function not in _RANGE or not head.targets.size:
        return
    low, high = _RANGE[last.function]
    least, most = float(head.targets.min()), float(head.targets.max())
    if least >= low - 1e-6 and most <= high + 1e-6:
        return
    yield Hypothesis(
        fault="output_range",
        family="last activation",
        what=f"{last.where} gives {_range_words(low, high)} and the targets lie between {least:.4g} and {most:.4g}",
        observed=level(symptoms),
        change=_off(at),
        changed="without it",
        cure=f"remove {last.where}, or bring the targets into its range",
        rank=BROKEN,
        broken=True,
    )


def _range_words(low: float, high: float) -> str:
    if np.isinf(high):
        return f"no number below {low:g}"
    return f"no number above {high:g}" if np.isinf(low) else f"numbers between {low:g} and {high:g}"


def _missing(symptoms: Symptoms, head: Head, last: Activation | None) -> Iterator[Hypothesis]:
    """A loss that takes probabilities, or their logarithms, gets raw scores."""
    function = None if last is None else last.function
    wanted = {
        ("log_probabilities", "classes"): ("log_softmax", "missing_softmax", "log-probabilities"),
        ("probabilities", "classes"): ("softmax", "missing_softmax", "probabilities"),
        ("probabilities", "binary"): ("sigmoid", "missing_sigmoid", "probabilities"),
    }.get((head.domain, head.kind))
    if wanted is None or function in ("softmax", "log_softmax", "sigmoid", "log_sigmoid"):
        return
    value, fault, words = wanted
    yield Hypothesis(
        fault=fault,
        family="last activation",
        what=f"{_loss(symptoms)} takes {words} and gets raw scores",
        observed=level(symptoms),
        change=Change(kind="on_top", value=value, at=head.class_axis % head.outputs.ndim),
        changed=f"with {value} on top",
        cure=f"end the model with {value}, or use the loss that takes raw scores",
        rank=BROKEN,
        broken=True,
    )


def _shapes(symptoms: Symptoms) -> Iterator[Hypothesis]:
    if len(symptoms.outputs) != 1 or len(symptoms.targets) != 1:
        return
    output, target = symptoms.outputs[0], symptoms.targets[0]
    if output.shape == target.shape or output.size != target.size or output.size < 2:
        return
    yield Hypothesis(
        fault="target_broadcast",
        family="shapes",
        what=f"outputs {output.shape} and targets {target.shape} broadcast against each other in {_loss(symptoms)}",
        observed=level(symptoms),
        change=Change(kind="targets_shaped"),
        changed="with targets in the shape of the outputs",
        cure=f"give the targets the shape {output.shape}, or squeeze the outputs",
        rank=BROKEN,
    )


def _other_losses(symptoms: Symptoms) -> Iterator[Hypothesis]:
    """The usual loss of what outputs and targets look like, where the present one is another."""
    if len(symptoms.outputs) != 1 or len(symptoms.targets) != 1:
        return
    output, target = symptoms.outputs[0], symptoms.targets[0]
    head = symptoms.head
    known = head is not None and head.kind
    for kind, task, name in _tasks_of(output, target):
        if known != kind:
            named = head is not None or bool(symptoms.anatomy.losses)
            yield Hypothesis(
                fault="wrong_loss",
                family="loss",
                what=f"{_loss(symptoms)} is not a loss for {task}",
                observed=level(symptoms),
                change=Change(kind="loss", value=name),
                changed=f"with {name}",
                cure=f"use {name} in place of {_loss(symptoms)}",
                rank=SUSPECT - 6 if named and known == "values" else COMMON - 2,
            )


def _tasks_of(output: Array, target: Array) -> Iterator[tuple[str, str, str]]:
    """Kind of head, the task in words, the loss for it."""
    values = np.unique(target)
    whole = values.size and np.isfinite(values).all() and bool((values == np.round(values)).all())
    if whole and values.min() >= 0 and output.ndim > 1 and target.size < output.size:
        if values.max() < max(output.shape[1:]) and values.size <= _MOST_CLASSES:
            yield "classes", "numbers of classes", "cross_entropy"
    elif whole and output.shape == target.shape and output.ndim > 1 and _one_hot(target):
        yield "classes", "one-hot classes", "cross_entropy"
    elif whole and output.size == target.size and set(values.tolist()) <= {0, 1}:
        yield "binary", "labels of 0 and 1", "binary_cross_entropy"
    elif target.dtype.kind == "f" and output.size == target.size and values.size > 2:
        yield "values", "quantities", "squared_error"


def _one_hot(target: Array) -> bool:
    return target.shape[-1] > 2 and bool((target.sum(axis=-1) == 1).all())


def _dropped(symptoms: Symptoms) -> Iterator[Hypothesis]:
    for each in symptoms.anatomy.dropping:
        if each.last and each.rate > 0:
            yield Hypothesis(
                fault="dropout_on_output",
                family="dropout",
                what=f"dropout {each.rate:g} behind the last layer ({each.where}) takes away the answer itself",
                observed=level(symptoms),
                change=Change(kind="without", value="dropout"),
                changed="without dropout",
                cure=f"remove {each.where}",
                rank=BROKEN + 1,
            )
