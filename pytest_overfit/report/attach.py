"""Verdicts on pytest's report of a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_overfit.report.text import failure_text


def attach(report: Any, forms: Sequence[Mapping[str, Any]], html: bool = False) -> None:
    """Let the verdicts ride on the report, through xdist as well; a passed test gets their text as sections.

    Sections are what `-rP` prints and pytest-html shows. A failure has the text in its message. `html`: pytest-html
    writes a page, which gets the pictures. A verdict that passed and is worse than its baseline, or has none, fails.
    """
    report.overfit = list(forms)
    shown = [each for each in forms if "outcome" in each]
    problems = [problem for form in shown for problem in form.get("baseline", {}).get("problems", ())]
    if problems and report.passed:  # the model passed, its numbers did not
        report.outcome, report.longrepr = "failed", "\n".join(problems)
    if report.passed:
        report.sections.extend((f"overfit: {each['probe']}", failure_text(each)) for each in shown)
    pictures = [picture for each in shown for picture in each["data"].get("pictures", ())] if html else []
    if pictures:
        from pytest_html import extras  # type: ignore[import-untyped, unused-ignore]

        from pytest_overfit.report.pictures import pictures_html

        report.extras = [*getattr(report, "extras", ()), extras.html(pictures_html(pictures))]
