"""Limits are resolved once, in one order, and each remembers where it was written."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar, cast, get_origin, get_type_hints

from pytest_overfit.core.errors import CaseError, did_you_mean
from pytest_overfit.core.foreign import brief

L = TypeVar("L")

#: what is larger is no number for anybody: infinity, and whole numbers that no float holds
_LARGEST = 1e300

#: one place where limits can be written: its name and what stands there
Layer = tuple[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Resolved(Generic[L]):
    """Limits of one probe with the source of each."""

    values: L
    sources: Mapping[str, str]

    def source(self, name: str) -> str:
        return self.sources.get(name, "default")


def names_of(limits: type[Any]) -> list[str]:
    """The names a limits class has."""
    return [field.name for field in dataclasses.fields(limits)]


def split_by_probe(
    written: Mapping[str, Any], probes: Mapping[str, type[Any]], where: str
) -> dict[str, dict[str, Any]]:
    """Give each probe its part of what was written for several.

    A key is a limit's name (it goes to every probe that has it), a probe's name with a dict of limits, or
    `probe.limit`. A name that no probe has is an error.
    """
    parts: dict[str, dict[str, Any]] = {name: {} for name in probes}
    for key, value in written.items():
        probe, _, limit = key.rpartition(".")
        is_limit = any(key in names_of(limits) for limits in probes.values())
        if isinstance(value, Mapping) and not is_limit:
            _known(key, probes, f"{where}: unknown probe")
            for name in value:
                _known(name, names_of(probes[key]), f"{where}: unknown limit of {key}")
            parts[key].update(value)
        elif probe:
            _known(probe, probes, f"{where}: unknown probe")
            _known(limit, names_of(probes[probe]), f"{where}: unknown limit of {probe}")
            parts[probe][limit] = value
        else:
            takers = [name for name, limits in probes.items() if key in names_of(limits)]
            if not takers:
                _known(
                    key, {name for limits in probes.values() for name in names_of(limits)}, f"{where}: unknown limit"
                )
            for name in takers:
                parts[name].setdefault(key, value)
    return parts


def _known(name: str, known: Any, what: str) -> None:
    if name not in known:
        raise CaseError(f"{what} {brief(name)}{did_you_mean(name, known)}")


@functools.cache
def _hints(limits: Any) -> dict[str, Any]:
    """Annotations as types; to evaluate them costs more than all the rest of resolving."""
    return get_type_hints(limits)


def resolve(limits: type[L], layers: Sequence[Layer]) -> Resolved[L]:
    """Make the limits of one probe; the first layer that has a name wins."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    hints = _hints(cast("Any", limits))
    for source, written in layers:
        for name, value in written.items():
            _known(name, names_of(limits), f"{source}: unknown limit")
            if name not in values:
                values[name] = _checked(value, hints[name], f"{source}: {name}")
                sources[name] = source
    try:
        return Resolved(limits(**values), sources)
    except CaseError as error:  # of the class's own checks, whose messages begin with the limit's name
        where = sources.get(re.split(r"\W", str(error), maxsplit=1)[0], "limits")
        raise CaseError(f"{where}: {error}") from None


def at_least(least: int, limits: object, *names: str, why: str = "") -> None:
    """Refuse a limit that is less; None (no limit was set) is fine. `why` follows the message."""
    for name in names:
        value = getattr(limits, name)
        if value is not None and value < least:
            raise CaseError(f"{name}: expected {least} or more, got {value}{why}")


def share(
    limits: object, *names: str, below: float = 1.0, zero: bool = False, whole: bool = False, why: str = ""
) -> None:
    """Refuse a limit that is not above 0 and below `below`; `zero` and `whole` allow that end itself."""
    for name in names:
        value = getattr(limits, name)
        if not 0 <= value <= below or (value == 0 and not zero) or (value == below and not whole):
            low, high = "of 0 or more" if zero else "above 0", f"at most {below:g}" if whole else f"below {below:g}"
            raise CaseError(f"{name}: expected a number {low} and {high}, got {value:g}{why}")


def check_limits(written: Mapping[str, Any], probes: Mapping[str, type[Any]], where: str) -> None:
    """Refuse limits that no probe has or that have a wrong value, before anything is trained."""
    for name, part in split_by_probe(written, probes, where).items():
        resolve(probes[name], [(where, part)])


def _checked(value: Any, hint: Any, where: str) -> Any:
    """Check one value against its annotation: bool, int, float, or a number or None; reasons by a pattern of names."""
    if get_origin(hint) is dict:
        if not isinstance(value, Mapping) or not all(isinstance(each, str) for pair in value.items() for each in pair):
            raise CaseError(f"{where}: expected a dict of pattern: reason, got {brief(value)}")
        return value
    if hint is bool:
        if not isinstance(value, bool):
            raise CaseError(f"{where}: expected True or False, got {brief(value)}")
        return value
    options = getattr(hint, "__args__", (hint,))
    if value is None and type(None) in options:
        return None
    wanted = int if int in options else float
    word = "a whole number" if wanted is int else "a number"
    if isinstance(value, bool) or not isinstance(value, (int,) if wanted is int else (int, float)):
        raise CaseError(f"{where}: expected {word}, got {brief(value)}")
    if not -_LARGEST < value < _LARGEST or value < 0:
        raise CaseError(f"{where}: expected {word} of 0 or more, got {brief(value)}")
    return wanted(value)


def parse_ini(lines: Sequence[str]) -> dict[str, Any]:
    """Read the lines of `overfit_limits`, `steps = 300` or `overfit_batch.steps = 300`."""
    written: dict[str, Any] = {}
    for line in lines:
        name, equals, text = (part.strip() for part in line.partition("="))
        if not (name and equals and text):
            raise CaseError(
                f"ini overfit_limits: expected 'limit = number' or 'probe.limit = number', got {brief(line)}"
            )
        if text.lower() in ("true", "false"):
            written[name] = text.lower() == "true"
            continue
        try:
            written[name] = int(text) if text.lstrip("+-").isdigit() else float(text)
        except ValueError:
            raise CaseError(f"ini overfit_limits: {brief(line)}: expected a number, got {brief(text)}") from None
    return written
