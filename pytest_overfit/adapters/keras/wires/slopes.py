"""The gradient of the very loss that a step differentiates, by every variable: the step is run without its update."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from pytest_overfit.adapters.keras.layers import substitute
from pytest_overfit.adapters.keras.reader import numbers
from pytest_overfit.adapters.keras.state import forget, held
from pytest_overfit.adapters.keras.tapes import tapes_answering
from pytest_overfit.core.arrays import Array

_GRADIENT = tf.GradientTape.gradient


@dataclasses.dataclass
class StepSlopes:
    """What the passes of one step differentiated."""

    #: value of each loss; None: it is not one number
    losses: list[float | None] = dataclasses.field(default_factory=list)
    #: by each variable the sum over the passes; None: no loss depends on it
    gradients: dict[str, Array | None] = dataclasses.field(default_factory=dict)
    #: variables of TensorFlow's that a loss has a gradient by, and that were not asked about
    others: list[Any] = dataclasses.field(default_factory=list)


def slopes_of_step(model: Any, data: Any, variables: Mapping[str, Any], optimizers: list[Any]) -> StepSlopes | None:
    """None where the step cannot be run so, whatever the reason."""
    found = StepSlopes(gradients=dict.fromkeys(variables))
    own = {id(each) for variable in model.variables for each in (variable, variable.value)}
    try:
        with held(model, weights=True, same_noise=True), without_updates(optimizers, _asking(found, variables, own)):
            forget(model)
            model.train_step(data)
    except Exception:  # what a step does without its update is nobody's fault
        return None
    return found


def _asking(found: StepSlopes, variables: Mapping[str, Any], own: set[int]) -> Callable[..., Any]:
    """A `GradientTape.gradient` that asks for all variables along with what the step asks for."""
    ours = [each.value for each in variables.values()]

    def gradient(tape: Any, target: Any, sources: Any, *args: Any, **kwargs: Any) -> Any:
        others = [each for each in tape.watched_variables() if id(each) not in own]
        given, mine, beside = _GRADIENT(tape, target, [sources, ours, others], *args, **kwargs)
        found.losses.append(float(target) if isinstance(target, tf.Tensor) and target.shape.rank == 0 else None)
        for path, each in zip(variables, mine, strict=True):
            if each is not None:
                array, before = numbers(tf.convert_to_tensor(each)), found.gradients[path]
                found.gradients[path] = array if before is None else before + array
        found.others += [each for each, slope in zip(others, beside, strict=True) if slope is not None]
        return given

    return gradient


@contextlib.contextmanager
def without_updates(optimizers: list[Any], gradient: Callable[..., Any]) -> Iterator[None]:
    """Inside, tapes answer with `gradient` and no optimizer writes anything."""

    def nothing(*_: Any, **__: Any) -> None:
        return None

    with contextlib.ExitStack() as stack:
        for each in optimizers:
            for name in ("apply", "apply_gradients"):
                stack.callback(substitute(each, name, nothing))
        stack.enter_context(tapes_answering(gradient))
        yield
