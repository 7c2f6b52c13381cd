"""Layers of the user's that answer one input differently each time, whatever they are called: noise and masks by hand.

Keras' and TensorFlow's functions draw from generators that leave no common trace, so each layer of a class that is not
Keras' own is asked again, in a pass of its own for each mode. What is random where the model evaluates is held against
it only if it hands on a noisy copy of its input or is named after dropping: samples and masks are drawn by design.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from pytest_overfit.adapters.keras import layers
from pytest_overfit.adapters.keras.learner import KerasLearner
from pytest_overfit.adapters.keras.regularizers.dropout import ROUNDING, LayerPlace, arrays, named_rate, owners_of
from pytest_overfit.adapters.keras.state import held
from pytest_overfit.adapters.regularizer_effects import places as effects
from pytest_overfit.adapters.regularizer_effects.drawing import ANSWERS, as_meant, is_copy
from pytest_overfit.adapters.regularizer_effects.places import EVALUATION, PlaceCall
from pytest_overfit.core.usercode import is_users_class


class LayerDraws:
    """What the layers of a model draw in its training and in its evaluation."""

    def __init__(self, learner: KerasLearner, known: list[LayerPlace]) -> None:
        """`known`: places that are looked at anyway."""
        self._learner, self._model = learner, learner.model
        looked_at = {id(place.layer) for place in known}
        owners = owners_of(self._model)
        self._asked = {
            id(layer): _place(layer, owners.get(id(layer), self._model))
            for layer in layers.layers_of(self._model)
            if not type(layer).__module__.startswith("keras.") and looked_at.isdisjoint(_with_inside(layer))
        }
        self._copies: dict[LayerPlace, bool] = {}
        self._busy = False
        self.places: list[LayerPlace] = []
        self.remarks: list[str] = []

    def look(self) -> None:
        """A pass in each mode; a layer around one that draws is not counted again."""
        if self._learner.reader.structure is None or not self._asked:
            return
        for number in (0, EVALUATION):
            with held(self._model, weights=True, other_noise=number + 2), self._asking(number):
                self._learner.reader.forward(training=number != EVALUATION)
        drawing = {key for key, place in self._asked.items() if place.training or place.evaluation}
        innermost = [each for key, each in self._asked.items() if key in drawing and not drawing & _inside(each.layer)]
        self.places = [each for each in innermost if each.evaluation is None or not each.evaluation or each.rate]
        random = [each for each in innermost if each not in self.places]
        meant = random if random and self._by_design() else [each for each in random if not self._copies.get(each)]
        self.places += [each for each in random if each not in meant]
        self.remarks += as_meant([each.name for each in meant])
        self.places += [each for each in self._asked.values() if self._is_still(each, drawing)]

    def _by_design(self) -> bool:
        return self._learner.samples or self._learner.drawn() == "inputs"

    def _is_still(self, place: LayerPlace, drawing: set[int]) -> bool:
        """Named after dropping, with a rate: but nothing in it is random."""
        return bool(place.rate) and place.training == 0.0 and drawing.isdisjoint(_with_inside(place.layer))

    @contextlib.contextmanager
    def _asking(self, number: int) -> Iterator[None]:
        def wrapper(layer: Any, own: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
            output = own(*args, **kwargs)
            if not self._busy:
                self._busy = True
                call = PlaceCall(None, off=False)
                with contextlib.suppress(Exception):  # what cannot be asked again is not judged
                    self._ask(
                        self._asked[id(layer)], number, call, lambda: own(*args, **kwargs), output, (args, kwargs)
                    )
                self._asked[id(layer)].passes.setdefault(number, []).append(call)
                self._busy = False
            return output

        with layers.called_through([each.layer for each in self._asked.values()], wrapper):
            yield

    def _ask(
        self, place: LayerPlace, number: int, call: PlaceCall, again: Callable[[], Any], output: Any, given: Any
    ) -> None:
        answers = [arrays(output), arrays(again())]
        call.effect = effects.difference(answers[0], answers[1], ROUNDING)
        if number == EVALUATION and call.effect:
            answers += [arrays(again()) for _ in range(ANSWERS - 2)]
            first = next((each for each in arrays(given) if each.dtype.kind == "f"), None)
            self._copies[place] = is_copy(first, answers) and self._copies.get(place, True)


def _place(layer: Any, owner: Any) -> LayerPlace:
    kind, rate = named_rate(layer)
    return LayerPlace(
        name=f"{type(layer).__name__} {layer.name}",
        kind=kind or "noise",
        rate=rate,
        owner=id(owner),
        of_library=not is_users_class(type(owner)),
        layer=layer,
    )


def _inside(layer: Any) -> set[int]:
    return {id(each) for each in layers.layers_of(layer)}


def _with_inside(layer: Any) -> set[int]:
    return {id(layer), *_inside(layer)}
