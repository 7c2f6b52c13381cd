"""Timing in interleaved pairs, for `overfit_batch.py`: a contender against the same work done by hand.

A busy machine slows everything for a while, so two times taken minutes apart say little. Here each time of a contender
(B) lies between two times of its baseline (A and A'), and what counts is the ratio B / mean(A, A') of one triple. The
median of at least 21 triples is reported. Beside it stand the median and the quartiles of A' / A over the same triples:
two times of the *same* work. A ratio within that spread is no difference.

Everything runs in this process, one after the other, on the number of threads that `OMP_NUM_THREADS` gives. The garbage
collector runs before each time, not during it. Nothing here asserts a time.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import re
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

#: triples of a ratio that is reported
PAIRS = 21


#: called untimed, returns the work that is timed
Prepare = Callable[[], Callable[[], Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contender:
    """Something timed, and what it is timed against."""

    name: str
    run: Prepare
    #: the same work by hand
    baseline: Prepare
    #: what the baseline does, for the table
    against: str
    #: what the contender answered, from what `run` returned
    says: Callable[[Any], str] = lambda answer: "-"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """Triples of one contender, in seconds."""

    contender: Contender
    says: str
    triples: tuple[tuple[float, float, float], ...]

    @property
    def seconds(self) -> float:
        return statistics.median(each[1] for each in self.triples)

    @property
    def baseline(self) -> float:
        return statistics.median((first + last) / 2 for first, _, last in self.triples)

    @property
    def ratio(self) -> float:
        return statistics.median(2 * middle / (first + last) for first, middle, last in self.triples)

    @property
    def twins(self) -> tuple[float, float]:
        """Quartiles of the baseline's ratio to itself: a single disturbance on a shared machine does not widen them."""
        ratios = [last / first for first, _, last in self.triples]
        return quantile(ratios, 0.25), quantile(ratios, 0.75)

    @property
    def twin(self) -> float:
        return statistics.median(last / first for first, _, last in self.triples)


def quantile(values: Iterable[float], share: float) -> float:
    """Linear interpolation between the nearest ranks."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def whole(work: Callable[[], Any]) -> Prepare:
    """All of the work is timed, nothing is prepared."""
    return lambda: work


def seconds_of(prepare: Prepare) -> tuple[float, Any]:
    """How long prepared work takes, and what it returns."""
    work = prepare()
    gc.collect()
    start = time.perf_counter()
    answer = work()
    return time.perf_counter() - start, answer


class Store:
    """Triples on disk, one a line, so that a long measurement can be made in parts; without a path, in memory."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        self._rows = [json.loads(line) for line in lines]

    def of(self, title: str, name: str) -> list[tuple[float, float, float]]:
        return [tuple(each["triple"]) for each in self._rows if (each["title"], each["name"]) == (title, name)]

    def says(self, title: str, name: str) -> str:
        return together([each["says"] for each in self._rows if (each["title"], each["name"]) == (title, name)])

    def add(self, title: str, name: str, says: str, triple: tuple[float, float, float]) -> None:
        row = {"title": title, "name": name, "says": says, "triple": triple}
        self._rows.append(row)
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(row) + "\n")


def together(answers: Sequence[str]) -> str:
    """Answers that differ in their whole numbers only, as one: "passed, 110 to 125 steps"."""
    words = [re.split(r"\b(\d+)\b(?![.])", each) for each in answers]
    if len({(len(each), *each[::2]) for each in words}) > 1:
        return "; ".join(sorted(set(answers)))

    def spoken(texts: tuple[str, ...]) -> str:
        ordered = sorted(set(texts), key=float) if texts[0].isdecimal() else [texts[0]]
        return ordered[0] if len(ordered) == 1 else f"{ordered[0]} to {ordered[-1]}"

    return "".join(spoken(texts) for texts in zip(*words, strict=True))


def measure(
    title: str,
    contenders: Sequence[Contender],
    pairs: int,
    store: Store,
    until: float = float("inf"),
    start_at: Callable[[int], None] = lambda number: None,
) -> list[Timing]:
    """Time all contenders in turn, round after round, until each has `pairs` triples or the clock passes `until`.

    `start_at` gets the number of each triple before it: all three times may then begin at another random start.
    A contender's first time in this process warms up and is not counted.
    """
    warm: set[str] = set()
    while due := [each for each in contenders if len(store.of(title, each.name)) < pairs]:
        for each in due:
            if time.perf_counter() > until:
                return _timings(title, contenders, store)
            start_at(len(store.of(title, each.name)))
            first, _ = seconds_of(each.baseline)
            middle, answer = seconds_of(each.run)
            last, _ = seconds_of(each.baseline)
            if each.name in warm:
                store.add(title, each.name, each.says(answer), (first, middle, last))
            warm.add(each.name)
    return _timings(title, contenders, store)


def _timings(title: str, contenders: Sequence[Contender], store: Store) -> list[Timing]:
    return [
        Timing(contender=each, says=store.says(title, each.name), triples=tuple(store.of(title, each.name)))
        for each in contenders
        if store.of(title, each.name)
    ]


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f}" if seconds < 1 else f"{seconds * 1e3:,.0f}"


def table(title: str, timings: Sequence[Timing]) -> str:
    """A markdown table, one row a contender."""
    lines = [
        f"### {title}",
        "",
        "| contender | says | ms | against | ms | ratio | A/A of the baseline (quartiles) | triples |",
        "|---|---|---:|---|---:|---:|---|---:|",
    ]
    for each in timings:
        low, high = each.twins
        lines.append(
            f"| {each.contender.name} | {each.says} | {milliseconds(each.seconds)} | {each.contender.against} | "
            f"{milliseconds(each.baseline)} | {each.ratio:.2f} | {each.twin:.2f} ({low:.2f}-{high:.2f}) | "
            f"{len(each.triples)} |"
        )
    return "\n".join(lines)
