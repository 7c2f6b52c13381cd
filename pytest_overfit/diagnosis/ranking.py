"""From trials to diagnoses: which of the changes that cure is the cause."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_overfit.core.verdict import Diagnosis
from pytest_overfit.diagnosis.hypotheses import Hypothesis
from pytest_overfit.diagnosis.trials import CLEARLY, Trial


def diagnoses_of(hypotheses: Sequence[Hypothesis], trials: Sequence[Trial]) -> list[Diagnosis]:
    """Proved ones first, those that the state shows next.

    What the state shows to be broken stands before a cure that nothing in the program called for. Of two cures of other
    families the one that fits in at most half of the other's updates is the cause; else both are named, first the one
    that the state spoke for more.
    """
    cured = [each for each in trials if each.fits_at is not None]
    fastest = min((each.fits_at or 0 for each in cured), default=0)
    clear = [each for each in cured if CLEARLY * (each.fits_at or 0) < fastest or each.fits_at == fastest]
    called_for = [_proved(each) for each in clear if each.hypothesis.is_of_state]
    others = [_proved(each) for each in clear if not each.hypothesis.is_of_state]
    named = {each.fault for each in (*called_for, *others)}
    broken = {each.fault: _shown(each) for each in hypotheses if each.broken and each.fault not in named}
    return [*called_for, *broken.values(), *others]


def ruled_out(trials: Sequence[Trial]) -> str:
    """What was changed and did not help, in one sentence; "" where nothing was tried."""
    names = list(dict.fromkeys(each.hypothesis.fault for each in trials if each.was_made and each.fits_at is None))
    return f"changed without success: {', '.join(names)}" if names else ""


def _proved(trial: Trial) -> Diagnosis:
    hypothesis = trial.hypothesis
    evidence = f"{hypothesis.opening}; {hypothesis.changed} the batch is memorised in {trial.fits_at} steps"
    return Diagnosis(fault=hypothesis.fault, evidence=evidence, cure=hypothesis.cure, confidence="proved")


def _shown(hypothesis: Hypothesis) -> Diagnosis:
    return Diagnosis(
        fault=hypothesis.fault,
        evidence=hypothesis.opening,
        cure=hypothesis.cure,
        confidence=hypothesis.confidence,
    )
