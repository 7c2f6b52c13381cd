"""Keras models with something changed in them, before they are traced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import keras

from pytest_overfit.adapters.keras import pass_state
from pytest_overfit.adapters.keras.layers import substitute
from pytest_overfit.adapters.keras.learner import KerasLearner
from pytest_overfit.adapters.keras.programs import anatomy
from pytest_overfit.adapters.keras.programs.activations import followed_by
from pytest_overfit.adapters.keras.programs.original import Alteration, Original, check_calls_itself, everything
from pytest_overfit.adapters.keras.programs.structure import Structure
from pytest_overfit.adapters.keras.programs.weights import is_main
from pytest_overfit.adapters.planting import Ground, Plant, with_model
from pytest_overfit.adapters.programs import UnchangeableError
from pytest_overfit.core.case import Case

Surgery = Callable[[Any], Any]


def learner_of(ground: Ground) -> KerasLearner:
    if ground.learner is None:
        raise UnchangeableError("its program cannot be looked into")
    return cast("KerasLearner", ground.learner)


def _original(ground: Ground) -> Original:
    learner = learner_of(ground)
    return Original(learner.case, learner.batch, learner.case.model)


def structure_of(ground: Ground) -> Structure:
    """What one pass of the model calls."""
    return anatomy.structure(_original(ground), learner_of(ground))


def weighted(ground: Ground) -> list[int]:
    """Places of the layers with a matrix of weights of their own, in the order of their calls."""
    layers = everything(learner_of(ground).model)
    places = [place for place in structure_of(ground).weighted if place]
    found = [place for place in places if any(map(is_main, layers[place]._trainable_variables))]
    if not found:
        raise UnchangeableError("no layer of its own holds weights")
    return found


def hidden(ground: Ground) -> list[int]:
    """All but the last of them."""
    found = weighted(ground)[:-1]
    if not found:
        raise UnchangeableError("it has one layer only")
    return found


def planted(ground: Ground, surgery: Surgery, case: Case | None = None) -> Case:
    """The case whose models go through the surgery once they are built, which is tried on a new model."""
    learner = learner_of(ground)

    def whole(model: Any) -> Any:
        built = Original(learner.case, learner.batch, lambda: model).built()
        changed = surgery(built)
        pass_state.altered(changed)
        return changed

    trial = with_model(case or ground.case, whole)
    trial.model()
    return trial


def as_altered(make: Callable[[Ground], Alteration]) -> Plant:
    """What a diagnosis does to a program in search of its fault, done to a healthy one."""

    def plant(ground: Ground) -> Case:
        alteration = make(ground)
        return planted(ground, alteration.model, alteration.case)

    return plant


def changed_outputs(ground: Ground, change: Callable[[Any], Any]) -> Case:
    """The one output is another before anybody sees it."""
    _ = ground.outputs

    def surgery(model: Any) -> Any:
        check_calls_itself(model)
        followed_by(model, lambda outputs: keras.tree.map_structure(change, outputs))
        return model

    return planted(ground, surgery)


def changed_before_last(ground: Ground, make: Callable[[Any], Callable[[Any], Any]]) -> Case:
    """What the last layer is given is another; `make` is given the layer and returns what changes it."""
    hidden(ground)
    last = weighted(ground)[-1]

    def surgery(model: Any) -> Any:
        layer = everything(model)[last]
        change, own = make(layer), layer.call

        def call(given: Any, *args: Any, **kwargs: Any) -> Any:
            return own(change(given), *args, **kwargs)

        substitute(layer, "call", call)
        return model

    return planted(ground, surgery)


def changed_after_last(ground: Ground, make: Callable[[Any], Callable[[Any], Any]]) -> Case:
    """What the last layer with weights gives is another."""
    last = weighted(ground)[-1]

    def surgery(model: Any) -> Any:
        layer = everything(model)[last]
        followed_by(layer, make(layer))
        return model

    return planted(ground, surgery)


def inside(layer: Any, part: Any) -> Any:
    """The part, as one of a layer that is built already; the layer knows of its variables."""
    layer._tracker.unlock()
    try:
        layer.planted = part
    finally:
        layer._tracker.lock()
    return part


def compiled_as(model: Any, loss: Any) -> Any:
    """The same model under another loss, whatever arguments the user's own `compile` takes."""
    keras.Model.compile(model, optimizer=model.optimizer, loss=loss, run_eagerly=model.run_eagerly)
    return model
