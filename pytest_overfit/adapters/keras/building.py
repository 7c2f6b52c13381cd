"""Does a model factory make a new model? By its variables, and by those that were made while it worked.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras


@contextlib.contextmanager
def noting_parameters(note: Callable[[object], None]) -> Iterator[None]:
    """Inside, `note` gets every variable that is made. Keras has no hook for this: the constructor is wrapped."""
    construct = keras.Variable.__init__

    def noted(self: Any, *args: Any, **kwargs: Any) -> None:
        construct(self, *args, **kwargs)
        note(self)

    keras.Variable.__init__ = noted
    try:
        yield
    finally:
        keras.Variable.__init__ = construct


def parameters_of(model: object) -> list[Any]:
    """The variables by which a model is known to be new; a model that is not built yet has none."""
    return list(model.variables) if isinstance(model, keras.Model) else []
