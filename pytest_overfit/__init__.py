"""pytest-overfit tells whether a model can learn at all, and whether its evaluation can be believed.

The public names are imported on first use, because pytest loads this package at every start.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_overfit.core.bounds import at_least, at_most, calibrated, chance, constant_loss, theory
    from pytest_overfit.core.case import Case
    from pytest_overfit.core.errors import CaseError, NotApplicable, OverfitError, ProbeFailed, ProgramError
    from pytest_overfit.core.verdict import Diagnosis, Finding, Verdict
    from pytest_overfit.duplicates.find import Duplicates, find_duplicates
    from pytest_overfit.fixture import Overfit, parametrize_with_probes
    from pytest_overfit.run import run_probes
    from pytest_overfit.selftest.run import run_selftest
    from pytest_overfit.selftest.table import SelfTest

from pytest_overfit.version import __version__ as __version__

__all__ = [
    "Case",
    "CaseError",
    "Diagnosis",
    "Duplicates",
    "Finding",
    "NotApplicable",
    "Overfit",
    "OverfitError",
    "ProbeFailed",
    "ProgramError",
    "SelfTest",
    "Verdict",
    "at_least",
    "at_most",
    "calibrated",
    "chance",
    "constant_loss",
    "find_duplicates",
    "parametrize_with_probes",
    "run_probes",
    "run_selftest",
    "theory",
]

_HOMES = {
    "core.bounds": ("at_least", "at_most", "calibrated", "chance", "constant_loss", "theory"),
    "core.case": ("Case",),
    "core.errors": ("CaseError", "NotApplicable", "OverfitError", "ProbeFailed", "ProgramError"),
    "core.verdict": ("Diagnosis", "Finding", "Verdict"),
    "duplicates.find": ("Duplicates", "find_duplicates"),
    "fixture": ("Overfit", "parametrize_with_probes"),
    "run": ("run_probes",),
    "selftest.run": ("run_selftest",),
    "selftest.table": ("SelfTest",),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            import importlib

            # not kept here: whoever reloads a module (pytester does) must not get two classes of one name
            return getattr(importlib.import_module(f"pytest_overfit.{home}"), name)
    raise AttributeError(f"module 'pytest_overfit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
