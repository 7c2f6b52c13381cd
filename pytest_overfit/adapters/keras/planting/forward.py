"""Faults of what a Keras model computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from pytest_overfit.adapters.base import Head
from pytest_overfit.adapters.keras.layers import substitute
from pytest_overfit.adapters.keras.planting.models import (
    changed_after_last,
    changed_before_last,
    changed_outputs,
    inside,
    planted,
    structure_of,
)
from pytest_overfit.adapters.keras.programs.activations import with_others
from pytest_overfit.adapters.keras.programs.original import check_calls_itself
from pytest_overfit.adapters.planting import Ground, Plant
from pytest_overfit.adapters.programs import UnchangeableError
from pytest_overfit.core.case import Case

_CLASSES = "its loss is none of several classes by raw scores"


def _softmax(scores: Any, axis: int) -> Any:
    """Of which Keras does not know that it is one; else a loss would take what it was made of."""
    return keras.ops.exp(keras.ops.log_softmax(scores, axis))


def double_softmax(ground: Ground) -> Case:
    head = ground.head("classes", otherwise="its loss is none of several classes")
    axis = ground.class_axis(head)
    return changed_outputs(ground, lambda outputs: _softmax(outputs, axis))


def _scores(ground: Ground) -> Head:
    head = ground.head("classes", otherwise=_CLASSES)
    if head.domain != "unbounded":
        raise UnchangeableError(_CLASSES)
    return head


def softmax_wrong_axis(ground: Ground) -> Case:
    _scores(ground)
    return changed_outputs(ground, lambda outputs: _softmax(outputs, 0))


def relu_on_logits(ground: Ground) -> Case:
    _scores(ground)
    return changed_outputs(ground, keras.ops.relu)


def double_sigmoid(ground: Ground) -> Case:
    ground.head("binary", otherwise="its loss is none of yes and no")
    return changed_outputs(ground, lambda outputs: 1.0 / (1.0 + keras.ops.exp(-outputs)))


def _without_last(kind: str, function: str) -> Plant:
    def plant(ground: Ground) -> Case:
        otherwise = f"its outputs are no probabilities made by a last {function}"
        if ground.head(kind, otherwise=otherwise).domain == "unbounded":
            raise UnchangeableError(otherwise)
        found = [each.spot for each in structure_of(ground).functions if each.last and each.function == function]
        if not found:
            raise UnchangeableError(otherwise)
        return planted(ground, lambda model: with_others(model, {found[-1]: lambda given: given + 0.0}))

    return plant


def output_range(ground: Ground) -> Case:
    head = ground.head("values", otherwise="its targets are no quantities")
    if head.targets.min() >= 0 and head.targets.max() <= 1:
        raise UnchangeableError("all its targets lie between 0 and 1")
    return changed_outputs(ground, keras.ops.sigmoid)


def detached_graph(ground: Ground) -> Case:
    return changed_outputs(ground, keras.ops.stop_gradient)


def cut_gradient(ground: Ground) -> Case:
    return changed_before_last(ground, lambda layer: keras.ops.stop_gradient)


def input_ignored(ground: Ground) -> Case:
    def surgery(model: Any) -> Any:
        check_calls_itself(model)
        own = model.call

        def call(given: Any, *args: Any, **kwargs: Any) -> Any:
            return own(keras.tree.map_structure(keras.ops.zeros_like, given), *args, **kwargs)

        substitute(model, "call", call)
        return model

    return planted(ground, surgery)


def batch_mixing(ground: Ground) -> Case:
    if len(ground.outputs) != ground.batch.rows or ground.batch.rows < 2:
        raise UnchangeableError("its outputs do not have several rows along their first axis")
    return changed_outputs(ground, lambda outputs: outputs + keras.ops.roll(outputs, 1, axis=0))


def random_in_eval(ground: Ground) -> Case:
    def make(layer: Any) -> Any:
        dropout = inside(layer, keras.layers.Dropout(0.5, seed=0))
        return lambda given: dropout(given, training=True)

    return changed_before_last(ground, make)


def excessive_dropout(ground: Ground) -> Case:
    return changed_before_last(ground, lambda layer: inside(layer, keras.layers.Dropout(0.99, seed=0)))


def dropout_on_output(ground: Ground) -> Case:
    return changed_after_last(ground, lambda layer: inside(layer, keras.layers.Dropout(0.5, seed=0)))


def unused_parameters(ground: Ground) -> Case:
    def make(layer: Any) -> Any:
        branch = inside(layer, keras.layers.Dense(1))
        return lambda outputs: outputs + 0.0 * branch(outputs[..., :1])

    return changed_after_last(ground, make)


PLANTS: Mapping[str, Plant] = {
    "double_softmax": double_softmax,
    "double_sigmoid": double_sigmoid,
    "missing_softmax": _without_last("classes", "softmax"),
    "missing_sigmoid": _without_last("binary", "sigmoid"),
    "softmax_wrong_axis": softmax_wrong_axis,
    "relu_on_logits": relu_on_logits,
    "output_range": output_range,
    "detached_graph": detached_graph,
    "cut_gradient": cut_gradient,
    "input_ignored": input_ignored,
    "batch_mixing": batch_mixing,
    "random_in_eval": random_in_eval,
    "excessive_dropout": excessive_dropout,
    "dropout_on_output": dropout_on_output,
    "unused_parameters": unused_parameters,
}
