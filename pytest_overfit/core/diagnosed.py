"""Errors that show by themselves what is wrong with a program."""

from __future__ import annotations

from typing import TypeVar

from pytest_overfit.core.errors import OverfitError
from pytest_overfit.core.verdict import Diagnosis

E = TypeVar("E", bound=OverfitError)


def diagnosed(error: E, fault: str, cure: str) -> E:
    """The same error with the fault that its message shows."""
    error.diagnoses = (Diagnosis(fault=fault, evidence=str(error), cure=cure, confidence="shown"),)
    return error
