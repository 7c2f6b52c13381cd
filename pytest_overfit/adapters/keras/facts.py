"""What training did to a model's parameters and statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import keras
import numpy as np

from pytest_overfit.adapters.base import ParameterFacts, RunningStatistics
from pytest_overfit.adapters.keras import layers
from pytest_overfit.adapters.keras import stepper as stepping
from pytest_overfit.adapters.keras.reader import Reader, numbers, total_loss
from pytest_overfit.adapters.keras.state import held
from pytest_overfit.adapters.running_statistics import Moments, moved_statistics
from pytest_overfit.core.arrays import Array

#: trainable variables with their gradients
Gradients: TypeAlias = "list[tuple[Any, Array | None]]"


def parameter_facts(reader: Reader, start: Mapping[int, Array], infinite: Mapping[int, Array]) -> ParameterFacts:
    """Facts on the parameters; `start` has their values at the start by the variable's id. Costs one gradient.

    `infinite`: where they, and other weights, were infinite then.
    """
    trainable = reader.model.trainable_variables
    gradients = _gradients(reader)
    return ParameterFacts(
        trainable=sum(_size(each) for each in trainable),
        frozen=_frozen(reader.model),
        without_gradient=tuple(v.path for v, g in gradients if g is None or not g.any()),
        unchanged=tuple(each.path for each in trainable if _is_unchanged(each, start)),
        tensors=len(trainable),
        moved=_relative_change([(numbers(each), start[id(each)]) for each in trainable if id(each) in start]),
        not_finite=_not_finite(reader.model, gradients, infinite),
    )


def _relative_change(pairs: list[tuple[Array, Array]]) -> float | None:
    wide = [(now.astype("float64"), then.astype("float64")) for now, then in pairs]
    size = math.sqrt(sum(float((then**2).sum()) for _, then in wide))
    change = math.sqrt(sum(float(((now - then) ** 2).sum()) for now, then in wide))
    return change / size if size > 0 else None


def _is_unchanged(variable: Any, start: Mapping[int, Array]) -> bool:
    before = start.get(id(variable))
    return before is not None and before.tobytes() == numbers(variable).tobytes()


def infinities(model: Any) -> dict[int, Array]:
    """Where weights are infinite before the first update: such are data (masks, observers)."""
    weights = ((each, numbers(each)) for each in _floating(model))
    return {id(each): np.isinf(values) for each, values in weights if not np.isfinite(values).all()}


def _floating(model: Any) -> list[Any]:
    return [each for each in model.weights if "float" in str(each.dtype)]


def _not_finite(model: Any, gradients: Gradients, infinite: Mapping[int, Array]) -> tuple[str, ...]:
    """What is NaN, or infinite where it was finite before the first update, in words."""
    owners = {id(each): layer for layer in layers.layers_of(model) for each in layer.weights}
    trainable = {id(each) for each in model.trainable_variables}
    listed = []
    for each in _floating(model):
        kind = "parameter" if id(each) in trainable else "weight"
        listed.append((kind, each, _fault(numbers(each), infinite.get(id(each)))))
    if not stepping.own(model, "train_step"):  # a step of the user's may clean its gradients
        listed += [("gradient", v, _fault(g, None)) for v, g in gradients if g is not None]
    return tuple(
        f"{kind} {each.path!r} of {_called(owners.get(id(each), model))} is {fault}"
        for kind, each, fault in listed
        if fault
    )


def _fault(values: Array, infinite: Array | None) -> str:
    if np.isfinite(values).all():
        return ""
    if np.isnan(values).any():
        return "NaN"
    return "" if infinite is not None and infinite[np.isinf(values)].all() else "infinite"


def _called(layer: Any) -> str:
    return f"{type(layer).__name__} {layer.name}"


def _gradients(reader: Reader) -> Gradients:
    """Every trainable variable with its gradient at the end, None for those that have none; empty: not known."""
    if not reader.readable or keras.backend.backend() != "tensorflow":
        return []
    from pytest_overfit.adapters.keras import graph

    def loss() -> Any:
        return total_loss(reader.model, reader.feed, reader.forward(training=True), True)

    variables = reader.model.trainable_variables
    try:
        with held(reader.model):
            found = graph.gradients(loss, variables)
    except Exception:  # a fact less, no reason to fail
        return []
    return list(zip(variables, found, strict=True))


def running_statistics(reader: Reader, start: Mapping[int, Moments]) -> list[RunningStatistics]:
    """How far moving statistics have come from `start`, their values at the start by the layer's id."""
    moments = reader.moments() if reader.structure is not None else {}
    found = []
    for layer in reader.normalising() if moments else []:
        if id(layer) in moments and id(layer) in start:
            mean, variance, calls = moments[id(layer)]
            then, now = start[id(layer)], moving(layer)
            found.append(moved_statistics(layer.name, 1.0 - layer.momentum, then, now, (mean, variance), calls))
    return found


def moving(layer: Any) -> Moments:
    return numbers(layer.moving_mean), numbers(layer.moving_variance)


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


def units_stay_equal(start: Array | None, variable: Any) -> bool:
    """They were equal at the start, and are now."""
    return start is not None and units_are_equal(start) and units_are_equal(numbers(variable))


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
