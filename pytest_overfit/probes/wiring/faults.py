"""A fault that was seen in the wiring: one finding with its diagnosis, and whose it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from pytest_overfit.core.verdict import Confidence, Diagnosis, Finding

#: names that a sentence lists; the rest is counted
_LISTED = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """What is wrong with some of a model's parts."""

    #: its name in the fault vocabulary
    name: str
    outcome: Literal["failed", "inconclusive", "warning"]
    #: parameters, buffers, inputs or rows that it concerns; `allow=` excuses them by these names
    subjects: tuple[str, ...]
    #: "{subjects}" stands where they are listed
    evidence: str
    cure: str
    confidence: Confidence = "shown"

    def without(self, excused: Sequence[str]) -> Fault | None:
        """The same for those that are not excused; None: all are."""
        left = tuple(each for each in self.subjects if each not in excused)
        return dataclasses.replace(self, subjects=left) if left or not self.subjects else None

    @property
    def message(self) -> str:
        return self.evidence.replace("{subjects}", listed(self.subjects))

    def finding(self) -> Finding:
        return Finding(name=self.name, value=len(self.subjects) or None, outcome=self.outcome, message=self.message)

    def diagnosis(self) -> Diagnosis:
        return Diagnosis(fault=self.name, evidence=self.message, cure=self.cure, confidence=self.confidence)


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more."""
    shown = ", ".join(names[:_LISTED])
    more = len(names) - _LISTED
    return f"{shown} and {more} more" if more > 0 else shown
