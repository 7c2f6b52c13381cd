"""The loss as a function of the outputs, and its gradient, on the backends torch and jax.

Both are loaded already where they are Keras' backend, so neither is imported here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import keras

from pytest_overfit.adapters.arrays import by_each_output
from pytest_overfit.core.arrays import Array

LossOf = Callable[[Sequence[Any]], Any]
Answer = tuple[float, list["Array"]]


def substituted_loss(loss_of: LossOf, outputs: Sequence[Any]) -> Callable[[Sequence[Array]], Answer | None] | None:
    """A function of arrays like these outputs; None on other backends. It answers None for a loss that uses none."""
    makers = {"torch": _torch, "jax": _jax}
    maker = makers.get(keras.backend.backend())
    return None if maker is None else maker(loss_of, [keras.backend.standardize_dtype(each.dtype) for each in outputs])


def _torch(loss_of: LossOf, dtypes: Sequence[str]) -> Callable[[Sequence[Array]], Answer | None]:
    def evaluate(outputs: Sequence[Array]) -> Answer | None:
        given = [keras.ops.convert_to_tensor(each, dtype) for each, dtype in zip(outputs, dtypes, strict=True)]
        given = [each.detach().clone().requires_grad_(each.is_floating_point()) for each in given]
        loss = loss_of(given)
        if not loss.requires_grad:
            return None
        loss.backward()
        return float(loss), by_each_output((each.grad for each in given), outputs)

    return evaluate


def _jax(loss_of: LossOf, dtypes: Sequence[str]) -> Callable[[Sequence[Array]], Answer | None]:
    jax = sys.modules["jax"]

    def loss(outputs: Sequence[Any]) -> Any:
        with keras.StatelessScope():  # what the loss assigns to its metrics must not outlive the tracing
            return loss_of(outputs)

    compiled = jax.jit(jax.value_and_grad(loss))

    def evaluate(outputs: Sequence[Array]) -> Answer | None:
        given = [keras.ops.convert_to_tensor(each, dtype) for each, dtype in zip(outputs, dtypes, strict=True)]
        value, slopes = compiled(given)
        return float(value), by_each_output(slopes, outputs)

    return evaluate
