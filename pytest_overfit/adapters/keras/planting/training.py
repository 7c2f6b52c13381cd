"""Faults of a Keras model's loss and of its updates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from pytest_overfit.adapters.keras import stepper as stepping
from pytest_overfit.adapters.keras.layers import substitute
from pytest_overfit.adapters.keras.planting.models import as_altered, compiled_as, learner_of, planted
from pytest_overfit.adapters.keras.programs import objective, optimizer
from pytest_overfit.adapters.keras.programs.optimizer import inner_optimizers
from pytest_overfit.adapters.keras.reader import numbers
from pytest_overfit.adapters.keras.regularizers.decay import optimizers_of, top_rate
from pytest_overfit.adapters.planting import Ground, Plant
from pytest_overfit.adapters.programs import Change, UnchangeableError
from pytest_overfit.core.case import Case

#: an epsilon that outweighs every gradient, a decay that takes half of a weight in each step, a rate that fades
_EPSILON, _DECAYED, _FADING = 1e4, 0.5, 0.7


def _on_optimizers(change: Callable[[Any], None]) -> Plant:
    def plant(ground: Ground) -> Case:
        if not inner_optimizers(learner_of(ground).model):
            raise UnchangeableError("it has no optimizer of Keras'")

        def surgery(model: Any) -> Any:
            for each in inner_optimizers(model):
                change(each)
            return model

        return planted(ground, surgery)

    return plant


def _decaying(made: Any) -> None:
    rate = top_rate(made)[1]
    if not rate:
        raise UnchangeableError("its learning rate is not known")
    made.weight_decay = _DECAYED / float(rate)


def _fading(made: Any) -> None:
    if not isinstance(made._learning_rate, keras.Variable):
        raise UnchangeableError("it has a schedule")
    schedule = keras.optimizers.schedules.ExponentialDecay(float(numbers(made._learning_rate)), 1, _FADING)
    vars(made)["_learning_rate"] = schedule


def _clipping(made: Any) -> None:
    if type(made).__name__ != "SGD":
        raise UnchangeableError("its optimizer divides gradients by their size")
    made.clipnorm, made.clipvalue, made.global_clipnorm = 1e-6, None, None


def update_skipped(ground: Ground) -> Case:
    def surgery(model: Any) -> Any:
        for made in optimizers_of(model):
            substitute(made, "apply", lambda *_, **__: None)
        return model

    return planted(ground, surgery)


# ---------------------------------------------------------------------------------------------------------- loss


def _own_loss(ground: Ground) -> Any:
    """The one compiled loss."""
    model = learner_of(ground).model
    if any(stepping.own(model, name) for name in ("train_step", "compute_loss")):
        raise UnchangeableError("its step or its compute_loss makes a loss of its own")
    if model.loss is None or isinstance(model.loss, (list, tuple, dict)):
        raise UnchangeableError("it is compiled with several losses, or with none")
    return keras.losses.get(model.loss)


def wrong_loss(ground: Ground) -> Case:
    _own_loss(ground)
    head = ground.head("classes", "values", otherwise="there is no usual other loss for what it answers")
    if head.kind == "values":
        if head.targets.min() >= 0 and head.targets.max() <= 1:
            raise UnchangeableError("its quantities lie between 0 and 1, as the other loss takes them")
        return planted(ground, lambda model: compiled_as(model, keras.losses.BinaryCrossentropy(from_logits=True)))
    if head.targets.shape == head.outputs.shape:
        raise UnchangeableError("its targets are probabilities, not numbers of classes")
    return planted(ground, lambda model: compiled_as(model, "mean_squared_error"))


def wrong_reduction(ground: Ground) -> Case:
    own = _own_loss(ground)
    head = ground.head("classes", "binary", "values", otherwise="it has no single recognised loss")
    if not isinstance(own, keras.losses.Loss) or type(own).__module__.split(".")[0] != "keras" or not head.plain:
        raise UnchangeableError("its loss is no plain mean of a loss object of Keras'")
    kind, config = type(own), own.get_config()
    return planted(ground, lambda model: compiled_as(model, kind.from_config({**config, "reduction": "sum"})))


def sqrt_zero_gradient(ground: Ground) -> Case:
    own = _own_loss(ground)

    def loss(targets: Any, outputs: Any) -> Any:
        return own(targets, outputs) + keras.ops.sqrt(keras.ops.sum((outputs - outputs) ** 2))

    return planted(ground, lambda model: compiled_as(model, loss))


def _does_itself(reason: str) -> Plant:
    def plant(ground: Ground) -> Case:
        del ground
        raise UnchangeableError(reason)

    return plant


PLANTS: Mapping[str, Plant] = {
    "lr_zero": as_altered(lambda ground: optimizer.rated(ground.case, 0.0)),
    "lr_too_low": as_altered(lambda ground: optimizer.scaled(ground.case, 1e-4)),
    "lr_too_high": as_altered(lambda ground: optimizer.scaled(ground.case, 1e4)),
    "bad_adam_epsilon": as_altered(
        lambda ground: optimizer.with_epsilon(learner_of(ground).model, Change(kind="epsilon", factor=_EPSILON))
    ),
    "gradient_ascent": as_altered(lambda ground: objective.negated()),
    "excessive_weight_decay": _on_optimizers(_decaying),
    "schedule_kills_rate": _on_optimizers(_fading),
    "grad_clip_too_small": _on_optimizers(_clipping),
    "update_skipped": update_skipped,
    "wrong_loss": wrong_loss,
    "wrong_reduction": wrong_reduction,
    "sqrt_zero_gradient": sqrt_zero_gradient,
    "missing_zero_grad": _does_itself("in Keras each step has gradients of its own, which start from zero"),
    "optimizer_wrong_params": _does_itself("in Keras an optimizer gets what its model trains"),
    "unregistered_parameters": _does_itself("Keras finds the layers of a model by itself"),
    "target_broadcast": _does_itself("Keras brings targets to the rank of its outputs"),
}
