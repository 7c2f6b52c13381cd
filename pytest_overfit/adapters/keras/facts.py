"""What training did to a model's parameters and statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from pytest_overfit.adapters.base import ParameterFacts, RunningStatistics
from pytest_overfit.adapters.keras import layers
from pytest_overfit.adapters.keras.reader import Reader, numbers, total_loss
from pytest_overfit.adapters.keras.state import held
from pytest_overfit.core.arrays import Array


def parameter_facts(reader: Reader, start: Mapping[int, Array]) -> ParameterFacts:
    """Facts on the parameters; `start` has their values at the start by the variable's id. Costs one gradient."""
    trainable = reader.model.trainable_variables
    return ParameterFacts(
        trainable=sum(_size(each) for each in trainable),
        frozen=_frozen(reader.model),
        without_gradient=_without_gradient(reader),
        unchanged=tuple(each.path for each in trainable if _is_unchanged(each, start)),
        tensors=len(trainable),
        moved=_relative_change([(numbers(each), start[id(each)]) for each in trainable if id(each) in start]),
    )


def _relative_change(pairs: list[tuple[Array, Array]]) -> float | None:
    wide = [(now.astype("float64"), then.astype("float64")) for now, then in pairs]
    size = math.sqrt(sum(float((then**2).sum()) for _, then in wide))
    change = math.sqrt(sum(float(((now - then) ** 2).sum()) for now, then in wide))
    return change / size if size > 0 else None


def _is_unchanged(variable: Any, start: Mapping[int, Array]) -> bool:
    before = start.get(id(variable))
    return before is not None and before.tobytes() == numbers(variable).tobytes()


def _without_gradient(reader: Reader) -> tuple[str, ...]:
    if not reader.readable or keras.backend.backend() != "tensorflow":
        return ()
    from pytest_overfit.adapters.keras import graph

    def loss() -> Any:
        return total_loss(reader.model, reader.feed, reader.forward(training=True), True)

    variables = reader.model.trainable_variables
    try:
        with held(reader.model):
            found = graph.gradients(loss, variables)
    except Exception:  # a fact less, no reason to fail
        return ()
    return tuple(v.path for v, g in zip(variables, found, strict=True) if g is None or not g.any())


def running_statistics(reader: Reader, start: Mapping[int, Array]) -> list[RunningStatistics]:
    """How far moving statistics have come from `start`, their values at the start by the layer's id."""
    found = []
    moments = reader.moments() if reader.structure is not None else {}
    for layer in reader.normalising() if moments else []:
        if id(layer) not in moments or id(layer) not in start:
            continue
        batch = np.concatenate([each.ravel() for each in moments[id(layer)]])
        first = float(np.linalg.norm(start[id(layer)] - batch))
        now = float(np.linalg.norm(moving(layer) - batch))
        remaining = now / first if first > 0 else float(now > 0)
        found.append(RunningStatistics(name=layer.name, momentum=1.0 - layer.momentum, remaining=remaining))
    return found


def moving(layer: Any) -> Array:
    return np.concatenate([numbers(layer.moving_mean).ravel(), numbers(layer.moving_variance).ravel()])


def has_schedule(model: Any) -> bool:
    """The rate is a schedule or a function, or gradients pile up over several steps before one updates.

    Keras' public `learning_rate` has a schedule evaluated already.
    """
    optimizer = getattr(model, "optimizer", None)
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    rate = getattr(optimizer, "_learning_rate", None)
    function = callable(rate) and not isinstance(rate, keras.Variable)
    return bool(getattr(optimizer, "gradient_accumulation_steps", None)) or function or scheduled(optimizer)


def scheduled(optimizer: Any) -> bool:
    """The rate is a `LearningRateSchedule`."""
    return isinstance(getattr(optimizer, "_learning_rate", None), keras.optimizers.schedules.LearningRateSchedule)


def scale_rate(model: Any, factor: float) -> bool:
    """Multiply the rate of the optimizer; a compiled step reads it from its variable."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if not isinstance(getattr(optimizer, "_learning_rate", None), keras.Variable):
        return False
    optimizer.learning_rate = factor * float(optimizer.learning_rate)
    return True


def units_are_equal(kernel: Array) -> bool:
    """Every unit (column, the last axis) of a kernel is the same."""
    return kernel.ndim > 1 and kernel.shape[-1] > 1 and bool((kernel == kernel[..., :1]).all())


def other_optimizers(model: Any) -> bool:
    known = (model.optimizer, getattr(model.optimizer, "inner_optimizer", None))
    return any(
        isinstance(each, keras.optimizers.Optimizer) and not any(each is one for one in known)
        for each in vars(model).values()
    )


def _frozen(model: Any) -> int:
    """Scalars of weights that were made trainable and are switched off; moving statistics and seeds are none."""
    trainable = {id(each) for each in model.trainable_variables}
    owned = [each for layer in (model, *layers.layers_of(model)) for each in getattr(layer, "_trainable_variables", ())]
    return sum(_size(each) for each in {id(v): v for v in owned}.values() if id(each) not in trainable)


def _size(variable: Any) -> int:
    return int(np.prod(variable.shape))
