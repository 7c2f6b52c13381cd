"""Does a model factory make a new model? Seen while it works, or by what two models share.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras


@contextlib.contextmanager
def watched_build() -> Iterator[Callable[[object], bool]]:
    """Watch a model factory at work; the answer tells, afterwards, whether it made all of a model's variables.

    Keras has no hook for this, so the constructor of its variables is wrapped for as long as the factory runs. A model
    that is not built yet has no variables to tell by.
    """
    made: dict[int, Any] = {}
    construct = keras.Variable.__init__

    def noted(self: Any, *args: Any, **kwargs: Any) -> None:
        construct(self, *args, **kwargs)
        made[id(self)] = self

    def is_new(model: object) -> bool:
        held = model.variables if isinstance(model, keras.Model) else []
        return bool(held) and all(id(each) in made for each in held)

    keras.Variable.__init__ = noted
    try:
        yield is_new
    finally:
        keras.Variable.__init__ = construct


def shares_parameters(first: Any, second: Any) -> bool:
    """True where two models have a variable in common."""
    mine = {id(each) for each in first.variables}
    return any(id(each) in mine for each in second.variables)
