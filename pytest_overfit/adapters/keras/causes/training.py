"""What an optimizer or a layer's arguments refuse, and a loss that depends on no variable."""

from __future__ import annotations

import re

from pytest_overfit.adapters.causes.table import MessageRule, on, says, shown
from pytest_overfit.adapters.keras.causes.message import Message
from pytest_overfit.core.verdict import Diagnosis

_OWN = "make the optimizer inside the factory, one for each model: model.compile(optimizer=keras.optimizers.Adam(...))"


def _dropout(_: Message, match: re.Match[str]) -> Diagnosis | None:
    """Beyond 1 everything would be dropped; a percentage, most likely."""
    rate = float(match.group(1))
    if rate <= 1:
        return None
    percent = rate / 100 if 2 <= rate < 100 else 0.5
    return shown("excessive_dropout", f"the rate of dropping is {rate:g}", f"write rate={percent:g}")


def _to_numpy(message: Message, match: re.Match[str]) -> Diagnosis | None:
    """Leaving the graph inside what is trained; in a metric it is another matter."""
    if not message.trains:
        return None
    cure = "write keras.ops or tensorflow's own functions in its place: numpy has no gradient"
    return shown("detached_graph", f"{match.group()}: numpy is used inside the model or the loss", cure)


RULES: tuple[MessageRule[Message], ...] = (
    says(
        r"No gradients provided for any variable",
        "detached_graph",
        "take out what cuts the graph: stop_gradient, argmax, cast to integers, numpy, a constant as loss",
    ),
    says(r"can only be called for the variables it was originally built with", "optimizer_wrong_params", _OWN),
    on(r"argument `rate`\. Expected a float value between 0 and 1\. Received: rate=(-?[\d.]+)", _dropout),
    on(r"'\w+Tensor' object has no attribute 'numpy'|Cannot convert a symbolic .*numpy array", _to_numpy),
)
