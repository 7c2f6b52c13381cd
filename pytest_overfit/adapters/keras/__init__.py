"""The adapter for Keras 3: learners around compiled models. Only this package imports keras and tensorflow.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from typing import Any

from pytest_overfit.adapters.keras.learner import KerasLearner, make_learner
from pytest_overfit.adapters.keras.state import guard, seed

__all__ = ["KerasLearner", "guard", "make_learner", "seed", "shares_parameters"]


def shares_parameters(first: Any, second: Any) -> bool:
    """True where two models have a variable in common."""
    mine = {id(each) for each in first.variables}
    return any(id(each) in mine for each in second.variables)
