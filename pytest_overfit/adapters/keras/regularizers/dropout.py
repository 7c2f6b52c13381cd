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
from pytest_overfit.adapters.keras.regularizers.twin import is_augmentation
from pytest_overfit.adapters.regularizer_effects.names import dropout_rates, noise_sizes
from pytest_overfit.adapters.regularizer_effects.places import (
    EVALUATION,
    DropoutPlace,
    Kind,
    PlaceCall,
    Visit,
    difference,
    doubt,
    effect,
    is_another,
)
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.usercode import is_users_class

#: calls of one layer on one input at most: each is an uncompiled call of Keras'
_MOST = 512

#: two answers are the same if they differ by less than this share
ROUNDING = 1e-6

_ON = "its call got training=True; leave that out, or pass on what the call around it got"

_DROPS = re.compile("drop|stochastic_?depth", re.IGNORECASE)
_NOISY = re.compile("noise|jitter", re.IGNORECASE)
_AUGMENTS = re.compile("^Random|^Rand[A-Z]|Augment|AugMix|Erasing|MixUp|CutMix|Jitter")

#: a rate that drops one entry in ten million at most; at 0, Keras' LSTM and GRU would be computed in another way
_NEXT_TO_NOTHING = 1e-12

#: layers with weights that have a rate of their own
_DROPPING = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention, keras.layers.Attention)

#: layers that drop or add noise, whatever a subclass of them is called
_KNOWN = (
    keras.layers.Dropout,
    keras.layers.AlphaDropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.RNN,
    *_DROPPING,
)

_CHANNELS = (keras.layers.SpatialDropout1D, keras.layers.SpatialDropout2D, keras.layers.SpatialDropout3D)


@dataclasses.dataclass(eq=False, kw_only=True)
class LayerPlace(DropoutPlace):
    """A layer that is to change its input at random."""

    layer: Any
    #: the other rates of the same layer, which are next to nothing while this one is asked
    others: tuple[tuple[Any, str], ...] = ()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nothing else of the layer drops inside: one of two masks may be dead behind the other."""
        rates = [(cell, name, getattr(cell, name)) for cell, name in self.others]
        try:
            for cell, name, _ in rates:
                setattr(cell, name, _NEXT_TO_NOTHING)
            yield
        finally:
            for cell, name, rate in rates:
                setattr(cell, name, rate)

    def draws(self, given: Array, evaluating: bool) -> float:
        """How many entries, at least, one call decides on by itself; 0: unknown."""
        own = all(type(each).__module__.startswith("keras.") for each in (self.layer, *_cells(self.layer)))
        if not given.any():
            return 0
        if evaluating and own:
            return math.inf  # Keras' own layers do not draw at all where they evaluate: one call shows it
        if isinstance(self.layer, _CHANNELS):
            return int(given.shape[0] * given.shape[-1])
        if self.plain and getattr(self.layer, "noise_shape", None) is None:
            return int((given != 0).sum())
        if isinstance(self.layer, keras.layers.RNN):
            return int(given.size if own else given.shape[0])  # a mask has at least an entry a row
        return given.size if own and not self.plain and self.kind != "augmentation" else 1


def places_of(model: Any, off: list[str]) -> list[LayerPlace]:
    """Every place of the model; names of layers whose probability is 0 are added to `off`."""
    owners = owners_of(model)
    found = []
    for layer in layers.layers_of(model):
        name = f"{type(layer).__name__} {layer.name}"
        for more, kind, rate, others in _kinds_and_rates(layer):
            if rate == 0:
                off.append(name)
                continue
            owner = owners.get(id(layer), model)
            of_library = not is_users_class(type(owner))
            place = LayerPlace(
                name=f"{name}{more}",
                kind=kind,
                rate=rate,
                owner=id(owner),
                role=None if of_library else (type(layer), type(owner), more),
                of_library=of_library,
                by_name=not isinstance(layer, _KNOWN) and not type(layer).__module__.startswith("keras."),
                plain=isinstance(layer, keras.layers.Dropout),
                frozen=_in_frozen_part(owner, owners, model),
                layer=layer,
                others=others,
            )
            found.append(place)
    return found


def owners_of(model: Any) -> dict[int, Any]:
    """The id of a layer -> the layer or model around it."""
    around = (model, *layers.layers_of(model))
    return {id(child): layer for layer in around for child in getattr(layer, "_layers", ())}


#: what tells it from other places of its layer, what it is, its rate, and the rates of these others
_Found = tuple[str, Kind, "float | None", tuple[tuple[Any, str], ...]]


def _kinds_and_rates(layer: Any) -> Iterator[_Found]:
    if isinstance(layer, keras.layers.RNN):
        yield from _masks(layer)
        return
    kind, rate = _kind_and_rate(layer)
    if kind is not None:
        yield "", kind, rate, ()


def _masks(layer: Any) -> Iterator[_Found]:
    """A place for each rate of a recurrent layer's cells: their masks for inputs and for states are drawn apart."""
    held = [(cell, name, rate) for cell in _cells(layer) for name, rate in dropout_rates(cell, ("rate", "p"))]
    several = len({id(cell) for cell, _, _ in held}) > 1
    for cell, name, rate in held:
        others = tuple((one, each) for one, each, _ in held if (id(one), each) != (id(cell), name))
        where = f"{name} of {cell.name}" if several else name
        yield f" ({where})" if others else "", "dropout", rate, others


