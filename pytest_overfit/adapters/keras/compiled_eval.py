"""What a model answers in evaluation, asked many times for a few shapes: compiled for those that come often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

#: calls for one shape before it is compiled; tracing costs about as much
_OFTEN = 20

#: shapes that are compiled: sequences of many lengths would be traced again and again
_MOST = 16

#: share of the largest output that compiling may change
_SAME = 1e-4


class Answering:
    """Calls a function of the inputs.

    Each shape has a trace of its own, so that code which looks at the size of a batch in Python is asked for that size.
    What cannot be traced, or answers differently then (numbers drawn by numpy are frozen in a trace), stays uncompiled.
    """

    def __init__(self, forward: Callable[[Any], Any], *, compiles: bool) -> None:
        self._forward, self._compiles = forward, compiles
        self._asked: dict[Any, int] = {}
        self._compiled: dict[Any, Callable[[Any], Any]] = {}

    def __call__(self, x: Any) -> Any:
        shape = tuple((tuple(each.shape), str(each.dtype)) for each in keras.tree.flatten(x))
        if shape in self._compiled:
            return self._compiled[shape](x)
        outputs = self._forward(x)
        self._asked[shape] = self._asked.get(shape, 0) + 1
        if self._compiles and self._asked[shape] >= _OFTEN and len(self._compiled) < _MOST:
            self._compile(shape, x, outputs)
        return outputs

    def _compile(self, shape: Any, x: Any, outputs: Any) -> None:
        from pytest_overfit.adapters.keras import graph

        try:
            traced = graph.compiled_for(self._forward, x)
            self._compiles = _agree(outputs, traced(x))
        except Exception:  # not every forward pass can be traced; it was asked without before
            self._compiles = False
        if self._compiles:
            self._compiled[shape] = traced


def _agree(first: Any, second: Any) -> bool:
    pairs = list(zip(keras.tree.flatten(first), keras.tree.flatten(second), strict=True))
    for one, other in pairs:
        a, b = (np.asarray(keras.ops.convert_to_numpy(each)) for each in (one, other))
        size = float(np.abs(a[np.isfinite(a)]).max(initial=0.0)) if a.dtype.kind == "f" else 0.0
        if a.shape != b.shape or not np.allclose(a, b, rtol=0.0, atol=_SAME * size, equal_nan=True):
            return False
    return True
