"""Follows the operations of a step that runs eagerly under TensorFlow, back from what is not finite to what made it.

A number that is infinite by design, as in a mask, is passed over where something else went wrong behind it.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pytest_overfit.adapters.keras import layers
from pytest_overfit.adapters.keras.layers import substitute
from pytest_overfit.adapters.keras.programs.original import everything
from pytest_overfit.adapters.keras.programs.structure import hookable
from pytest_overfit.adapters.keras.reader import numbers
from pytest_overfit.adapters.keras.regularizers.decay import optimizers_of
from pytest_overfit.adapters.keras.tapes import tapes_answering
from pytest_overfit.adapters.programs import Origin

#: TensorFlow's operations by the names that their users know
_NAMES = {
    "Log": "log",
    "Log1p": "log",
    "Xlogy": "log",
    "Sqrt": "sqrt",
    "Rsqrt": "sqrt",
    "Pow": "pow",
    "RealDiv": "div",
    "Div": "div",
    "Xdivy": "div",
    "Reciprocal": "div",
    "Inv": "div",
    "Exp": "exp",
    "Expm1": "exp",
}

#: an operation of the backward pass: the ones that it is the slope of, and which of its inputs tells which one
_SLOPES: dict[str, tuple[tuple[str, ...], int]] = {
    "SqrtGrad": (("Sqrt",), 0),
    "RsqrtGrad": (("Rsqrt",), 0),
    "Reciprocal": (("Log", "Log1p"), 0),
    "RealDiv": (("RealDiv",), 1),
    "ReciprocalGrad": (("Reciprocal", "Inv"), 0),
    "Pow": (("Pow",), 0),
}

#: which input of an operation has the number that it has no value or slope for
_CRITICAL = {"RealDiv": 1, "Div": 1, "Xdivy": 1, "Xlogy": 1}

#: operations whose numbers come from elsewhere
_SOURCES = ("Fill", "ReadVariableOp", "Cast", "Identity", "BroadcastTo")


@dataclasses.dataclass(eq=False)
class _Operation:
    kind: str
    where: str
    backward: bool
    inputs: list[int]
    given: float | None


class Watch:
    """Watches steps of one model, one at a time."""

    def __init__(self, model: Any, known_as: Sequence[Any]) -> None:
        self._model = model
        self._names = {id(each): _named(known) for each, known in zip(everything(model), known_as, strict=False)}
        self._stack: list[str] = []
        self._backward = False
        self._begin()

    def _begin(self) -> None:
        #: what is not finite, by the tensor's id: it has NaN, or not; and what made it
        self._has_nan: dict[int, bool] = {}
        self._makers: dict[int, _Operation] = {}
        #: where operations of the forward pass were, by kind and by the ids of their inputs and outputs
        self._places: dict[tuple[str, int], str] = {}
        self._kept: list[Any] = []
        #: tensors to start from: the loss, then gradients
        self._ends: list[Any] = []

    def step(self, make: Callable[[], float]) -> Origin | None:
        """Make one step; where something in it came to be not finite, with 0 for the step's number."""
        from tensorflow.python.framework import op_callbacks

        self._begin()
        with contextlib.ExitStack() as stack:
            stack.enter_context(layers.called_through(hookable(self._model), self._called))
            stack.enter_context(self._gradients_noted())
            for each in optimizers_of(self._model):
                stack.callback(substitute(each, "apply", self._in_optimizer(each.apply)))
            op_callbacks.add_op_callback(self._noted)
            stack.callback(op_callbacks.remove_op_callback, self._noted)
            make()
        return self._found()

    def _called(self, layer: Any, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with self._inside(self._names.get(id(layer), "")):
            return own(*args, **kwargs)

    @contextlib.contextmanager
    def _inside(self, name: str) -> Iterator[None]:
        self._stack.append(name)
        try:
            yield
        finally:
            self._stack.pop()

    def _in_optimizer(self, own: Callable[..., Any]) -> Callable[..., Any]:
        def apply(grads: Any, *args: Any, **kwargs: Any) -> Any:
            with self._inside("the optimizer"):
                return own(grads, *args, **kwargs)

        return apply

    @contextlib.contextmanager
    def _gradients_noted(self) -> Iterator[None]:
        own = tf.GradientTape.gradient

        def gradient(tape: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
            self._backward = True
            try:
                found = own(tape, target, *args, **kwargs)
            finally:
                self._backward = False
            self._ends += [*keras.tree.flatten(target), *tf.nest.flatten(found, expand_composites=True)]
            return found

        with tapes_answering(gradient):
            yield

    def _noted(self, kind: str, inputs: Any, attrs: Any, outputs: Any, op_name: Any = None, graph: Any = None) -> None:
        del attrs, op_name
        if graph is not None:
            return
        kind = kind.decode() if isinstance(kind, bytes) else str(kind)
        if not self._backward and kind in _NAMES:
            for each in (*inputs, *outputs):
                self._places[kind, each._id] = self._stack[-1] if self._stack else "the loss"
            self._kept += [*inputs, *outputs]
        broken = [each for each in outputs if _has_others(each)]
        if not broken:
            return
        self._kept += [*inputs, *outputs]
        where, operation = self._place(kind, inputs)
        made = _Operation(operation, where, self._backward, [each._id for each in inputs], _given(kind, inputs))
        made.kind = operation if kind not in _SOURCES else kind
        for each in (*broken, *(each for each in inputs if _has_others(each))):
            self._has_nan[each._id] = bool(np.isnan(each.numpy()).any())
        self._makers.update({each._id: made for each in broken})

    def _place(self, kind: str, inputs: Any) -> tuple[str, str]:
        """Where an operation is, and what its user calls it; one of the backward pass goes by the forward one."""
        if self._backward and kind in _SLOPES:
            forward, place = _SLOPES[kind]
            for name in forward:
                where = self._places.get((name, inputs[place]._id))
                if where is not None:
                    return where, _NAMES[name]
        where = "" if self._backward else self._stack[-1] if self._stack else "the loss"
        return where, _NAMES.get(kind, kind.lower())

    # ------------------------------------------------------------------ back to the origin

    def _found(self) -> Origin | None:
        for end in self._ends:
            if end is not None and isinstance(end, tf.Tensor) and _has_others(end):
                return self._origin_of(end._id)
        broken = [each for each in self._model.trainable_variables if not np.isfinite(numbers(each)).all()]
        if broken:
            return Origin(step=0, where="the optimizer", operation="", backward=False)
        return None

    def _origin_of(self, tensor: int) -> Origin:
        made = self._makers.get(tensor)
        while made is not None:
            behind = self._behind(made)
            if behind is None:
                break
            made = behind
        if made is None:
            return Origin(step=0, where="", operation="", backward=False)
        if any(each in self._has_nan and each not in self._makers for each in made.inputs):
            return Origin(step=0, where="the batch", operation="", backward=False)
        known = "" if made.kind in _SOURCES else made.kind
        return Origin(step=0, where=made.where, operation=known, backward=made.backward, given=made.given)

    def _behind(self, made: _Operation) -> _Operation | None:
        """What made the input that is not finite, NaN before infinities; None where it is made here."""
        inputs = sorted(
            (each for each in made.inputs if each in self._has_nan), key=lambda each: not self._has_nan[each]
        )
        for tensor in inputs:
            maker = self._makers.get(tensor)
            if maker is not None and not (maker.kind in _SOURCES and not self._behind_any(maker)):
                return maker
        return None

    def _behind_any(self, made: _Operation) -> bool:
        return any(each in self._makers for each in made.inputs)


def _named(layer: Any) -> str:
    return f"{type(layer).__name__} {layer.name!r}"


def _has_others(tensor: Any) -> bool:
    """It has numbers that are not finite."""
    if not isinstance(tensor, tf.Tensor) or not tensor.dtype.is_floating:
        return False
    return not bool(np.isfinite(tensor.numpy().astype(np.float64)).all())


def _given(kind: str, inputs: Any) -> float | None:
    """The number that an operation cannot take: the largest for an exponential, else the one nearest to zero."""
    if kind not in _NAMES and kind not in _SLOPES:
        return None
    place = _SLOPES[kind][1] if kind in _SLOPES and kind not in _CRITICAL else _CRITICAL.get(kind, 0)
    if place >= len(inputs) or not inputs[place].dtype.is_floating:
        return None
    values = inputs[place].numpy().astype(np.float64).ravel()
    if not values.size or np.isnan(values).all():
        return None
    if _NAMES.get(kind) == "exp":
        return float(np.nanmax(values))
    low = float(np.nanmin(values))
    return low if low < 0 and _NAMES.get(kind) in ("log", "sqrt") else float(values[np.nanargmin(np.abs(values))])
