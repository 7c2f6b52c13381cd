"""Measured facts that go with a verdict on one batch: the references, and at most three hints about the cause."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_overfit.core.figures import legible
from pytest_overfit.core.verdict import Finding
from pytest_overfit.measures.reference_losses.reference import BEATEN, NOT_FOUND, PROPORTIONAL, SCORE_ALONE

_MOST_FACTS = 3

#: training that moves the weights by less than this share of their size cannot have changed what the model says
_HARDLY = 1e-4
_MOST_NAMES = 3

#: rows that differ by less than this share of the outputs' size are alike for every purpose
ALIKE = 1e-2


def references(measured: Mapping[str, Any]) -> list[Finding]:
    """The losses the fit was judged between, and how the loss was read."""
    reference = measured["reference"]
    unknown = _why_unknown(measured)
    constant = unknown if reference["constant"] is None else "an output that ignores the input: loss ratio 1"
    least = "outputs that memorise: loss ratio 0"
    if reference["best"] is None:
        least = unknown or "no lower bound: predictions and a margin below constant_loss decide"
    found = {"constant": constant, "best": least}
    losses = [
        Finding(name=f"{name}_loss", value=reference[name], source=reference["how"], message=message)
        for name, message in found.items()
    ]
    return [*losses, *map(Finding.note, measured["remarks"])]


def _why_unknown(measured: Mapping[str, Any]) -> str:
    """Why a reference loss is missing; empty where the loss was seen to fall without limit."""
    how, losses = measured["reference"]["how"], [each["loss"] for each in measured["points"]]
    if how == SCORE_ALONE:
        return "not known: the loss looks at no target"
    if losses and not any(each is not None and each < math.inf for each in losses):
        return "not known: the loss is not a number"
    if how == PROPORTIONAL:
        return "not known: the loss falls without limit"
    if NOT_FOUND in how or BEATEN in how:
        return "not known: the search fell short; predictions and a margin below constant_loss decide"
    return "" if measured["reference"]["constant"] is not None else "not known"


def facts(measured: Mapping[str, Any], ratio: float, trains_only: bool = False) -> list[Finding]:
    """What is known about the cause at no extra cost; nothing for a model that fits.

    `trains_only`: it fits in train mode, so its outputs do depend on the input.
    """
    if measured["stop"] == "fits":
        return []
    hints = [
        _unmoved(measured["parameters"]),
        _hardly_moved(measured),
        None if trains_only or _hardly_moved(measured) else _standing_at_constant(ratio, measured.get("row_spread")),
        _rising(measured["losses"]),
        _without_gradient(measured["parameters"]),
        _no_trainable(measured["parameters"]),
    ]
    found = [hint for hint in hints if hint is not None]
    return [Finding.note(hint, "fact") for hint in found[:_MOST_FACTS]]


def non_finite(measured: Mapping[str, Any], last: float) -> Finding:
    """The step from which on the loss is not a number; `last`: what was read at the end."""
    losses = measured["losses"]
    step = next((number for number, each in enumerate(losses, 1) if not math.isfinite(each)), len(losses))
    value = losses[step - 1] if losses else math.nan
    shown = value if not math.isfinite(value) else last
    return Finding(
        name="first_non_finite_step",
        value=step,
        outcome="failed",
        message=f"the loss is {legible(shown)} from step {step} on",
    )


def nothing_moved(measured: Mapping[str, Any], how: str) -> str:
    """What shows that nothing is trained, if anything does; `how` the reference losses were found.

    A step of the user's may update every so many calls only; at the end of its run it must have.
    """
    parameters, ended = measured["parameters"], measured["stop"] == "steps"
    unmoved = 0 < parameters["tensors"] == len(parameters["unchanged"])
    if measured["stop"] == "no_update" or (ended and unmoved):
        return "no parameter changed"
    same = ended and how == SCORE_ALONE and len(set(measured["losses"])) == 1
    return "the loss did not change" if same else ""


def shapes_hint(shapes: Mapping[str, Any]) -> str:
    """Outputs and targets of one size and two shapes are the usual reason: they broadcast inside the loss."""
    outputs, targets = shapes["outputs"], shapes["targets"]
    if len(outputs) == len(targets) == 1 and outputs != targets and math.prod(outputs[0]) == math.prod(targets[0]):
        return f" (do outputs {tuple(outputs[0])} and targets {tuple(targets[0])} broadcast?)"
    return ""


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _unmoved(parameters: Mapping[str, Any]) -> str | None:
    names = parameters["unchanged"]
    if not names:
        return None
    return f"{len(names)} of {parameters['tensors']} trainable parameters never changed: {_names(names)}"


def _hardly_moved(measured: Mapping[str, Any]) -> str | None:
    moved = measured["parameters"].get("moved")
    if moved is None or not 0 < moved < _HARDLY:
        return None
    return (
        f"the parameters moved by {moved:.1e} of their size in {measured['steps']} steps: is the learning rate right?"
    )


def _without_gradient(parameters: Mapping[str, Any]) -> str | None:
    names = [each for each in parameters["without_gradient"] if each not in parameters["unchanged"]]
    if not names:
        return None
    return f"{len(names)} of {parameters['tensors']} trainable parameters have no gradient at the end: {_names(names)}"


def _no_trainable(parameters: Mapping[str, Any]) -> str | None:
    if parameters["frozen"] and not parameters["trainable"]:
        return f"all {parameters['frozen']} parameters are frozen"
    return None


def _standing_at_constant(ratio: float, spread: float | None) -> str | None:
    if not math.isfinite(ratio) or abs(ratio - 1.0) >= 0.02:
        return None
    stands = "the loss stands at the constant's"
    if spread is None:
        return stands
    if spread < ALIKE:
        return f"{stands}: the outputs do not depend on the input (rows differ by {spread:.1g} of their size at most)"
    return f"{stands}, although outputs differ from row to row (by {spread:.1g} of their size at most)"


def _rising(losses: Sequence[float]) -> str | None:
    if len(losses) < 10 or not all(math.isfinite(each) for each in losses):
        return None
    tenth = max(1, len(losses) // 10)
    first, last = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
    if last > first + 0.05 * max(abs(first), 1e-12):
        return f"the loss rises, from {first:.4g} in the first tenth of the steps to {last:.4g} in the last"
    return None
