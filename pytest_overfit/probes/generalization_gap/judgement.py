"""From training runs of one model to a verdict on its score and its gap, on plain values alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

from pytest_overfit.core.figures import thousandths
from pytest_overfit.core.limits import Resolved
from pytest_overfit.core.verdict import Better, Finding, Judgement
from pytest_overfit.measures.sequential.mean import SeedMean, looks, mean_over_seeds
from pytest_overfit.measures.training_runs import TrainingRun, broken, few_rows, resolution_of, run_of

#: how rarely a control without any fault may look like one: one side of the t interval of its runs
_CONTROL_ALPHA = 1e-3


class _Limits(Protocol):
    @property
    def max_gap(self) -> float | None: ...
    @property
    def min_score(self) -> float | None: ...
    @property
    def above_chance(self) -> float: ...
    @property
    def seeds(self) -> int: ...
    @property
    def alpha(self) -> float: ...


@dataclasses.dataclass(frozen=True)
class GapBound:
    """One quantity of every run beside one limit."""

    name: str
    limit: str
    values: tuple[float, ...]
    bound: float
    relation: Literal["<=", ">="]
    better: Better
    found: SeedMean

    @property
    def outcome(self) -> Literal["passed", "failed", "inconclusive"]:
        """The whole interval must lie on one side."""
        low, high = self.found.low - self.bound, self.found.high - self.bound
        if self.relation == "<=":
            low, high = -high, -low
        return "passed" if low >= 0 else "failed" if high < 0 else "inconclusive"


class GapBounds:
    """The bounds that are asked for, on runs made so far."""

    def __init__(self, limits: _Limits) -> None:
        self.limits = limits

    def on(self, runs: Sequence[TrainingRun]) -> list[GapBound]:
        """Every bound beside what was measured."""
        limits, step = self.limits, resolution_of(runs[0])
        chance = runs[0].val.chance
        asked: list[tuple[str, str, tuple[float, ...], float, Literal["<=", ">="], Better]] = []
        scores = tuple(each.score for each in runs)
        if chance is not None:
            asked.append(("above_chance", "above_chance", scores, chance + limits.above_chance, ">=", ""))
        if limits.min_score is not None:
            asked.append(("validation_score", "min_score", scores, limits.min_score, ">=", "higher"))
        if limits.max_gap is not None:
            asked.append(("gap", "max_gap", tuple(each.gap for each in runs), limits.max_gap, "<=", "lower"))
        return [GapBound(*bound, mean_over_seeds(bound[2], limits.alpha, limits.seeds, step)) for bound in asked]

    def decided(self, runs: Sequence[TrainingRun]) -> bool:
        """No further run is wanted."""
        asked = len(runs) in looks(self.limits.seeds)
        return asked and all(each.outcome != "inconclusive" for each in self.on(runs))


def judge_gap(measured: Mapping[str, Any], limits: Resolved[Any]) -> Judgement:
    """Judge the runs; see `GeneralizationGap` for what passing means."""
    return _Judge(measured, limits).judgement()


class _Judge:
    def __init__(self, measured: Mapping[str, Any], limits: Resolved[Any]) -> None:
        self.measured, self.limits = measured, limits
        self.runs = [run_of(each) for each in measured["runs"]]
        self.metric, self.split = self.runs[0].val.metric or "score", measured["split"]

    def judgement(self) -> Judgement:
        why = broken(self.runs, "model")
        if why:
            return Judgement.of(
                [Finding(name="validation_score", value=None, outcome="inconclusive", message=why)], self._summary
            )
        return Judgement.of([*self._bounds(), *self._controls(), *self._beside()], self._summary)

    def _summary(self) -> str:
        gap = sum(each.gap for each in self.runs) / len(self.runs)
        score = sum(each.score for each in self.runs) / len(self.runs)
        below = f"{thousandths(gap)} below train, over {len(self.runs)} seeds"
        return f"{self.split} {self.metric} {thousandths(score)}, {below}"

    def _bounds(self) -> Iterator[Finding]:
        for judged in GapBounds(self.limits.values).on(self.runs):
            yield Finding(
                name=judged.name,
                value=judged.found.mean,
                limit=judged.bound,
                relation=judged.relation,
                source=self.limits.source(judged.limit),
                outcome=judged.outcome,
                message=self._words(judged),
                better=judged.better,
            )

    def _words(self, bound: GapBound) -> str:
        found = bound.found
        around = (
            f" [{thousandths(found.low)}, {thousandths(found.high)}]" if found.low > -math.inf else " (no interval yet)"
        )
        what = f"gap of {self.metric}" if bound.name == "gap" else f"{self.split} {self.metric}"
        text = f"{what} {thousandths(found.mean)}{around} over {len(self.runs)} seeds"
        if bound.name == "above_chance":
            chance = bound.bound - self.limits.values.above_chance
            text = f"{text}; the best constant answer has {thousandths(chance)}"
        if bound.outcome == "inconclusive":
            text = f"{text}: too close to {thousandths(bound.bound)} to call; try a larger seeds="
        return text

    def _controls(self) -> Iterator[Finding]:
        for name, forms in self.measured["controls"].items():
            runs = [run_of(each) for each in forms]
            why, chance = broken(runs, f"model trained on {name}"), runs[0].val.chance
            if why or chance is None:
                text = why or f"control {name}: chance is not known for a score of the case's own"
                yield Finding.note(text, f"control[{name}]")
                continue
            scores = [each.score for each in runs]
            yield self._control(name, scores, chance)
            if len(scores) > 1:
                yield self._above_control(name, scores)

    def _control(self, name: str, scores: Sequence[float], chance: float) -> Finding:
        most = chance + self.limits.values.above_chance
        value = sum(scores) / len(scores)
        # of several runs the mean must be above what is allowed beyond the spread between them
        least = mean_over_seeds(scores, 2 * _CONTROL_ALPHA, len(scores)).low if len(scores) > 1 else value
        good = least <= most
        text = f"trained on {name}, {self.split} {self.metric} is {thousandths(value)}, chance {thousandths(chance)}"
        return Finding(
            name=f"control[{name}]",
            value=value,
            limit=most,
            relation="<=",
            source="theory",
            outcome="passed" if good else "failed",
            message=text if good else f"{text}: {_MEANING[name]}",
        )

    def _above_control(self, name: str, scores: Sequence[float]) -> Finding:
        """What is learnt from labels of other rows gives whole clusters one label, and some of them the right one."""
        found = mean_over_seeds(scores, 2 * self.limits.values.alpha, len(scores))
        # the bound for one run more, not for their mean
        most = found.mean + (found.high - found.mean) * math.sqrt(len(scores) + 1)
        value = sum(each.score for each in self.runs) / len(self.runs)
        luck = f"trained on {name} it is {thousandths(found.mean)}, by luck up to {thousandths(most)}"
        text = f"{self.split} {self.metric} {thousandths(value)}; {luck}"
        return Finding(
            name=f"above_control[{name}]",
            value=value,
            limit=most,
            relation=">=",
            source="theory",
            outcome="passed" if value > most else "inconclusive",
            message=text if value > most else f"{text}: no better, as far as this tells",
        )

    def _beside(self) -> Iterator[Finding]:
        yield from few_rows(self.runs[0], self.split)
        yield Finding.note(
            f"{self.measured['epochs']} epochs a run; the interval covers initial weights, order and masks"
        )
        yield from map(Finding.note, self.measured["remarks"])


_MEANING = {
    "permuted labels": "the score does not come from the labels; does it look at the model's predictions at all?",
    "blank inputs": "the score does not come from the inputs; are the labels in another part of the batch?",
}
