"""A training step that finds no gradient: was it stopped on its way, or does something have no slope?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from pytest_overfit.adapters.keras.errors import user_call
from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import ProgramError
from pytest_overfit.core.verdict import Diagnosis


@contextlib.contextmanager
def step_call(case: Case, model: Any, feed: Any) -> Iterator[None]:
    """A call of the user's training step; where no gradient comes, its error says which operation has no slope."""
    __tracebackhide__ = True
    try:
        with user_call(f"Case {case.name!r}: the training step"):
            yield
    except ProgramError as error:
        if any(each.fault == "detached_graph" for each in error.diagnoses):
            error.diagnoses = tuple(_named(each, model, feed) for each in error.diagnoses)
        raise


def _named(found: Diagnosis, model: Any, feed: Any) -> Diagnosis:
    operation = _without_a_slope(model, feed) if found.fault == "detached_graph" else ""
    if not operation:
        return found
    return Diagnosis(
        fault="non_differentiable",
        evidence=f"{operation} has no slope, and all that the step differentiates is made of it",
        cure="use scores or probabilities there, or pass a gradient through it (straight-through)",
        confidence=found.confidence,
    )


def _without_a_slope(model: Any, feed: Any) -> str:
    if keras.backend.backend() != "tensorflow":
        return ""
    from pytest_overfit.adapters.keras.following import without_a_slope
    from pytest_overfit.adapters.keras.state import held

    with contextlib.suppress(Exception), held(model, weights=True):
        return without_a_slope(model, lambda: model.train_step(feed.data))
    return ""
