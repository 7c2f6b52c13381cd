"""The loss of a model: what it is called, and another in its place."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np

from pytest_overfit.adapters.keras import stepper as stepping
from pytest_overfit.adapters.keras.layers import substitute
from pytest_overfit.adapters.keras.learner import KerasLearner
from pytest_overfit.adapters.keras.losses import facts_of
from pytest_overfit.adapters.keras.programs.original import Alteration
from pytest_overfit.adapters.keras.programs.structure import Structure
from pytest_overfit.adapters.programs import Change, UnchangeableError
from pytest_overfit.core.arrays import Array
from pytest_overfit.data.batch import leaves


def names(model: Any) -> tuple[str, ...]:
    """The compiled losses as their owner knows them; what a step or `compute_loss` of the user's calls is not seen."""
    given = model.loss
    if given is None:
        return ()
    parts = given if isinstance(given, (list, tuple)) else list(given.values()) if isinstance(given, dict) else [given]
    return tuple(dict.fromkeys(_name(each) for each in parts if each is not None))


def _name(loss: Any) -> str:
    facts = facts_of(loss)
    return f"{facts.name}(from_logits=True)" if facts.from_logits else facts.name


def replaced(learner: KerasLearner, structure: Structure, change: Change) -> Alteration:
    """`value` is the compiled loss. A last softmax or sigmoid that belongs to it makes its probabilities."""
    if stepping.own(learner.model, "train_step"):
        raise UnchangeableError("its train_step has a loss of its own")
    targets = list(leaves(learner.feed.arrays.y))
    outputs = keras.tree.flatten(learner.reader.structure)
    if len(targets) != 1 or len(outputs) != 1:
        raise UnchangeableError("it has several outputs or targets, or none")
    last = next((each.function for each in structure.functions if each.last), "")
    loss = _loss(change.value, targets[0], tuple(outputs[0].shape), last)

    def altered(model: Any) -> Any:
        # not the user's own `compile`, which may take other arguments
        keras.Model.compile(model, optimizer=model.optimizer, loss=loss(), run_eagerly=model.run_eagerly)
        if stepping.own(model, "compute_loss"):
            substitute(model, "compute_loss", keras.Model.compute_loss.__get__(model))
        return model

    return Alteration(model=altered)


def negated() -> Alteration:
    """The loss has the other sign, whatever it is called."""

    def altered(model: Any) -> Any:
        if stepping.own(model, "train_step"):
            raise UnchangeableError("its train_step has a loss of its own")
        if stepping.own(model, "compute_loss"):
            substitute(model, "compute_loss", _minus(model.compute_loss))
        elif model.loss is None:
            raise UnchangeableError("it is compiled without a loss")
        else:
            weights = getattr(getattr(model, "_compile_loss", None), "_user_loss_weights", None)
            options = {"loss_weights": weights, "run_eagerly": model.run_eagerly}
            keras.Model.compile(model, optimizer=model.optimizer, loss=_each_negated(model.loss), **options)
        return model

    return Alteration(model=altered)


def _each_negated(loss: Any) -> Any:
    """Losses by name, function or instance, one or in a list or dict; as functions, so that none is taken for known."""
    if isinstance(loss, dict):
        return {name: _each_negated(each) for name, each in loss.items()}
    if isinstance(loss, (list, tuple)):
        return [_each_negated(each) for each in loss]
    return None if loss is None else _minus(keras.losses.get(loss))


def _minus(function: Any) -> Any:
    def negative(*args: Any, **kwargs: Any) -> Any:
        return -function(*args, **kwargs)

    return functools.wraps(function)(negative) if hasattr(function, "__name__") else negative


def _loss(value: str, targets: Array, shape: tuple[int, ...], last: str) -> Any:
    """A factory of the loss. Raises `UnchangeableError` where it does not take such targets or outputs."""
    losses = keras.losses
    if value == "cross_entropy":
        logits = last != "softmax"
        if targets.shape == shape and shape[-1] > 1:
            _check(_shares(targets), "its targets are neither classes nor probabilities")
            return lambda: losses.CategoricalCrossentropy(from_logits=logits)
        _check(shape[-1] > 1, "it has one output, and a class needs one each")
        _check(_classes(targets, shape), "its targets are not classes of its outputs")
        return lambda: losses.SparseCategoricalCrossentropy(from_logits=logits)
    if value == "binary_cross_entropy":
        _check(targets.size == int(np.prod(shape)), "it does not have an output for each target")
        _check(bool(((targets >= 0) & (targets <= 1)).all()), "its targets are not between 0 and 1")
        return lambda: losses.BinaryCrossentropy(from_logits=last != "sigmoid")
    if value == "squared_error":
        _check(targets.size == int(np.prod(shape)), "it does not have an output for each target")
        return losses.MeanSquaredError
    raise UnchangeableError(f"there is no loss {value!r}")


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise UnchangeableError(otherwise)


def _shares(targets: Array) -> bool:
    return bool((targets >= 0).all() and np.allclose(targets.sum(axis=-1), 1.0, atol=1e-3))


def _classes(targets: Array, shape: tuple[int, ...]) -> bool:
    whole = bool((targets == np.round(targets)).all() and (targets >= 0).all() and (targets < shape[-1]).all())
    return whole and targets.size == int(np.prod(shape[:-1]))
