"""How scores and projections of a single-batch run are put into words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_overfit.core.figures import legible
from pytest_overfit.measures.memorising.trend import WINDOW, Trend
from pytest_overfit.measures.predictions.agreement import Agreement

#: why a loss that stands still refutes nothing, by what is drawn
_FLOOR = "draws random numbers of its own, so how low it can come is not known; give score="
DRAWN = {
    "loss": f"the loss {_FLOOR}",
    "targets": "the loss compares with numbers that it draws, so how low it can come is not known; give score=",
    "task": "what the loss asks for is drawn at each call (noise, a mask), so how low it can come is not known; give "
    "score=, best as a mean over many draws",
    "inputs": "the loss is made of the inputs alone, so how low it can come is not known; give score=, best as a mean "
    "over many draws where it draws",
}

#: why a fall refutes nothing and proves nothing
NO_FLOOR = (
    "has no lower bound, and no predictions were read: with the wrong sign a loss falls just so, so nothing is proved; "
    "give score="
)

#: then predictions cannot be compared with the batch's targets
TASK_IS_DRAWN = ("targets", "task", "inputs")

#: what the control run shows where it fits
FITS_BLINDED = (
    "the same factory fits its batch on blinded inputs too, so nothing is proved: are the rows along another axis than "
    "the first (declare row_axis=), or do the inputs come from elsewhere (give score=)?"
)


def agreements_of(form: Mapping[str, Any]) -> list[Agreement]:
    """Agreements out of their plain form."""
    return [Agreement(**each) for each in form.get("agreements", ())]


def score_words(score: Agreement, limit: float) -> str:
    """A score by its name, in as many digits as tell it from its limit."""
    detail = f" ({score.detail})" if score.detail else ""
    if score.measure == "worst_column":
        return f"1 - R2 is {legible(score.value, limit, '.2f')}{detail}"
    return f"{score.name.replace('_', ' ')} {legible(score.value, limit, '.2f')}{detail}"


def needs(slow: Sequence[Trend], steps: int) -> str:
    """The steps that the projection says, or how slow it is where there is none."""
    found = [each.reaches_goal_at for each in slow if each.reaches_goal_at is not None]
    if len(found) == len(slow):
        return f"it needs about steps={_round_up(max(found))}"
    slowest = min(each.fall for each in slow)
    return f"by {slowest:.1%} in the last {round(WINDOW * steps)} steps" if slowest < 1 else "its score still improves"


def _round_up(steps: int) -> int:
    """Two figures are all that a projection is good for."""
    unit = int(10 ** max(0, len(str(steps)) - 2))
    return math.ceil(steps / unit) * unit
