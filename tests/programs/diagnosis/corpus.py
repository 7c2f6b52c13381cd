"""Programs with one fault, each with its healthy twin, and healthy programs that carry no fault's name.

A program is a function of whether it is broken that returns the fields of a case; its docstring says what went wrong.
The healthy twin is the same program with that one fault undone: what it changes is the true cure.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from pytest_overfit import Case, OverfitError, Verdict, run_probes
from tests.programs.sampled import Sampled, drawn

Fields = dict[str, Any]
Make = Callable[[bool], Fields]

DEFAULT = ("wiring", "overfit_batch")
#: for faults that no single batch can show
LATER = (*DEFAULT, "early_accuracy")

#: the verdict that speaks first
_ORDER = ("error", "failed", "inconclusive", "warning", "passed", "not_applicable")


@dataclasses.dataclass(frozen=True)
class Program:
    """One program."""

    make: Make
    #: the fault's name in the vocabulary; empty: always healthy
    fault: str = ""
    #: other names that are true of it as well
    also: tuple[str, ...] = ()
    probes: tuple[str, ...] = DEFAULT
    #: why the probes pass the broken one
    missed: str = ""
    #: why the probes refuse the healthy one
    alarm: str = ""
    #: why the first name that they give the broken one is not its fault's
    misnamed: str = ""

    @property
    def faulty(self) -> bool:
        return bool(self.fault)

    @property
    def accepted(self) -> tuple[str, ...]:
        return (self.fault, *self.also)


class Corpus(Sampled[Program]):
    """Programs by their functions' names."""

    def pair(self, fault: str, *also: str, **more: Any) -> Callable[[Make], Make]:
        def add(make: Make) -> Make:
            self.add(make.__name__, Program(make, fault, also, **more))
            return make

        return add

    def healthy(self, make: Callable[[], Fields]) -> Callable[[], Fields]:
        self.add(make.__name__, Program(lambda broken: make()))
        return make

    def named_ones(self, one_in: int = 1) -> list[Any]:
        """All with a fault, to be asked for its name."""
        return [drawn(name, each.missed or each.misnamed, one_in) for name, each in self.items() if each.fault]

    def unnamed_ones(self, one_in: int = 1) -> list[Any]:
        """All healthy ones, to be asked for names that they must not have."""
        return [drawn(name, "", one_in) for name, each in self.items() if not each.alarm]


@dataclasses.dataclass(frozen=True)
class Said:
    """What the probes say of one program, the gravest verdict first."""

    #: error, failed, inconclusive, warning, passed
    outcome: str
    #: diagnoses by name, in their order
    names: tuple[str, ...]
    #: the first line of the gravest verdict
    first: str

    @property
    def refused(self) -> bool:
        """Also a warning under a fault's name, which does not fail a test, tells of the fault."""
        return self.outcome in _ORDER[:3] or (self.outcome == "warning" and bool(self.names))


@functools.cache  # a program is asked whether it is refused, and by which name
def said(program: Program, broken: bool) -> Said:
    fields = program.make(broken)
    parts = sorted((_one(fields, probe) for probe in program.probes), key=lambda each: _ORDER.index(each.outcome))
    names = dict.fromkeys(name for part in parts for name in part.names)
    return Said(parts[0].outcome, tuple(names), parts[0].first)


def _one(fields: Fields, probe: str) -> Said:
    try:
        verdict = run_probes(Case(name="case", **fields), [probe])[0]
    except OverfitError as error:
        return Said("error", tuple(each.fault for each in error.diagnoses), str(error).splitlines()[0])
    return Said(_outcome(verdict), tuple(each.fault for each in verdict.diagnoses), verdict.summary)


def _outcome(verdict: Verdict) -> str:
    warned = verdict.passed and any(each.outcome == "warning" for each in verdict.findings)
    return "warning" if warned else verdict.outcome


def check_broken(program: Program) -> None:
    found = said(program, broken=True)
    assert found.refused, found


def check_healthy(program: Program) -> None:
    """A warning without a fault's name (statistics that lag, say) is no alarm."""
    found = said(program, broken=False)
    assert found.outcome in ("passed", "warning"), found


def check_named(program: Program) -> None:
    """The first diagnosis is true."""
    found = said(program, broken=True)
    assert found.names[:1], found
    assert found.names[0] in program.accepted, found


def check_unnamed(program: Program) -> None:
    """A healthy program carries no fault's name."""
    found = said(program, broken=False)
    assert not found.names, found
