"""Layers through which nothing is learnt: too deep for their function, without one, too narrow, over the rows."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_overfit.adapters.programs import Change
from pytest_overfit.diagnosis.hypotheses import BROKEN, COMMON, SUSPECT, Hypothesis
from pytest_overfit.diagnosis.levels import level
from pytest_overfit.diagnosis.symptoms import Symptoms

#: gradients of the first layer this much smaller than the last one's have vanished
_VANISHED = 1e-2

#: hidden layers with fewer units hold back what they could pass on
_NARROW = 8

#: no healthy net passes everything through so few
_HARDLY_ANY = 2

#: how many times wider is tried first, and a width after which nothing more is
_TIMES, _ENOUGH = 4, 16

#: small weights make a gradient fade whatever is between them
_STARTED_SMALL = 0.1

#: layers from which on shortcuts are usual
_DEEP = 5

#: units that give 0 for every row
_SHUT = 0.9

#: gradient of a sequence's first step over the largest, below which its beginning teaches nothing
_FADED = 1e-4

_SQUASHING = ("sigmoid", "tanh", "softmax", "log_sigmoid", "softplus")


def suspected(symptoms: Symptoms) -> Iterator[Hypothesis]:
    """By structure and first gradients."""
    yield from _rows(symptoms)
    yield from _activations(symptoms)
    yield from _forgotten(symptoms)
    yield from _linear(symptoms)
    yield from _narrow(symptoms)


def _rows(symptoms: Symptoms) -> Iterator[Hypothesis]:
    if symptoms.measured.get("rows_stand_alone") is False:
        yield Hypothesis(
            fault="batch_mixing",
            family="rows",
            what="rows are mixed inside the model: permuting the inputs does not permute the outputs",
            change=Change(kind="rows_first"),
            changed="with batch_first=True",
            cure="write batch_first=True in the recurrent or attention layers, or transpose before them",
            rank=BROKEN,
            broken=True,
        )


def _fading(symptoms: Symptoms) -> float | None:
    """First gradient of the first matrix over that of the last one."""
    found = [each.gradient for each in symptoms.matrices if each.gradient is not None]
    return found[0] / found[-1] if len(found) > 2 and found[-1] else None


def _activations(symptoms: Symptoms) -> Iterator[Hypothesis]:
    hidden = [each for each in symptoms.hidden_activations if each.function in _SQUASHING]
    if not hidden:
        yield from _shut(symptoms)
        return
    fading = _fading(symptoms)
    started_small = any(each.usual and each.size < _STARTED_SMALL * each.usual for each in symptoms.matrices)
    softmax = any(each.function == "softmax" for each in hidden)
    vanished = fading is not None and fading < _VANISHED and not started_small and not softmax
    name = hidden[0].function
    if vanished:
        observed = f"the first layer's gradient is {fading:.1e} of the last one's"
        what = f"the gradient dies on its way down through {len(hidden)} layers of {name}"
    else:
        observed, what = level(symptoms), f"{name} between the layers holds the signal back"
    saturated = max(each.saturated for each in hidden)
    if saturated > 0.5 and not vanished:
        observed = f"{saturated:.0%} of its values are at the ends of its range"
    yield Hypothesis(
        fault="vanishing_gradient" if vanished else "wrong_hidden_activation",
        family="hidden activation",
        what=what,
        observed=observed,
        change=Change(kind="activations", value="relu"),
        changed="with ReLU in its place",
        cure=f"use ReLU in place of {name} between the layers (or normalise between them)",
        rank=BROKEN + 4 if vanished or softmax else COMMON if started_small else SUSPECT + 3,
    )
    if vanished and len(symptoms.hidden_activations) >= _DEEP:
        yield Hypothesis(
            fault="vanishing_gradient",
            family="hidden activation",
            what=what,
            observed=observed,
            change=Change(kind="shortcuts"),
            changed="with a shortcut around each of them",
            cure="add each layer's input to its output (a residual connection), or normalise between the layers",
            rank=BROKEN + 4,
        )


def _shut(symptoms: Symptoms) -> Iterator[Hypothesis]:
    """A function with a threshold that next to nothing passes."""
    shut = [each for each in symptoms.hidden_activations if each.function == "other" and each.dead > _SHUT]
    if shut:
        yield Hypothesis(
            fault="wrong_hidden_activation",
            family="hidden activation",
            what=f"{shut[0].where} gives 0 for every row in {shut[0].dead:.0%} of its units",
            observed=level(symptoms),
            change=Change(kind="activations", value="relu"),
            changed="with ReLU in its place",
            cure=f"use ReLU in place of {shut[0].where}",
            rank=BROKEN + 3,
        )


def _forgotten(symptoms: Symptoms) -> Iterator[Hypothesis]:
    """Of a long sequence, its beginning."""
    faded = symptoms.anatomy.faded
    if faded is not None and faded < _FADED:
        yield Hypothesis(
            fault="vanishing_gradient",
            family="recurrence",
            what="the gradient dies on its way back through the steps of the sequence",
            observed=f"that of the first step is {faded:.1e} of the largest",
            change=Change(kind="pooled"),
            changed="with the greatest over all steps in place of the last one",
            cure="pool or attend over the steps, use a GRU or LSTM whose gates start open, or shorter sequences",
            rank=SUSPECT - 3,
        )


def _linear(symptoms: Symptoms) -> Iterator[Hypothesis]:
    if symptoms.anatomy.direct:
        first, second = symptoms.anatomy.direct[0]
        yield Hypothesis(
            fault="missing_nonlinearity",
            family="hidden activation",
            what=f"nothing between {first} and {second}: together they are one linear layer",
            observed=level(symptoms),
            change=Change(kind="between", value="relu"),
            changed="with ReLU between them",
            cure=f"put an activation between {first} and {second}",
            rank=SUSPECT + 1 if symptoms.hidden_activations else SUSPECT - 2,
        )


def _narrow(symptoms: Symptoms) -> Iterator[Hypothesis]:
    hidden = [each for each in symptoms.matrices[:-1] if 0 < each.units <= max(_NARROW, symptoms.classes - 1)]
    if not hidden:
        return
    narrowest = min(hidden, key=lambda each: each.units)
    width, name = narrowest.units, narrowest.name
    for factor in [_TIMES, *([_TIMES**2] if width * _TIMES < _ENOUGH else [])]:
        yield Hypothesis(
            fault="insufficient_capacity",
            family="width",
            what=f"hidden layers are too narrow ({name}: {width} unit{'s' if width > 1 else ''})",
            observed=level(symptoms),
            change=Change(kind="wider", factor=factor),
            changed=f"with {factor} times the units",
            cure="give the hidden layers more units",
            rank=BROKEN + 4 if width <= _HARDLY_ANY else SUSPECT,
        )
