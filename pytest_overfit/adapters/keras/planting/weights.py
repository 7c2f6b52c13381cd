"""Faults of a Keras model's weights, and of layers' own settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from pytest_overfit.adapters.keras.layers import batch_normalisations, layers_of, substitute
from pytest_overfit.adapters.keras.planting.models import hidden, learner_of, planted, structure_of, weighted
from pytest_overfit.adapters.keras.programs.original import everything
from pytest_overfit.adapters.keras.programs.weights import is_main
from pytest_overfit.adapters.planting import Ground, Plant
from pytest_overfit.adapters.programs import UnchangeableError
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.case import Case

#: far below what a layer's sum can come to
_FAR_BELOW = -1e4

#: start of a last layer that is sure of its answers
_SURE = 100.0

_DROPPING = tuple(
    getattr(keras.layers, name)
    for name in ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "GaussianDropout")
)


def _on_matrices(ground: Ground, places: list[int], change: Callable[[Any], Array]) -> Case:
    """The main variables of these layers hold what `change` makes of them."""

    def surgery(model: Any) -> Any:
        for place in places:
            for variable in everything(model)[place]._trainable_variables:
                if is_main(variable):
                    variable.assign(change(variable))
        return model

    return planted(ground, surgery)


def zero_init(ground: Ground) -> Case:
    """Keras' own biases start at zero anyway."""
    hidden(ground)
    return _on_matrices(ground, weighted(ground), lambda each: np.zeros(each.shape, "float32"))


def constant_init(ground: Ground) -> Case:
    hidden(ground)

    def alike(variable: Any) -> Array:
        shape = tuple(variable.shape)
        return np.full(shape, 1.0 / max(1.0, float(np.prod(shape[:-1]))) ** 0.5, "float32")

    return _on_matrices(ground, weighted(ground), alike)


def nan_parameter(ground: Ground) -> Case:
    def with_nan(variable: Any) -> Array:
        values = np.array(keras.ops.convert_to_numpy(variable))
        values.flat[0] = np.nan
        return values

    return _on_matrices(ground, weighted(ground)[:1], with_nan)


def over_confident_start(ground: Ground) -> Case:
    ground.head("classes", "binary", otherwise="it answers no classes")
    return _on_matrices(ground, weighted(ground)[-1:], lambda each: _SURE * keras.ops.convert_to_numpy(each))


def dead_relu(ground: Ground) -> Case:
    last = weighted(ground)[-1]
    if not any(each.function == "relu" and not each.last for each in structure_of(ground).functions):
        raise UnchangeableError("it has no ReLU between its layers")

    def surgery(model: Any) -> Any:
        for place, layer in enumerate(everything(model)):
            for variable in layer._trainable_variables if place != last else ():
                if variable.name in ("bias", "beta") and len(variable.shape) == 1:
                    variable.assign(np.full(variable.shape, _FAR_BELOW, "float32"))
        return model

    case = planted(ground, surgery)
    relus = [each for each in structure_of(_with(ground, case)).functions if each.function == "relu" and not each.last]
    if not all(each.dead > 0.99 for each in relus):
        raise UnchangeableError("biases alone do not switch its ReLUs off")
    return case


def _with(ground: Ground, case: Case) -> Ground:
    """Another case, opened on the same batch."""
    from pytest_overfit.adapters.keras.learner import make_learner

    learner = make_learner(case, case.model(), ground.batch, case.model)
    return Ground(case=case, batch=ground.batch, learner=learner)


def frozen_parameters(ground: Ground) -> Case:
    places = hidden(ground)

    def surgery(model: Any) -> Any:
        for place in places:
            everything(model)[place].trainable = False
        return model

    return planted(ground, surgery)


def batchnorm_eval_mismatch(ground: Ground) -> Case:
    if not batch_normalisations(learner_of(ground).model):
        raise UnchangeableError("it has no batch normalisation")

    def surgery(model: Any) -> Any:
        for layer in batch_normalisations(model):
            layer.momentum = 1.0
        return model

    return planted(ground, surgery)


def never_drops(ground: Ground) -> Case:
    def dropping(model: Any) -> list[Any]:
        return [each for each in layers_of(model) if isinstance(each, _DROPPING) and each.rate]

    if not dropping(learner_of(ground).model):
        raise UnchangeableError("it has no layer of dropout")

    def surgery(model: Any) -> Any:
        for layer in dropping(model):
            substitute(layer, "call", lambda inputs, training=False: inputs + 0.0)
        return model

    return planted(ground, surgery)


PLANTS: Mapping[str, Plant] = {
    "zero_init": zero_init,
    "constant_init": constant_init,
    "over_confident_start": over_confident_start,
    "nan_parameter": nan_parameter,
    "dead_relu": dead_relu,
    "frozen_parameters": frozen_parameters,
    "batchnorm_eval_mismatch": batchnorm_eval_mismatch,
    "never_drops": never_drops,
}
