"""Does a loss draw what it asks for? Noise to be predicted, masks, views: random by design, where dropout is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_overfit.adapters.arrays import alike
from pytest_overfit.adapters.keras.state import series_begun_again
from pytest_overfit.core.arrays import Array
from pytest_overfit.data.batch import Batch

if TYPE_CHECKING:  # it asks this module for no more than types
    from pytest_overfit.adapters.keras.reader import Reader

#: the first steps are compared; at its very start a model that answers nothing yet has the same loss for any targets
_STEPS = 3


def step_needs_targets(batch: Batch, learner_on: Callable[[Batch], Any]) -> bool:
    """The first losses of a new model change with one target for all rows."""
    equal = batch.with_equal_targets()
    if equal is None:
        return False
    first, second = (learner_on(each).train(_STEPS) for each in (batch, equal))
    return not np.allclose(first, second, rtol=1e-6, atol=0.0)


def fit_is_random(reader: Reader) -> bool:
    """Outputs differ where Keras' own layers are quiet."""
    return reader.has_outputs and not alike(reader.read("fit")[1], reader.read("fit")[1])


def same_question(reader: Reader) -> tuple[Array, ...] | None:
    """The answer in evaluation, with the same random numbers each time; None: it cannot be asked."""
    with series_begun_again():
        return reader.outputs_for(range(reader.feed.rows), noise=0) if reader.has_outputs else None


def as_bytes(outputs: Sequence[Array] | None) -> list[bytes]:
    """Outputs in a form that is equal or not."""
    return [each.tobytes() for each in outputs or ()]
