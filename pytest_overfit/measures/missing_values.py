"""Does the batch hold NaN or infinite numbers that neither model nor loss masks?"""

from __future__ import annotations

import math

from pytest_overfit.adapters.base import Learner, Reading
from pytest_overfit.core.diagnosed import diagnosed
from pytest_overfit.core.errors import CaseError
from pytest_overfit.data.batch import missing_values

_CURE = "impute or drop them before the batch is made"


def refuse_missing_values(learner: Learner, first: Reading, where: str) -> None:
    """Missing values that come through to the first loss are a mistake in the batch; masked ones are none."""
    missing = missing_values(learner.inputs, learner.targets)
    if missing is not None and not (first.loss is not None and math.isfinite(first.loss)):
        raise diagnosed(CaseError(f"{where} {missing}".strip()), "nan_in_input", _CURE)
