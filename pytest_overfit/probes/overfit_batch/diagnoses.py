"""The faults that findings on one batch show, by their names, and what to change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pytest_overfit.core.verdict import Confidence, Diagnosis, Finding
from pytest_overfit.measures.broadcasting import words_of
from pytest_overfit.probes.overfit_batch.facts import ALIKE

#: what changes running statistics that follow something else than the batch
_STATISTICS = (
    "give each domain normalisation of its own, or a kind that keeps no statistics (GroupNorm, LayerNorm); check that "
    "nothing resets, freezes or replaces them, and that momentum= is above 0"
)

#: what keeps the input from the outputs, as it is met
_ON_ITS_WAY = (
    "follow the input through the model to where all rows become equal: zeros or ones put in its place, a mean over "
    "features that were normalised just before, units that never switch on, weights that start at 0"
)

#: what mixes rows
_ROWS = (
    "look for an operation over axis 0: attention or a recurrent layer without batch_first=True, a mean, a softmax or "
    "a reshape over rows; rows that belong together are declared with "
    "options={'overfit_batch': {'rows_interact': True}}"
)


def diagnoses_of(
    findings: Iterable[Finding], measured: Mapping[str, Any], astray: bool, settled_fit: bool
) -> tuple[Diagnosis, ...]:
    """`astray`: running statistics do not follow the batch; `settled_fit`: with those of the batch evaluation fits."""
    told = list(findings)
    shown = [each for each in told if each.outcome in ("failed", "warning")]
    named = [found for each in shown for found in _of(each, measured, astray, settled_fit)]
    return (*named, *(found for each in told for found in _of_rows(each, measured)))


def with_reason(summary: str, diagnoses: Sequence[Diagnosis]) -> str:
    """The summary with what a diagnosis adds to it."""
    return next((each.evidence for each in diagnoses if each.evidence.startswith(f"{summary}: ")), summary)


def _of(finding: Finding, measured: Mapping[str, Any], astray: bool, settled_fit: bool) -> Iterator[Diagnosis]:
    name, slow = finding.name, measured.get("slow") or {}
    if name == "lr_too_low":
        yield _diagnosis(finding, "raise the learning rate, to about ten times of what it is", "proved")
    elif name == "slow_to_fit":
        yield _diagnosis(finding, "; ".join(_against_slowness(slow)), "shown")
    elif name == "nan_parameter":
        yield _diagnosis(
            finding,
            "look there for a root, logarithm or division that a mask hides: torch.where gives NaN back through the "
            "side that it does not take, so put a safe value in before the operation",
            "shown",
        )
    elif name == "batchnorm_eval_mismatch" and not astray:
        yield _diagnosis(finding, "give new batches more weight (torch's momentum=, 1 less Keras')", "shown")
    elif name in ("batchnorm_eval_mismatch", "eval_mode_loss") and astray:
        confidence: Confidence = "proved" if settled_fit and finding.outcome == "failed" else "shown"
        yield _diagnosis(finding, _STATISTICS, confidence, "batchnorm_eval_mismatch")
    elif name == "eval_mode_loss" and finding.outcome == "failed" and _is_shared(measured):
        yield _diagnosis(finding, _STATISTICS, "shown", "batchnorm_eval_mismatch")
    elif name in ("target_broadcast", "wrong_output_units"):
        yield _diagnosis(finding, words_of(measured["broadcast"])[1], "shown")
    elif name == "conflicting_labels":
        yield _diagnosis(
            finding,
            "look at these rows: were features cut off, were labels numbered in two ways, or do the rows need an input "
            "more to be told apart?",
            "shown",
        )


def _of_rows(finding: Finding, measured: Mapping[str, Any]) -> Iterator[Diagnosis]:
    """What answers show: not the input's at all, mixed up between rows, or other ones at each call."""
    name, failed = finding.name, finding.outcome == "failed"
    if name in ("loss_ratio", "loss") and failed and _ignores_its_input(measured):
        spread = max(measured["first_row_spread"], measured["row_spread"])
        evidence = (
            f"{finding.message}: the outputs do not depend on the input (rows differ by {spread:.1g} of their size at "
            "most, before training and after it)"
        )
        yield Diagnosis(fault="input_ignored", evidence=evidence, cure=_ON_ITS_WAY, confidence="shown")
    elif name == "rows_stand_alone" and failed:
        yield _diagnosis(finding, _ROWS, "shown", "batch_mixing")
    elif name == "eval_forwards_agree" and failed:
        where = measured.get("restless") or "a part of the model"
        cure = f"let {where} draw only while the model trains (`if self.training`, Keras' argument `training`)"
        yield _diagnosis(finding, cure, "shown", "random_in_eval")
    elif name == "eval_forwards_agree" and finding.outcome == "inconclusive" and measured["eval_draws"] is False:
        cure = "start each call from the same state: reset it in the forward pass, or hand it in and out"
        yield _diagnosis(finding, cure, "shown", "state_carried")


def _ignores_its_input(measured: Mapping[str, Any]) -> bool:
    spreads = measured.get("first_row_spread"), measured.get("row_spread")
    return all(each is not None and each < ALIKE for each in spreads)


def _is_shared(measured: Mapping[str, Any]) -> bool:
    """Running statistics of one layer are of several inputs, which training normalises each by itself."""
    return any(each["calls"] > 1 for each in measured.get("statistics", ()))


def _against_slowness(slow: Mapping[str, Any]) -> Iterator[str]:
    """For each sign of what made it slow; where there is none, what usually does."""
    if slow.get("inputs"):
        yield "bring the inputs to a mean of 0 and a spread of 1"
    if slow.get("equal_units"):
        yield f"start {slow['equal_units'][0]} from random weights"
    if not slow.get("inputs") and not slow.get("equal_units"):
        yield "try another optimizer (Adam), a wider bottleneck, or targets with a mean of 0 and a spread of 1"


def _diagnosis(finding: Finding, cure: str, confidence: Confidence, fault: str = "") -> Diagnosis:
    return Diagnosis(fault=fault or finding.name, evidence=finding.message, cure=cure, confidence=confidence)
