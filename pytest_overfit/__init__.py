"""pytest-overfit: can this model learn at all, and can its evaluation be believed?

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError, NotApplicable, OverfitError, ProbeFailed, ProgramError
from pytest_overfit.core.run import run_probes
from pytest_overfit.core.verdict import Diagnosis, Finding, Verdict
from pytest_overfit.fixture import Overfit, parametrize_with_probes

__version__ = "0.1.0"

__all__ = [
    "Case",
    "CaseError",
    "Diagnosis",
    "Finding",
    "NotApplicable",
    "Overfit",
    "OverfitError",
    "ProbeFailed",
    "ProgramError",
    "Verdict",
    "parametrize_with_probes",
    "run_probes",
]


def __dir__() -> list[str]:
    return __all__
