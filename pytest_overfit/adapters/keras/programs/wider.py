"""A plain chain or graph of Keras' layers, made again with more units in its hidden layers."""

from __future__ import annotations

from typing import Any

from pytest_overfit.adapters.keras.programs.original import Alteration, everything
from pytest_overfit.adapters.keras.programs.structure import Structure
from pytest_overfit.adapters.programs import Change, UnchangeableError

#: arguments of a layer that say how many units it has
_UNITS = ("units", "filters")

_PLAIN = ("Sequential", "Functional")


def wider(structure: Structure, change: Change) -> Alteration:
    """Hidden layers have `factor` times the units; the layers that make the answers have as many as they had."""
    if not structure.weighted:
        raise UnchangeableError("it has no layers with weights")

    def altered(model: Any) -> Any:
        if type(model).__name__ not in _PLAIN or not _is_keras_own(model):
            raise UnchangeableError(f"{type(model).__name__} is a class whose layers cannot be rebuilt from outside")
        config, widened = model.get_config(), 0
        for layer in config["layers"]:
            layer.pop("build_config", None)  # it has the shapes of before
            for name in _UNITS if layer["config"].get("name") not in _last(model) else ():
                if isinstance(layer["config"].get(name), int):
                    layer["config"][name] = int(layer["config"][name] * change.factor)
                    widened += 1
        if not widened:
            raise UnchangeableError("it has no hidden layer with units")
        return _made_again(model, config)

    return Alteration(model=altered)


def _is_keras_own(model: Any) -> bool:
    return all(type(each).__module__.split(".")[0] == "keras" for each in everything(model))


def _last(model: Any) -> set[str]:
    """Names of the layers that make the answers: the last with weights on the way to each output."""
    functional = getattr(model, "_functional", None) or model
    found, todo, seen = set[str](), [each._keras_history.operation for each in functional.outputs], set[int]()
    while todo:
        operation = todo.pop()
        if id(operation) in seen:
            continue
        seen.add(id(operation))
        if getattr(operation, "weights", None) and any(hasattr(operation, name) for name in _UNITS):
            found.add(str(operation.name))
            continue
        for node in operation._inbound_nodes:
            todo += [each._keras_history.operation for each in node.input_tensors]
    return found


def _made_again(model: Any, config: Any) -> Any:
    """A new model by this configuration, compiled as the old one, with its weights where they have the same shape."""
    new = type(model).from_config(config)
    if not new.built:
        new.build(model.input_shape)
    for mine, old in zip(everything(new), everything(model), strict=True):
        shapes = [tuple(each.shape) for each in mine.weights]
        if mine is not new and shapes == [tuple(each.shape) for each in old.weights]:
            for variable, value in zip(mine.weights, old.weights, strict=True):
                variable.assign(value)
        if mine is not new:
            mine.trainable = old.trainable
    optimizer = type(model.optimizer).from_config(model.optimizer.get_config())
    compiled = getattr(model, "_compile_loss", None)
    weights = getattr(compiled, "_user_loss_weights", None)
    new.compile(optimizer=optimizer, loss=model.loss, loss_weights=weights, run_eagerly=model.run_eagerly)
    return new
