"""Sees gradients and optimizer steps of a step that runs eagerly under TensorFlow, whosever code makes them."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pytest_overfit.adapters.keras.layers import substitute
from pytest_overfit.adapters.keras.reader import numbers
from pytest_overfit.adapters.keras.tapes import tapes_answering
from pytest_overfit.adapters.wires import BackwardPass, OptimizerStep
from pytest_overfit.core.arrays import Array

#: cosine of two ways, below which they are opposite
_OPPOSITE = -0.9

#: two gradients that differ by less than this share of their size are one
_SAME = 1e-4

Values = dict[str, Array]


class TapeWatch:
    """Notes what happens to one model's variables while it watches."""

    def __init__(self, variables: Mapping[str, Any], optimizers: Sequence[Any]) -> None:
        self._variables, self._optimizers = variables, optimizers
        self._paths = {id(held): path for path, each in variables.items() for held in (each, each.value)}
        self.events: list[BackwardPass | OptimizerStep] = []
        #: the last gradient of each variable, and the rate that it was stepped with
        self.last: Values = {}
        self.rates: dict[str, float] = {}
        #: sums of the gradients since the last step, and what that step was given
        self._left: Values = {}
        self._given: Values = {}
        #: values before the last step and right after it, before anything is written over them
        self._step: tuple[Values, Values] | None = None
        self._inside = 0

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        self.events, self._step = [], None
        with contextlib.ExitStack() as stack:
            stack.enter_context(tapes_answering(self._seen_gradient(tf.GradientTape.gradient)))
            for number, each in enumerate(self._optimizers):
                stack.callback(substitute(each, "apply", self._seen_apply(number, each, each.apply)))
                if hasattr(each, "_backend_update_step"):
                    stack.callback(substitute(each, "_backend_update_step", self._written(each._backend_update_step)))
            yield

    def undone(self) -> float | None:
        """Share of the call's last step that was taken back since; None: it went another way."""
        if self._step is None:
            return None
        before, after = self._step
        free = [path for path in after if getattr(self._variables[path], "constraint", None) is None]
        there = np.concatenate([np.ravel(after[path] - before[path]) for path in free] or [np.zeros(1)])
        rest = np.concatenate([np.ravel(numbers(self._variables[path]) - after[path]) for path in free] or [there])
        way, back, both = float(there @ there), float(rest @ rest), float(there @ rest)
        if not way or not back:
            return 0.0
        return -both / way if both / math.sqrt(way * back) < _OPPOSITE else None

    # ---------------------------------------------------------------- gradients

    def _seen_gradient(self, own: Callable[..., Any]) -> Callable[..., Any]:
        def gradient(tape: Any, target: Any, sources: Any, *args: Any, **kwargs: Any) -> Any:
            found = own(tape, target, sources, *args, **kwargs)
            if not tf.executing_eagerly():
                return found
            pairs = zip(tf.nest.flatten(sources), tf.nest.flatten(found), strict=False)
            made = {self._paths.get(id(source), ""): each for source, each in pairs}
            made.pop("", None)
            if made:
                self._note(target, made)
            return found

        return gradient

    def _note(self, target: Any, made: Mapping[str, Any]) -> None:
        arrays = {path: None if each is None else numbers(tf.convert_to_tensor(each)) for path, each in made.items()}
        for path, each in arrays.items():
            if each is not None:
                self.last[path] = each
                self._left[path] = each + self._left[path] if path in self._left else each
        norms = {path: None if each is None else _norm(each) for path, each in arrays.items()}
        value = float(target) if isinstance(target, tf.Tensor) and target.shape.rank == 0 else None
        self.events.append(BackwardPass(gradients=norms, value=value))

    # -------------------------------------------------------------------- steps

    def _seen_apply(self, number: int, optimizer: Any, own: Callable[..., Any]) -> Callable[..., Any]:
        def apply(grads: Any, trainable_variables: Any = None) -> Any:
            if not tf.executing_eagerly():
                return own(grads, trainable_variables)
            before = self._values()
            self._inside += 1
            try:
                result = own(grads, trainable_variables)
            finally:
                self._inside -= 1
            variables = optimizer._trainable_variables if trainable_variables is None else trainable_variables
            given = {self._paths[id(v)]: g for v, g in zip(variables, grads, strict=False) if id(v) in self._paths}
            if given:
                self._stepped(number, optimizer, given, before)
            return result

        return apply

    def _written(self, own: Callable[..., Any]) -> Callable[..., Any]:
        """The update proper, before an average or whatever else is written over it."""

        def update(*args: Any, **kwargs: Any) -> Any:
            before = self._values()
            result = own(*args, **kwargs)
            after = self._values()
            self._step = before, {path: each for path, each in after.items() if path in changed_in(after, before)}
            return result

        return update

    def _values(self) -> Values:
        return {path: numbers(each) for path, each in self._variables.items()}

    def _stepped(self, number: int, optimizer: Any, given: Mapping[str, Any], before: Values) -> None:
        gradients = {path: numbers(tf.convert_to_tensor(each)) for path, each in given.items() if each is not None}
        self._mark_piled(gradients)
        kept = {path: _norm(each) / size for path, each in gradients.items() if (size := _norm(self._left.get(path)))}
        rate, decay = _rate(optimizer), float(getattr(optimizer, "weight_decay", None) or 0.0)
        self.rates.update(dict.fromkeys(given, rate) if rate is not None else {})
        self.events.append(
            OptimizerStep(
                optimizer=number,
                kind=type(optimizer).__name__,
                groups=(tuple(given),),
                rate=rate,
                decay=None if rate is None else rate * decay,
                changed=changed_in(self._values(), before),
                kept=kept,
                inside=self._inside > 0,
            )
        )
        self._given.update(gradients)
        for path in given:
            self._left.pop(path, None)

    def _mark_piled(self, gradients: Values) -> None:
        """The last pass came on top of what was stepped with before: the step is given the sum of both."""
        piled = frozenset(path for path, each in gradients.items() if self._is_sum(path, each))
        place = next((i for i in range(len(self.events) - 1, -1, -1) if isinstance(self.events[i], BackwardPass)), None)
        if piled and place is not None:
            self.events[place] = dataclasses.replace(self.events[place], carried=piled)  # type: ignore[arg-type]

    def _is_sum(self, path: str, given: Array) -> bool:
        earlier, new = self._given.get(path), self._left.get(path)
        if earlier is None or new is None or not earlier.any() or not new.any():
            return False
        return _norm(given - earlier - new) <= _SAME * min(_norm(earlier), _norm(new))


def _norm(values: Array | None) -> float:
    return 0.0 if values is None else float(np.linalg.norm(values.ravel()))


def _rate(optimizer: Any) -> float | None:
    try:
        return float(keras.ops.convert_to_numpy(optimizer.learning_rate))
    except (AttributeError, TypeError, ValueError):
        return None


def changed_in(after: Mapping[str, Array], before: Mapping[str, Array]) -> frozenset[str]:
    """Names of the values that are other than before, to the bit."""
    return frozenset(path for path, each in after.items() if each.tobytes() != before[path].tobytes())
