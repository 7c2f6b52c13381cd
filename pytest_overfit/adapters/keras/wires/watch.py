"""Sees gradients and optimizer steps of a step that runs eagerly under TensorFlow, whosever code makes them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pytest_overfit.adapters.keras.layers import substitute
from pytest_overfit.adapters.keras.reader import numbers
from pytest_overfit.adapters.wires import BackwardPass, OptimizerStep
from pytest_overfit.core.arrays import Array


class TapeWatch:
    """Notes what happens to one model's variables while it watches."""

    def __init__(self, variables: Mapping[str, Any], optimizers: Sequence[Any]) -> None:
        self._variables, self._optimizers = variables, optimizers
        self._paths = {id(held): path for path, each in variables.items() for held in (each, each.value)}
        self.events: list[BackwardPass | OptimizerStep] = []
        #: the last gradient of each variable, and the rate that it was stepped with
        self.last: dict[str, Array] = {}
        self.rates: dict[str, float] = {}
        self._inside = 0

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        self.events = []
        own = tf.GradientTape.gradient
        with contextlib.ExitStack() as stack:
            tf.GradientTape.gradient = self._seen_gradient(own)
            stack.callback(setattr, tf.GradientTape, "gradient", own)
            for number, each in enumerate(self._optimizers):
                stack.callback(substitute(each, "apply", self._seen_apply(number, each, each.apply)))
            yield

    def _seen_gradient(self, own: Callable[..., Any]) -> Callable[..., Any]:
        def gradient(tape: Any, target: Any, sources: Any, *args: Any, **kwargs: Any) -> Any:
            found = own(tape, target, sources, *args, **kwargs)
            pairs = zip(tf.nest.flatten(sources), tf.nest.flatten(found), strict=False)
            made = {self._paths.get(id(source), ""): each for source, each in pairs}
            made.pop("", None)
            if made:
                self._note(target, made)
            return found

        return gradient

    def _note(self, target: Any, made: Mapping[str, Any]) -> None:
        arrays = {path: None if each is None else numbers(tf.convert_to_tensor(each)) for path, each in made.items()}
        self.last.update({path: each for path, each in arrays.items() if each is not None})
        norms = {path: None if each is None else float(np.linalg.norm(each.ravel())) for path, each in arrays.items()}
        value = float(target) if isinstance(target, tf.Tensor) and target.shape.rank == 0 else None
        self.events.append(BackwardPass(gradients=norms, value=value))

    def _seen_apply(self, number: int, optimizer: Any, own: Callable[..., Any]) -> Callable[..., Any]:
        def apply(grads: Any, trainable_variables: Any = None) -> Any:
            before = {path: numbers(each) for path, each in self._variables.items()}
            self._inside += 1
            try:
                result = own(grads, trainable_variables)
            finally:
                self._inside -= 1
            given = optimizer._trainable_variables if trainable_variables is None else trainable_variables
            held = tuple(self._paths[id(each)] for each in given if id(each) in self._paths)
            rate = _rate(optimizer)
            self.rates.update(dict.fromkeys(held, rate) if rate is not None else {})
            if held:
                self.events.append(
                    OptimizerStep(
                        optimizer=number,
                        kind=type(optimizer).__name__,
                        groups=(held,),
                        rate=rate,
                        decay=None if rate is None else rate * float(getattr(optimizer, "weight_decay", None) or 0.0),
                        changed=changed(self._variables, before),
                        inside=self._inside > 0,
                    )
                )
            return result

        return apply


def _rate(optimizer: Any) -> float | None:
    try:
        return float(keras.ops.convert_to_numpy(optimizer.learning_rate))
    except (AttributeError, TypeError, ValueError):
        return None


def changed(variables: Mapping[str, Any], before: Mapping[str, Array]) -> frozenset[str]:
    """Paths of the variables that are other than before, to the bit."""
    return frozenset(path for path, each in variables.items() if numbers(each).tobytes() != before[path].tobytes())
