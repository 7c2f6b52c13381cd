"""What a Keras program is made of, measured on a new model of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pytest_overfit.adapters.keras import layers
from pytest_overfit.adapters.keras.learner import KerasLearner
from pytest_overfit.adapters.keras.programs import differentiation, objective, optimizer, weights
from pytest_overfit.adapters.keras.programs.original import Original, everything
from pytest_overfit.adapters.keras.programs.structure import FunctionCall, Structure, structure_of
from pytest_overfit.adapters.keras.regularizers import decay, twin
from pytest_overfit.adapters.keras.regularizers.dropout import places_of
from pytest_overfit.adapters.keras.state import held
from pytest_overfit.adapters.programs import Activation, Anatomy, Dropping, Given
from pytest_overfit.core.arrays import Array


def structure(original: Original, learner: KerasLearner) -> Structure:
    """What one pass of a new model calls, with dropout off and batch normalisation on the batch's statistics."""
    if learner.reader.structure is None:
        return Structure()
    model = original.built()
    reader = original.reader(model)
    with held(model), layers.on_batch_statistics(layers.batch_normalisations(model)):
        return structure_of(model, lambda: reader.forward(training=False), everything(learner.model))


def anatomy(original: Original, learner: KerasLearner, found: Structure) -> Anatomy:
    """All facts; names are those of the learner's own model."""
    model = original.built()
    known_as = everything(learner.model)
    new = original.learner_of(model)
    taken = _taken(new)
    facts = weights.facts(model, found, known_as, taken)
    cut = any(each.main and each.trainable and not each.gradient for each in facts)
    cuts, depends = differentiation.cuts_of(new, known_as) if cut else ((), None)
    penalties = twin.without_penalties(model)  # nobody trains this model
    return Anatomy(
        activations=tuple(_activation(each) for each in found.functions),
        weights=tuple(facts),
        dropping=tuple(_dropping(model, found, known_as)),
        optimizer=optimizer.facts(learner.model, learner.case),
        direct=tuple((_named(known_as[first]), _named(known_as[second])) for first, second in found.direct),
        penalties=penalties,
        losses=objective.names(learner.model),
        cuts=cuts,
        depends=depends,
        given=tuple(_given(_named(known_as[each.layer]), each.values) for each in found.given),
    )


def _taken(learner: KerasLearner) -> decay.Gradients | None:
    try:
        return decay.gradients(learner)
    except Exception:  # what only a compiled step can do
        return None


def _activation(call: FunctionCall) -> Activation:
    return Activation(
        function=call.function,
        where=call.where,
        axis=call.axis,
        units=call.units,
        last=call.last,
        feeds_last=call.feeds_last,
        dead=call.dead,
        saturated=call.saturated,
    )


def _given(where: str, values: Array) -> Given:
    size = float(np.sqrt((values.astype(np.float64) ** 2).mean())) if values.size else 0.0
    return Given(where=where, size=size, varies=bool((values != values[:1]).any()))


def _named(layer: Any) -> str:
    return f"{type(layer).__name__} {layer.name!r}"


def _dropping(model: Any, found: Structure, known_as: Sequence[Any]) -> list[Dropping]:
    places = {id(each): place for place, each in enumerate(everything(model))}
    order = {place: number for number, place in enumerate(found.order)}
    last = max((order[place] for place in found.weighted if place in order and place != 0), default=-1)
    dropping = []
    for used in places_of(model, []):
        if used.kind == "dropout" and used.rate is not None:
            place = places[id(used.layer)]
            behind = order.get(place, -1) > last >= 0
            dropping.append(Dropping(where=_named(known_as[place]), rate=used.rate, last=behind))
    return dropping
