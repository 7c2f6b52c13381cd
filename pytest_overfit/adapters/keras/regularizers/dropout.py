"""Layers that drop, add noise or augment, seen at work."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import keras

from pytest_overfit.adapters.keras import layers
from pytest_overfit.adapters.keras.reader import numbers
from pytest_overfit.adapters.regularizer_effects.places import (
    EVALUATION,
    DropoutPlace,
    Kind,
    PlaceCall,
    Visit,
    effect,
)
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.usercode import is_users_class

#: calls of one layer on one input at most: each is an uncompiled call of Keras'
_MOST = 512

#: two answers are the same if they differ by less than this share
ROUNDING = 1e-6

_ON = "its call got training=True; leave that out, or pass on what the call around it got"

_DROPS = re.compile("drop|stochastic_?depth", re.IGNORECASE)
_AUGMENTS = re.compile("^Random|^Rand[A-Z]|Augment|AugMix|Erasing|MixUp|CutMix|Jitter")

_CHANNELS = (keras.layers.SpatialDropout1D, keras.layers.SpatialDropout2D, keras.layers.SpatialDropout3D)


@dataclasses.dataclass(eq=False, kw_only=True)
class LayerPlace(DropoutPlace):
    """A layer that is to change its input at random."""

    layer: Any

    def draws(self, given: Array, evaluating: bool) -> float:
        """How many entries, at least, one call decides on by itself; 0: unknown."""
        own = type(self.layer).__module__.startswith("keras.")
        if not given.any():
            return 0
        if evaluating and own:
            return math.inf  # Keras' own layers do not draw at all where they evaluate: one call shows it
        if isinstance(self.layer, _CHANNELS):
            return int(given.shape[0] * given.shape[-1])
        if self.plain and getattr(self.layer, "noise_shape", None) is None:
            return int((given != 0).sum())
        return given.size if own and not self.plain and self.kind != "augmentation" else 1


def places_of(model: Any, off: list[str]) -> list[LayerPlace]:
    """Every place of the model; names of layers whose probability is 0 are added to `off`."""
    around = (model, *layers.layers_of(model))
    owners = {id(child): layer for layer in around for child in getattr(layer, "_layers", ())}
    found = []
    for layer in layers.layers_of(model):
        kind, rate = _kind_and_rate(layer)
        name = f"{type(layer).__name__} {layer.name}"
        if kind is not None and rate == 0:
            off.append(name)
        elif kind is not None:
            owner = owners.get(id(layer), model)
            of_library = not is_users_class(type(owner))
            place = LayerPlace(
                name=name,
                kind=kind,
                rate=rate,
                owner=id(owner),
                role=None if of_library else (type(layer), type(owner)),
                of_library=of_library,
                plain=isinstance(layer, keras.layers.Dropout),
                frozen=_in_frozen_part(owner, owners, model),
                layer=layer,
            )
            found.append(place)
    return found


def _in_frozen_part(owner: Any, owners: dict[int, Any], model: Any) -> bool:
    """The owner, or a layer around it, but not the model itself, has weights of which none is trained."""
    while owner is not None and owner is not model:
        if owner.weights and not owner.trainable_weights:
            return True
        owner = owners.get(id(owner))
    return False


def _kind_and_rate(layer: Any) -> tuple[Kind | None, float | None]:
    name = type(layer).__name__
    if isinstance(layer, keras.layers.GaussianNoise):
        return "noise", float(layer.stddev)
    if isinstance(layer, (keras.layers.Dropout, keras.layers.AlphaDropout, keras.layers.GaussianDropout)):
        return "dropout", float(layer.rate)
    rates = [getattr(layer, each, None) for each in ("dropout", "recurrent_dropout")]
    known = [float(each) for each in rates if isinstance(each, (int, float)) and not isinstance(each, bool)]
    if type(layer).__module__.startswith("keras.") and not name.endswith("Cell") and any(known):
        return "dropout", max(known)
    if layer.weights and any("seed" not in each.name for each in layer.weights):
        return None, None
    if _DROPS.search(name):
        given = (getattr(layer, each, None) for each in ("rate", "p", "drop_prob", "drop_rate", "dropout_rate"))
        return "dropout", next((float(each) for each in given if isinstance(each, (int, float))), None)
    return ("augmentation", None) if _AUGMENTS.search(name) else (None, None)


# ------------------------------------------------------------------ watching


class LayerWatch:
    """Notes the calls of all layers, and measures those of the places."""

    def __init__(self, model: Any, places: list[LayerPlace]) -> None:
        self._everything = layers.layers_of(model)
        self.places = {id(place.layer): place for place in places}
        #: ids of the layers that a training pass called
        self.called: set[Hashable] = {id(model)}
        self._busy = False
        #: nested models that are being called with training=False
        self._resting = 0

    @contextlib.contextmanager
    def watching(self, number: int) -> Iterator[None]:
        """Watch the pass of this number, which is made inside."""

        def wrapper(layer: Any, own: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
            rests = isinstance(layer, keras.Model) and kwargs.get("training", True) is False and number != EVALUATION
            self._resting += rests
            try:
                output = own(*args, **kwargs)
            finally:
                self._resting -= rests
            if self._busy:
                return output
            if number != EVALUATION:
                self.called.add(id(layer))
            if id(layer) in self.places:
                self._note(self.places[id(layer)], number, own, args, kwargs, output)
            return output

        with layers.called_through(self._everything, wrapper):
            yield

    def _note(
        self, place: LayerPlace, number: int, own: Callable[..., Any], args: Any, kwargs: dict[str, Any], output: Any
    ) -> None:
        call = PlaceCall(None, off=not kwargs.get("training"))
        self._busy = True
        # inside a function that is being traced there are no numbers, and the effect is undetermined
        with contextlib.suppress(Exception):
            given = next(each for each in arrays((args, kwargs)) if each.dtype.kind == "f")
            again = (arrays(own(*args, **kwargs)) for _ in itertools.count())
            outputs = itertools.chain([arrays(output)], again)
            draws = place.draws(given, evaluating=number == EVALUATION)
            call.effect = effect(place, Visit(given, outputs, draws, ROUNDING, _MOST))
        self._busy = False
        place.passes.setdefault(number, []).append(call)
        place.frozen = place.frozen or bool(self._resting)
        if number == EVALUATION and not call.off:
            place.why = _ON


def arrays(structure: Any) -> list[Array]:
    """Every tensor in a structure, as an array."""
    return [numbers(each) for each in keras.tree.flatten(structure) if keras.ops.is_tensor(each)]
