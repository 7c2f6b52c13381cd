"""Small Keras programs, their learners, and what becomes of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from pytest_overfit.adapters.dispatch import guards, learner_for  # noqa: E402
from pytest_overfit.adapters.keras.programs import KerasProgram  # noqa: E402
from pytest_overfit.adapters.programs import Change, program_of  # noqa: E402
from pytest_overfit.core.case import Case  # noqa: E402
from pytest_overfit.core.state import preserved  # noqa: E402
from pytest_overfit.data.batch import Batch  # noqa: E402
from pytest_overfit.measures.memorising.memorise import Fit, memorise  # noqa: E402
from pytest_overfit.probes.overfit_batch import OverfitBatchLimits  # noqa: E402

layers, ops = keras.layers, keras.ops

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 6)).astype("float32")
Y = np.arange(16) % 4
VALUES = (X @ RNG.normal(size=(6, 1)) + 0.5 * np.sin(3 * X[:, :1])).astype("float32")

CLASSES = "sparse_categorical_crossentropy"


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    with preserved(guards()):
        yield


def adam(rate: float = 0.01, **more: Any) -> Any:
    return keras.optimizers.Adam(rate, **more)


def sequential(
    *stack: Callable[[], Any], optimizer: Callable[[], Any] = adam, loss: Any = CLASSES, shape: tuple[int, ...] = (6,)
) -> Callable[[], Any]:
    """A factory of a chain of these layers."""

    def make() -> Any:
        model = keras.Sequential([keras.Input(shape), *(each() for each in stack)])
        model.compile(optimizer(), loss)
        return model

    return make


def dense(*args: Any, **kwargs: Any) -> Callable[[], Any]:
    return lambda: layers.Dense(*args, **kwargs)


def program(make: Callable[[], Any], x: Any = X, y: Any = Y, **fields: Any) -> tuple[Any, KerasProgram]:
    """A learner and the program that it was opened on."""
    case = Case(name="net", model=make, batch=(x, y), **fields)
    learner = learner_for(case, Batch(x=x, y=y, rows=len(x)), 0)
    found = program_of(learner)
    assert isinstance(found, KerasProgram)
    return learner, found


def stop_of(learner: Any, steps: int = 500) -> str:
    """How a run of so many steps ends."""
    return memorise(Fit(learner, None), OverfitBatchLimits(steps=steps)).stop


def weights_of(model: Any) -> list[np.ndarray[Any, Any]]:
    return [keras.ops.convert_to_numpy(each).copy() for each in model.weights]


def cured(make: Callable[[], Any], change: Change, x: Any = X, y: Any = Y, steps: int = 300) -> tuple[str, str]:
    """How the program ends as it is, and with one thing changed."""
    learner, found = program(make, x, y)
    return stop_of(learner, steps), stop_of(found.changed(change), steps)
