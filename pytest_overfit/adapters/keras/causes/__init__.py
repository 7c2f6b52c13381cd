"""Which fault an exception of Keras or TensorFlow shows, by its message."""

from __future__ import annotations

from pytest_overfit.adapters.causes.table import Crash, first
from pytest_overfit.adapters.keras.causes import dtypes, shapes, targets, training
from pytest_overfit.adapters.keras.causes.message import Message
from pytest_overfit.core.verdict import Diagnosis

#: in this order: what a loss function refuses is a matter of targets before it is one of shapes
_RULES = (*targets.RULES, *shapes.RULES, *dtypes.RULES, *training.RULES)


def cause_of(crash: Crash) -> Diagnosis | None:
    """The fault that the message shows; None: it shows none."""
    return first(_RULES, Message(crash.error, crash.call))
