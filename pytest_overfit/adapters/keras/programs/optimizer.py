"""What a model's optimizers were made with, and the same made otherwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras

from pytest_overfit.adapters.keras import facts as model_facts
from pytest_overfit.adapters.keras.callbacks import as_list
from pytest_overfit.adapters.keras.layers import substitute
from pytest_overfit.adapters.keras.programs.original import Alteration
from pytest_overfit.adapters.keras.reader import numbers
from pytest_overfit.adapters.keras.regularizers import twin
from pytest_overfit.adapters.keras.regularizers.decay import optimizers_of, top_rate
from pytest_overfit.adapters.programs import Change, OptimizerFacts, UnchangeableError
from pytest_overfit.core.case import Case

#: attributes that hold the size to which gradients are clipped
_CLIPPING = ("clipnorm", "clipvalue", "global_clipnorm")

#: callbacks that set the rate
_SETTING_RATES = (keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau)


def facts(model: Any, case: Case) -> OptimizerFacts | None:
    """Facts of the first optimizer; None where there is none of Keras'."""
    found = inner_optimizers(model)
    if not found:
        return None
    first = found[0]
    clipped = [float(value) for value in (getattr(first, name, None) for name in _CLIPPING) if value is not None]
    return OptimizerFacts(
        kind=type(first).__name__,
        rate=_rate(first),
        epsilon=_number(getattr(first, "epsilon", None)),
        decay=max(_number(getattr(each, "weight_decay", None)) or 0.0 for each in found),
        clipping=min(clipped, default=None),
        scheduled=model_facts.has_schedule(model) or bool(_rate_setters(case)),
    )


def inner_optimizers(model: Any) -> list[Any]:
    """Every optimizer that makes updates: those inside that scale the loss."""
    return [getattr(each, "inner_optimizer", each) for each in optimizers_of(model)]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _rate(optimizer: Any) -> float | None:
    try:
        return float(numbers(keras.ops.convert_to_tensor(optimizer.learning_rate)))
    except (AttributeError, TypeError, ValueError):
        return None


def _rate_setters(case: Case) -> list[Any]:
    return [each for each in as_list(case.fit_kwargs.get("callbacks")) if isinstance(each, _SETTING_RATES)]


def _without_rate_setters(case: Case) -> Case:
    setting = _rate_setters(case)
    if not setting:
        return case
    kept = [each for each in as_list(case.fit_kwargs.get("callbacks")) if each not in setting]
    return dataclasses.replace(case, fit_kwargs={**case.fit_kwargs, "callbacks": kept})


def _for_each(alter: Callable[[Any], None]) -> Callable[[Any], Any]:
    def altered(model: Any) -> Any:
        found = inner_optimizers(model)
        if not found:
            raise UnchangeableError("it has no optimizer of Keras'")
        for each in found:
            alter(each)
        return model

    return altered


# ------------------------------------------------------------------ rates


@keras.saving.register_keras_serializable(package="pytest_overfit")
class ScaledSchedule(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """A schedule whose rates are multiplied."""

    def __init__(self, schedule: Any, factor: float) -> None:
        self.schedule, self.factor = schedule, factor

    def __call__(self, step: Any) -> Any:
        return self.schedule(step) * self.factor

    def get_config(self) -> dict[str, Any]:
        return {"schedule": self.schedule, "factor": self.factor}


def scaled(case: Case, factor: float) -> Alteration:
    """Every rate times `factor`, a schedule's as well."""
    if any(isinstance(each, keras.callbacks.LearningRateScheduler) for each in _rate_setters(case)):
        raise UnchangeableError("a callback sets its learning rate")

    def alter(optimizer: Any) -> None:
        rate = optimizer._learning_rate
        if isinstance(rate, keras.Variable):
            optimizer.learning_rate = factor * float(numbers(rate))
        elif isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            vars(optimizer)["_learning_rate"] = ScaledSchedule(rate, factor)
        else:
            vars(optimizer)["_learning_rate"] = lambda: factor * rate()

    return Alteration(model=_for_each(alter))


def rated(case: Case, rate: float) -> Alteration:
    """Every rate is this one, whatever schedules say."""
    return Alteration(model=_for_each(lambda each: set_rate(each, rate)), case=_without_rate_setters(case))


def set_rate(optimizer: Any, rate: float) -> None:
    """Fix the rate of an optimizer."""
    if isinstance(optimizer._learning_rate, keras.Variable):
        optimizer.learning_rate = rate
    else:
        # not through the property, which refuses to replace a schedule
        vars(optimizer)["_learning_rate"] = keras.Variable(rate, dtype="float32", trainable=False, name="learning_rate")


def without_schedule(model: Any, case: Case) -> Alteration:
    """The highest rate that a schedule has is the rate of all steps."""
    if not any(not isinstance(each._learning_rate, keras.Variable) for each in inner_optimizers(model)):
        if not _rate_setters(case):
            raise UnchangeableError("it has no schedule of rates")
        return Alteration(case=_without_rate_setters(case))

    def alter(optimizer: Any) -> None:
        set_rate(optimizer, top_rate(optimizer)[1])

    return Alteration(model=_for_each(alter), case=_without_rate_setters(case))


# ------------------------------------------------------------------ updates


def backwards() -> Alteration:
    """Gradients have the other sign where they are applied."""

    def altered(model: Any) -> Any:
        for optimizer in optimizers_of(model):
            substitute(optimizer, "apply", _negated(optimizer.apply))
        return model

    return Alteration(model=altered)


def _negated(own: Callable[..., Any]) -> Callable[..., Any]:
    def apply(grads: Any, *args: Any, **kwargs: Any) -> Any:
        return own([_minus(each) for each in grads], *args, **kwargs)

    return apply


def _minus(gradient: Any) -> Any:
    """Of an embedding, a gradient lists the rows it touches."""
    if gradient is None:
        return None
    if hasattr(gradient, "indices") and hasattr(gradient, "dense_shape"):
        return type(gradient)(-gradient.values, gradient.indices, gradient.dense_shape)
    return keras.ops.negative(gradient)


def with_epsilon(model: Any, change: Change) -> Alteration:
    """Every optimizer that has an epsilon has this one."""
    if all(_number(getattr(each, "epsilon", None)) is None for each in inner_optimizers(model)):
        raise UnchangeableError("its optimizer has no epsilon")

    def alter(optimizer: Any) -> None:
        if hasattr(optimizer, "epsilon"):
            optimizer.epsilon = change.factor

    return Alteration(model=_for_each(alter))


def without_clipping() -> Alteration:
    """Optimizers clip no gradients."""

    def altered(model: Any) -> Any:
        found = [*optimizers_of(model), *inner_optimizers(model)]
        clipping = [(each, name) for each in found for name in _CLIPPING if getattr(each, name, None) is not None]
        if not clipping:
            raise UnchangeableError("its optimizer does not clip gradients")
        for optimizer, name in clipping:
            setattr(optimizer, name, None)
        return model

    return Alteration(model=altered)


def without_decay() -> Alteration:
    """No weight decay, and no penalties."""

    def altered(model: Any) -> Any:
        if not [*twin.without_penalties(model), *twin.without_decay(model)]:
            raise UnchangeableError("it has neither weight decay nor penalties")
        return model

    return Alteration(model=altered)


def without_noise() -> Alteration:
    """No dropout, noise or augmentation."""

    def altered(model: Any) -> Any:
        if not twin.without_noise(model):
            raise UnchangeableError("no layer of it drops anything or adds noise")
        return model

    return Alteration(model=altered)
