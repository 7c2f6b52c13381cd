"""Recognise another library's objects without importing that library.

An object of a library can only exist once that library has been imported, so `sys.modules` is enough.
"""

from __future__ import annotations

import sys
from typing import Any

#: characters of a value that a message shows
_LONGEST = 60


def is_instance(value: Any, module: str, *names: str) -> bool:
    """True if `module` is loaded and `value` is an instance of one of its classes `names`."""
    loaded = sys.modules.get(module)
    classes = tuple(found for name in names if isinstance(found := getattr(loaded, name, None), type))
    return bool(classes) and isinstance(value, classes)


def is_torch_tensor(value: Any) -> bool:
    return is_instance(value, "torch", "Tensor")


def is_torch_module(value: Any) -> bool:
    return is_instance(value, "torch.nn", "Module")


def is_torch_optimizer(value: Any) -> bool:
    return is_instance(value, "torch.optim", "Optimizer")


def is_keras_model(value: Any) -> bool:
    return is_instance(value, "keras", "Model") or is_instance(value, "keras.models", "Model")


def is_keras_optimizer(value: Any) -> bool:
    return is_instance(value, "keras.optimizers", "Optimizer")


def is_tensorflow_dataset(value: Any) -> bool:
    return any("tensorflow" in each.__module__ and each.__name__ == "DatasetV2" for each in type(value).__mro__)


def is_model(value: Any) -> bool:
    """True for a live model of a known framework."""
    return is_keras_model(value) or is_torch_module(value)


def describe(value: Any) -> str:
    """Name a value for an error message: type, shape and dtype, never its content."""
    try:
        return _described(value)
    except Exception:  # an object may raise in whatever it is asked for; its type cannot
        return f"a {type(value).__name__}"


def _described(value: Any) -> str:
    kind = type(value).__name__
    shape = getattr(value, "shape", None)
    dtype = getattr(value, "dtype", None)
    if shape is not None and dtype is not None:
        return f"{kind} of shape {tuple(shape)} and dtype {str(dtype).removeprefix('torch.')}"
    if isinstance(value, (str, bytes, int, float, bool, type(None))):
        return brief(value)
    if isinstance(value, (list, tuple)):
        return f"{kind} of {len(value)}"
    return f"a {kind}"


def brief(value: Any) -> str:
    """The value as people write it, in one line and cut; arrays, and what cannot be written, by `describe`."""
    try:
        if len(getattr(value, "shape", ())):
            return describe(value)
        text = " ".join(repr(value).split())
    except Exception:  # its own `__repr__` raised, or it has more digits than Python prints
        return f"a {type(value).__name__}"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
