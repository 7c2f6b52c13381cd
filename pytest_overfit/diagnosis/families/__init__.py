"""One module a family of faults, as the vocabulary has them; each suspects by what a run shows for nothing."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_overfit.diagnosis.families import (
    architecture,
    gradient_path,
    initialisation,
    inputs_and_targets,
    numerics,
    optimiser,
    output_and_loss,
    regularisation,
)
from pytest_overfit.diagnosis.hypotheses import Family

FAMILIES: Sequence[Family] = (
    output_and_loss.suspected,
    gradient_path.suspected,
    initialisation.suspected,
    inputs_and_targets.suspected,
    regularisation.suspected,
    optimiser.suspected,
    architecture.suspected,
    numerics.suspected,
)
