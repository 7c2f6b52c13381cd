"""Programs whose parts are connected wrongly, each with its healthy twin, and healthy ones that look suspicious.

A program is a function of whether it is broken that returns the fields of a case; its docstring says what is wrong.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from pytest_overfit import Case, OverfitError, run_probes
from tests.programs.sampled import Sampled

Fields = dict[str, Any]
Make = Callable[[bool], Fields]


@dataclasses.dataclass(frozen=True)
class Wired:
    """One program."""

    make: Make
    #: names of the fault vocabulary that are right for it, its own first; empty: it is always healthy
    names: tuple[str, ...] = ()
    #: why the probe does not see the fault yet, or does not name it
    missed: str = ""
    #: why the probe takes the healthy one for faulty
    alarm: str = ""

    @property
    def faulty(self) -> bool:
        return bool(self.names)


class Corpus(Sampled[Wired]):
    """Programs by their functions' names."""

    def twins(self, *names: str, missed: str = "", alarm: str = "") -> Callable[[Make], Make]:
        return self._adding(lambda make: Wired(make, names, missed, alarm))

    def healthy(self, alarm: str = "") -> Callable[[Callable[[], Fields]], Callable[[], Fields]]:
        def add(make: Callable[[], Fields]) -> Callable[[], Fields]:
            self.add(make.__name__, Wired(lambda broken: make(), alarm=alarm))
            return make

        return add

    def _adding(self, wired: Callable[[Make], Wired]) -> Callable[[Make], Make]:
        def add(make: Make) -> Make:
            self.add(make.__name__, wired(make))
            return make

        return add


@dataclasses.dataclass(frozen=True)
class Said:
    """What the probe says of one program."""

    outcome: str
    warnings: tuple[str, ...]
    names: tuple[str, ...]
    first: str

    @property
    def clean(self) -> bool:
        return self.outcome == "passed" and not self.warnings and not self.names


def said(fields: Fields) -> Said:
    try:
        verdict = run_probes(Case(name="case", **fields), ["wiring"])[0]
    except OverfitError as error:
        named = tuple(each.fault for each in getattr(error, "diagnoses", ()))
        return Said("failed" if named else type(error).__name__, (), named, str(error))
    warnings = tuple(each.name for each in verdict.findings if each.outcome == "warning")
    return Said(verdict.outcome, warnings, tuple(each.fault for each in verdict.diagnoses), verdict.summary)


def check_broken(wired: Wired) -> None:
    """Refused or warned, under one of its names."""
    found = said(wired.make(True))
    assert found.outcome == "failed" or found.warnings, found
    assert set(found.names) & set(wired.names), found


def check_healthy(wired: Wired) -> None:
    found = said(wired.make(False))
    assert found.clean, found
