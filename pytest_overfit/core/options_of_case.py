"""Are the options of a case those that its probes take?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError, did_you_mean
from pytest_overfit.core.foreign import brief, describe
from pytest_overfit.core.limits import names_of


class TakesOptions(Protocol):
    """What is asked of a probe."""

    limits: type[Any]
    #: the options that it takes; None: of any name, it checks them itself
    options: tuple[str, ...] | None
    #: those that are facts of the batch: whatever probe they are written for, all honour them
    batch_options: tuple[str, ...]


def check_options(case: Case, probes: Mapping[str, TakesOptions]) -> None:
    """Refuse options of no probe, what is no dict, and names that its probe does not take."""
    of_any = {name for each in probes.values() for name in each.batch_options}
    for probe, given in case.options.items():
        if probe not in probes:
            raise CaseError(f"Case {case.name!r}: options: unknown probe {brief(probe)}{did_you_mean(probe, probes)}")
        where = f"Case {case.name!r}: options[{probe!r}]"
        if not isinstance(given, Mapping):
            raise CaseError(f"{where} is {describe(given)}; expected a dict, e.g. {{{probe!r}: {{'option': ...}}}}")
        known = probes[probe].options
        if known is not None:
            _check_names(given, {*known, *of_any}, names_of(probes[probe].limits), where)


def _check_names(given: Iterable[Any], known: set[str], limits: list[str], where: str) -> None:
    for name in given:
        if name in limits:
            raise CaseError(f"{where}: {name!r} is a limit; write limits={{{name!r}: ...}}")
        if name not in known:
            raise CaseError(f"{where}: unknown option {brief(name)}{did_you_mean(name, known)}")


def yes_or_no(case: Case, probe: str, option: str, default: bool = False) -> bool:
    """The value of an option that is on or off."""
    value = case.options.get(probe, {}).get(option, default)
    if not isinstance(value, bool):
        raise CaseError(
            f"Case {case.name!r}: options[{probe!r}][{option!r}]: expected True or False, got {brief(value)}"
        )
    return value
