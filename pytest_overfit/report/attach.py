"""Verdicts on pytest's report of a test.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_overfit.report.text import failure_text


def attach(report: Any, forms: Sequence[Mapping[str, Any]]) -> None:
    """Let the verdicts ride on the report, through xdist as well; a passed test gets their text as sections.

    Sections are what `-rP` prints and pytest-html shows. A failure has the text in its message.
    """
    report.overfit = list(forms)
    if report.passed:
        shown = [each for each in forms if "outcome" in each]
        report.sections.extend((f"overfit: {each['probe']}", failure_text(each)) for each in shown)
