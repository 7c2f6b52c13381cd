"""Regularisers that outweigh the loss."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_overfit.adapters.programs import Change
from pytest_overfit.diagnosis.hypotheses import BROKEN, SUSPECT, Hypothesis
from pytest_overfit.diagnosis.levels import level
from pytest_overfit.diagnosis.symptoms import Symptoms

#: rates of dropout from which on next to nothing comes through
_HIGH = 0.8

#: weight decay that is usual is at most 0.1 (decoupled) or 1e-3
_DECAY = 0.05


def suspected(symptoms: Symptoms) -> Iterator[Hypothesis]:
    """By their declared rates."""
    rates = [each for each in symptoms.anatomy.dropping if each.rate > 0]
    if rates:
        most = max(rates, key=lambda each: each.rate)
        yield Hypothesis(
            fault="excessive_dropout",
            family="dropout",
            what=f"dropout {most.rate:g} ({most.where}) lets too little through",
            observed=level(symptoms),
            change=Change(kind="without", value="dropout"),
            changed="without dropout",
            cure=f"lower the rate of {most.where} to 0.5 or less",
            rank=BROKEN + 2 if most.rate >= _HIGH else SUSPECT,
        )
    yield from _decay(symptoms)


def _decay(symptoms: Symptoms) -> Iterator[Hypothesis]:
    optimizer, penalties = symptoms.anatomy.optimizer, symptoms.anatomy.penalties
    decay = 0.0 if optimizer is None else optimizer.decay
    if not decay and not penalties:
        return
    named = [f"weight decay {decay:g} of {optimizer.kind}"] if optimizer is not None and decay else []
    what = " and ".join([*named, *penalties[:2]])
    yield Hypothesis(
        fault="excessive_weight_decay",
        family="decay",
        what=f"{what} outweigh{'s' if len(named) + len(penalties[:2]) == 1 else ''} the loss",
        observed=level(symptoms),
        change=Change(kind="without", value="decay"),
        changed="without decay and penalties",
        cure="lower weight decay and penalties to 1e-4 to 1e-2",
        rank=BROKEN + 2 if decay > _DECAY or penalties else SUSPECT,
    )
