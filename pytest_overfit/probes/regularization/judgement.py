"""From the runs of two arms to a verdict on what lies between them, on plain values alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_overfit.adapters.regularizer_effects.names import listed
from pytest_overfit.core.figures import signed, thousandths
from pytest_overfit.core.limits import Resolved
from pytest_overfit.core.verdict import Cause, Finding, Judgement
from pytest_overfit.measures.training_runs import TrainingRun, broken, few_rows, run_of
from pytest_overfit.probes.regularization.paired import PairedComparison, compare, least_difference, needed

#: difference of two readings of one number in float32
_ROUNDING = 1e-5


def judge_pairs(measured: Mapping[str, Any], limits: Resolved[Any]) -> Judgement:
    """Judge one comparison; see `Regularization` for what passing means."""
    return _Judge(measured, limits).judgement()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


class _Judge:
    def __init__(self, measured: Mapping[str, Any], limits: Resolved[Any]) -> None:
        self.measured, self.limits = measured, limits
        self.own = [run_of(each) for each in measured["regularized"]]
        self.plain = [run_of(each) for each in measured["unregularized"]]
        self.pairs = list(zip(self.own, self.plain, strict=True))
        self.metric = self.own[0].val.metric or "score"
        #: the least difference that counts
        self.least = least_difference(self.own[0], limits.values.margin)

    def judgement(self) -> Judgement:
        main = self._main()
        return Judgement.of([main, *self._beside()], lambda: main.message)

    # ------------------------------------------------------------ the one that decides

    def _main(self) -> Finding:
        broken = self._broken()
        if broken:
            return Finding(name="score_difference", value=None, outcome="inconclusive", message=broken)
        if all(each.ended_as and each.started_as == each.ended_as for each in (*self.own, *self.plain)):
            text = f"no weight changed in {self.measured['epochs']} epochs, in either arm: nothing was trained"
            return Finding(name="score_difference", value=None, outcome="inconclusive", message=text)
        if all(_same(mine, other) for mine, other in self.pairs):
            return self._nothing_differs()
        return self._compared(self._comparison())

    def _nothing_differs(self) -> Finding:
        removed = self.measured["removed"]
        if removed and all(each.startswith("early stopping") for each in removed):
            text = (
                f"no measurable effect: {', '.join(removed)} stopped none of the {self.measured['epochs']}-epoch runs"
            )
            return Finding(name="score_difference", value=0.0, outcome="passed", source="theory", message=text)
        what = ", ".join(removed) or "what unregularized= leaves out"
        text = f"inert: with and without {what}, both arms do the same to the bit in {_pairs(len(self.pairs))}"
        cause = Cause("inert_regularizer", f"let {what} act in training, or take it out; inert_regularizer says more")
        return Finding(name="score_difference", value=0.0, outcome="failed", source="theory", message=text, cause=cause)

    def _comparison(self) -> PairedComparison:
        values = self.limits.values
        return compare(self.own, self.plain, values.margin, values.alpha, values.seeds)

    def _compared(self, found: PairedComparison) -> Finding:
        outcome = {"helps": "passed", "no measurable effect": "passed", "harms": "failed"}.get(
            found.outcome, "inconclusive"
        )
        words = found.outcome if outcome != "inconclusive" else self._undecided(found)
        return Finding(
            name="score_difference",
            value=found.mean,
            limit=-self.least,
            relation=">=",
            source=self.limits.source("margin"),
            outcome=outcome,  # type: ignore[arg-type]
            message=f"{words}: {self._numbers(found)}",
            better="higher",
        )

    def _numbers(self, found: PairedComparison) -> str:
        with_, without = _mean([each.score for each in self.own]), _mean([each.score for each in self.plain])
        interval = f"[{signed(found.low)}, {signed(found.high)}]" if found.low > -math.inf else "(no interval yet)"
        return (
            f"{self.measured['split']} {self.metric} {thousandths(with_)} with, {thousandths(without)} without, "
            f"difference {signed(found.mean)} {interval} over {_pairs(len(self.pairs))}{self._one_row()}"
        )

    def _one_row(self) -> str:
        """Said where a row is more than the margin."""
        return (
            ""
            if self.least == self.limits.values.margin
            else f"; less than one row ({thousandths(self.least)}) does not count"
        )

    def _undecided(self, found: PairedComparison) -> str:
        if self.measured["stop"] == "budget":
            return "undecided when the budget was spent"
        if found.high < 0:
            what = "one row" if self._one_row() else "the margin"
            return f"undecided: worse, but by less than {what} ({self.least:.3g}) as far as these pairs tell"
        more = needed(found, self.least)
        return "undecided" if more is None else f"undecided; about seeds={more} should be enough"

    def _broken(self) -> str:
        return self._of_others() or broken(self.own, "regularised arm") or broken(self.plain, "unregularised arm")

    def _of_others(self) -> str:
        names = self.measured.get("outside", ())
        if not names:
            return ""
        return (
            f"the loss depends on trainable weights outside the model that it trains: {listed(names)}. Let it read the "
            "model that was made last, freeze what is to stay (requires_grad_(False), trainable = False), or give the "
            "loss's own weights to the optimizer"
        )

    # ------------------------------------------------------------------- beside it

    def _beside(self) -> Iterator[Finding]:
        yield from self._removed()
        if not self._broken():
            yield from self._gap()
            yield from self._loss()
        yield from few_rows(self.own[0], self.measured["split"])
        if not self.measured["same_start"]:
            yield Finding.note("the arms' shapes differ, so they start from different weights")
        yield from map(Finding.note, self.measured["remarks"])

    def _bare(self) -> list[tuple[float, float]]:
        """What the predictions cost in either arm, by one measure: the arms' losses may differ in what they add."""
        found = [(a.val.bare_loss, b.val.bare_loss) for a, b in self.pairs]
        known = [(a, b) for a, b in found if a is not None and b is not None]
        return known if len(known) == len(found) else []

    def _removed(self) -> Iterator[Finding]:
        if self.measured["removed"]:
            yield Finding.note(f"taken out for the unregularised arm: {', '.join(self.measured['removed'])}", "removed")
        covers = "initial weights, order, masks and the cut" if self.measured["resplit"] else "initial weights, order"
        more = "" if self.measured["resplit"] else " and masks, not the choice of the split"
        yield Finding.note(f"{self.measured['epochs']} epochs a run; the interval covers {covers}{more}", "budget")

    def _gap(self) -> Iterator[Finding]:
        mine, other = _mean([each.gap for each in self.own]), _mean([each.gap for each in self.plain])
        gaps = f"{thousandths(mine)} with, {thousandths(other)} without"
        yield Finding.note(f"train minus {self.measured['split']} {self.metric}: {gaps}", "gap")

    def _loss(self) -> Iterator[Finding]:
        measure = {"R2": "squared error", "accuracy": "cross-entropy"}.get(self.metric, "loss of the predictions")
        losses, what = self._bare(), f"{measure} (without penalties, smoothing and weights)"
        if not losses:
            found = [(a.val.loss, b.val.loss) for a, b in self.pairs]
            losses = [(a, b) for a, b in found if a is not None and b is not None]
            what = "loss, as each arm's own loss has it,"
        if not losses:
            return
        with_, without = (_mean([each[place] for each in losses]) for place in (0, 1))
        text = f"{self.measured['split']} {what}: {with_:.4g} with, {without:.4g} without"
        score = _mean([a.score - b.score for a, b in self.pairs])
        apart = (with_ > without and score > self.least) or (with_ < without and score < -self.least)
        if apart:
            text = f"{text}: loss and {self.metric} disagree; the {self.metric} decides"
        yield Finding(name="loss", value=with_ - without, outcome="warning" if apart else "note", message=text)


def _same(mine: TrainingRun, other: TrainingRun) -> bool:
    """Training did the same to the bit, and the scores that were read are the same.

    What it did are the weights: a penalty that no gradient comes from is in the losses and in nothing else. Readings
    may differ by rounding: an adapter may compile them when there were many, which depends on the clock.
    """
    scores = [(each.train.score, each.val.score, *each.curve) for each in (mine, other)]
    if mine.ended_as and other.ended_as:
        return mine.ended_as == other.ended_as and _alike(*scores)
    losses = [(each.train.loss, each.val.loss) for each in (mine, other)]
    return mine.losses == other.losses and _alike(*losses) and _alike(*scores)


def _alike(first: Sequence[float | None], second: Sequence[float | None]) -> bool:
    return len(first) == len(second) and all(
        one is other if one is None or other is None else math.isclose(one, other, rel_tol=_ROUNDING, abs_tol=_ROUNDING)
        for one, other in zip(first, second, strict=True)
    )


def _pairs(count: int) -> str:
    return f"{count} pair{'s' * (count != 1)}"
