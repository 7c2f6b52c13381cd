"""Does a small step along the first update lower the loss?

The update's direction is followed for three short ways, chosen so that by the gradient the loss should change by 3, 1
and 0.3 %, with all random numbers held. What the loss then does is compared with what the gradient promises.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_overfit.adapters.wires import Descent, Wires
from pytest_overfit.probes.wiring.faults import Fault

#: change of the loss, as a share of it, that the gradient promises for each way
SHARES = (0.03, 0.01, 0.003)

#: a whole update that should change the loss by less than this share needs some hundred thousand of its kind
_NOTHING = 1e-5

#: ratio of the real change to the promised one, outside of which they do not agree, where backward passes cannot be
#: checked one by one; parts that are detached by design were seen at 0.87 (a quantiser) and 1.95 (one view is held)
_LEAST, _MOST = 0.33, 3.0

#: loss after the first update, or after some that raise it one after the other, as a multiple of that before them,
#: above which steps are too long
_EXPLODED = 10.0


def look(wires: Wires) -> dict[str, Any] | None:
    """None: the loss cannot be read apart from the step, or nothing moved."""
    wrong = list(wires.wrong_functions())
    found: Descent | None = wires.descent(SHARES)
    if found is None or not found.promised or not found.loss:  # a loss of 0 promises nothing
        return {"wrong": wrong} if wrong else None
    return {
        "wrong": wrong,
        "whole": found.whole,
        "promised": found.promised,
        "loss": found.loss,
        "ratios": [change / wanted for wanted, change in found.changes],
        "smooth": found.smooth,
        "checked": found.checked,
        "scheduled": found.scheduled,
    }


def faults(measured: Mapping[str, Any] | None, losses: Sequence[float]) -> Iterator[Fault]:
    """`losses`: of the watched calls; one update may go up by its momentum or its dropout, not all of them."""
    if measured is None:
        return
    if measured["wrong"]:
        yield _wrong_functions(measured["wrong"])
    if "ratios" in measured:
        yield from _along(measured, losses)


def _along(measured: Mapping[str, Any], losses: Sequence[float]) -> Iterator[Fault]:
    if not math.isfinite(measured["loss"]):
        return  # no step can be too long from where there is no number
    ratios, rises = measured["ratios"], not losses[-1] <= losses[0]
    if rises and ratios and measured["promised"] > 0 and all(each > 0 for each in ratios):
        yield Fault(
            name="gradient_ascent",
            outcome="failed" if measured["smooth"] else "warning",
            subjects=(),
            evidence="the update goes up the gradient: the loss rises along it, by "
            f"{measured['promised'] / abs(measured['loss'] or 1.0):.2g} of itself for a whole update",
            cure="look for a minus before the loss, a negative learning rate, maximize=True, or a decay that outweighs "
            "the gradient",
        )
    elif not measured["whole"] <= _EXPLODED * abs(measured["loss"]):
        yield _too_far("one update takes", measured["loss"], measured["loss"] + measured["whole"])
    elif _explodes(losses, measured["loss"]):
        yield _too_far(f"{len(losses)} updates take", measured["loss"], losses[-1])
    elif not measured["scheduled"] and 0 < abs(measured["promised"]) < _NOTHING * abs(measured["loss"]):
        yield Fault(
            name="lr_too_low",
            outcome="warning",
            subjects=(),
            evidence="one update lowers the loss by "
            f"{abs(measured['promised'] / measured['loss']):.1g} of itself: the step is next to nothing",
            cure="raise the learning rate; look for clipping, an epsilon above the gradients, or a loss divided twice",
        )
    elif ratios and not measured["checked"] and all(not _LEAST <= each <= _MOST for each in ratios):
        yield Fault(
            name="wrong_backward",
            outcome="warning",
            subjects=(),
            evidence=f"along the update the loss changes by {sorted(ratios)[len(ratios) // 2]:.2g} of what the "
            "gradient promises",
            cure="check hand-written gradients (tf.custom_gradient) against differences of their forward pass",
        )


def _explodes(losses: Sequence[float], start: float) -> bool:
    """The loss rises at each watched update, and ends far above where it started."""
    rises = all(not after <= before for before, after in itertools.pairwise(losses))
    return len(losses) > 2 and rises and not losses[-1] <= _EXPLODED * abs(start)


def _too_far(who: str, start: float, end: float) -> Fault:
    return Fault(
        name="lr_too_high",
        outcome="warning",
        subjects=(),
        evidence=f"{who} the loss from {start:.3g} to {end:.3g}",
        cure="lower the learning rate",
    )


def _wrong_functions(names: Sequence[str]) -> Fault:
    return Fault(
        name="wrong_backward",
        outcome="failed",
        subjects=tuple(names),
        evidence="the hand-written backward pass of {subjects} is not the slope of its forward pass, by finite "
        "differences in float64",
        cure="check it with torch.autograd.gradcheck",
    )
