"""What regularises a Keras model's training, measured: layers that are random in training, and what shrinks weights.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras

from pytest_overfit.adapters.base import Learner, Noise, Regularizers
from pytest_overfit.adapters.keras import layers
from pytest_overfit.adapters.keras import stepper as stepping
from pytest_overfit.adapters.keras.learner import KerasLearner
from pytest_overfit.adapters.keras.regularizers import decay
from pytest_overfit.adapters.keras.regularizers.dropout import EVALUATION, Place, Watch, arrays, difference, places_of
from pytest_overfit.adapters.keras.state import held
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.usercode import is_users_class

#: training passes that are watched
_PASSES = 2

_OFF = (
    "its call got training=False, or no training where a train_step calls the model without training=True, or where a "
    "layer before it in the same call got training=False (Keras hands that on); write training=training"
)

_ON = "its call got training=True; leave that out, or pass on what the call around it got"


def found_in(learner: Learner) -> Regularizers:
    """Everything that regularises this learner. The model is put back as it was."""
    if not isinstance(learner, KerasLearner):
        return Regularizers(remarks=("only built-in learners are looked into",))
    model = learner.model
    off: list[str] = []
    places = places_of(model, off)
    watch = Watch(model, places)
    remarks = []
    with held(model, weights=True):
        remark, gradients = _train(learner, watch)
        if remark:
            remarks.append(remark)
    if learner.reader.structure is not None:
        with held(model, other_noise=1), watch.watching(EVALUATION):
            learner.reader.forward(training=False)
    noises = tuple(_noises(learner, watch))
    return Regularizers(
        noises=noises, shrinkages=tuple(decay.found(learner, gradients)), off=tuple(off), remarks=tuple(remarks)
    )


def _train(learner: KerasLearner, watch: Watch) -> tuple[str, decay.Gradients]:
    """Watch training steps whose updates are left out; where that cannot be, forward passes in training mode."""
    gradients: decay.Gradients = []
    try:
        for number in range(_PASSES):
            with watch.watching(number):
                gradients = decay.gradients(learner)
        return "", gradients
    except decay.NoStepError as reason:
        why = str(reason)
    except Exception as error:  # what only a compiled step can do
        why = f"the training step does not run uncompiled ({type(error).__name__})"
    for place in watch.places.values():
        place.passes.clear()
    for number in range(_PASSES if learner.reader.structure is not None else 0):
        with watch.watching(number):
            learner.reader.forward(training=True)
    return f"{why}: layers were looked at in a forward pass in training mode", gradients


# ------------------------------------------------------------------ findings


def _noises(learner: KerasLearner, watch: Watch) -> Iterator[Noise]:
    working = [each for each in watch.places.values() if (_least(each) or 0.0) > 0]
    unused: set[int] = set()
    with contextlib.suppress(Exception):  # what cannot be found out is not held against anyone
        unused = _unused(learner, working)
    for place in watch.places.values():
        calls = [call for number, found in place.passes.items() if number != EVALUATION for call in found]
        if not calls and _elsewhere(place, watch):
            continue
        switched_off = any(off for effect, off in calls if effect == 0.0)
        yield Noise(
            kind=place.kind,
            name=place.name,
            rate=None if place.kind == "augmentation" else place.rate,
            training=_least(place),
            evaluation=_most(place.passes.get(EVALUATION, [])) if place.passes.get(EVALUATION) else 0.0,
            called=bool(calls),
            reached=id(place.owner) in watch.called,
            used=id(place.layer) not in unused if place in working else None,
            switched_off=switched_off,
            frozen=place.frozen and switched_off,
            of_library=not is_users_class(type(place.owner)),
            why=_OFF if switched_off else _ON if not all(off for _, off in place.passes.get(EVALUATION, [])) else "",
        )


def _elsewhere(place: Place, watch: Watch) -> bool:
    """Another layer of the class around this one did call a layer of this kind."""
    role = type(place.layer), type(place.owner)
    own = is_users_class(type(place.owner))
    called = [each for each in watch.places.values() if any(number != EVALUATION for number in each.passes)]
    return own and any(
        (type(each.layer), type(each.owner)) == role and each.owner is not place.owner for each in called
    )


def _least(place: Place) -> float | None:
    found = [_most(calls) for number, calls in place.passes.items() if number != EVALUATION]
    known = [each for each in found if each is not None]
    return min(known) if known else None


def _most(calls: list[tuple[float | None, bool]]) -> float | None:
    known = [effect for effect, _ in calls if effect is not None]
    return max(known) if known else None


def _unused(learner: KerasLearner, working: list[Place]) -> set[int]:
    """Ids of the layers whose result can change without a change of any output of the model."""
    reader, model = learner.reader, learner.model
    own = [each for each in working if is_users_class(type(each.owner))]  # Keras' own models throw nothing away
    if reader.structure is None or not own or stepping.own(model, "fit"):
        return set()

    def outputs(moved: Any) -> list[Array]:
        def wrapper(_: Any, call: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
            given = call(*args, **kwargs)
            return keras.tree.map_structure(lambda each: each + 1, given)

        with held(model), layers.called_through([] if moved is None else [moved], wrapper):
            return arrays(reader.forward(training=True))

    first = outputs(None)
    if difference(first, outputs(None)):
        return set()
    return {id(each.layer) for each in own if not difference(first, outputs(each.layer))}
