"""Programs whose parts are connected wrongly, each with its healthy twin, and healthy ones that look suspicious.

A program is a function of whether it is broken that returns the fields of a case; its docstring says what is wrong.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from pytest_overfit import Case, OverfitError, run_probes

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


class Corpus(dict[str, Wired]):
    """Programs by their functions' names."""

    @classmethod
    def of(cls, parts: Iterable[Corpus]) -> Corpus:
        together = cls()
        for part in parts:
            assert not together.keys() & part.keys(), together.keys() & part.keys()
            together.update(part)
        return together

    def twins(self, *names: str, missed: str = "", alarm: str = "") -> Callable[[Make], Make]:
        return self._adding(lambda make: Wired(make, names, missed, alarm))

    def healthy(self, alarm: str = "") -> Callable[[Callable[[], Fields]], Callable[[], Fields]]:
        def add(make: Callable[[], Fields]) -> Callable[[], Fields]:
            self[make.__name__] = Wired(lambda broken: make(), alarm=alarm)
            return make

        return add

    def _adding(self, wired: Callable[[Make], Wired]) -> Callable[[Make], Make]:
        def add(make: Make) -> Make:
            assert make.__name__ not in self, make.__name__
            self[make.__name__] = wired(make)
            return make

        return add

    def broken_ones(self, one_in: int = 1) -> list[Any]:
        """All with a fault; those that are not one in so many are slow tests."""
        return [_param(name, each.missed, one_in) for name, each in self.items() if each.names]

    def healthy_ones(self, one_in: int = 1) -> list[Any]:
        return [_param(name, each.alarm, one_in) for name, each in self.items()]


def _param(name: str, reason: str, one_in: int) -> Any:
    """The sample is drawn by the name, so that it stays the same when others come."""
    marks = [pytest.mark.xfail(strict=True, reason=reason)] if reason else []
    return pytest.param(name, marks=marks if zlib.crc32(name.encode()) % one_in == 0 else [*marks, pytest.mark.slow])


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
