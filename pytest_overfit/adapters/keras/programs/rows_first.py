"""Layers that mix rows, given the rows where the batch has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from pytest_overfit.adapters.keras.layers import substitute
from pytest_overfit.adapters.keras.learner import KerasLearner
from pytest_overfit.adapters.keras.programs.original import Alteration, everything
from pytest_overfit.adapters.programs import UnchangeableError

#: layers that take rows first, and mix what comes second
_SEQUENTIAL = (
    *(keras.layers.RNN, keras.layers.Bidirectional, keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention),
    *(keras.layers.Attention, keras.layers.AdditiveAttention, keras.layers.Conv1D),
)


def rows_first(learner: KerasLearner) -> Alteration:
    """Recurrent layers and attention that were given time first get rows first; scaling by rows goes by columns."""
    rows, changed = learner.feed.rows, list[str]()

    def altered(model: Any) -> Any:
        for layer in everything(model):
            if isinstance(layer, _SEQUENTIAL):
                substitute(layer, "call", _swapping(layer.call, rows, changed))
            elif isinstance(layer, keras.layers.UnitNormalization) and 0 in _axes(layer):
                layer.axis = [-1]
                changed.append(layer.name)
        return model

    def seen(model: Any) -> Any:
        altered(model)
        learner_reads(learner, model)
        if not changed:
            raise UnchangeableError("no layer of it takes its rows elsewhere than first")
        return model

    return Alteration(model=seen)


def learner_reads(learner: KerasLearner, model: Any) -> None:
    """One pass in evaluation on the learner's batch."""
    from pytest_overfit.adapters.keras.building import first_outputs
    from pytest_overfit.adapters.keras.reader import Reader

    first_outputs(Reader(model, learner.feed, f"Case {learner.case.name!r}"))


def _axes(layer: Any) -> list[int]:
    return [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)


def _swapping(own: Callable[..., Any], rows: int, changed: list[str]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        given = keras.tree.flatten((args, kwargs))
        if not any(_is_time_first(each, rows) for each in given):
            return own(*args, **kwargs)
        changed.append("")
        args, kwargs = keras.tree.map_structure(lambda each: _swapped(each, rows), (args, kwargs))
        outputs = own(*args, **kwargs)
        return keras.tree.map_structure(lambda each: _swap(each) if len(each.shape) > 2 else each, outputs)

    return call


def _is_time_first(tensor: Any, rows: int) -> bool:
    if not keras.ops.is_tensor(tensor) or len(tensor.shape) < 3:
        return False
    return bool(tensor.shape[0] != rows and tensor.shape[1] == rows)


def _swapped(tensor: Any, rows: int) -> Any:
    return _swap(tensor) if _is_time_first(tensor, rows) else tensor


def _swap(tensor: Any) -> Any:
    return keras.ops.swapaxes(tensor, 0, 1)
