"""Is the trained model the same in evaluation, and steady, and does each row stand alone?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pytest_overfit.adapters.base import RunningStatistics
from pytest_overfit.core.verdict import Finding, FindingOutcome
from pytest_overfit.measures.memorising.criteria import UNKNOWN_FLOOR, FitLimits, can_tell, fits, loss_ratio
from pytest_overfit.measures.memorising.settling import SETTLED, expected_remaining, follows, steps_to_settle
from pytest_overfit.measures.reference_losses.reference import Reference
from pytest_overfit.probes.overfit_batch.words import TASK_IS_DRAWN, agreements_of

#: running statistics with more than this share of their way to go, where next to none should be left, do not follow
_STILL_TO_GO = 0.8

#: running statistics that have so much of their way to go at the end of a training are not what evaluation needs
_LEFT = 0.05

#: running statistics that come to rest so many spreads from the batch's, where evaluation does not fit, are others'
_OFF = 0.1

#: a share of movement aside that is worth a word
_SOME = 0.05


class Evaluation:
    """Findings on the trained model, from the plain measurements."""

    def __init__(self, measured: Mapping[str, Any], reference: Reference, limits: FitLimits) -> None:
        self.measured, self.reference, self.values = measured, reference, limits
        self.loss, self.steps = measured["points"][-1]["loss"], int(measured["steps"])
        self.statistics = [RunningStatistics(**each) for each in measured["statistics"]]

    def findings(self) -> list[Finding]:
        """Modes first, then rows."""
        return [*self._modes(), *self._rows()]

    def _modes(self) -> list[Finding]:
        modes = self.measured["modes"]
        fitted = self._mode_fits("fit")
        findings = []
        if fitted and modes["eval"]["loss"] is not None and can_tell(self.reference):
            findings += [self._open_if_drawn(self._eval_finding()), *self._warnings()]
        elif not fitted and self._mode_fits("train"):
            culprit = modes.get("train_parts_at") or "a part of the model"
            findings.append(
                Finding(
                    name="train_mode_loss",
                    value=modes["train"]["loss"],
                    outcome="failed",
                    message=f"fits in train mode only: {culprit} answers differently in evaluation",
                )
            )
        train = modes["train"]["loss"]
        if train is not None and not any(each.name == "train_mode_loss" for each in findings):
            findings.append(Finding(name="train_mode_loss", value=train, message="in training mode"))
        return findings

    def _mode_fits(self, mode: str) -> bool:
        reading = self.measured["modes"][mode]
        return fits(reading["loss"], agreements_of(reading), self.reference, self.values)

    def _eval_finding(self) -> Finding:
        loss = self.measured["modes"]["eval"]["loss"]
        culprit = self.measured["modes"].get("eval_parts_at") or "a part of the model"
        shown = Finding(name="eval_mode_loss", value=loss)
        astray = self.astray()
        if self._mode_fits("eval"):
            return dataclasses.replace(shown, outcome="passed", message="evaluation fits as well")
        if astray:
            message = f"evaluation is wrong: {astray} (loss {loss:.4g} there)"
            return dataclasses.replace(shown, outcome="failed", message=message)
        again = self.measured["modes"].get("eval_again")
        if again is not None and self._mode_fits("eval_again"):
            message = f"evaluation differs from call to call: its loss was {loss:.4g}, then {again['loss']:.4g}"
            return dataclasses.replace(shown, outcome="warning", message=message)
        if self._mode_fits("reestimated"):
            return dataclasses.replace(shown, **self._lagging())
        shared = next((each for each in self.statistics if each.calls > 1), None)
        if shared is not None and loss_ratio(loss, self.reference) < UNKNOWN_FLOOR:
            message = (
                f"evaluation has loss {loss:.4g}: it normalises the {shared.calls} calls of {shared.name} alike, "
                "training each by itself"
            )
            return dataclasses.replace(shown, outcome="warning", message=message)
        return dataclasses.replace(
            shown,
            outcome="failed",
            message=f"evaluation is wrong: loss {loss:.4g} where training has {self.loss:.4g}; {culprit} differs",
        )

    def _lagging(self) -> dict[str, Any]:
        """Evaluation fits with the batch's own statistics; with those that have come to rest it may not quite."""
        modes = self.measured["modes"]
        settled = modes["reestimated"]["loss"]
        if "at_rest" not in modes or self._mode_fits("at_rest"):
            message = f"evaluation lags: with running statistics of this batch the loss is {settled:.4g}{self._lag()}"
            return {"outcome": "warning", "message": message}
        rest = modes["at_rest"]["loss"]
        message = f"loss {rest:.4g} with running statistics that have settled, {settled:.4g} with this batch's own"
        if loss_ratio(rest, self.reference) >= UNKNOWN_FLOOR:
            return {"outcome": "failed", "message": f"evaluation is wrong: {message}"}
        why = "training normalises what its random layers make of the batch"
        return {"outcome": "warning", "message": f"evaluation does not quite come: {message}; {why}"}

    def _own_score(self) -> bool:
        return any(each.measure == "score" for each in agreements_of(self.measured["points"][-1]))

    def _open_if_drawn(self, finding: Finding) -> Finding:
        """One reading of a loss that draws what it asks for refutes nothing."""
        drawn = finding.outcome == "failed" and self.measured.get("drawn") in TASK_IS_DRAWN
        return dataclasses.replace(finding, outcome="inconclusive") if drawn else finding

    def _warnings(self) -> list[Finding]:
        """Running statistics that go elsewhere, although evaluation of this batch fits; or that take very long."""
        astray = self.astray() if self._mode_fits("eval") else ""
        words = f"{astray}; evaluation of this batch fits all the same" if astray else self._too_slow()
        return [Finding(name="batchnorm_eval_mismatch", value=None, outcome="warning", message=words)] if words else []

    def _too_slow(self) -> str:
        """A momentum that needs more steps than the training that is declared has; "": none does, or none is."""
        updates = self.measured.get("declared_updates")
        slow = [each for each in self.statistics if updates and steps_to_settle(each.momentum, _LEFT) > updates]
        if not slow:
            return ""
        needed = steps_to_settle(slow[0].momentum, _LEFT)
        return (
            f"at a weight of {slow[0].momentum:.4g} for a new batch, the running statistics of {slow[0].name} need "
            f"{needed:,} updates; the declared training has {updates:,}"
        )

    def astray(self) -> str:
        """Why running statistics are wrong, in words: they stand still, or go elsewhere; "": they do neither."""
        for each in self.statistics:
            if each.remaining == 1.0:
                return f"running statistics of {each.name} never move"
        if "at_rest" in self.measured["modes"]:
            return self._elsewhere()
        stray = (each for each in self.statistics if not self._may_follow(each))
        return next((self._stray_words(each) for each in stray), "")

    def _elsewhere(self) -> str:
        """Running statistics that come to rest where evaluation does not fit, and the batch's are not."""
        far = [each for each in self.statistics if each.off is not None and each.off > _OFF]
        if not far or self._mode_fits("at_rest"):
            return ""
        return (
            f"running statistics of {far[0].name} do not follow the batch's: with the weights as they are, they come "
            f"to rest {far[0].off:.2g} of its spreads away"
        )

    def fits_with_settled(self) -> bool:
        """Evaluation would fit with running statistics of the batch."""
        return "reestimated" in self.measured["modes"] and self._mode_fits("reestimated")

    def _may_follow(self, statistics: RunningStatistics) -> bool:
        """Without the steps to settle, only what hardly moved where next to nothing should be left is called astray."""
        if self.measured["settled"]:
            return follows(statistics, self.steps)
        expected = expected_remaining(statistics, self.steps)
        return statistics.remaining <= _STILL_TO_GO or expected is None or expected >= SETTLED

    def _stray_words(self, each: RunningStatistics) -> str:
        words = f"running statistics of {each.name} do not follow the batch's: "
        words += f"{each.remaining:.0%} of their way is left after {self.steps} steps"
        expected = expected_remaining(each, self.steps)
        if expected is not None:
            words += f" where momentum explains {expected:.0%}"
        return f"{words}, and {each.stray:.0%} of what the means moved led elsewhere" if each.stray > _SOME else words

    def _lag(self) -> str:
        """How far the slowest layer has come, and how far its momentum brings it."""
        slow = max(self.statistics, key=lambda each: each.remaining, default=None)
        expected = None if slow is None else expected_remaining(slow, self.steps)
        if slow is None or expected is None:
            return ""
        return (
            f" ({slow.name} has made {1 - slow.remaining:.0%} of the way in {self.steps} steps; at a weight of "
            f"{slow.momentum:.4g} for a new batch {1 - expected:.0%} are expected)"
        )

    def _rows(self) -> list[Finding]:
        found = []
        if self.measured["eval_forwards_agree"] is False:
            found.append(_no("eval_forwards_agree", *self._unsteady()))
        if self.measured["rows_stand_alone"] is False:
            message = (
                "rows are mixed up inside the model: permuting the inputs does not permute the outputs "
                "(if rows belong together by design, declare rows_interact; if they do not come first, row_axis=)"
            )
            if self.measured.get("rows_elsewhere"):
                message = (
                    "the batch's first axis is mixed up inside the model and its second is not, so the rows may lie "
                    "there (time first): if they do, declare row_axis=1; if they come first, row_axis=0"
                )
            outcome: FindingOutcome = "inconclusive" if self.measured.get("rows_elsewhere") else "failed"
            found.append(_no("rows_stand_alone", message, outcome))
        return found

    def _unsteady(self) -> tuple[str, FindingOutcome]:
        """Why evaluation answers the same input differently, and whether that is a fault."""
        culprit = self.measured.get("restless") or "a part of the model"
        if self.measured["samples"]:
            return "evaluation draws latent samples, so its outputs differ from call to call", "warning"
        if self.measured.get("eval_draws") is False:
            return (
                f"evaluation keeps state between calls: {culprit} answers the same input differently, also with the "
                "same random numbers; where it lies was not found, so nothing can be judged: keep it in attributes or "
                "buffers of the model"
            ), "inconclusive"
        if self.measured.get("drawn") == "task":
            return "evaluation draws what the loss asks for, so its outputs differ from call to call", "warning"
        if self.measured.get("drawn") == "inputs":
            return (
                f"evaluation draws random numbers: {culprit} answers the same input differently. Where the loss draws "
                "what it asks for (noise, masks, views) that is meant: give score=; else it is a fault, such as "
                "dropout that is always on"
            ), "inconclusive" if not self._own_score() else "warning"
        return f"evaluation is random: {culprit} answers the same input differently", "failed"


def _no(name: str, message: str, outcome: FindingOutcome) -> Finding:
    return Finding(name=name, value="no", limit="yes", relation="=", source="theory", outcome=outcome, message=message)
