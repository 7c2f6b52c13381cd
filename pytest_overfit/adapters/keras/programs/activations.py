"""Functions between layers taken off, put in, or others in their place.

The layers' own code runs as before; what it calls is another function, whether it is a layer's argument or is called by
name in a `call` of the user's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from pytest_overfit.adapters.keras.layers import substitute
from pytest_overfit.adapters.keras.programs.functions import Hooked
from pytest_overfit.adapters.keras.programs.original import Alteration, check_calls_itself, everything
from pytest_overfit.adapters.keras.programs.structure import (
    HOOKED,
    LOGITS,
    Frames,
    Spot,
    Structure,
    hookable,
)
from pytest_overfit.adapters.keras.programs.weights import drawn_for
from pytest_overfit.adapters.programs import Change, UnchangeableError

#: gets what a function was given, returns what it is to give
Instead = Callable[[Any], Any]


def function(value: str, axis: int = -1) -> Instead:
    """A function by its name. Raises `UnchangeableError` for one that Keras does not have."""
    if value in ("softmax", "log_softmax"):
        known = getattr(keras.activations, value)
        return lambda given: known(given, axis=axis)
    found: Instead | None = getattr(keras.activations, value, None)
    if not callable(found):
        raise UnchangeableError(f"Keras has no activation {value!r}")
    return found


def one_changed(structure: Structure, change: Change) -> Alteration:
    """The function of number `at` is taken off, or another is in its place."""
    if change.at is None or not 0 <= change.at < len(structure.functions):
        raise UnchangeableError(f"it has {len(structure.functions)} activations, none of number {change.at}")
    call = structure.functions[change.at]
    instead = function(change.value, int(change.factor)) if change.value else keras.ops.copy
    return Alteration(model=lambda model: with_others(model, {call.spot: instead}))


def all_changed(structure: Structure, change: Change) -> Alteration:
    """All functions but the last are `value`; weights are drawn for it."""
    hidden = [each for each in structure.functions if not each.last]
    if not hidden:
        raise UnchangeableError("it has no activation between its layers")
    instead: dict[Spot, Instead] = dict.fromkeys((each.spot for each in hidden), function(change.value))

    def altered(model: Any) -> Any:
        drawn_for(model, change.value)
        return with_others(model, instead)

    return Alteration(model=altered)


def put_between(structure: Structure, change: Change) -> Alteration:
    """`value` comes behind each linear layer that another one follows directly."""
    if not structure.direct:
        raise UnchangeableError("no two layers with weights follow each other directly")
    given, behind = function(change.value), sorted({first for first, _ in structure.direct})

    def altered(model: Any) -> Any:
        for place in behind:
            followed_by(everything(model)[place], given)
        return model

    return Alteration(model=altered)


def put_on_top(change: Change) -> Alteration:
    """`value` is the last thing that the model does, for each of its outputs; `at` is the axis of a softmax."""
    given = function(change.value, -1 if change.at is None else change.at)

    def altered(model: Any) -> Any:
        check_calls_itself(model)
        followed_by(model, lambda outputs: keras.tree.map_structure(given, outputs))
        return model

    return Alteration(model=altered)


def followed_by(layer: Any, then: Callable[[Any], Any]) -> None:
    """From now on a layer gives what `then` makes of its outputs."""
    own = layer.call

    def call(*args: Any, **kwargs: Any) -> Any:
        return then(own(*args, **kwargs))

    substitute(layer, "call", call)


def with_others(model: Any, instead: Mapping[Spot, Instead]) -> Any:
    """Call other functions at these spots, from now on."""
    replacing = _Replacing(model, instead)
    for layer in hookable(model):
        substitute(layer, "call", replacing.through(layer, layer.call))
    return model


class _Replacing:
    def __init__(self, model: Any, instead: Mapping[Spot, Instead]) -> None:
        self._frames, self._instead = Frames(model), instead
        self._hooked = Hooked(HOOKED, self._called)
        #: tensors that were given instead, and what Keras is to know of them
        self._given: list[tuple[Any, Any]] = []

    def through(self, layer: Any, own: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with self._frames.entered(layer, self._hooked):
                outputs = own(*args, **kwargs)
            self._tell_keras()
            return outputs

        return call

    def _called(self, name: str, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        del name
        spot = self._frames.spot()
        instead = None if spot is None else self._instead.get(spot)
        if instead is None:
            return own(*args, **kwargs)
        given = args[0] if args else next(iter(kwargs.values()))
        outputs = instead(given)
        self._given.append((outputs, getattr(given if instead is keras.ops.copy else outputs, LOGITS, None)))
        return outputs

    def _tell_keras(self) -> None:
        """Functions around the one replaced say of what they give that it is a softmax of what they were given."""
        for tensor, logits in self._given:
            if logits is not None:
                setattr(tensor, LOGITS, logits)
            elif hasattr(tensor, LOGITS):
                delattr(tensor, LOGITS)
        self._given.clear()
