"""Verdicts as terminal text."""

from __future__ import annotations

import math
import re
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

#: faults of programs that fit, if one waits: they refute nothing
SLOW = ("lr_too_low", "slow_to_fit", "grad_clip_too_small", "unnormalised_input", "unnormalised_target")

#: a clause of no more letters may stand in other sentences by chance
_SHORT = 20

#: what stands in brackets, and brackets in them
_BRACKETS = re.compile(r" \((?:[^()]|\([^()]*\))*\)")

Form = Mapping[str, Any]


def first_line(form: Form) -> str:
    """Case, outcome and reason in one line that makes sense alone."""
    return f"{form['case']}: {_word(form)}: {form['summary']}"


def _word(form: Form) -> str:
    """A fault of the program that was shown refutes it, if not its run; that it is slow does not."""
    first = next(iter(form["diagnoses"]), None)
    reason = first is not None and first["evidence"] == form["summary"] and first["confidence"] != "likely"
    if form["outcome"] == "inconclusive" and first is not None and reason and first["fault"] not in SLOW:
        return "INCONCLUSIVE"
    return WORDS[form["outcome"]]


def failure_text(form: Form, command: str = "") -> str:
    """The message of a verdict that did not pass: reason, findings in columns, curve, facts, how to run it alone."""
    blocks = [first_line(form)]
    table = findings_table(form["findings"], form["summary"])
    if table:
        blocks += ["", *table]
    losses = [float(each) for each in form["losses"]]
    if losses:
        blocks += ["", _curve(losses, form)]
    blocks += _told_once(form, [form["summary"], *(each["message"] for each in _rows_of(form["findings"]))])
    blocks += ["", *_again(form, command)]
    return "\n".join(blocks)


def _told_once(form: Form, told: list[str]) -> Iterator[str]:
    """Facts, notes and causes with what to change; of each what nothing above, `told`, has said already."""
    for name, mark in (("fact", "fact"), ("remark", "note")):
        for each in form["findings"]:
            if each["name"] == name and (text := not_yet_said(each["message"], told)):
                yield f"  {mark}  {text}"
    cures: list[str] = []
    for each in form["diagnoses"][:_MOST_CAUSES]:
        evidence = not_yet_said(each["evidence"], told)
        yield f"  cause {each['fault']} ({each['confidence']}){': ' * bool(evidence)}{evidence}"
        yield f"  cure  {'the same' if each['cure'] in cures else each['cure']}"
        cures.append(each["cure"])


def not_yet_said(text: str, told: list[str]) -> str:
    """The text without what stands in `told`: all of it, what is in brackets, a clause; and note it there."""

    def is_new(part: str) -> bool:
        return len(part) <= _SHORT or not any(part in each for each in told)

    new = "" if any(text in each for each in told) else text
    new = _BRACKETS.sub(lambda found: found.group() if is_new(found.group()) else "", new)
    new = "; ".join(filter(is_new, new.split("; ")))
    told.append(text)
    return new


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


def _rows_of(findings: Sequence[Form]) -> list[Form]:
    return [each for each in findings if each["name"] not in ("fact", "remark")]


def findings_table(findings: Sequence[Form], summary: str = "") -> list[str]:
    """Findings in columns: mark, name, value, limit, the limit's source, and what it says beyond the summary."""
    rows = [_row(each, summary) for each in _rows_of(findings)]
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
    message = finding["message"]
    # a reason may say more than the finding
    if message and (summary.startswith(message) or (len(message) > _SHORT and message in summary)):
        message = "see above"
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
