"""Hooks that a conftest or another plugin can implement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_overfit.adapters.base import Learner
    from pytest_overfit.core.case import Case
    from pytest_overfit.core.verdict import Verdict
    from pytest_overfit.data.batch import Batch
    from pytest_overfit.diagnosis.hypotheses import Family
    from pytest_overfit.probes.base import Probe


@pytest.hookspec(firstresult=True)
def pytest_overfit_make_learner(case: Case, batch: Batch, seed: int) -> Learner | None:
    """Return the learner for a case, or None to leave it to the built-in adapters.

    Asked first, with everything seeded. A learner implements the protocol `pytest_overfit.adapters.base.Learner`;
    `pytest_overfit.testing.check_learner` tells what is missing.
    """


def pytest_overfit_probes() -> Sequence[Probe]:  # type: ignore[empty-body]
    """Return probes of your own; one with a built-in name replaces it. Asked once, at configuration."""


def pytest_overfit_diagnosis_families() -> Sequence[Family]:  # type: ignore[empty-body]
    """Return functions that suspect faults: `family(symptoms)` gives a list of `Hypothesis`, [] for nothing.

    Asked once, at configuration; called where a verdict is to be explained. A family that raises is left out with a
    note. See `docs/diagnoses.md` for an example.
    """


def pytest_overfit_verdict(verdict: Verdict) -> None:
    """Called with each verdict as soon as it is there, in the process that ran the probe."""


def pytest_overfit_update_json(config: pytest.Config, document: dict[str, Any]) -> None:
    """Change what `--overfit-json` is about to write, in place; called once, never in an xdist worker."""
