"""Sizes that do not fit together: in a layer, or in an operation."""

from __future__ import annotations

import re

from pytest_overfit.adapters.causes.table import MessageRule, on, says, shown
from pytest_overfit.adapters.keras.causes.message import Message
from pytest_overfit.core.verdict import Diagnosis

_FAULT = "shape_mismatch"
_LAYER = r"layer ['\"]?([\w/]+)['\"]? is incompatible with the layer: "


def _axis(_: Message, match: re.Match[str]) -> Diagnosis | None:
    """A layer that was built for another width."""
    name, axis, wanted, got = match.groups()
    there = re.findall(r"\d+|None", got)
    size = there[int(axis)] if -len(there) <= int(axis) < len(there) else "another size"
    evidence = f"layer {name} takes {wanted} in axis {axis}, got ({got})"
    cure = f"let what comes before {name} give {wanted}, or build the model for {size}: keras.Input(...)"
    return shown(_FAULT, evidence, cure)


def _axes(_: Message, match: re.Match[str]) -> Diagnosis | None:
    """A layer that takes more axes, or fewer."""
    name, least, wanted, found = match.groups()
    evidence = f"layer {name} takes {'at least ' if least == 'min_' else ''}{wanted} axes, got {found}"
    if int(found) > int(wanted):
        return shown(_FAULT, evidence, f"flatten what comes before {name}: keras.layers.Flatten()")
    recurrent = re.match(r"(lstm|gru|simple_rnn|rnn|bidirectional)", name)
    if recurrent:
        cure = f"write return_sequences=True in the recurrent layer before {name}, or give (rows, steps, features)"
    else:
        cure = f"add the axis that {name} lacks: x[..., None], and keras.Input(...) with it"
    return shown(_FAULT, evidence, cure)


def _shape(_: Message, match: re.Match[str]) -> Diagnosis | None:
    name, wanted, found = match.groups()
    evidence = f"layer {name} takes inputs of shape ({wanted}), got ({found})"
    return shown(_FAULT, evidence, f"give the model inputs of shape ({wanted}), or write keras.Input for ({found})")


def _parts(_: Message, match: re.Match[str]) -> Diagnosis | None:
    """A model of several inputs that got another number of them."""
    cure = "give one array for each keras.Input: x=(first, second), or a dict by their names"
    return shown(_FAULT, match.group().split(". ")[0], cure)


def _embedded(_: Message, match: re.Match[str]) -> Diagnosis | None:
    """Entries beyond a layer's table: its size does not fit what it is given."""
    entry, rows = int(match.group(1)), int(match.group(2))
    cure = "number the entries from 0" if entry < 0 else f"write input_dim={entry + 1} or more in the Embedding"
    evidence = f"a table of {rows} rows has none for the index {entry}"
    return shown(_FAULT, evidence, f"{cure}, or map what is unknown to an index that it has")


def _too_small(message: Message, match: re.Match[str]) -> Diagnosis | None:
    cure = "give larger inputs, take out a pooling or a stride before, or write padding='same'"
    return shown(_FAULT, f"{match.group()}{message.text[match.end() :]}".splitlines()[0].rstrip("."), cure)


_CHANGE = "change one of the two sizes that the message names, or reshape before this operation"
_SIZES = (
    r"total size of the tensor must be unchanged",
    r"layer requires inputs with matching shapes",
    r"Inputs have incompatible shapes\. Received shapes",
    r"Incompatible input shapes: axis values",
    r"Dimensions must be equal, but are \S+ and \S+ for",
    r"[Dd]imension \d+ in both shapes must be equal",
    r"Dimension size must be evenly divisible by",
    r"Incompatible shapes: \[",
    r"Matrix size-incompatible: In\[0\]",
    r"In\[0\] (mismatch|and In\[1\] (must|has))",
    r"Input to reshape is a tensor with \d+ values, but the requested shape",
    r"Cannot reshape a tensor with \d+ elements to shape",
    r"Shapes? must be (at least |at most )?rank \d+ but is rank",
    r"Shapes \(.*\) and \(.*\) (are incompatible|must have the same rank)",
    r"Expected dimension \d+ at axis \d+ of the input shaped",
    r"required broadcastable shapes",
    r"Layer should be passed an `input_shape` with at least",
    r"weight shape .* is not compatible with provided weight shape",
    r"must match\. variable\.shape=",
)

RULES: tuple[MessageRule[Message], ...] = (
    on(
        _LAYER + r"expected axis (-?\d+) of input shape to have value (\S+?),? but received input with "
        r"shape [\[(](.*?)[\])]",
        _axis,
    ),
    on(_LAYER + r"expected (min_|max_)?ndim=(\d+), found ndim=(\d+)", _axes),
    on(_LAYER + r"expected shape=[\[(](.*?)[\])], found shape=[\[(](.*?)[\])]", _shape),
    on(r"Layer \"?[\w/]+\"? expects \d+ .*input\S* .*but it received \d+ input tensors.*", _parts),
    on(r"indices\[.*?\] = (-?\d+) is not in \[0, (\d+)\)", _embedded),
    on(r"Computed output size would be (zero or )?negative|One of the dimensions in the output is <= 0", _too_small),
    *(says(pattern, _FAULT, _CHANGE) for pattern in _SIZES),
)
