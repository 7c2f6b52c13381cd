"""From the measurements of a single-batch run to a verdict, on plain values alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_overfit.core.figures import legible
from pytest_overfit.core.limits import Resolved
from pytest_overfit.core.verdict import Finding, Judgement
from pytest_overfit.measures.memorising.criteria import (
    LIMIT_OF,
    UNKNOWN_FLOOR,
    agrees,
    allowed,
    can_tell,
    fits,
    loss_ratio,
    margin,
)
from pytest_overfit.measures.memorising.extension import MORE_STEPS
from pytest_overfit.measures.memorising.progress import FitProgress, point_of
from pytest_overfit.measures.memorising.trend import TRICKLE, Trend
from pytest_overfit.measures.predictions.agreement import Agreement
from pytest_overfit.measures.reference_losses.reference import FLOORLESS_CONTROL, PROPORTIONAL, SCORE_ALONE, Reference
from pytest_overfit.probes.overfit_batch import facts as fit_facts
from pytest_overfit.probes.overfit_batch.conflicts import findings_of
from pytest_overfit.probes.overfit_batch.diagnoses import diagnoses_of, with_reason
from pytest_overfit.probes.overfit_batch.judgement_of_modes import Evaluation
from pytest_overfit.probes.overfit_batch.slowness import slowness_findings
from pytest_overfit.probes.overfit_batch.words import DRAWN, FITS_BLINDED, NO_FLOOR, TASK_IS_DRAWN, needs, score_words

#: a ratio beyond this says nothing more
_FAR = 10.0


def judge_fit(measured: Mapping[str, Any], limits: Resolved[Any]) -> Judgement:
    """Judge one run; see `OverfitBatch` for what passing means."""
    if measured.get("unsuitable"):
        why = measured["unsuitable"]
        batch = Finding(name="batch", value=None, outcome="inconclusive", message=why)
        notes = map(Finding.note, measured["remarks"])
        return Judgement(outcome="inconclusive", summary=f"cannot tell: {why}", findings=(batch, *notes))
    return _Judge(measured, limits).judgement()


def _telling(decisive: Sequence[Finding]) -> Finding:
    """The finding that explains the first one, where there is such: it makes the summary."""
    explains = {"loss_ratio": "train_mode_loss", "loss": "train_mode_loss", "eval_mode_loss": "eval_forwards_agree"}
    explanation = explains.get(decisive[0].name)
    return next((finding for finding in decisive if finding.name == explanation), decisive[0])


class _Judge:
    """One measured run and its limits."""

    def __init__(self, measured: Mapping[str, Any], limits: Resolved[Any]) -> None:
        self.measured, self.limits, self.values = measured, limits, limits.values
        reference = measured["reference"]
        self.reference = Reference(constant=reference["constant"], best=reference["best"], how=reference["how"])
        self.points = [point_of(each) for each in measured["points"]]
        self.last = self.points[-1]
        self.scores = self.last.agreements
        self.ratio = loss_ratio(self.last.loss, self.reference)
        self.progress = FitProgress(self.points, self.reference, self.values)

    def judgement(self) -> Judgement:
        evaluation = Evaluation(self.measured, self.reference, self.values)
        data = (*self._not_finite(), *findings_of(self.measured))
        findings = (*data, *self._loss_findings(), *self._agreement_findings(), *evaluation.findings())
        trains_only = any(each.name == "train_mode_loss" and each.outcome == "failed" for each in findings)
        facts = fit_facts.facts(self.measured, self.ratio, trains_only)
        references = fit_facts.references(self.measured)
        findings = (*findings, *slowness_findings(self.measured))
        judged = Judgement.of([*findings, *references, *facts], self._passed_summary, telling=_telling)
        diagnoses = diagnoses_of(findings, self.measured, bool(evaluation.astray()), evaluation.fits_with_settled())
        return dataclasses.replace(judged, summary=with_reason(judged.summary, diagnoses), diagnoses=diagnoses)

    def _passed_summary(self) -> str:
        beside = [each for each in self.scores if each.measure != "near_rows"]
        limits = self.values
        shown = [
            f"{each.name.replace('_', ' ')} {legible(each.value, allowed(each, limits), '.3g')}"
            for each in beside or self.scores
        ]
        score = ", ".join(shown) or "agreement: not measured"
        loss = f"loss {self.last.loss:.4g}"
        if math.isfinite(self.ratio):
            loss = f"loss ratio {legible(self.ratio, limits.max_loss_ratio, '.2g')}"
        if self.reference.best is None and self.reference.constant is not None:
            loss += f" (a constant output has {self.reference.constant:.4g})"
        verb = "reconstructs" if self.measured.get("samples") else "memorised"
        return f"{verb} {self.measured['rows']} rows in {self.measured['memorised_at']} steps: {loss}, {score}"

    def _words(self, score: Agreement) -> str:
        return score_words(score, allowed(score, self.values))

    def _not_finite(self) -> list[Finding]:
        """NaN inside the model is a fault also where the loss does not see it, and before anything else the reason."""
        found = self.measured["parameters"].get("not_finite", ())
        if not found or self.measured["stop"] == "non_finite":
            return []
        more = f" ({len(found) - 1} more)" if len(found) > 1 else ""
        message = f"{found[0]} after {self.measured['steps']} steps, although the loss is finite{more}"
        return [Finding.failed("nan_parameter", found[0], message)]

    # ------------------------------------------------------------------- loss

    def _loss_findings(self) -> list[Finding]:
        below = self._below_minimum()
        if below is not None:
            return [below]
        still = fit_facts.nothing_moved(self.measured, self.reference.how)
        if still:
            return [self._loss_finding("failed", f"{still} in {self.measured['steps']} steps: nothing is trained")]
        if self.measured["stop"] == "non_finite":
            return [fit_facts.non_finite(self.measured, self.last.loss)]
        if not can_tell(self.reference) and not self._score_decides():
            return [self._cannot_tell()]
        if fits(self.last.loss, self.scores, self.reference, self.values):
            return [self._fitted()]
        return [self._unfitted()]

    def _score_decides(self) -> bool:
        """The loss says nothing, and predictions are right, or the case's own score is there."""
        return (
            self.reference.how == SCORE_ALONE
            and bool(self.scores)
            and (bool(self._refuting()) or all(agrees(each, self.values) for each in self.scores))
        )

    def _fitted(self) -> Finding:
        """One reading can be a dip of a loss that swings: the run must have ended because two running were good."""
        if self.measured["stop"] == "fits":
            return self._loss_finding("passed", "the loss is where memorising has it")
        steps = self.measured["steps"]
        message = f"fits at the last reading only, at step {steps}; give it a few more steps= to confirm"
        return self._loss_finding("inconclusive", message)

    def _loss_finding(self, outcome: Any, message: str) -> Finding:
        if self.reference.best is None:
            return Finding(
                name="loss",
                value=self.last.loss,
                limit=self.reference.constant,
                relation="<=",
                outcome=outcome,
                source="constant_loss less a margin",
                message=message,
                better="lower",
            )
        return Finding(
            name="loss_ratio",
            value=self.ratio,
            limit=self.values.max_loss_ratio,
            relation="<=",
            outcome=outcome,
            source=self.limits.source("max_loss_ratio"),
            message=message,
            better="lower",
        )

    def _below_minimum(self) -> Finding | None:
        minimum = self.measured.get("minimum")
        if not minimum:
            return None
        lowest = min((each.loss for each in self.points if math.isfinite(each.loss)), default=math.inf)
        constant = self.reference.constant or 0.0
        if lowest >= minimum["value"] - 1e-4 * max(1.0, abs(constant)):
            return None
        wants = {"log_probabilities": "log-probabilities", "probabilities": "probabilities"}.get(
            minimum["domain"], "scores"
        )
        message = (
            f"loss {lowest:.4g} lies below {minimum['value']:g}, the least {minimum['loss']} can be: it expects "
            f"{wants}, and targets inside its domain"
        )
        return Finding(
            name="least_loss",
            value=lowest,
            limit=minimum["value"],
            relation=">=",
            source="theory",
            outcome="failed",
            message=message,
        )

    def _cannot_tell(self) -> Finding:
        if self.reference.how == SCORE_ALONE:
            why = (
                "no part of the batch is a target that the loss looks at, so a model that ignores its inputs would "
                "have another task, and no score was measured; give score=, loss= on the model's outputs, or name the "
                "target 'labels'"
            )
        elif self.reference.how == PROPORTIONAL:
            why = (
                "the loss falls without limit, in proportion to the outputs: is its sign right? If it is meant so (a "
                "critic's loss), give score="
            )
        elif self.reference.constant is None:
            why = "even an output that ignores the input makes this loss fall without limit; give score="
        else:
            why = f"the best constant output reaches loss {self.reference.constant:.4g}, as low as any free outputs do"
            why += fit_facts.shapes_hint(self.measured["shapes"])
        wrong = self._refuting()
        if wrong:
            message = f"the loss does not reward the targets: {self._words(wrong[0])}, and {why}"
            return Finding(name="constant_loss", value=self.reference.constant, outcome="failed", message=message)
        message = f"cannot tell: {why}"
        return Finding(name="constant_loss", value=self.reference.constant, outcome="inconclusive", message=message)

    def _unfitted(self) -> Finding:
        """The loss or the predictions are not there: is it still on its way?"""
        steps = self.measured["steps"]
        slow = self.progress.trends()
        where = self._where()
        if self.measured["stop"] == "budget":
            return self._loss_finding("inconclusive", f"the budget was spent at step {steps} ({where})")
        if self._floor_is_unknown() and self.scores and all(agrees(each, self.values) for each in self.scores):
            message = f"every prediction agrees, with {where} (a blinded run's), floor unknown"
            return self._loss_finding("passed", message)
        if self._falls_without_floor():
            return self._loss_finding("inconclusive", f"loss {self.last.loss:.4g} {NO_FLOOR}")
        if slow and all(each.still_falling for each in slow):
            return self._loss_finding("inconclusive", f"still falling at step {steps} ({where}); {needs(slow, steps)}")
        if self._may_only_rest():
            message = f"{where} after {steps} steps and no longer improving: too near its limit to be a refutation"
            return self._loss_finding("inconclusive", message)
        if self._floor_is_unknown():
            return self._unknown_floor(where)
        end = f"{where} after {steps} steps{self._course(slow, where)}"
        if self.measured.get("drawn") and not self._refuting():
            return self._loss_finding("inconclusive", f"{end}, but {DRAWN[self.measured['drawn']]}")
        if self.measured.get("control_fits"):
            return self._loss_finding("inconclusive", f"{where}, but {FITS_BLINDED}")
        return self._loss_finding("failed", end)

    def _falls_without_floor(self) -> bool:
        """It fell and nothing else is known: a loss with the wrong sign does so too."""
        alone = self.reference.how == FLOORLESS_CONTROL and not self.scores
        return alone and self.last.loss < min(0.0, self.points[0].loss)

    def _refuting(self) -> list[Agreement]:
        """Wrong predictions, where it is known what the loss wants predicted."""
        unknown = self.measured.get("drawn") in TASK_IS_DRAWN or self.reference.how == SCORE_ALONE
        wrong = [each for each in self.scores if not agrees(each, self.values)]
        return [each for each in wrong if each.measure == "score" or not unknown]

    def _may_only_rest(self) -> bool:
        """Near its limits, and its loss is met (a T5 left such a plateau after 1,480 steps), or it had few steps."""
        few = self.measured["steps"] < MORE_STEPS or self.progress.loss_is_met
        if self.measured["schedule_is_declared"] or not few:
            return False
        return self.progress.is_near() and self.progress.below_constant()

    def _where(self) -> str:
        wrong = [each for each in self.scores if not agrees(each, self.values)]
        if math.isfinite(self.ratio) and self.ratio > self.values.max_loss_ratio:
            shown = legible(self.ratio, self.values.max_loss_ratio, ".2f")
            return f"loss ratio {shown}" if self.ratio < _FAR else "loss far above a constant output's"
        if wrong:
            return self._words(wrong[0])
        loss, least = self.last.loss, margin(self.scores, self.reference)
        if self.reference.best is None and math.isfinite(least) and self.reference.constant is not None:
            wanted = self.reference.constant - least
            return (
                f"loss {loss:.4g}: expected at most {wanted:.4g}, a constant output has {self.reference.constant:.4g}"
            )
        return f"loss at {loss:.4g}"

    def _course(self, slow: Sequence[Trend], where: str) -> str:
        """How the loss moves at the end, or the score where no better loss is asked for."""
        if self.progress.loss_is_met and not where.startswith("loss"):
            return " and no longer improving"
        first, last = self.points[0].loss, self.last.loss
        trickles = slow and all(each.significant and each.fall > TRICKLE / 10 for each in slow)
        moves = "hardly falling" if trickles else "no longer falling"
        if math.isfinite(first) and last > first:
            moves = "rising"
        return f" and {moves}" if where.startswith("loss") else f", the loss {moves}"

    def _floor_is_unknown(self) -> bool:
        return bool(self.measured["control"]) and self.ratio <= UNKNOWN_FLOOR

    def _unknown_floor(self, where: str) -> Finding:
        """A blinded control tells the constant's loss but not how low memorising can go."""
        predictions = "wrong" if self._refuting() else "not measured: give score="
        message = f"{where} and no longer falling; predictions were {predictions}"
        return self._loss_finding("failed" if self._refuting() else "inconclusive", message)

    # -------------------------------------------------------------- agreement

    def _agreement_findings(self) -> list[Finding]:
        if not self.scores:
            return [Finding(name="agreement", value=None, message="not measured")]
        return [self._agreement_finding(each) for each in self.scores]

    def _agreement_finding(self, score: Agreement) -> Finding:
        good = agrees(score, self.values)
        # an unmet agreement of a run that is still falling is not a refutation yet; the loss finding has decided that
        unknown = score not in self._refuting()
        pending = not good and (unknown or self._loss_findings()[0].outcome == "inconclusive")
        return Finding(
            name=score.name,
            value=score.value,
            limit=allowed(score, self.values),
            relation="<=" if score.measure == "worst_column" else ">=",
            source=self.limits.source(LIMIT_OF[score.measure]),
            outcome="passed" if good else "inconclusive" if pending else "failed",
            message="predictions agree" if good else f"wrong predictions: {self._words(score)}",
            better="" if score.measure == "worst_column" else "higher",
        )
