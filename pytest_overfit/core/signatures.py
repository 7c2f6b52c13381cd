"""Which arguments does a function of the user's take?"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def required_arguments(function: Callable[..., Any]) -> list[str]:
    """The names of the arguments that a call must give."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # builtins without a signature: the call itself will tell
        return []
    return [
        each.name
        for each in parameters
        if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]


def call_of(function: Callable[..., Any], required: list[str]) -> str:
    """A call with its arguments left open, `Digits(root=...)`, as a user would write it."""
    name = getattr(function, "__name__", "function")
    return f"{name if name.isidentifier() else 'function'}({', '.join(f'{each}=...' for each in required)})"
