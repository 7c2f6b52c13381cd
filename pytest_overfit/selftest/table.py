"""What a self-test found: for each fault and probe caught, named or missed; as a table, and as a plain form."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

#: "named": refused, with the right name; "warned": passed, with a warning that has the right name; "caught": refused
#: without it; "missed": passed; "": the probe does not apply to the case with this fault
Mark = Literal["named", "warned", "caught", "missed", ""]

#: the best of several probes comes first
_ORDER: tuple[Mark, ...] = ("named", "warned", "caught", "missed", "")


@dataclasses.dataclass(frozen=True)
class ProbeAnswer:
    """What one probe says of a case with one fault in it."""

    mark: Mark
    #: faults that it named, in its order
    names: tuple[str, ...] = ()
    #: its first line
    first: str = ""


@dataclasses.dataclass(frozen=True)
class SelfTest:
    """A case's self-test. `str()` of it is the table."""

    case: str
    probes: tuple[str, ...]
    #: fault -> probe -> what it said
    answers: Mapping[str, Mapping[str, ProbeAnswer]]
    #: fault -> why it could not be planted in this case
    unplanted: Mapping[str, str]
    #: probe -> its first line, where it refuses the case without any fault
    refused: Mapping[str, str]

    def mark(self, fault: str) -> Mark:
        """The best that any probe says of it."""
        found = [each.mark for each in self.answers[fault].values()]
        return min(found, key=_ORDER.index, default="")

    @property
    def judged(self) -> list[str]:
        """The planted faults that a probe was asked about."""
        return [fault for fault in self.answers if self.mark(fault)]

    @property
    def missed(self) -> list[str]:
        """The planted faults that no probe refused or named."""
        return [fault for fault in self.judged if self.mark(fault) == "missed"]

    @property
    def caught(self) -> float:
        """Share of the planted faults that a probe refused, or named in a warning."""
        return self._share("named", "warned", "caught")

    @property
    def named(self) -> float:
        """Share of the planted faults whose right name a probe gave."""
        return self._share("named", "warned")

    def _share(self, *marks: Mark) -> float:
        judged = self.judged
        return sum(self.mark(fault) in marks for fault in judged) / len(judged) if judged else 0.0

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> Iterator[str]:
        """The table: shares first, a line a fault, then what was not planted."""
        yield f"{self.case}: {self._summary()}"
        for probe, line in self.refused.items():
            yield f"  {probe} refuses the case as it is, so that it tells nothing of planted faults: {line}"
        asked = [probe for probe in self.probes if probe not in self.refused]
        shown = [[fault, *(self._cell(fault, probe) for probe in asked)] for fault in self.judged]
        yield from _columns([["fault", *asked], *shown] if shown else [])
        if self.missed:
            yield f"  missed by every probe: {', '.join(self.missed)}"
        if self.unplanted:
            yield "  not planted:"
        for why in dict.fromkeys(self.unplanted.values()):
            yield f"    {', '.join(fault for fault, each in self.unplanted.items() if each == why)}: {why}"

    def _cell(self, fault: str, probe: str) -> str:
        found = self.answers[fault].get(probe)
        return (found.mark or "-") if found is not None else "-"

    def _summary(self) -> str:
        count = len(self.judged)
        if not count:
            return f"nothing was asked; {len(self.unplanted)} faults could not be planted"
        marks = [self.mark(fault) for fault in self.judged]
        caught, named = count - marks.count("missed"), marks.count("named") + marks.count("warned")
        return (
            f"{count} faults planted, {caught} caught ({self.caught:.0%}), {named} by name ({self.named:.0%}); "
            f"{len(self.unplanted)} could not be planted"
        )

    def to_dict(self) -> dict[str, Any]:
        """The plain form, for JSON."""
        return {
            "case": self.case,
            "probes": list(self.probes),
            "caught": self.caught,
            "named": self.named,
            "faults": {
                fault: {probe: dataclasses.asdict(each) for probe, each in found.items()}
                for fault, found in self.answers.items()
            },
            "not_planted": dict(self.unplanted),
            "refused": dict(self.refused),
        }


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    for row in rows:
        yield "  " + "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def of_columns(columns: Iterable[Mapping[str, Any]]) -> list[SelfTest]:
    """One table a case, of what was found for one probe each; the later of two for the same probe counts."""
    by_case: dict[str, dict[str, Mapping[str, Any]]] = {}
    for column in columns:
        by_case.setdefault(column["case"], {})[column["probe"]] = column
    return [_of_case(case, found) for case, found in by_case.items()]


def _of_case(case: str, columns: Mapping[str, Mapping[str, Any]]) -> SelfTest:
    answers: dict[str, dict[str, ProbeAnswer]] = {}
    unplanted: dict[str, str] = {}
    for probe, column in columns.items():
        unplanted.update(column["not_planted"])
        for fault, found in column["planted"].items():
            answers.setdefault(fault, {})[probe] = ProbeAnswer(found["mark"], tuple(found["names"]), found["first"])
    refused = {probe: column["refused"] for probe, column in columns.items() if column["refused"]}
    return SelfTest(case, tuple(columns), answers, unplanted, refused)
