"""From the scores of the first epochs and their controls to a verdict, on plain values alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pytest_overfit.core.figures import hundredths, legible, thousandths
from pytest_overfit.core.limits import Resolved
from pytest_overfit.core.verdict import Cause, Finding, FindingOutcome, Judgement
from pytest_overfit.probes.early_accuracy import alignment, evaluation, leaks, sameness, symptoms
from pytest_overfit.probes.early_accuracy.estimates import clearly_above
from pytest_overfit.probes.early_accuracy.relabelling import renumbered
from pytest_overfit.probes.early_accuracy.words import counted, interval

Measured = Mapping[str, Any]

#: updates after which running statistics have come 95 % of their way at a momentum of 0.01, which few go below
_SETTLED = 300


def judge_early(measured: Measured, limits: Resolved[Any]) -> Judgement:
    """Judge one measurement; the first finding that failed, else the first that is in doubt, is the summary."""
    judge = _Judge(measured, limits)
    findings = tuple(judge.findings())
    if "baselines" not in measured:
        why = "predictions cannot be paired with targets row by row, so no score can be judged"
        return Judgement.of(findings, lambda: why, "not_applicable")
    return Judgement.of(findings, judge.believable)


class _Judge:
    def __init__(self, measured: Measured, limits: Resolved[Any]) -> None:
        self.measured, self.limits, self.values = measured, limits, limits.values
        self.alpha = float(limits.values.alpha)
        self.epochs = counted(len(measured["losses"]), "epoch")
        self.split = measured["split"]

    def findings(self) -> Iterator[Finding]:
        yield from leaks.of_copies(self.measured, self.limits)
        yield from leaks.of_own_score(self.measured)
        if "baselines" not in self.measured:
            return
        alike = list(sameness.of_rows(self.measured))
        if alike:  # whatever else is seen comes from it
            yield from (*alike, *self._scores())
            return
        for find in (leaks.of_columns, leaks.of_pipeline, leaks.of_classes):
            yield from find(self.measured, self.limits)
        yield from self._scores()
        yield from evaluation.of_evaluation(self.measured, self.limits)
        yield from self._at_chance()
        yield from self._stuck()
        yield from self._few_rows()
        yield from self._beside()

    # -------------------------------------------------------------------------------------------------------- scores

    def _scores(self) -> Iterator[Finding]:
        after, metric = self.measured["after"], self.measured["metric"]
        for split in ("train", "val"):
            name = self.split if split == "val" else split
            told_score = f"{name} {metric} {interval(after[split])} after {self.epochs}"
            yield Finding.note(told_score, f"{split}_score", after[split]["score"])
        most = symptoms.bound(self.measured, self.alpha)
        for name, each in self.measured["baselines"].items():
            yield Finding.note(f"{_NAMES[name]} reaches {interval(each)}", f"{name}_score", each["score"])
        if most is not None:
            above = symptoms.too_good(self.measured, self.alpha)
            message = f"the best simple model and luck explain {self.split} scores up to {thousandths(most)}"
            yield Finding(name="believable", value=after["val"]["score"], limit=most, relation="<=", source="measured",
                          outcome="note" if above else "passed", message=message)  # fmt: skip

    def believable(self) -> str:
        """Why the scores can be believed, in one line."""
        after, metric = self.measured["after"]["val"], self.measured["metric"]
        text = f"{self.split} {metric} {_score(after)} after {self.epochs}"
        best, constant = symptoms.best_baseline(self.measured["baselines"]), self.measured["baselines"].get("constant")
        if not symptoms.knows(self.measured, self.alpha):
            return f"{text} is still at chance{self._falling()}: not learnt yet; raise epochs="
        if constant is not None and not clearly_above(after, constant, self.alpha):
            return f"{text} says little yet: a constant answer reaches {_score(constant)}"
        if best is None:
            return f"{text} is believable: no control shows a fault"
        if symptoms.too_good(self.measured, self.alpha):
            return f"{text} is above {_NAMES[best[0]]} ({_score(best[1])}), and no control shows a fault"
        return f"{text} is believable: {_NAMES[best[0]]} reaches {_score(best[1])}"

    # ----------------------------------------------------------------------------------------------------- at chance

    def _at_chance(self) -> Iterator[Finding]:
        apart = renumbered(self.measured, self.alpha) or alignment.misaligned(self.measured, self.alpha)
        unlearnable = symptoms.baselines_signal(self.measured["baselines"], self.alpha) is False
        if apart is not None:
            yield apart
        elif symptoms.knows(self.measured, self.alpha):
            return
        elif symptoms.memorised(self.measured, self.alpha, self.values.min_memorised):
            yield self._memorising()
        elif unlearnable or symptoms.signal(self.measured["after"]["val"], self.alpha):
            yield alignment.unrelated(self.measured, self.epochs, self.alpha)
        elif self.measured["after"]["train"]["varies"] and not symptoms.stuck(self.measured, self.alpha):
            message = f"{self.split} is at chance after {self.epochs}{self._falling()}: not learnt yet"
            yield Finding(name="signal", value=None, outcome="warning", message=message)

    def _falling(self) -> str:
        """That a loss fell, where one was seen to."""
        after = self.measured["after"]
        start, end = after["start_loss"], after["end_loss"]
        read = start is not None and end is not None and end < start
        return " while the loss falls" if read or symptoms.printed_falls(after) else ""

    def _memorising(self) -> Finding:
        after, runs = self.measured["after"], self.measured["permuted"]
        text = f"train {_score(after['train'])}, {self.split} {_score(after['val'])}, which is chance"
        if not symptoms.fits_random_labels(self.measured, self.alpha):
            if runs:
                why = f"random labels are not fitted as fast (permuted labels: {_score(runs[0]['train'])})"
                message = f"{text}, and {why}: train and {self.split} differ"
            else:
                message = f"{text}; whether random labels are fitted as fast could not be tested"
            return Finding(name="memorising", value=after["train"]["score"], outcome="inconclusive", message=message)
        message = f"memorising: {text}, and permuted labels are fitted as fast ({_score(runs[0]['train'])} on train)"
        return Finding.failed("memorising", after["train"]["score"], message)

    # --------------------------------------------------------------------------------------------------------- stuck

    def _stuck(self) -> Iterator[Finding]:
        stuck = symptoms.stuck(self.measured, self.alpha)
        learnable = symptoms.baselines_signal(self.measured["baselines"], self.alpha)
        apart = self.measured["evaluation"] is not None  # what evaluation reads is not what training does
        if apart or learnable is False or not (stuck or symptoms.blank(self.measured, self.alpha)):
            return  # where nothing could be learnt, that was reported above
        causes = [*self._by_scale(), *self._by_rate()]
        if causes:
            yield from causes
        elif learnable and self.measured["evaluation_lags"]:
            yield self._lagging()
        elif learnable and (few := self._few_updates()) is not None:
            yield few
        elif learnable and not self.measured["after"]["train"]["varies"]:
            yield self._ignored()
        elif stuck:
            yield self._nothing_learnt(learnable)

    def _few_updates(self) -> Finding | None:
        """With more updates the model learns, or at least rows get answers of their own; None: they do not."""
        longer, alike = self.measured["longer"], not self.measured["after"]["train"]["varies"]
        if longer is None or (alike and not longer["train"]["varies"]):
            return None
        learns = clearly_above(longer["train"], longer["before"]["train"], self.alpha)
        if not (learns or alike):
            return None
        outcome: FindingOutcome = "warning" if learns or symptoms.printed_falls(longer) else "inconclusive"
        first = "every row gets the same answer" if alike else "nothing is learnt"
        then = f"{longer['steps']} updates {'rows differ and ' if alike else ''}train is at {_score(longer['train'])}"
        message = f"after {self.epochs} ({counted(self.measured['steps'], 'update')}) {first}, after {then}"
        return Finding(name="few_updates", value=self.measured["steps"], outcome=outcome,
                       message=f"{message}: give more epochs=")  # fmt: skip

    def _ignored(self) -> Finding:
        longer = self.measured["longer"] or self.measured
        after = f"after {counted(longer['steps'], 'update')} every row gets the same answer"
        message = f"input ignored: {after}, while a simple model learns{self._tried()}"
        cure = "look where the input is lost on its way to the output: a constant, a factor of 0, a dead layer"
        return Finding.failed("input_ignored", self.measured["after"]["val"]["score"], message,
                              Cause("input_ignored", cure))  # fmt: skip

    def _lagging(self) -> Finding:
        """Only running statistics lie between one answer for all rows and an answer for each."""
        steps = self.measured["steps"]
        message = (
            f"in evaluation every row gets the same answer after {self.epochs} ({counted(steps, 'update')}), on the "
            "batch's own statistics rows differ: running statistics have not settled"
        )
        outcome: FindingOutcome = "warning" if steps < _SETTLED else "inconclusive"
        return Finding(name="evaluation_lags", value=steps, outcome=outcome, message=f"{message}; give more epochs=")

    def _nothing_learnt(self, learnable: bool | None) -> Finding:
        after = self.measured["after"]
        fell = f"train loss {_number(after['start_loss'])} to {_number(after['end_loss'])}"
        text = f"nothing is learnt in {self.epochs}: {fell}, {self.split} {_score(after['val'])}"
        outcome: FindingOutcome = "inconclusive"
        if self.measured["has_schedule"] and not symptoms.diverging(self.measured):
            outcome, text = "warning", f"{text}; a schedule or the loop's own rate may still rise"
        elif symptoms.printed_falls(after):
            outcome, text = (
                "warning",
                f"{text}; the loop's own loss falls: evaluation may lag, or it is slow{self._tried()}",
            )
        else:
            beside = ", while a simple model learns" if learnable else ""
            text = f"{text}{beside}{self._tried() or '; no cause could be tried'}; give more epochs="
        return Finding(name="nothing_learnt", value=after["val"]["score"], outcome=outcome, message=text)

    def _tried(self) -> str:
        """The interventions that did not help, in words."""
        rates = [f"{each['factor']:g}" for each in self.measured["rates"]]
        tried = [f"{' or '.join(rates)} times the learning rate"] if rates else []
        tried += ["standardised inputs"] if self.measured["standardised"] else []
        return f"; {' and '.join(tried)} did not help" if tried else ""

    def _by_scale(self) -> Iterator[Finding]:
        now, scale = self.measured["standardised"], self.measured["scale"]
        if now is not None and symptoms.cured(self.measured["after"], now, self.alpha):
            spread = max(scale["std"], scale["largest_spread"])
            far = f"standard deviation {spread:.3g}, largest {scale['largest']:.3g}"
            message = f"unnormalised input ({far}): {self._cure(now)} on standardised inputs"
            cure = "standardise the inputs by train's mean and deviation: x = (x - mean) / std"
            yield Finding.failed("unnormalised_input", spread, message, Cause("unnormalised_input", cure, "proved"))

    def _by_rate(self) -> Iterator[Finding]:
        for rate in self.measured["rates"]:
            if symptoms.cured(self.measured["after"], rate, self.alpha):
                way = "high" if rate["factor"] < 1 else "low"
                message = f"learning rate too {way}: {self._cure(rate)} at {rate['factor']:g} times the rate"
                rising = way == "low" and self.measured["has_schedule"]
                message = f"{message}; its schedule may still raise it" if rising else message
                cause = Cause(f"lr_too_{way}", f"take {rate['factor']:g} times the learning rate",
                              "likely" if rising else "proved")  # fmt: skip
                yield Finding(name="learning_rate", value=rate["factor"], outcome="warning" if rising else "failed",
                              message=message, cause=cause)  # fmt: skip
                return

    def _cure(self, now: Measured) -> str:
        before = self.measured["after"]
        return f"train {_score(before['train'])} in {self.epochs}, but {_score(now['train'])}"

    # -------------------------------------------------------------------------------------------------------- beside

    def _few_rows(self) -> Iterator[Finding]:
        rows, least = self.measured["rows"]["val"], self.values.min_rows
        if rows < least:
            message = f"{self.split} has {rows} rows: {interval(self.measured['after']['val'])} is too few to judge by"
            yield Finding(name="rows", value=rows, limit=least, relation=">=", source=self.limits.source("min_rows"),
                          outcome="inconclusive", message=message)  # fmt: skip

    def _beside(self) -> Iterator[Finding]:
        after = self.measured["after"]
        if symptoms.val_above_train(self.measured, self.alpha):
            message = f"{self.split} is above train, both in evaluation mode: its rows are easier, or known"
            yield Finding(name="val_above_train", value=after["val"]["score"], outcome="warning", message=message)
        yield from self._printed_above()
        if symptoms.knows(self.measured, self.alpha):
            yield from leaks.of_best_column(self.measured, self.alpha)
        yield from leaks.of_knowledge(self.measured, self.alpha)
        for each in [*self.measured["not_run"], *self.measured["remarks"]]:
            yield Finding.note(each)

    def _printed_above(self) -> Iterator[Finding]:
        """The loop prints a higher loss than evaluation reads, which makes validation look better than train."""
        after, val_loss = self.measured["after"], self.measured["curves"]["val_loss"][-1]
        printed = after["losses"][-1] if after["losses"] else None
        known = printed is not None and val_loss is not None and after["end_loss"] is not None
        if known and after["end_loss"] <= val_loss < printed:
            there = f"above {self.split}'s {val_loss:.4g}; in evaluation mode it is {after['end_loss']:.4g}"
            why = "the loop's is a mean over the epoch, of the model as it trains and before each update"
            message = f"the loop prints a train loss of {printed:.4g}, {there}; {why}"
            yield Finding.note(message, "printed_loss", printed)


_NAMES = {"constant": "a constant answer", "linear": "a linear model", "nearest": "the nearest neighbour"}


def _score(estimate: Measured) -> str:
    return hundredths(estimate["score"])


def _number(value: float | None) -> str:
    return "unknown" if value is None else legible(value)
