"""The section at the end of a test run: what a person must act on, whole; the rest counted."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Form = Mapping[str, Any]

_MARKS = {
    "failed": "FAILED",
    "inconclusive": "inconclusive",
    "warning": "warning",
    "expected": "expected",
    "passed": "ok",
    "not_applicable": "-",
}

#: outcomes that a person must act on, in this order; warnings of passed verdicts come after them
_ACT = ("failed", "inconclusive")

#: columns of a wrapped reason, where the terminal is narrower than anybody can read
_LEAST = 40

_LIST = "(-v lists them)"


def summary_lines(forms: Sequence[Form], width: int = 0, verbose: bool = False, left_out: int = 0) -> list[str]:
    """What failed, what could not be judged, and warnings of what passed, each whole and wrapped at `width` columns.

    What passed and what does not apply is one counted line each; `verbose` lists them. `left_out`: tests of a matrix
    that were not made, because the fields of their cases rule the probes out. A verdict with `expected` is that of a
    test whose failure was declared: nobody must act on it.
    """
    named = {probe for each in forms if (probe := each["probe"])}
    alone = len(named) == 1
    lines = [line for outcome in _ACT for each in _of(forms, outcome) for line in _entry(each, outcome, alone, width)]
    lines += [line for each in _of(forms, "passed") for line in _warnings(each, alone, width)]
    lines += _counted(forms, "expected", "failed as expected", alone, width, verbose, 0)
    lines += _counted(forms, "passed", "passed", alone, width, verbose, 0)
    return lines + _counted(forms, "not_applicable", "not applicable", alone, width, verbose, left_out)


def _of(forms: Sequence[Form], outcome: str) -> list[Form]:
    return [each for each in forms if _outcome(each) == outcome]


def _outcome(form: Form) -> str:
    return "expected" if form.get("expected") and form["outcome"] in _ACT else str(form["outcome"])


def _entry(form: Form, outcome: str, alone: bool, width: int) -> list[str]:
    return _wrapped(_MARKS[outcome], _name(form, alone), form["summary"], width)


def _name(form: Form, alone: bool) -> str:
    """Case and probe; where the whole run has one probe, its section is called after it."""
    return str(form["case"]) if alone else f"{form['case']}-{form['probe']}"


def _warnings(form: Form, alone: bool, width: int) -> Iterator[str]:
    """Each warning of a verdict once, by the name of its fault where it has one."""
    faults = {each["evidence"]: each["fault"] for each in form["diagnoses"]}
    told = dict.fromkeys(each["message"] for each in form["findings"] if each["outcome"] == "warning")
    for message in told:
        fault = faults.get(message)
        yield from _wrapped(_MARKS["warning"], _name(form, alone), f"{fault}: {message}" if fault else message, width)


def _wrapped(mark: str, name: str, reason: str, width: int) -> list[str]:
    line = f"{mark:12}  {name}: {reason}"
    if not width:
        return [line]
    return textwrap.wrap(
        line,
        max(width, _LEAST),
        subsequent_indent=" " * 14,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _counted(
    forms: Sequence[Form], outcome: str, words: str, alone: bool, width: int, verbose: bool, left_out: int
) -> list[str]:
    found = _of(forms, outcome)
    if verbose:
        listed = [line for each in found for line in _entry(each, outcome, alone, width)]
        return [*listed, f"left out, as their cases rule them out: {left_out}"] if left_out else listed
    if not found and not left_out:
        return []
    return [f"{words}: {len(found) + left_out}" + (f" {_LIST}" if found else "")]
