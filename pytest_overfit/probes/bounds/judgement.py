"""From quantities measured over seeds to a verdict on the bounds they were given, on plain values alone."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

from pytest_overfit.core.figures import legible
from pytest_overfit.core.limits import Resolved
from pytest_overfit.core.verdict import Finding, Judgement
from pytest_overfit.measures.sequential.mean import SeedMean, looks, mean_over_seeds
from pytest_overfit.probes.bounds.causes import cause_of
from pytest_overfit.probes.bounds.tolerance import beyond, run_answer

Answer = Literal["passed", "failed", "inconclusive"]


#: words in a bound that stand for numbers
ANCHORS = ("chance", "theory", "constant_loss")


class SeedLimits(Protocol):
    """The limits that the judgement reads."""

    @property
    def seeds(self) -> int: ...
    @property
    def alpha(self) -> float: ...


@dataclasses.dataclass(kw_only=True)
class Series:
    """One quantity over the seeds measured so far, and the ends of its bound at each."""

    name: str
    unit: str
    #: one seed tells: the quantity is the same for every seed, or holds or does not
    once: bool
    #: the bound as it reads, and where it was written
    bound: str
    source: str
    values: list[float] = dataclasses.field(default_factory=list)
    #: at each seed, because `theory` may depend on the batch; empty: open
    lows: list[float] = dataclasses.field(default_factory=list)
    highs: list[float] = dataclasses.field(default_factory=list)
    #: which of "low" and "high" a calibration set; those hold for the median (`measures.calibration`)
    calibrated: list[str] = dataclasses.field(default_factory=list)
    #: the least step of the quantity
    resolution: float = 0.0
    #: why there is no value, and what it is known to be above
    why: str = ""
    above: float | None = None
    #: what was seen beside the last value, in words
    seen: str = ""
    #: answers of a bound that is a function: at the mean and at both ends of the interval
    holds: list[bool] = dataclasses.field(default_factory=list)
    #: what theory says, and why
    expected: float | None = None
    theory: str = ""

    def mean(self, limits: SeedLimits) -> SeedMean:
        """Mean and interval of the values; of what one seed tells, the value itself; calibrated, the median."""
        if self.calibrated and not self._written_ends():
            middle = statistics.median(self.values)
            return SeedMean(mean=middle, low=middle, high=middle, seeds=len(self.values))
        return self._over(self.values, limits)

    def _written_ends(self) -> list[list[float]]:
        """Ends that people wrote, at each seed, each with what must be above it turned to be above 0."""
        signed = (("low", self.lows, 1), ("high", self.highs, -1))
        return [
            [sign * (value - end) for value, end in zip(self.values, ends, strict=False)]
            for name, ends, sign in signed
            if ends and name not in self.calibrated
        ]

    def beyond(self) -> int:
        """How many values lie beyond a calibrated end."""
        return beyond(self.values, *self._calibrated_ends())

    def _calibrated_ends(self) -> tuple[float, float]:
        low = self.lows[0] if "low" in self.calibrated else -math.inf
        return low, self.highs[0] if "high" in self.calibrated else math.inf

    def _over(self, values: Sequence[float], limits: SeedLimits) -> SeedMean:
        if self.once:
            return SeedMean(mean=values[0], low=values[0], high=values[0], seeds=1)
        return mean_over_seeds(values, limits.alpha, limits.seeds, self.resolution)

    def answer(self, limits: SeedLimits) -> Answer:
        """The whole interval within the bound, the whole of it beyond one end, or neither."""
        if self.why:
            highest = max(self.highs, default=math.inf)
            return "failed" if self.above is not None and self.above >= highest else "inconclusive"
        if not all(math.isfinite(each) for each in self.values):
            return "failed"
        if self.holds:
            return "passed" if all(self.holds) else "inconclusive" if any(self.holds) else "failed"
        text = self._told_by_calibration(limits)
        rooms = [self._over(each, limits) for each in self._written_ends()]
        if text == "failed" or any(each.high < 0 for each in rooms):
            return "failed"
        return text if all(each.low >= 0 for each in rooms) else "inconclusive"

    def _told_by_calibration(self, limits: SeedLimits) -> Answer:
        return run_answer(self.values, *self._calibrated_ends(), limits.seeds) if self.calibrated else "passed"

    def decided(self, limits: SeedLimits) -> bool:
        """No further seed is wanted."""
        if self.why or self.once or not all(math.isfinite(each) for each in self.values):
            return True
        looked = self.calibrated or len(self.values) in looks(limits.seeds)
        return bool(looked) and self.answer(limits) != "inconclusive"


def judge_bounds(measured: Mapping[str, Any], limits: Resolved[Any]) -> Judgement:
    """Judge every bound; see `Bounds` of `pytest_overfit.probes.bounds` for what passing means."""
    series = [Series(**form) for form in measured["quantities"]]
    found = [_finding(each, limits.values) for each in series]
    notes = [*(note for each in series for note in _expected(each)), *map(Finding.note, measured["remarks"])]

    def held() -> str:
        means = "; ".join(f"{each.name} {_number(each.mean(limits.values).mean, each)}" for each in series)
        return f"{len(series)} bound{'s' * (len(series) != 1)} held: {means}"

    return Judgement.of([*found, *notes], held)


def _finding(series: Series, limits: SeedLimits) -> Finding:
    outcome = series.answer(limits)
    if series.why:
        text = f"{series.name}: {series.why}; the bound is {series.bound}"
        return Finding(
            name=series.name, value=None, limit=series.bound, source=series.source, outcome=outcome, message=text
        )
    found = series.mean(limits)
    bad = [each for each in series.values if not math.isfinite(each)]
    value = bad[0] if bad else found.mean
    return Finding(
        name=series.name,
        value=value,
        limit=_limit(series),
        relation=_relation(series),
        source=series.source,
        outcome=outcome,
        message=_words(series, found, value, outcome),
        cause=cause_of(series, value) if outcome == "failed" else None,
    )


def _relation(series: Series) -> Literal["<=", ">=", ""]:
    if series.holds or bool(series.lows) == bool(series.highs):
        return ""
    return ">=" if series.lows else "<="


def _limit(series: Series) -> float | str:
    if _relation(series) == "":
        return series.bound
    return (series.lows or series.highs)[0]


def _words(series: Series, found: SeedMean, value: float, outcome: Answer) -> str:
    if series.unit == "yes or no" and not series.holds:
        seen = f" ({series.seen})" if series.seen else ""
        return f"{series.name}: {'yes' if value else 'no'}{seen}, expected {series.bound}"
    around = ""
    if series.calibrated and math.isfinite(value):
        around = f" ({series.beyond()} of {len(series.values)} seeds beyond the calibrated range)"
    elif not series.once and math.isfinite(value):
        known = math.isfinite(found.low)
        around = f" [{found.low:.4g}, {found.high:.4g}]" if known else " (no interval yet)"
        around += f" over {len(series.values)} seed{'s' * (len(series.values) != 1)}"
    ends = ", ".join(f"{each[0]:.4g}" for each in (series.lows, series.highs) if each)
    resolved = f" = {ends}" if ends and any(word in series.bound for word in ANCHORS) else ""
    text = f"{series.name} {_number(value, series)}{around}, bound {series.bound}{resolved}"
    return f"{text}: too close to call; try a larger seeds=" if outcome == "inconclusive" else text


def _number(value: float, series: Series) -> str:
    if series.unit == "yes or no":
        return "yes" if value else "no"
    whole, limit = math.isfinite(value) and value == int(value), _limit(series)
    shown = legible(value, None if isinstance(limit, str) else limit, ".0f" if whole else ".4g")
    return f"{shown} {series.unit}" if series.unit in ("steps", "parameters", "rows per parameter", "MB") else shown


def _expected(series: Series) -> Iterator[Finding]:
    if series.expected is not None:
        text = f"{series.name} of an uninformed model: {series.theory}"
        yield Finding(name="expected_by_theory", value=series.expected, source="theory", message=text)
