"""When does a batch count as fitted?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from pytest_overfit.measures.predictions.agreement import Agreement
from pytest_overfit.measures.reference_losses.reference import FLOORLESS_CONTROL, SCORE_ALONE, Reference

#: reference losses nearer to each other than this share of their size leave nothing to judge by
_SAME = 1e-6

#: a loss without a lower bound must come this far below the constant's, as a share of its size, and agree
_MARGIN = 0.05

#: the same where nothing else can be measured, in nats a row: what an R2 of 0.95 gains in a Gaussian likelihood
_MARGIN_ALONE = 1.5

#: an unknown floor, e.g. label smoothing inside a user's own step, may hold the loss up to this ratio
UNKNOWN_FLOOR = 0.5


class FitLimits(Protocol):
    """The limits that the criteria read."""

    @property
    def max_loss_ratio(self) -> float: ...
    @property
    def min_accuracy(self) -> float: ...
    @property
    def min_token_accuracy(self) -> float: ...
    @property
    def min_near_rows(self) -> float: ...


#: agreement measure -> the limit it is held against
LIMIT_OF = {
    "accuracy": "min_accuracy",
    "token_accuracy": "min_token_accuracy",
    "near_rows": "min_near_rows",
    "worst_column": "max_loss_ratio",
    "score": "min_token_accuracy",
}


def can_tell(reference: Reference) -> bool:
    """False where the best constant output is as good as the best free ones."""
    if reference.constant is None or reference.best is None:
        return reference.constant is not None
    size = max(abs(reference.constant), abs(reference.best))
    return reference.constant - reference.best > _SAME * max(size, 1e-30)


def loss_ratio(loss: float | None, reference: Reference) -> float:
    """(loss - best) / (constant - best); NaN where a part is missing."""
    if loss is None or reference.constant is None or reference.best is None or not can_tell(reference):
        return math.nan
    return (loss - reference.best) / (reference.constant - reference.best)


def allowed(agreement: Agreement, limits: FitLimits) -> float:
    """The limit of one agreement, contradictions in the batch taken off."""
    limit = float(getattr(limits, LIMIT_OF[agreement.measure]))
    if agreement.measure == "worst_column":
        return agreement.best + limit * (1.0 - agreement.best)
    return limit * agreement.best


def agrees(agreement: Agreement, limits: FitLimits) -> bool:
    """True if one agreement is within its limit."""
    if agreement.measure == "worst_column":
        return agreement.value <= allowed(agreement, limits)
    return agreement.value >= allowed(agreement, limits) - 1e-9


def margin(agreements: Sequence[Agreement], reference: Reference) -> float:
    """How far below the constant's a loss without a lower bound must come; NaN where there is no constant's."""
    if reference.constant is None:
        return math.nan
    share = _MARGIN * abs(reference.constant)
    return share if agreements else max(_MARGIN_ALONE, share)


def clears_margin(loss: float, agreements: Sequence[Agreement], reference: Reference) -> bool:
    """For a loss without a lower bound: is it below the constant's by a margin?"""
    return reference.constant is not None and loss <= reference.constant - margin(agreements, reference)


def fits(loss: float | None, agreements: Sequence[Agreement], reference: Reference, limits: FitLimits) -> bool:
    """True if loss and predictions are where a model that memorised the batch has them."""
    if loss is None or not math.isfinite(loss) or not all(agrees(each, limits) for each in agreements):
        return False
    if reference.how == SCORE_ALONE:
        return bool(agreements)
    if reference.how == FLOORLESS_CONTROL and not agreements:
        return False  # a loss with the wrong sign falls just so
    if reference.best is None:
        return clears_margin(loss, agreements, reference)
    ratio = loss_ratio(loss, reference)
    return math.isfinite(ratio) and ratio <= limits.max_loss_ratio
