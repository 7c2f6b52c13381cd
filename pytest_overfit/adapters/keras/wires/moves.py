"""What moving a model's variables does to its outputs, its loss and the losses that its layers add."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from pytest_overfit.adapters.base import Mode
from pytest_overfit.adapters.keras import layers
from pytest_overfit.adapters.keras.learner import KerasLearner
from pytest_overfit.adapters.keras.reader import numbers
from pytest_overfit.adapters.keras.state import forget, held
from pytest_overfit.adapters.keras.wires.arrays import largest, noise, relative
from pytest_overfit.adapters.wires import Moved
from pytest_overfit.core.arrays import Array


@contextlib.contextmanager
def noisy(variables: Mapping[str, Any], names: Iterable[str], share: float, first: int) -> Iterator[None]:
    """Inside, noise of this share of its size lies on each of these variables."""
    chosen = [variables[name] for name in names]
    kept = [numbers(each) for each in chosen]
    try:
        for number, (variable, old) in enumerate(zip(chosen, kept, strict=True), first):
            variable.assign(old + noise(old, share, number))
        yield
    finally:
        for variable, old in zip(chosen, kept, strict=True):
            variable.assign(old)


def moved_by(learner: KerasLearner, variables: Mapping[str, Any], names: Sequence[str], share: float) -> Moved:
    found = [_in_mode(learner, mode, variables, names, share) for mode in ("fit", "train")]
    before = _asked(learner)
    with noisy(variables, names, share, 0):
        after = _asked(learner)
    answers = [relative(old, new) for old, new in zip(before[0], after[0], strict=False)]
    outputs = [each.outputs for each in found]
    if learner.reader.objective is not None or not learner.reader.readable:  # else these are the outputs read above
        outputs += answers
    return Moved(
        outputs=largest(outputs),
        loss=largest(each.loss for each in found),
        answers=max(answers, default=None),
        added=relative(before[1], after[1]) if before[1].shape == after[1].shape else None,
    )


def _in_mode(
    learner: KerasLearner, mode: Mode, variables: Mapping[str, Any], names: Sequence[str], share: float
) -> Moved:
    reader = learner.verified_reader()
    if not reader.has_outputs:
        return Moved(outputs=None, loss=None)
    before = reader.read(mode)
    with noisy(variables, names, share, 0):
        after = reader.read(mode)
    loss = None if before[0] is None or after[0] is None else relative(np.array(before[0]), np.array(after[0]))
    pairs = zip(before[1], after[1], _shown_only(learner, len(before[1])), strict=True)
    outputs = [relative(old, new) for old, new, shown in pairs if not shown]
    return Moved(outputs=max(outputs, default=None), loss=loss)


def _asked(learner: KerasLearner) -> tuple[list[Array], Array]:
    """What the model itself answers, and what its layers add to the loss beside penalties on weights."""
    model, reader = learner.model, learner.reader
    if reader.structure is None:
        return [], np.zeros(0)
    with held(model, same_noise=True), contextlib.ExitStack() as stack:
        for each in [model, *layers.layers_of(model)]:
            if hasattr(each, "_get_regularization_losses"):
                stack.callback(layers.substitute(each, "_get_regularization_losses", list))
        forget(model)
        try:
            answers = [numbers(each) for each in keras.tree.flatten(reader.forward(training=False))]
            reader.forward(training=True)
            return answers, np.array([float(keras.ops.sum(each)) for each in model.losses])
        except Exception:  # a model that its step calls in another way
            return [], np.zeros(0)


def _shown_only(learner: KerasLearner, count: int) -> list[bool]:
    """Outputs that the model was compiled with a loss of None for, and that have no targets either."""
    model = learner.model
    names = list(getattr(model, "output_names", None) or ())
    losses, targets = (_by_output(each, names) for each in (model.loss, learner.feed.arrays.y))
    if len(losses) != count:
        return [False] * count
    return [each is None and (len(targets) != count or targets[place] is None) for place, each in enumerate(losses)]


def _by_output(value: Any, names: Sequence[str]) -> list[Any]:
    if isinstance(value, dict):
        return [value.get(name) for name in names]
    return list(value) if isinstance(value, (list, tuple)) else []
