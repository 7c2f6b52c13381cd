"""Curves with bands as SVG text, written by hand: 2 to 8 kB a chart, and nothing to install or import.

No background is painted, and every colour is a middle tone that stands out from white and from black, so a chart can
be read on a light and on a dark page.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from pytest_overfit.core.verdict import number

#: told apart by people who see colours otherwise too (after Okabe and Ito); beyond them the lines are dashed
COLOURS = ("#1a80c8", "#d55e00", "#0a9473", "#c04fa0")
#: text and axes
GREY = "#7a7a7a"
_DASHES = ("", "7 3", "2 3")
_WIDTH, _HEIGHT = 560, 260
#: room left, right, above (title and legend come on top of it) and below the plot
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 14, 10, 42
#: pixels of a character, at most on average, and of a line of text
_CHARACTER, _LINE = 6.6, 17
#: parts of an axis, columns in which a curve keeps its extremes, and characters of a name
_TICKS, _COLUMNS, _NAME = 5, 250, 60
#: a range that cannot be divided into parts, and the largest number
_NOTHING, _LARGEST = 1e-290, sys.float_info.max

Point = tuple[float, float]
#: x, y, low, high of one point of a curve
Row = tuple[float, float, float, float]


def curves_svg(series: Sequence[Mapping[str, Any]], title: str = "", x_label: str = "", y_label: str = "") -> str:
    """A chart of named curves, each with a band around it where one is given.

    A series is `{"name", "y"}` and, if wanted, `"x"` (default 0, 1, ...), `"low"` and `"high"`, lists of one length.
    A curve has a gap where a value is not finite. Long curves keep the extremes of each part. Without any finite value
    the chart says so.
    """
    curves = [(_short(str(each["name"])), _rows(each)) for each in series]
    legend, below = _legend([name for name, _ in curves], _LINE if title else 0)
    plot = _Plot([row for _, rows in curves for row in rows], below + _TOP)
    body = [*plot.axes(x_label, y_label), *legend]
    if title:
        body.append(_text(_short(title, 80), _LEFT, 13, size=13, bold=True))
    for place, (_, rows) in enumerate(curves):
        body += plot.curve(rows, place)
    height = plot.top + _HEIGHT + _BOTTOM
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" '
        f'role="img" font-family="sans-serif" font-size="11" fill="{GREY}"><title>{_escaped(title)}</title>'
        f"{''.join(body)}</svg>"
    )


def _rows(series: Mapping[str, Any]) -> list[Row]:
    y = _numbers(series["y"])
    x = _numbers(series.get("x", range(len(y))))
    low, high = (_numbers(series.get(key, [math.nan] * len(y))) for key in ("low", "high"))
    return list(zip(x, y, low, high, strict=True))


def _numbers(values: Iterable[Any]) -> list[float]:
    """Non-finite numbers come as strings, None or themselves."""
    return [math.nan if each is None else float(number(each)) for each in values]


def _finite(*values: float) -> bool:
    return all(math.isfinite(each) for each in values)


class _Plot:
    """The frame of a chart: from numbers to pixels."""

    def __init__(self, rows: Sequence[Row], top: int) -> None:
        self.top = top
        drawn = [row for row in rows if _finite(row[0])]
        heights = [value for row in drawn for value in row[1:] if _finite(value)]
        self.empty = not heights
        across = [row[0] for row in drawn if any(map(_finite, row[1:]))]
        self.x, self.y = _span(across), _span(heights)
        self.x_ticks = list(_ticks(*self.x, least=float(all(each == int(each) for each in across))))
        self.y_ticks = list(_ticks(*self.y))
        self.left = max(_LEFT, int(26 + _CHARACTER * max(len(text) for _, text in self.y_ticks)))

    def at(self, x: float, y: float) -> Point:
        across = self.left + _share(x, self.x) * (_WIDTH - self.left - _RIGHT)
        return across, self.top + (1 - _share(y, self.y)) * _HEIGHT

    def axes(self, x_label: str, y_label: str) -> Iterator[str]:
        left, right, bottom = self.left, _WIDTH - _RIGHT, self.top + _HEIGHT
        if self.empty:
            yield _text("nothing finite to draw", (left + right) / 2, self.top + _HEIGHT / 2, anchor="middle")
        else:
            for value, text in self.y_ticks:
                y = self.at(self.x[0], value)[1]
                yield f'<path d="M{left} {y:.1f}H{right}" stroke="{GREY}" stroke-opacity=".25"/>'
                yield _text(text, left - 6, y + 4, anchor="end")
            for value, text in self.x_ticks:
                x = self.at(value, self.y[0])[0]
                yield f'<path d="M{x:.1f} {bottom}v4" stroke="{GREY}"/>'
                yield _text(text, x, bottom + 17, anchor="middle")
        yield f'<path d="M{left} {self.top}V{bottom}H{right}" fill="none" stroke="{GREY}"/>'
        yield _text(_short(x_label), (left + right) / 2, bottom + 34, anchor="middle")
        middle = self.top + _HEIGHT / 2
        yield _text(_short(y_label, 38), 13, middle, anchor="middle", turn=f' transform="rotate(-90 13 {middle:g})"')

    def curve(self, rows: Sequence[Row], place: int) -> Iterator[str]:
        colour, dash = _style(place)
        for run in _runs(rows, 0, 2, 3):
            kept = _thinned(run, 2, 3)
            edge = [self.at(x, high) for x, _, _, high in kept] + [self.at(x, low) for x, _, low, _ in reversed(kept)]
            yield f'<path d="M{_path(edge)}Z" fill="{colour}" fill-opacity=".2"/>'
        for run in _runs(rows, 0, 1):
            points = [self.at(x, y) for x, y, _, _ in _thinned(run, 1)]
            if len(points) == 1:  # a line of no length would not be seen
                yield f'<circle cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="2.5" fill="{colour}"/>'
            else:
                yield f'<path d="M{_path(points)}" fill="none" stroke="{colour}" stroke-width="1.8"{dash}/>'


def _style(place: int) -> tuple[str, str]:
    dash = _DASHES[place // len(COLOURS) % len(_DASHES)]
    return COLOURS[place % len(COLOURS)], f' stroke-dasharray="{dash}"' if dash else ""


def _runs(rows: Sequence[Row], *columns: int) -> Iterator[list[Row]]:
    """Stretches without a gap in these columns."""
    for whole, run in itertools.groupby(rows, lambda row: _finite(*(row[each] for each in columns))):
        if whole:
            yield list(run)


def _thinned(rows: list[Row], *columns: int) -> list[Row]:
    """At most a few points a column of pixels: the ends of each part, and its extremes."""
    if len(rows) <= 4 * _COLUMNS:
        return rows
    kept = {0, len(rows) - 1}
    for part in range(_COLUMNS):
        places = range(part * len(rows) // _COLUMNS, (part + 1) * len(rows) // _COLUMNS)
        for column in columns:
            kept |= {pick((rows[place][column], place) for place in places)[1] for pick in (min, max)}
    return [rows[place] for place in sorted(kept)]


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest, apart even if all values are the same but for rounding."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    size = max(abs(low), abs(high))
    if high / 2 - low / 2 <= max(1e-9 * size, _NOTHING):
        pad = 0.1 * size if size > _NOTHING else 1.0
        return max(low - pad, -_LARGEST), min(high + pad, _LARGEST)
    return low, high


def _share(value: float, span: tuple[float, float]) -> float:
    low, high = span
    return (value / 2 - low / 2) / (high / 2 - low / 2)  # halves, because the range of two huge numbers is infinite


def _ticks(low: float, high: float, least: float = 0.0) -> Iterator[tuple[float, str]]:
    """Round numbers between the two, a step of 1, 2 or 5 times a power of ten apart, and how they are written."""
    rough = max(least, (high / 2 - low / 2) / _TICKS * 2)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((each * power for each in (1, 2, 5) if each * power >= 0.999 * rough), 10 * power)
    digits = min(15, max(5, 1 + math.ceil(math.log10(max(abs(low), abs(high)) / step))))
    for place in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
        yield place * step, f"{place * step:.{digits}g}"


def _legend(names: Sequence[str], top: float) -> tuple[list[str], int]:
    """A line and a name for each curve, in as many rows as they take; and where they end."""
    body, x, y = [], float(_LEFT), top
    for place, name in enumerate(names):
        width = 28 + _CHARACTER * len(name) + 14
        if x > _LEFT and x + width > _WIDTH:
            x, y = float(_LEFT), y + _LINE
        colour, dash = _style(place)
        body.append(f'<path d="M{x:.1f} {y + 9:.1f}h20" stroke="{colour}" stroke-width="3"{dash}/>')
        body.append(_text(name, x + 26, y + 13))
        x += width
    return body, int(y) + _LINE * bool(names)


def _path(points: Sequence[Point]) -> str:
    return "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _text(
    text: str, x: float, y: float, *, anchor: str = "start", size: int = 0, bold: bool = False, turn: str = ""
) -> str:
    look = f' font-size="{size}"' * bool(size) + ' font-weight="bold"' * bold
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{look}{turn}>{_escaped(text)}</text>'


def _short(text: str, most: int = _NAME) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _escaped(text: str) -> str:
    """For XML, which has no way at all to hold a control character."""
    return escape("".join(each if each.isprintable() else " " for each in text))
