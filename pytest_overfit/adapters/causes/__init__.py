"""Which fault an exception of the user's own code shows, by what the framework that raised it says."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import ModuleType

from pytest_overfit.adapters.causes import arrays
from pytest_overfit.adapters.causes.table import Crash
from pytest_overfit.adapters.frameworks import FRAMEWORKS, part_of
from pytest_overfit.core.verdict import Diagnosis


def find_cause(error: Exception, call: str) -> Diagnosis | None:
    """The fault that an exception shows, which came out of this call; None: it shows none."""
    return cause_of(Crash(error, call))


def cause_of(crash: Crash) -> Diagnosis | None:
    """The first answer of a loaded framework's table, else that of plain arrays; None: the text does not show it."""
    for table in _tables():
        with contextlib.suppress(Exception):  # a message that nobody has seen yet must not hide what was raised
            found: Diagnosis | None = table.cause_of(crash)
            if found is not None:
                return found
    return arrays.cause_of(crash)


def _tables() -> Iterator[ModuleType]:
    """In the order of the frameworks; with a torch backend, Keras' layers raise torch's errors."""
    for name in FRAMEWORKS:
        part = part_of(name, "causes") if name in sys.modules else None
        if part is not None:
            yield part
