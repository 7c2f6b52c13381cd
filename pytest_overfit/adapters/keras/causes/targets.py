"""Targets that a loss refuses: labels beyond the units, another width, another form."""

from __future__ import annotations

import re

from pytest_overfit.adapters.causes.table import MessageRule, likely, on, says, shown
from pytest_overfit.adapters.keras.causes.message import Message
from pytest_overfit.core.verdict import Diagnosis


def _sizes(text: str) -> tuple[int, ...]:
    """The axes of a shape, rows left out."""
    return tuple(int(each) for each in re.findall(r"\d+|None|\?", text)[1:] if each.isdigit())


def _out_of_range(_: Message, match: re.Match[str]) -> Diagnosis | None:
    label, units = int(match.group(1)), int(match.group(2))
    evidence = f"the label {label} occurs, and the outputs have {units} units, for 0 to {units - 1}"
    cure = "number the classes from 0" if label < 0 else f"give the last layer {label + 1} units or more"
    if label == units:
        cure = f"number the classes from 0, y - 1, if they begin with 1; else {cure}"
    return shown("label_out_of_range", evidence, cure)


def _of_probabilities(_: Message, match: re.Match[str]) -> Diagnosis | None:
    """A loss that compares number by number got another width."""
    target, output = _sizes(match.group(1)), _sizes(match.group(2))
    shapes = f"targets ({match.group(1)}) and outputs ({match.group(2)})"
    if len(target) == len(output) and output and target[-1:] != output[-1:]:
        evidence = f"{shapes}: {output[-1]} units for {target[-1]} number{'s' * (target[-1] > 1)} a row"
        return shown("wrong_output_units", evidence, f"give the last layer {target[-1]} units")
    if len(target) == len(output) - 1 and output[-1] > 1:
        cure = "write loss='sparse_categorical_crossentropy' for labels, or one-hot them: keras.ops.one_hot(y, n)"
        return likely("wrong_loss", f"{shapes}: one number a row for {output[-1]} units", cure)
    return shown("shape_mismatch", f"{shapes} have other axes", "bring targets and outputs to one shape")


def _of_labels(_: Message, match: re.Match[str]) -> Diagnosis | None:
    """A loss that takes one label a place."""
    target, output = _sizes(match.group(1)), _sizes(match.group(2))
    shapes = f"targets ({match.group(1)}) and outputs ({match.group(2)})"
    if target == output:
        cure = "write loss='categorical_crossentropy' for one-hot targets"
        return shown("wrong_loss", f"{shapes}: one number a class, where one label a row is taken", cure)
    cure = f"give labels of shape {('rows', *output[:-1])}, or pool the outputs to (rows, {output[-1]})"
    return shown("shape_mismatch", f"{shapes}: not one label for each place", cure.replace("'rows'", "rows"))


def _in_loss(message: Message, match: re.Match[str]) -> Diagnosis | None:
    """Operations inside a loss, which TensorFlow names by their node, or which raised while the loss was computed."""
    if "compile_loss" not in message.text and not message.call.endswith("the loss"):
        return None
    first, second = (_sizes(each) for each in match.groups())
    if len(first) != 1 or len(second) != 1 or first == second:
        return None
    evidence = f"the loss compares ({match.group(1)}) with ({match.group(2)}), targets and outputs"
    return shown("wrong_output_units", evidence, "give the last layer as many units as a row has targets")


_PAIR = r"target\.shape=\((.*?)\), output\.shape=\((.*?)\)"

RULES: tuple[MessageRule[Message], ...] = (
    on(r"Received a label value of (-?\d+) which is outside the valid range of \[0, (\d+)\)", _out_of_range),
    on(rf"`target` and `output` must have the same [^.]*\.\s+Received:\s+{_PAIR}", _of_probabilities),
    on(rf"`output` must have rank \(ndim\) `target\.ndim - 1`\.\s+Received:\s+{_PAIR}", _of_labels),
    on(r"Dimensions must be equal, .* with input shapes: \[(.*?)\], \[(.*?)\]", _in_loss),
    on(r"Incompatible shapes: \[(.*?)\] vs\. \[(.*?)\]", _in_loss),
    on(
        r"logits and labels must be broadcastable: logits_size=\[(.*?)\] labels_size=\[(.*?)\]",
        lambda _, match: shown("wrong_output_units", match.group(), "give the last layer as many units as labels"),
    ),
    says(r"`labels\.shape` must equal `logits\.shape`", "shape_mismatch", "give one label for each row of the outputs"),
)
