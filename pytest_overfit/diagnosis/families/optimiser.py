"""Rates that are too low or too high, a wrong sign, an epsilon, a schedule or clipping that leaves nothing."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator

from pytest_overfit.adapters.programs import Change, OptimizerFacts
from pytest_overfit.diagnosis.hypotheses import BROKEN, COMMON, SUSPECT, Hypothesis
from pytest_overfit.diagnosis.levels import level
from pytest_overfit.diagnosis.symptoms import Symptoms

#: what an optimizer is usually given; others 1e-3
_USUAL = {"SGD": 0.1, "LBFGS": 1.0, "Adadelta": 1.0, "Adagrad": 0.01}
_USUAL_RATE = 1e-3

#: a healthy run moves its weights by a tenth of their size and more; one that moved by less than this has hardly begun
_HARDLY = 2e-2

#: epsilons are 1e-8 to 1e-7; one above this outweighs gradients of usual size
_LARGE_EPSILON = 1e-3

#: clipping to a norm below this leaves next to nothing of a usual gradient
_SMALL_NORM = 1e-2

#: a usual gradient that is clipped keeps more than this
_SMALL_SHARE = 1e-2

#: rates further than this from what their optimizer is usually given are suspicious
_FAR = 50.0


def suspected(symptoms: Symptoms) -> Iterator[Hypothesis]:
    """Only what costs one change each."""
    optimizer = symptoms.anatomy.optimizer
    if optimizer is not None and optimizer.rate is not None and optimizer.rate <= 0:
        yield _no_rate(symptoms, optimizer)
        return
    yield from _directions(symptoms)
    yield from _clipped(symptoms)
    if optimizer is not None:
        yield from _settings(symptoms, optimizer)
    yield from _too_high(symptoms, optimizer)
    yield from _too_low(symptoms, optimizer)


def _no_rate(symptoms: Symptoms, optimizer: OptimizerFacts) -> Hypothesis:
    rate = optimizer.rate or 0.0
    usual = -rate if rate < 0 else _USUAL.get(optimizer.kind, _USUAL_RATE)
    return Hypothesis(
        fault="lr_negative" if rate < 0 else "lr_zero",
        family="rate",
        what=f"the learning rate of {optimizer.kind} is {rate:g}",
        observed=level(symptoms),
        change=Change(kind="rate_to", factor=usual),
        changed=f"at {usual:g}",
        cure=f"give {optimizer.kind} a rate above 0, e.g. {usual:g}",
        rank=BROKEN,
        broken=True,
    )


def _directions(symptoms: Symptoms) -> Iterator[Hypothesis]:
    """The loss goes the wrong way from its first steps on, smoothly."""
    losses = [each for each in symptoms.measured["losses"][:20] if math.isfinite(each)]
    climbs = len(losses) > 3 and sum(b > a for a, b in itertools.pairwise(losses)) >= 0.9 * (len(losses) - 1)
    endless = symptoms.reference.constant is None and losses and symptoms.last_loss < min(0.0, losses[0])
    if climbs or endless:
        yield Hypothesis(
            fault="gradient_ascent",
            family="direction",
            what="training goes uphill: the sign of the loss or of the update is wrong",
            observed=f"the loss goes from {losses[0]:.4g} to {symptoms.last_loss:.4g}" if losses else "",
            change=Change(kind="reversed" if climbs else "negated"),
            changed="with updates the other way" if climbs else "with the other sign",
            cure="remove the minus before the loss, or maximize=True from the optimizer",
            rank=BROKEN,
        )


def _clipped(symptoms: Symptoms) -> Iterator[Hypothesis]:
    kept = symptoms.anatomy.kept
    if kept is not None and kept < _SMALL_SHARE:
        yield Hypothesis(
            fault="grad_clip_too_small",
            family="clipping",
            what=f"the optimizer is given {kept:.1g} of the gradient that the backward pass leaves",
            observed=level(symptoms),
            change=Change(kind="without", value="clipping"),
            changed="with all of it",
            cure="clip to a norm of 1 or more, or not at all",
            rank=BROKEN + 1,
        )


def _settings(symptoms: Symptoms, optimizer: OptimizerFacts) -> Iterator[Hypothesis]:
    seen = level(symptoms)
    if optimizer.epsilon is not None and optimizer.epsilon > _LARGE_EPSILON:
        yield Hypothesis(
            fault="bad_adam_epsilon",
            family="epsilon",
            what=f"epsilon {optimizer.epsilon:g} of {optimizer.kind} outweighs the gradients",
            observed=seen,
            change=Change(kind="epsilon", factor=1e-8),
            changed="at 1e-8",
            cure=f"leave the epsilon of {optimizer.kind} at its default of 1e-8",
            rank=BROKEN + 1,
        )
    if optimizer.clipping is not None and optimizer.clipping < _SMALL_NORM:
        yield Hypothesis(
            fault="grad_clip_too_small",
            family="clipping",
            what=f"gradients are clipped to {optimizer.clipping:g}, which leaves next to nothing of them",
            observed=seen,
            change=Change(kind="without", value="clipping"),
            changed="without clipping",
            cure="clip to a norm of 1 or more, or not at all",
            rank=BROKEN + 1,
        )
    if optimizer.scheduled:
        yield Hypothesis(
            fault="schedule_kills_rate",
            family="schedule",
            what="the schedule takes the learning rate to nothing before the batch is memorised",
            observed=seen,
            change=Change(kind="without", value="schedule"),
            changed="without it",
            cure="step the scheduler once an epoch, or let it fall over more steps",
            rank=SUSPECT - 2,
        )


def _rate_words(optimizer: OptimizerFacts | None, factor: float) -> tuple[str, str]:
    """The rate as it is, and as it is tried."""
    if optimizer is None or optimizer.rate is None:
        return "the learning rate", f"{factor:g} times the rate"
    return f"the learning rate {optimizer.rate:g}", f"{optimizer.rate * factor:.3g}"


def _too_high(symptoms: Symptoms, optimizer: OptimizerFacts | None) -> Iterator[Hypothesis]:
    above = _above_usual(optimizer)
    rank = SUSPECT - 5 if symptoms.diverges or above > _FAR else COMMON
    factors = [_power(1 / above)] if above > _FAR * _FAR else [0.1, 0.01]
    for place, factor in enumerate(factors):
        rate, tried = _rate_words(optimizer, factor)
        yield Hypothesis(
            fault="lr_too_high",
            family="rate",
            what=f"{rate} is too high",
            observed=_swinging(symptoms),
            change=Change(kind="rate", factor=factor),
            changed=f"at {tried}",
            cure=f"lower the learning rate to {tried}",
            rank=rank + place,
        )


def _above_usual(optimizer: OptimizerFacts | None) -> float:
    """The rate over what this optimizer is usually given; 0.0: not known."""
    if optimizer is None or optimizer.rate is None:
        return 0.0
    return optimizer.rate / _USUAL.get(optimizer.kind, _USUAL_RATE)


def _swinging(symptoms: Symptoms) -> str:
    if symptoms.is_not_finite or not symptoms.diverges:
        return level(symptoms)
    return f"the loss climbs to {symptoms.swings:.3g} times its start"


def _too_low(symptoms: Symptoms, optimizer: OptimizerFacts | None) -> Iterator[Hypothesis]:
    moved = symptoms.moved
    if symptoms.is_not_finite:
        return
    hardly = (moved is not None and moved < _HARDLY) or 0 < _above_usual(optimizer) < 1 / _FAR
    needed = _power(1 / moved) if hardly and moved else 10.0
    factors = [needed, 10 * needed]
    for place, factor in enumerate(factors):
        rate, tried = _rate_words(optimizer, factor)
        walked = "" if moved is None else f"the parameters moved by {moved:.2g} of their size in {symptoms.steps} steps"
        yield Hypothesis(
            fault="lr_too_low",
            family="rate",
            what=f"{rate} is too low",
            observed=walked or level(symptoms),
            change=Change(kind="rate", factor=factor),
            changed=f"at {tried}",
            cure=f"raise the learning rate to {tried}",
            rank=(SUSPECT - 5 if hardly else COMMON + 1) + place,
        )


@functools.cache
def _power(factor: float) -> float:
    """The nearest power of ten."""
    return float(10.0 ** round(math.log10(factor)))