def _cells(layer: Any) -> list[Any]:
    """The cells of a recurrent layer, at any depth; none of another layer."""
    cell = getattr(layer, "cell", None) if isinstance(layer, keras.layers.RNN) else None
    return [] if cell is None else [cell, *layers.layers_of(cell)]


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
    rate = getattr(layer, "dropout", None)
    if isinstance(layer, _DROPPING) and isinstance(rate, float) and rate:
        return "dropout", rate
    if is_augmentation(layer):
        return "augmentation", None
    if layer.weights and any("seed" not in each.name for each in layer.weights):
        return None, None
    named, rate = named_rate(layer)
    if named is not None:
        return named, rate
    if _NOISY.search(name):
        return "noise", next((size for _, size in noise_sizes(layer)), None)
    return ("augmentation", None) if _AUGMENTS.search(name) else (None, None)


def named_rate(layer: Any) -> tuple[Kind | None, float | None]:
    """Of a layer that is named after dropping."""
    if not _DROPS.search(type(layer).__name__):
        return None, None
    names = ("rate", "p", "prob", "probability", "drop_prob", "drop_rate", "dropout_rate")
    given = (getattr(layer, each, None) for each in names)
    return "dropout", next((float(each) for each in given if isinstance(each, (int, float))), None)


# ------------------------------------------------------------------ watching


class LayerWatch:
    """Notes the calls of all layers, and measures those of the places."""

    def __init__(self, model: Any, places: list[LayerPlace]) -> None:
        self._everything = layers.layers_of(model)
        self._model = model
        self.places: dict[int, list[LayerPlace]] = {}
        for place in places:
            self.places.setdefault(id(place.layer), []).append(place)
        #: ids of the layers that a training pass called
        self.called: set[Hashable] = {id(model)}
        self._busy = False
        #: nested models that are being called with training=False
        self._resting = 0
        #: the modes in which training steps called the model itself, and that of the call that goes on
        self._told: set[bool | None] = set()
        self._mode: bool | None = None

    @contextlib.contextmanager
    def watching(self, number: int) -> Iterator[None]:
        """Watch the pass of this number, which is made inside."""

        def wrapper(layer: Any, own: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
            if layer is self._model:
                self._mode = _mode(layer, kwargs)
                self._told |= {self._mode} if number != EVALUATION else set()
                return own(*args, **kwargs)
            rests = number != EVALUATION and self._rests(layer, kwargs)
            self._resting += rests
            try:
                output = own(*args, **kwargs)
            finally:
                self._resting -= rests
            if self._busy:
                return output
            if number != EVALUATION:
                self.called.add(id(layer))
            for place in self.places.get(id(layer), ()):
                self._note(place, number, own, args, kwargs, output)
            return output

        with layers.called_through([self._model, *self._everything], wrapper):
            yield

    @property
    def evaluated(self) -> bool:
        """Whenever a training step called the model itself, it was with training=False."""
        return self._told == {False}

    def _rests(self, layer: Any, kwargs: dict[str, Any]) -> bool:
        """A model inside that is kept in evaluation mode while the rest trains, as a backbone is."""
        if not isinstance(layer, keras.Model) or _mode(layer, kwargs) is not False or self._mode is False:
            return False
        inside = {id(each) for each in layer.trainable_variables}
        return any(id(each) not in inside for each in self._model.trainable_variables)

    def _note(
        self, place: LayerPlace, number: int, own: Callable[..., Any], args: Any, kwargs: dict[str, Any], output: Any
    ) -> None:
        call = PlaceCall(None, off=not kwargs.get("training"))
        self._busy = True
        # inside a function that is being traced there are no numbers, and the effect is undetermined
        with contextlib.suppress(Exception), place.alone():
            given = next(each for each in arrays((args, kwargs)) if each.dtype.kind == "f")
            again = (arrays(own(*args, **kwargs)) for _ in itertools.count())
            outputs = again if place.others else itertools.chain([arrays(output)], again)
            visit = Visit(given, outputs, place.draws(given, evaluating=number == EVALUATION), ROUNDING, _MOST)
            call.effect = effect(place, visit)
            call.doubt = doubt(visit)
            if call.effect == 0.0 and number != EVALUATION and not call.off:
                place.held_back = _held_back(place, given, args, kwargs)
            call.fixed = call.effect == 0.0 and _is_fixed(given, arrays(output), own, args, kwargs)
        self._busy = False
        place.passes.setdefault(number, []).append(call)
        place.frozen = place.frozen or bool(self._resting)
        if number == EVALUATION and not call.off:
            place.why = _ON


def _held_back(place: LayerPlace, given: Array, args: Any, kwargs: dict[str, Any]) -> str:
    """The class of Keras' that an augmentation is made from, where its own call in training changes this input."""
    base: Any = next((each for each in type(place.layer).__mro__ if each.__module__.startswith("keras.")), None)
    if place.kind != "augmentation" or base in (None, type(place.layer), keras.layers.Layer):
        return ""
    outputs = (arrays(base.call(place.layer, *args, **{**kwargs, "training": True})) for _ in itertools.count())
    return base.__name__ if effect(place, Visit(given, outputs, 1, ROUNDING, _MOST)) else ""


def _is_fixed(given: Array, output: list[Array], own: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> bool:
    """It makes something else of its input, and the same in the other mode."""
    if not is_another(given, output):
        return False
    other = {**kwargs, "training": not kwargs["training"]} if "training" in kwargs else kwargs
    return not difference(output, arrays(own(*args, **other)), ROUNDING)


def _mode(layer: Any, kwargs: dict[str, Any]) -> bool | None:
    """Whether a call is one in training; a layer without the argument goes by that of the call around it."""
    if "training" in kwargs:
        return None if kwargs["training"] is None else bool(kwargs["training"])
    with contextlib.suppress(Exception):  # there is no public way to it
        return layer._get_call_context().get_value("training")  # type: ignore[no-any-return]
    return None


def arrays(structure: Any) -> list[Array]:
    """Every tensor in a structure, as an array."""
    return [numbers(each) for each in keras.tree.flatten(structure) if keras.ops.is_tensor(each)]
