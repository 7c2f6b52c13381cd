"""What regularises a Keras model's training, measured: layers that are random in training, and what shrinks weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import keras

from pytest_overfit.adapters.base import Learner, Regularizers
from pytest_overfit.adapters.keras import layers
from pytest_overfit.adapters.keras import stepper as stepping
from pytest_overfit.adapters.keras.learner import KerasLearner
from pytest_overfit.adapters.keras.regularizers import decay
from pytest_overfit.adapters.keras.regularizers.drawing import LayerDraws
from pytest_overfit.adapters.keras.regularizers.dropout import ROUNDING, LayerPlace, LayerWatch, arrays, places_of
from pytest_overfit.adapters.keras.state import held
from pytest_overfit.adapters.regularizer_effects import places as effects
from pytest_overfit.adapters.regularizer_effects.places import EVALUATION, PASSES, DropoutPlace
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.usercode import users_own

_OFF = (
    "its call got training=False, or no training where a train_step calls the model without training=True, or where a "
    "layer before it in the same call got training=False (Keras hands that on); write training=training"
)


_WHOLE = (
    "the training step calls the model with training=False, so that all of it trains in evaluation mode; write "
    "self(x, training=True) in train_step"
)


def found_in(learner: Learner) -> Regularizers:
    """Everything that regularises this learner. The model is put back as it was."""
    if not isinstance(learner, KerasLearner):
        return Regularizers(remarks=("only built-in learners are inspected",))
    model = learner.model
    off: list[str] = []
    places = places_of(model, off)
    watch = LayerWatch(model, places)
    with held(model, weights=True):
        remarks, gradients = _train(learner, watch)
    if learner.reader.structure is not None:
        with held(model, other_noise=1), watch.watching(EVALUATION):
            learner.reader.forward(training=False)
    off_words = _WHOLE if watch.evaluated else _OFF
    evaluated = learner.reader.structure is not None
    own = LayerDraws(learner, places)
    if not watch.evaluated:
        own.look()
    judged = [*places, *own.places]
    noises = tuple(
        effects.noises(judged, watch.called, lambda working: _unused(learner, working), off_words, evaluated=evaluated)
    )
    shrinkages = tuple(decay.found(learner, gradients))
    return Regularizers(noises=noises, shrinkages=shrinkages, off=tuple(off), remarks=(*remarks, *own.remarks))


def _train(learner: KerasLearner, watch: LayerWatch) -> tuple[tuple[str, ...], decay.Gradients]:
    """Watch training steps whose updates are left out; where that cannot be, forward passes in training mode."""
    gradients: decay.Gradients = []
    try:
        for number in range(PASSES):
            with watch.watching(number):
                gradients = decay.gradients(learner)
        return (), gradients
    except decay.NoStepError as reason:
        why = str(reason)
    except Exception as error:  # what only a compiled step can do
        if users_own(error):
            raise
        why = f"the training step does not run uncompiled ({type(error).__name__})"
    for place in itertools.chain(*watch.places.values()):
        place.passes.clear()
    for number in range(PASSES if learner.reader.structure is not None else 0):
        with watch.watching(number):
            learner.reader.forward(training=True)
    return (f"{why}: layers were checked in a forward pass in training mode",), gradients


def _unused(learner: KerasLearner, working: list[DropoutPlace]) -> set[DropoutPlace]:
    """The places whose results no output of the model depends on."""
    reader, model = learner.reader, learner.model
    own = [place for place in working if not place.of_library]  # Keras' own models throw nothing away
    if reader.structure is None or not own or stepping.own(model, "fit"):
        return set()

    def outputs(moved: DropoutPlace | None) -> list[Array]:
        def wrapper(_: Any, call: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
            return keras.tree.map_structure(lambda each: each + 1, call(*args, **kwargs))

        moved_layers = [moved.layer] if isinstance(moved, LayerPlace) else []
        with held(model), layers.called_through(moved_layers, wrapper):
            return arrays(reader.forward(training=True))

    return effects.unused(own, outputs, lambda first, second: not effects.difference(first, second, ROUNDING))
