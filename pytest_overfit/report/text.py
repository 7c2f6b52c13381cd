"""Verdicts as terminal text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_overfit.core.figures import apart, legible

_BARS = "▁▂▃▄▅▆▇█"
_SPARKS = 40

#: the rest is in the JSON
_MOST_CAUSES = 3

#: how an outcome reads in a first line; nobody may take an inconclusive verdict for a refuted model
WORDS = {
    "passed": "passed",
    "failed": "FAILED",
    "inconclusive": "INCONCLUSIVE (not refuted)",
    "not_applicable": "not applicable",
}

Form = Mapping[str, Any]


def first_line(form: Form) -> str:
    """Case, outcome and reason in one line that makes sense alone."""
    return f"{form['case']}: {WORDS[form['outcome']]}: {form['summary']}"


def failure_text(form: Form, command: str = "") -> str:
    """The message of a verdict that did not pass: reason, findings in columns, curve, facts, how to run it alone."""
    blocks = [first_line(form)]
    table = findings_table(form["findings"], form["summary"])
    if table:
        blocks += ["", *table]
    losses = [float(each) for each in form["losses"]]
    if losses:
        blocks += ["", _curve(losses, form)]
    blocks += [f"  fact  {each['message']}" for each in form["findings"] if each["name"] == "fact"]
    blocks += [f"  note  {each['message']}" for each in form["findings"] if each["name"] == "remark"]
    blocks += _causes(form)
    blocks += ["", *_again(form, command)]
    return "\n".join(blocks)


def _causes(form: Form) -> Iterator[str]:
    """What to change for each fault; its evidence only where nothing above has it already."""
    shown = {form["summary"], *(each["message"] for each in form["findings"])}
    for each in form["diagnoses"][:_MOST_CAUSES]:
        evidence = "" if each["evidence"] in shown else f": {each['evidence']}"
        yield f"  cause {each['fault']} ({each['confidence']}){evidence}"
        yield f"  cure  {each['cure']}"


def _curve(losses: Sequence[float], form: Form) -> str:
    return (
        f"  loss  {short(losses[0])} {sparkline(losses)} {short(losses[-1])}"
        f"   {form['steps']} steps, {form['seconds']:.1f} s, {form['framework']}"
    )


def _again(form: Form, command: str) -> list[str]:
    seed = ", ".join(str(each) for each in form["seeds"])
    took = "" if form["losses"] else f", {form['seconds']:.1f} s"  # else it stands below the curve
    lines = [f"  probe {form['probe']}, seed {seed}{took}"]
    return [*lines, f"  rerun {command}"] if command else lines


def findings_table(findings: Sequence[Form], summary: str = "") -> list[str]:
    """Findings in columns: mark, name, value, limit, the limit's source, and what it says beyond the summary."""
    rows = [_row(each, summary) for each in findings if each["name"] not in ("fact", "remark")]
    if not rows:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("  " + "  ".join([*cells, row[5]]).rstrip())
    return lines


_MARKS = {"passed": "ok", "failed": "FAIL", "inconclusive": "?", "warning": "warn", "note": ""}


def _row(finding: Form, summary: str) -> tuple[str, str, str, str, str, str]:
    value, bound = _against(finding["value"], finding["limit"])
    limit = f"{finding['relation']} {bound}" if bound else ""
    source = f"({finding['source']})" if finding["source"] and finding["limit"] is not None else ""
    above = finding["message"] and summary.startswith(finding["message"])  # a reason may say more than the finding
    message = "see above" if above else finding["message"]
    return _MARKS[finding["outcome"]], finding["name"], value, limit, source, message


def short(value: Any) -> str:
    """A number in four significant digits; a whole one as it is."""
    return str(value) if isinstance(value, (str, int)) else legible(value)


def _against(value: Any, limit: Any) -> tuple[str, str]:
    """Value and limit as they stand beside each other; "-" and "" for what is not there."""
    if isinstance(value, float) and isinstance(limit, (int, float)):
        return apart(value, limit)
    return "-" if value is None else short(value), "" if limit is None else short(limit)


def sparkline(values: Sequence[float], width: int = _SPARKS) -> str:
    """The curve in block characters; a gap where it is not finite."""
    if not values:
        return ""
    count = min(width, len(values))
    last = len(values) - 1
    picked = [values[round(i * last / max(1, count - 1))] for i in range(count)]
    finite = [each for each in picked if math.isfinite(each)]
    if not finite:
        return "x" * len(picked)
    low, high = min(finite) / 2, max(finite) / 2  # halves, because the range of two huge numbers is infinite
    top = len(_BARS) - 1

    def bar(value: float) -> str:
        return _BARS[round((value / 2 - low) / (high - low) * top) if high > low else 0]

    return "".join(bar(each) if math.isfinite(each) else "x" for each in picked)


def progress_line(case: str, probe: str, step: int, of: int | None, loss: float | None) -> str:
    """What a terminal shows while a probe runs; without a loss it reads samples."""
    name = f"{probe} {case}".rstrip()
    if loss is not None:
        return f"{name}: step {step} of {of}, loss {short(loss)}"
    return f"{name}: {step:,} samples" if of is None else f"{name}: {step:,} of {of:,} samples"
