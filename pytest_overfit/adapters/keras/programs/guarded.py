"""Logarithms, roots and divisions that keep a distance from where they have no value or no slope."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from pytest_overfit.adapters.keras.programs.hooked_step import with_hook
from pytest_overfit.adapters.keras.programs.original import Alteration, Original

#: the distance: far above what float32 loses, far below what data mean
_DISTANCE = 1e-6

_POSITIVE = ("log", "sqrt", "rsqrt", "log2", "log10")
_DIVIDING = ("divide", "true_divide", "truediv", "reciprocal")
_POWERS = ("pow", "power")
_NORMS = ("norm",)


def guarded(original: Original) -> Alteration:
    """In the model and in its loss, none of these functions is given what it has no slope for."""
    names = (*_POSITIVE, *_DIVIDING, *_POWERS, *_NORMS)
    otherwise = "no logarithm, root or division is called by its model or its loss"
    return Alteration(model=with_hook(original, names, _kept_away, otherwise))


def _kept_away(name: str, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    place = 1 if name in ("divide", "true_divide", "truediv") else 0
    if len(args) <= place or not _is_real(args[place]):
        return own(*args, **kwargs)
    given = args[place]
    if name in _POSITIVE or (name in _POWERS and not _is_whole(args[1:])):
        given = keras.ops.maximum(given, _DISTANCE)
    elif name in (*_DIVIDING, *_NORMS):
        away = keras.ops.where(given < 0, -_DISTANCE, _DISTANCE)
        given = keras.ops.where(keras.ops.abs(given) < _DISTANCE, keras.ops.cast(away, given.dtype), given)
    return own(*args[:place], given, *args[place + 1 :], **kwargs)


def _is_real(value: Any) -> bool:
    return bool(keras.ops.is_tensor(value)) and "float" in str(value.dtype)


def _is_whole(exponents: tuple[Any, ...]) -> bool:
    return bool(exponents) and isinstance(exponents[0], (int, float)) and float(exponents[0]) in (1.0, 2.0, 3.0, 4.0)
