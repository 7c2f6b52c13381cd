"""Is the trained model the same in evaluation, and steady, and does each row stand alone?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pytest_overfit.core.verdict import Finding, FindingOutcome
from pytest_overfit.measures.memorising.criteria import FitLimits, can_tell, fits
from pytest_overfit.measures.reference_losses.reference import Reference
from pytest_overfit.probes.overfit_batch.words import TASK_IS_DRAWN, agreements_of

#: running statistics with more than this share of their way to go, where next to none should be left, do not follow
_STILL_TO_GO = 0.8


class Evaluation:
    """Findings on the trained model, from the plain measurements."""

    def __init__(self, measured: Mapping[str, Any], reference: Reference, limits: FitLimits) -> None:
        self.measured, self.reference, self.values = measured, reference, limits
        self.loss = measured["points"][-1]["loss"]

    def findings(self) -> list[Finding]:
        """Modes first, then rows."""
        return [*self._modes(), *self._rows()]

    def _modes(self) -> list[Finding]:
        modes = self.measured["modes"]
        fitted = self._mode_fits("fit")
        findings = []
        if fitted and modes["eval"]["loss"] is not None and can_tell(self.reference):
            findings.append(self._open_if_drawn(self._eval_finding()))
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
        if self._mode_fits("eval"):
            return dataclasses.replace(shown, outcome="passed", message="evaluation fits as well")
        stuck = [each for each in self.measured["statistics"] if self._hardly_moved(each)]
        if stuck:
            verb = "never move" if stuck[0]["remaining"] == 1.0 else "do not follow the batch's"
            message = f"evaluation is wrong: running statistics of {stuck[0]['name']} {verb}"
            return dataclasses.replace(shown, outcome="failed", message=f"{message} (loss {loss:.4g} there)")
        again = self.measured["modes"].get("eval_again")
        if again is not None and self._mode_fits("eval_again"):
            message = f"evaluation differs from call to call: its loss was {loss:.4g}, then {again['loss']:.4g}"
            return dataclasses.replace(shown, outcome="warning", message=message)
        if self._mode_fits("reestimated"):
            return dataclasses.replace(
                shown,
                outcome="warning",
                message=f"evaluation lags: with running statistics of this batch the loss is "
                f"{self.measured['modes']['reestimated']['loss']:.4g}",
            )
        return dataclasses.replace(
            shown,
            outcome="failed",
            message=f"evaluation is wrong: loss {loss:.4g} where training has {self.loss:.4g}; {culprit} differs",
        )

    def _own_score(self) -> bool:
        return any(each.measure == "score" for each in agreements_of(self.measured["points"][-1]))

    def _open_if_drawn(self, finding: Finding) -> Finding:
        """One reading of a loss that draws what it asks for refutes nothing."""
        drawn = finding.outcome == "failed" and self.measured.get("drawn") in TASK_IS_DRAWN
        return dataclasses.replace(finding, outcome="inconclusive") if drawn else finding

    def _hardly_moved(self, statistics: Mapping[str, Any]) -> bool:
        """Most of the way is still to go, where momentum and steps leave next to none of it; or it stands still."""
        momentum = statistics["momentum"]
        expected = 1.0 if momentum is None else (1.0 - momentum) ** int(self.measured["steps"])
        return bool(statistics["remaining"] == 1.0 or (statistics["remaining"] > _STILL_TO_GO and expected < 0.01))

    def _rows(self) -> list[Finding]:
        found = []
        if self.measured["eval_forwards_agree"] is False:
            found.append(_no("eval_forwards_agree", *self._unsteady()))
        if self.measured["rows_stand_alone"] is False:
            message = (
                "rows are mixed up inside the model: permuting the inputs does not permute the outputs "
                "(if rows belong together by design, declare rows_interact)"
            )
            found.append(_no("rows_stand_alone", message, "failed"))
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
