"""Errors that show by themselves what is wrong with a program, and when verdicts are to be explained."""

from __future__ import annotations

import re
from typing import Literal, TypeVar

from pytest_overfit.core.errors import OverfitError
from pytest_overfit.core.verdict import Confidence, Diagnosis

#: when a verdict is explained by changing the program
Diagnose = Literal["auto", "always", "never"]
DIAGNOSE: tuple[Diagnose, ...] = ("auto", "always", "never")

E = TypeVar("E", bound=OverfitError)

_CASE = re.compile(r"\ACase '[^']*': ")


def diagnosed(error: E, fault: str, cure: str, evidence: str = "", confidence: Confidence = "shown") -> E:
    """The same error with a fault that it shows; of several the first that was added is the first of them.

    Without `evidence` that is the message's first line, without the case's name and the cure.
    """
    seen = evidence or _CASE.sub("", str(error).splitlines()[0]).removesuffix(cure).rstrip("; ")
    found = Diagnosis(fault=fault, evidence=seen, cure=cure, confidence=confidence)
    error.diagnoses = (*error.diagnoses, found)
    return error


def with_causes(error: OverfitError) -> None:
    """Let the message end with the faults that it shows, each with its cure unless that is said already."""
    text = str(error)
    lines = [_cause(each, text) for each in error.diagnoses]
    lines = [line for line in lines if line not in text]
    error.args = ("\n".join([text, *lines]), *error.args[1:])


def _cause(found: Diagnosis, text: str) -> str:
    seen = "" if found.evidence in text else f" ({found.evidence})"
    cure = "" if found.cure in text else f"; cure: {found.cure}"
    return f"  cause: {found.fault}{seen}{cure}"
