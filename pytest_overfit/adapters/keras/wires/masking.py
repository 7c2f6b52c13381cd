"""Padding that Keras' own masks name: layers such as Embedding(mask_zero=True) say which places are real."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from pytest_overfit.adapters.keras import layers
from pytest_overfit.adapters.keras.reader import numbers
from pytest_overfit.core.arrays import Array

Answer = Callable[[], tuple[Array, ...] | None]


def masked_layers(model: Any, answer: Answer) -> list[tuple[Any, Array]]:
    """Layers that begin a mask, as called for one answer, and the mask: True where a place is real."""
    found: dict[int, tuple[Any, Array]] = {}

    def note(layer: Any, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        mask = _mask_of(layer, args)
        if mask is not None and mask.ndim == 2:
            found.setdefault(id(layer), (layer, mask))
        return own(*args, **kwargs)

    with layers.called_through(_makers(model), note):
        answer()
    return list(found.values())


def _makers(model: Any) -> list[Any]:
    return [each for each in layers.layers_of(model) if type(each).compute_mask is not keras.layers.Layer.compute_mask]


def _mask_of(layer: Any, args: tuple[Any, ...]) -> Array | None:
    """What a layer makes a mask of by itself, where its inputs have none."""
    if len(args) != 1 or not keras.ops.is_tensor(args[0]) or getattr(args[0], "_keras_mask", None) is not None:
        return None
    try:
        mask = layer.compute_mask(args[0], None)
        return None if mask is None else numbers(mask).astype(bool)
    except Exception:  # it asks for a mask that is not there
        return None


def answer_repadded(layer: Any, repadded: Callable[[Array], Array], answer: Answer) -> tuple[Array, ...] | None:
    """The answer where the layer gives other values, and keeps its mask."""

    def change(_: Any, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = own(*args, **kwargs)
        if not keras.ops.is_tensor(given):
            return given
        return keras.ops.convert_to_tensor(repadded(np.array(numbers(given))), given.dtype)

    with layers.called_through([layer], change):
        return answer()
