"""Verdicts as properties of a JUnit test case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def properties(form: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and value of each property: outcome, summary, seeds, steps of a training, every finding with a number."""
    prefix = f"overfit.{form['case']}.{form['probe']}"
    found = [
        (f"{prefix}.outcome", form["outcome"]),
        (f"{prefix}.summary", form["summary"]),
        (f"{prefix}.seed", ",".join(str(each) for each in form["seeds"])),
    ]
    if form["framework"]:
        found.append((f"{prefix}.steps", str(form["steps"])))
    numbers = [each for each in form["findings"] if each["value"] is not None]
    return found + [(f"{prefix}.{each['name']}", str(each["value"])) for each in numbers]
