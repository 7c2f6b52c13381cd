"""Layers that drop, add noise or augment, seen at work.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, Literal

import keras
import numpy as np

from pytest_overfit.adapters.keras import layers
from pytest_overfit.adapters.keras.reader import numbers
from pytest_overfit.core.arrays import Array

Kind = Literal["dropout", "noise", "augmentation"]

#: number of the evaluation pass; training passes count from 0
EVALUATION = -1

#: that a layer which drops left everything as it was, by chance, must be less likely than this
_CHANCE = 1e-6

#: calls of one layer on one input at most; a layer that needs more to be sure is not judged
_MOST = 512

#: the probability that a layer without a declared one is taken to have
_ASSUMED = 0.1

_DROPS = re.compile("drop|stochastic_?depth", re.IGNORECASE)
_AUGMENTS = re.compile("^Random|^Rand[A-Z]|Augment|AugMix|Erasing|MixUp|CutMix|Jitter")

_CHANNELS = (keras.layers.SpatialDropout1D, keras.layers.SpatialDropout2D, keras.layers.SpatialDropout3D)


@dataclasses.dataclass
class Place:
    """One layer that is to change its input at random."""

    layer: Any
    owner: Any
    kind: Kind
    rate: float | None
    #: effects of its calls in each pass, and whether the call was told to evaluate
    passes: dict[int, list[tuple[float | None, bool]]] = dataclasses.field(default_factory=dict)
    frozen: bool = False

    @property
    def name(self) -> str:
        return f"{type(self.layer).__name__} {self.layer.name}"

    @property
    def plain(self) -> bool:
        """It sets entries to zero or leaves them."""
        return isinstance(self.layer, keras.layers.Dropout)

    def draws(self, given: Array) -> int:
        """How many entries, at least, one call decides on by itself."""
        if not given.any():
            return 0
        if isinstance(self.layer, _CHANNELS):
            return int(given.shape[0] * given.shape[-1])
        if self.plain and getattr(self.layer, "noise_shape", None) is None:
            return int((given != 0).sum())
        many = not self.plain and type(self.layer).__module__.startswith("keras.") and self.kind != "augmentation"
        return given.size if many else 1


def places_of(model: Any, off: list[str]) -> list[Place]:
    owners = {id(child): layer for layer in (model, *layers.layers_of(model)) for child in _children(layer)}
    found = []
    for layer in layers.layers_of(model):
        kind, rate = _kind_and_rate(layer)
        if kind is not None and rate == 0:
            off.append(f"{type(layer).__name__} {layer.name}")
        elif kind is not None:
            found.append(Place(layer, owners.get(id(layer), model), kind, rate))
    for place in found:
        place.frozen = _in_frozen_part(place, owners, model)
    return found


def _children(layer: Any) -> list[Any]:
    return list(getattr(layer, "_layers", ()))


def _in_frozen_part(place: Place, owners: dict[int, Any], model: Any) -> bool:
    """Some layer around it, but not the model itself, has weights of which none is trained."""
    owner = place.owner
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


class Watch:
    """Sends the calls of all layers by, and measures those of the places."""

    def __init__(self, model: Any, places: list[Place]) -> None:
        self._everything = layers.layers_of(model)
        self.model, self.places = model, {id(each.layer): each for each in places}
        self.called = {id(model)}
        self._busy = False
        #: nested models that are being called with training=False
        self._resting = 0

    @contextlib.contextmanager
    def watching(self, number: int) -> Iterator[None]:
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
            place = self.places.get(id(layer))
            if place is not None:
                self._busy = True
                try:
                    effect = _effect(place, (args, kwargs), output, lambda: own(*args, **kwargs), number)
                finally:
                    self._busy = False
                place.passes.setdefault(number, []).append((effect, not kwargs.get("training")))
                place.frozen = place.frozen or bool(self._resting)
            return output

        with layers.called_through(self._everything, wrapper):
            yield


def _effect(place: Place, inputs: Any, output: Any, again: Callable[[], Any], number: int) -> float | None:
    """How much the layer changes its input; 0.0 where it surely leaves it as it is, None where nobody can tell."""
    try:
        given = next(each for each in arrays(inputs) if each.dtype.kind == "f")
        first = arrays(output)
        if place.plain and _lost(given, first[0]):
            return _lost(given, first[0])
        draws = place.draws(given)
        rate = place.rate if place.rate is not None and place.kind == "dropout" else _ASSUMED
        calls = 1 if not draws or rate >= 1 else math.ceil(math.log(_CHANCE) / (draws * math.log1p(-rate)))
        if number == EVALUATION and type(place.layer).__module__.startswith("keras."):
            calls = 1  # Keras' own layers do not draw at all where they evaluate
        for _ in range(min(calls, _MOST)):
            found = difference(first, arrays(again()))
            if found:
                return found
        return 0.0 if draws and calls <= _MOST else None
    except Exception:  # inside a function that is being traced there are no numbers
        return None


def arrays(structure: Any) -> list[Array]:
    return [numbers(each) for each in keras.tree.flatten(structure) if keras.ops.is_tensor(each)]


def _lost(given: Array, output: Array) -> float:
    """The share of entries that were dropped; of those that were changed at all where none was."""
    alive = given != 0
    if given.shape != output.shape or not alive.any():
        return 0.0
    return float((alive & (output == 0)).sum() / alive.sum()) or float((given != output).mean())


def difference(first: list[Array], second: list[Array]) -> float:
    """Relative difference of two answers, above rounding."""
    if [each.shape for each in first] != [each.shape for each in second]:
        return 1.0
    pairs = [(a.astype(float), b.astype(float)) for a, b in zip(first, second, strict=True) if a.dtype.kind == "f"]
    change = math.hypot(*(float(np.linalg.norm(a - b)) for a, b in pairs))
    size = math.hypot(*(float(np.linalg.norm(each)) for pair in pairs for each in pair))
    return change / size if change > 1e-6 * size else 0.0
