"""What could not be judged, as a plain form beside those of verdicts."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_overfit.core.errors import OverfitError


def error_form(case: str, probe: str, error: OverfitError) -> dict[str, Any]:
    """The kind of the error, its message, and the faults that it shows, in the form that verdicts have them."""
    return {
        "case": case,
        "probe": probe,
        "error": type(error).__name__,
        "message": str(error),
        "diagnoses": [dataclasses.asdict(each) for each in error.diagnoses],
    }
