"""The list of quantities: what each is called, and which function measures it."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable

from pytest_overfit.core.errors import CaseError, did_you_mean
from pytest_overfit.core.foreign import brief
from pytest_overfit.core.verdict import Better
from pytest_overfit.probes.bounds.subject import Found, Subject

Measure = Callable[[Subject, str], Found]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantity:
    """One entry of the list."""

    name: str
    unit: str
    #: which way is the better one; "": neither
    better: Better
    cost: str
    #: what it is, in one line
    line: str
    #: `name[layer]` is a quantity as well
    layered: bool
    #: measured on the first seed alone: it holds or does not, or is the same for every seed
    once: bool
    #: anchors that a bound on it may be written with
    anchors: tuple[str, ...]
    #: a clock measures it: another machine, or another day, gives another number, so no baseline keeps it
    timed: bool
    measure: Measure


#: every quantity by its name, in the order of the list
QUANTITIES: dict[str, Quantity] = {}

YES_NO = "yes or no"


def quantity(
    unit: str,
    cost: str,
    better: Better = "",
    *,
    once: bool = False,
    layered: bool = False,
    anchors: tuple[str, ...] = (),
    timed: bool = False,
) -> Callable[[Callable[..., Found]], Callable[..., Found]]:
    """Put the function that follows on the list, under its own name; the first line of its docstring explains it."""

    def keep(function: Callable[..., Found]) -> Callable[..., Found]:
        name, line = function.__name__, (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ")
        measure: Measure = function if layered else lambda subject, _layer: function(subject)
        QUANTITIES[name] = Quantity(
            name=name, unit=unit, better=better, cost=cost, line=line, layered=layered, once=once, anchors=anchors,
            timed=timed, measure=measure,
        )  # fmt: skip
        return function

    return keep


def quantity_named(name: str, where: str) -> tuple[Quantity, str]:
    """The quantity and its layer ("": the whole model) of a name such as `gradient_norm[fc1]`, or a `CaseError`."""
    parts = re.fullmatch(r"(\w+)(?:\[(.+)\])?", name)
    if parts is None or parts[1] not in QUANTITIES:
        raise CaseError(f"{where}: nothing measures {brief(name)}{did_you_mean(name, QUANTITIES)}")
    found, layer = QUANTITIES[parts[1]], parts[2] or ""
    if layer and not found.layered:
        raise CaseError(f"{where}: {parts[1]} is not measured by layer; write {parts[1]}")
    return found, layer


def quantity_lines() -> list[str]:
    """The list, one line a quantity."""
    width = max(len(each) for each in QUANTITIES)
    return [f"{each.name:{width}}  [{each.unit}] {each.line} Cost: {each.cost}." for each in QUANTITIES.values()]
