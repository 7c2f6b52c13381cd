"""Verdicts and errors as properties of a JUnit test case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def add_properties(kept: list[tuple[str, object]], form: Mapping[str, Any], which: str = "") -> None:
    """Add those of a verdict or an error to a test's; those of an earlier attempt go.

    `which` tells a second verdict of one case and probe from the first.
    """
    new = properties(form, which)
    names = {name for name, _ in new}
    kept[:] = [*(each for each in kept if each[0] not in names), *new]


def properties(form: Mapping[str, Any], which: str = "") -> list[tuple[str, str]]:
    """Name and value of each property: outcome, summary, seeds, steps of a training, every finding with a number.

    Of an error: its kind. Of both: the names of the faults that they show.
    """
    prefix = f"overfit.{form['case']}.{form['probe']}{which}"
    found = [(f"{prefix}.error", form["error"])] if "error" in form else _of_verdict(form, prefix)
    faults = ",".join(each["fault"] for each in form["diagnoses"])
    found = [*found, (f"{prefix}.diagnosis", faults)] if faults else found
    return [(_name(name), text) for name, text in found]


def _name(name: str) -> str:
    """Names of a plugin's findings may have anything in them, and pytest writes names as they are."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in name)


def _of_verdict(form: Mapping[str, Any], prefix: str) -> list[tuple[str, str]]:
    found = [
        (f"{prefix}.outcome", form["outcome"]),
        (f"{prefix}.summary", form["summary"]),
        (f"{prefix}.seed", ",".join(str(each) for each in form["seeds"])),
    ]
    if form["framework"]:
        found.append((f"{prefix}.steps", str(form["steps"])))
    numbers = [each for each in form["findings"] if each["value"] is not None]
    return found + [(f"{prefix}.{each['name']}", str(each["value"])) for each in numbers]
