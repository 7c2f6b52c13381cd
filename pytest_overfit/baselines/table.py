"""Two baselines side by side, as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_overfit.baselines.files import read_case
from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.figures import apart, legible
from pytest_overfit.report.text import short

Row = Mapping[str, Any]


def table(rows: Sequence[Row], before: str, now: str) -> list[str]:
    """Quantity, both numbers, the change and its direction; numbers that are the same are counted only."""
    changed = [each for each in rows if each["before"] != each["now"]]
    lines = []
    if changed:
        cells = [("case-probe", "quantity", before, now, "change", "")]
        cells += [_cells(each) for each in sorted(changed, key=_place)]
        widths = [max(len(row[column]) for row in cells) for column in range(5)]
        lines = [_line(row, widths) for row in cells]
    same = len(rows) - len(changed)
    return [*lines, f"{same} number{'s' * (same != 1)} unchanged"] if rows else lines


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
    return "  ".join([*padded, row[5]]).rstrip()


def _place(row: Row) -> tuple[str, str, str]:
    return row["case"], row["probe"], row["quantity"]


def _cells(row: Row) -> tuple[str, str, str, str, str, str]:
    before, now = row["before"], row["now"]
    shown = ["-" if each is None else short(each) for each in (before, now)]
    change, way = "", ""
    if before is not None and now is not None:
        shown = list(apart(before, now))
        change = legible((now - before) / abs(before), usual="+.1%") if before else f"{now - before:+.4g}"
        better = row["better"]
        way = "" if not better else "better" if (now < before) == (better == "lower") else "worse"
        way = "WORSE" if row.get("worse") else way
    return f"{row['case']}-{row['probe']}", row["quantity"], shown[0], shown[1], change, way


def compare_folders(first: Path, second: Path) -> list[str]:
    """The table of two folders of baselines; `CaseError` where one cannot be read."""
    before, now = (
        {place: found for case in _cases(folder) for place, found in _numbers(case)} for folder in (first, second)
    )
    rows: list[dict[str, Any]] = []
    for place in sorted({*before, *now}):
        (old, way), (new, new_way) = before.get(place, (None, "")), now.get(place, (None, ""))
        named = dict(zip(("case", "probe", "quantity"), place, strict=True))
        rows.append({**named, "before": old, "now": new, "better": new_way or way})
    return table(rows, first.name, second.name)


def _cases(folder: Path) -> list[dict[str, Any]]:
    make = f"make some with pytest --overfit-save={folder.name}"
    if not folder.is_dir():
        raise CaseError(f"there is no folder of baselines {folder}; {make}")
    cases = [read_case(folder, each.name.removesuffix(".json")) for each in sorted(folder.glob("*.json"))]
    if not cases:
        raise CaseError(f"{folder} holds no baselines; {make}")
    return cases


def _numbers(case: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str, str], tuple[float, str]]]:
    """Case, probe and quantity of each number, with which way it is better; files of earlier versions do not say."""
    for probe, entry in case["probes"].items():
        for name, value in entry["quantities"].items():
            yield (case["case"], probe, name), (value, entry.get("better", {}).get(name, ""))
