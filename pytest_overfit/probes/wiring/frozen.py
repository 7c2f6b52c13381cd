"""What must stay, stays: nothing moves the parameters and running statistics that the case declares as frozen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from pytest_overfit.adapters.wires import OptimizerStep
from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError, did_you_mean
from pytest_overfit.probes.wiring.faults import Fault
from pytest_overfit.probes.wiring.observation import Observation


def look(case: Case, seen: Observation, buffers: Sequence[str]) -> dict[str, list[str]]:
    """What moved of what is declared frozen, by what moved it."""
    moved = [each.name for each in seen.weights if each.name in seen.frozen & seen.changed]
    stepped = frozenset().union(*(each.changed for each in seen.events(OptimizerStep)))
    changed = frozenset().union(*(each.buffers for each in seen.updates))
    return {
        "gradient": [name for name in moved if name in stepped and seen.largest_gradient(name)],
        "decay": [name for name in moved if name in stepped and not seen.largest_gradient(name)],
        "write": [name for name in moved if name not in stepped],
        "statistics": [each for each in buffers if each in changed and any(map(_pattern(each), case.frozen))],
    }


def _pattern(name: str) -> Any:
    return lambda pattern: fnmatchcase(name, pattern)


def declared(case: Case, names: Sequence[str]) -> frozenset[str]:
    """The parameters and buffers that the case's patterns match; one that matches none is an error."""
    found: set[str] = set()
    for pattern in case.frozen:
        matched = {name for name in names if fnmatchcase(name, pattern)}
        if not matched:
            raise CaseError(
                f"Case {case.name!r}: frozen: {pattern!r} matches no parameter{did_you_mean(pattern, names)}"
            )
        found |= matched
    return frozenset(found)


_HOW = {
    "gradient": "an optimizer moves them by their gradient",
    "decay": "an optimizer moves them without a gradient, by weight decay or momentum",
    "write": "something other than an optimizer writes into them",
    "statistics": "their running statistics follow the batches",
}
_CURE = {
    "gradient": "set requires_grad_(False) on them before the optimizer is made, or leave them out of it",
    "decay": "leave them out of the optimizer, or set their gradients to None",
    "write": "look for an in-place write in the forward pass or the step",
    "statistics": "keep these layers in evaluation mode while the rest trains",
}


def faults(measured: Mapping[str, Sequence[str]]) -> Iterator[Fault]:
    for how, names in measured.items():
        if names:
            yield Fault(
                name="not_frozen",
                outcome="failed",
                subjects=tuple(names),
                evidence=f"declared as frozen, and moved: {{subjects}}; {_HOW[how]}",
                cure=_CURE[how],
            )
