"""What changes its input at random, measured at each place: dropout of any kind, noise, augmentation.

While the model makes a pass, each place is asked about the same input again, until a place that works would have shown
it (`effect`). It is watched in training passes and in one evaluation pass. The places that work in training are then
moved one by one, to see whether an output of the model moves too (`unused`). `noises` puts all of this together.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Sequence
from typing import Literal, TypeVar

import numpy as np

from pytest_overfit.adapters.base import Noise
from pytest_overfit.core.arrays import Array

T = TypeVar("T")

Kind = Literal["dropout", "noise", "augmentation"]

#: training passes that are watched: a model that leaves training mode in one shows in the next
PASSES = 2

#: number of the evaluation pass; training passes count from 0
EVALUATION = -1

#: that a place which works left everything as it was, by chance, must be less likely than this
_CHANCE = 1e-6

#: an output that differs from its scaled input by less than this share is the scaled input
_SCALED = 1e-3

#: the probability that a place without a declared one is taken to have
_ASSUMED = 0.1


@dataclasses.dataclass
class PlaceCall:
    """One call of a place."""

    #: measured size of the change; 0.0: surely none, None: undetermined
    effect: float | None
    #: it was in evaluation mode, or something around it was
    off: bool
    #: so was a part whose parameters are all frozen
    frozen: bool = False
    #: it made something else of its input, and the same in training and in evaluation
    fixed: bool = False
    #: why the effect is undetermined
    doubt: str = "its input or its output cannot be compared"


@dataclasses.dataclass(eq=False, kw_only=True)
class DropoutPlace:
    """One place of a model that is to change its input at random, and what was seen of it."""

    name: str
    kind: Kind
    rate: float | None
    #: what tells the module around it from other modules
    owner: Hashable
    #: equal for the same part of several modules of one class; None: nothing else has its part
    role: Hashable = None
    of_library: bool = False
    #: nothing but its name, and the names of its attributes, says that it is one
    by_name: bool = False
    #: it sets entries to zero or leaves them: known classes and functions only
    plain: bool = False
    #: it is in a part whose parameters are all frozen
    frozen: bool = False
    #: the class that it is made from, where that changes an input in training and this one's own call does not
    held_back: str = ""
    #: what its owner should know of it
    why: str = ""
    #: number of the pass -> its calls
    passes: dict[int, list[PlaceCall]] = dataclasses.field(default_factory=dict)

    @property
    def trained(self) -> list[PlaceCall]:
        """Its calls in training passes."""
        return [call for number, calls in self.passes.items() if number != EVALUATION for call in calls]

    @property
    def training(self) -> float | None:
        """The effect in training, in the pass where it was least; a pass that did not come by does not count."""
        found = (_largest(calls) for number, calls in self.passes.items() if number != EVALUATION)
        return min((each for each in found if each is not None), default=None)

    @property
    def fixed(self) -> bool:
        """No call of it was random, depended on the mode, or gave its input back: whatever its name, it drops none."""
        calls = [call for found in self.passes.values() for call in found]
        return self.by_name and bool(calls) and all(call.fixed for call in calls)

    @property
    def evaluation(self) -> float | None:
        """The effect in the evaluation pass, where one was made."""
        return _largest(self.passes[EVALUATION]) if self.passes.get(EVALUATION) else 0.0


def _largest(calls: Sequence[PlaceCall]) -> float | None:
    return max((call.effect for call in calls if call.effect is not None), default=None)


@dataclasses.dataclass
class Visit:
    """A place at work."""

    given: Array
    #: what it made of that; then, as often as it is asked, what it makes of the same input again
    outputs: Iterator[Sequence[Array]]
    #: how many entries, at least, one call decides on by itself; 0: unknown, one call can show a change but none can
    #: exclude it; None: there is nothing that could change
    draws: float | None
    #: two answers are the same if they differ by less than this share
    rounding: float
    #: calls at most; a place that needs more to be sure is not judged
    most: int


def effect(place: DropoutPlace, visit: Visit) -> float | None:
    """How much the place changes its input; 0.0: it surely leaves it as it is, None: undetermined."""
    if visit.draws is None:
        return None
    rate = place.rate if place.rate and place.kind == "dropout" else _ASSUMED
    calls = 1  # until a place that works would have shown it
    if visit.draws and rate < 1:
        calls = max(1, math.ceil(math.log(_CHANCE) / (visit.draws * math.log1p(-rate))))
    first = next(visit.outputs)
    outputs = itertools.chain([first], visit.outputs) if place.plain else visit.outputs
    for output in itertools.islice(outputs, min(calls, visit.most)):
        found = lost(visit.given, output[0]) if place.plain else difference(first, output, visit.rounding)
        if found:
            return found
    return 0.0 if visit.draws and calls <= visit.most else None


def doubt(visit: Visit) -> str:
    """Why the effect of this visit is undetermined, where it is."""
    zeros = visit.draws is None or not visit.given.any()
    return "its input is all zeros" if zeros else f"it drops too rarely for {visit.most:,} calls to show it"


def lost(given: Array, output: Array) -> float:
    """The share of entries that were dropped; of those that were changed at all where none was."""
    alive = given != 0
    if given.shape != output.shape or not alive.any():
        return 0.0
    return float((alive & (output == 0)).sum() / alive.sum()) or float((given != output).mean())


def is_another(given: Array | None, output: Sequence[Array]) -> bool:
    """The output is not the input, scaled perhaps: a dropout that drops nothing may still divide by what it keeps."""
    if given is None or not output or output[0].shape != given.shape or output[0].dtype.kind != "f":
        return True
    one, other = given.astype(float).ravel(), output[0].astype(float).ravel()
    size = float(one @ one)
    scaled = one * (float(one @ other) / size if size else 0.0)
    return float(np.linalg.norm(other - scaled)) > _SCALED * float(np.linalg.norm(other))


def difference(first: Sequence[Array], second: Sequence[Array], rounding: float) -> float:
    """Relative difference of two answers, above rounding."""
    if [each.shape for each in first] != [each.shape for each in second]:
        return 1.0
    pairs = [(a.astype(float), b.astype(float)) for a, b in zip(first, second, strict=True) if a.dtype.kind == "f"]
    change = math.hypot(*(float(np.linalg.norm(a - b)) for a, b in pairs))
    size = math.hypot(*(float(np.linalg.norm(each)) for pair in pairs for each in pair))
    return change / size if change > rounding * size else 0.0


def unused(
    places: Iterable[DropoutPlace], outputs: Callable[[DropoutPlace | None], T], same: Callable[[T, T], bool]
) -> set[DropoutPlace]:
    """The places whose results can change without a change of any output of the model.

    `outputs(place)` makes a training pass from one state of all generators, with 1 added to what this place gives.
    """
    usual = outputs(None)
    if not same(usual, outputs(None)):
        return set()
    return {place for place in places if same(usual, outputs(place))}


def noises(
    places: Sequence[DropoutPlace],
    called: Container[Hashable],
    find_unused: Callable[[list[DropoutPlace]], set[DropoutPlace]],
    off: str,
    evaluated: bool,
) -> Iterator[Noise]:
    """What was seen of each place. `called`: owners that a training pass came by; `off`: what to do about a mode.

    `evaluated`: an evaluation pass was made.
    """
    working = [place for place in places if place.training]
    ignored: set[DropoutPlace] = set()
    with contextlib.suppress(Exception):  # what cannot be found out is not held against anyone
        ignored = find_unused(working)
    for place in places:
        if not place.trained and _is_called_elsewhere(place, places):
            continue  # this block has nothing to drop, as one without a shortcut
        still = [call for call in place.trained if call.effect == 0.0]
        switched_off = any(call.off for call in still)
        yield Noise(
            kind=place.kind,
            name=place.name,
            rate=place.rate,
            training=place.training,
            evaluation=place.evaluation if evaluated else None,
            called=bool(place.trained),
            reached=place.owner in called,
            used=place not in ignored if place in working else None,
            switched_off=switched_off,
            fixed=place.fixed,
            frozen=switched_off and (place.frozen or all(call.frozen for call in still)),
            held_back=place.held_back,
            why=off if switched_off else place.why,
            of_library=place.of_library,
            doubt=next((call.doubt for call in place.trained if call.effect is None), ""),
        )


def _is_called_elsewhere(place: DropoutPlace, places: Sequence[DropoutPlace]) -> bool:
    """Another module of the class around this one does call its place of this role."""
    same = (each for each in places if each.role == place.role and each.owner != place.owner)
    return place.role is not None and any(each.trained for each in same)
