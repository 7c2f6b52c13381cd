"""Weight decay of a model's optimizer and penalties of its layers: found here, measured as `shrinkage` says."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from pytest_overfit.adapters.base import Shrinkage
from pytest_overfit.adapters.keras import layers
from pytest_overfit.adapters.keras import stepper as stepping
from pytest_overfit.adapters.keras.learner import KerasLearner
from pytest_overfit.adapters.keras.reader import numbers
from pytest_overfit.adapters.keras.state import held
from pytest_overfit.adapters.regularizer_effects.shrinkage import (
    Stepping,
    default_decay,
    share_of_a_step,
    smaller_of,
)
from pytest_overfit.core.arrays import Array

#: id of a variable -> a part of its gradient
Slopes = dict[int, Array]

#: an optimizer, the variables it was to update, and their gradients
Gradients = list[tuple[Any, list[Any], list["Array | None"]]]

#: steps at which a schedule is asked for its highest rate
_MOMENTS = (0, 1, 10, 100, 1_000, 10_000, 100_000)

#: share of a weight that its number type rounds away
_EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}

#: a penalty whose gradient is less than this beside the whole gradient is not there
_ABSENT = 1e-6


class NoStepError(Exception):
    """The model's training step cannot be run by itself; the message says why."""


def gradients(learner: KerasLearner, *, penalties: bool = True) -> Gradients:
    """Run the model's own training step up to its updates, which are left out. Raises `NoStepError`."""
    model, feed = learner.model, learner.feed
    if keras.backend.backend() not in ("tensorflow", "torch"):
        raise NoStepError(f"Keras runs on {keras.backend.backend()}")
    for method in ("fit", "make_train_function"):
        if stepping.own(model, method):
            raise NoStepError(f"the model brings its own {method}")
    taken: Gradients = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(held(model, weights=True))
        for optimizer in optimizers_of(model):
            stack.callback(layers.substitute(optimizer, "apply", _taking(optimizer, taken)))
            stack.callback(layers.substitute(optimizer, "scale_loss", lambda loss: loss))
        if not penalties:
            for each in (model, *layers.layers_of(model)):
                stack.callback(layers.substitute(each, "_get_regularization_losses", list))
        model.train_step(feed.data)
    return taken


def optimizers_of(model: Any) -> list[Any]:
    """Every optimizer that the model has, its own first."""
    held_ = [model.optimizer, *vars(model).values()]
    return list({id(each): each for each in held_ if isinstance(each, keras.optimizers.Optimizer)}.values())


def _taking(optimizer: Any, taken: Gradients) -> Any:
    def apply(grads: Any, trainable_variables: Any = None) -> Any:
        variables = list(optimizer._trainable_variables if trainable_variables is None else trainable_variables)
        taken.append((optimizer, variables, [None if each is None else _dense(each) for each in grads]))
        return optimizer.iterations

    return apply


def _dense(gradient: Any) -> Array:
    """A gradient as an array; that of an embedding lists the rows it touches."""
    if hasattr(gradient, "indices") and hasattr(gradient, "dense_shape"):
        whole = np.zeros(tuple(numbers(gradient.dense_shape)), numbers(gradient.values).dtype)
        np.add.at(whole, numbers(gradient.indices), numbers(gradient.values))
        return whole
    return numbers(gradient)


def found(learner: KerasLearner, taken: Gradients) -> Iterator[Shrinkage]:
    """Weight decay of every optimizer, and penalties that layers declare on their weights."""
    for optimizer, variables, slopes in taken or _zeros(learner):
        yield from _weight_decay(learner, getattr(optimizer, "inner_optimizer", optimizer), variables, slopes)
    yield from _penalty(learner, taken)


def _zeros(learner: KerasLearner) -> Gradients:
    """Where no step can be run: decay of Keras' optimizers does not depend on gradients."""
    variables = list(learner.model.trainable_variables)
    return [(learner.model.optimizer, variables, [np.zeros(each.shape, "float32") for each in variables])]


# ------------------------------------------------------------------ weight decay


def _weight_decay(
    learner: KerasLearner, optimizer: Any, variables: list[Any], slopes: Sequence[Array | None]
) -> Iterator[Shrinkage]:
    declared = getattr(optimizer, "weight_decay", None)
    if not declared:
        return
    applies = getattr(optimizer, "_use_weight_decay", lambda _: True)
    counted = [each for each in variables if applies(each)]
    noisy = {id(v): g for v, g in zip(variables, slopes, strict=True) if g is not None}
    reached = [each for each in counted if id(each) in noisy]
    _, top = top_rate(optimizer)
    yield Shrinkage(
        kind="weight decay",
        name=f"weight_decay {float(declared):g} of {type(optimizer).__name__}",
        rate=_rate(learner.model, optimizer, reached, noisy, decay=True),
        tensors=len(variables),
        reached=len(reached),
        nominal=top * float(declared),
        rounding=max(
            (_EPSILON.get(keras.backend.standardize_dtype(each.dtype), 0.0) for each in variables), default=0.0
        ),
        learning_rate=top,
        by_default=default_decay(optimizer) == declared,
        why="" if counted else "exclude_from_weight_decay leaves out every variable",
    )


def top_rate(optimizer: Any) -> tuple[int, float]:
    """The highest learning rate of the optimizer and its schedule, and the step at which it holds."""
    rate = getattr(optimizer, "_learning_rate", None)
    if not isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        return 0, float(numbers(keras.ops.convert_to_tensor(optimizer.learning_rate)))
    rates = {moment: float(numbers(keras.ops.convert_to_tensor(rate(moment)))) for moment in _MOMENTS}
    best = max(rates, key=lambda each: rates[each])
    return best, rates[best]


def _rate(
    model: Any, optimizer: Any, counted: list[Any], noisy: Slopes, *, steady: Slopes | None = None, decay: bool = False
) -> float | None:
    """The share of the counted weights that a step takes away because of `decay`, or of this part of the gradient."""
    if counted and getattr(optimizer, "gradient_accumulation_steps", None):
        return None
    chosen = smaller_of(
        counted, lambda each: math.prod(each.shape), lambda taken: any(numbers(each).any() for each in taken)
    )
    moment, _ = top_rate(optimizer)

    @contextlib.contextmanager
    def run(bare: bool) -> Iterator[Stepping]:
        random, pulls = np.random.default_rng(0), {} if bare else steady or {}

        def step() -> None:
            slopes = [
                noisy[id(each)] * random.choice([-1.0, 1.0], each.shape) + pulls.get(id(each), 0.0) for each in chosen
            ]
            optimizer.apply([keras.ops.cast(g, each.dtype) for g, each in zip(slopes, chosen, strict=True)], chosen)

        with _from_here(model, optimizer, moment) as stack:
            if bare and decay:
                stack.callback(layers.substitute(optimizer, "weight_decay", None))
            yield Stepping(step, lambda: list(map(numbers, chosen)))

    return share_of_a_step(list(map(numbers, chosen)), run)


@contextlib.contextmanager
def _from_here(model: Any, optimizer: Any, moment: int) -> Iterator[contextlib.ExitStack]:
    """Steps inside begin at this moment of the schedule; weights and optimizer are put back."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(held(model, weights=True))
        if not optimizer.built:
            optimizer.build(model.trainable_variables)
        for each in optimizer.variables:  # an inner or second optimizer is not the model's
            stack.callback(each.assign, keras.ops.copy(each.value))
        optimizer.iterations.assign(moment)
        yield stack


# ------------------------------------------------------------------ penalties of layers


def _penalty(learner: KerasLearner, taken: Gradients) -> Iterator[Shrinkage]:
    """Penalties that layers declare on their weights, by what the training step's gradient loses without them."""
    model = learner.model
    declared = [each for each in model.trainable_variables if getattr(each, "regularizer", None) is not None]
    if not declared:
        return
    kinds = sorted({type(each.regularizer).__name__ for each in declared})
    more = f" and {len(declared) - 1} more" if len(declared) > 1 else ""
    name = f"penalty {' and '.join(kinds)} of {declared[0].path}{more}"
    shrinkage = functools.partial(Shrinkage, kind="penalty", name=name, tensors=len(declared))
    if not taken:
        yield shrinkage(rate=None, reached=0, why="the training step cannot be inspected")
        return
    whole, bare = (_by_variable(each) for each in (gradients(learner), gradients(learner, penalties=False)))
    steady = {key: whole[key] - bare[key] for key in (id(each) for each in declared) if key in whole and key in bare}
    there = {key: each for key, each in steady.items() if np.abs(each).max() > _ABSENT * np.abs(whole[key]).max()}
    counted = [each for each in declared if id(each) in there]
    optimizer = next(
        one for one, variables, _ in taken if any(v is declared[0] for v in variables) or one is taken[0][0]
    )
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    _, top = top_rate(optimizer)
    why = ""
    if not there:
        why = "the gradient of the training step is the same without it, to a millionth"
        if stepping.own(model, "train_step"):
            why += "; add sum(self.losses) to the loss in train_step"
        elif stepping.own(model, "compute_loss"):
            why += "; call super().compute_loss, or add sum(self.losses), in compute_loss"
    rate = _rate(model, optimizer, counted, bare, steady=there)
    yield shrinkage(rate=rate, reached=len(there), learning_rate=top, share=_share(learner), why=why)


def _by_variable(taken: Gradients) -> Slopes:
    return {id(v): g for _, variables, slopes in taken for v, g in zip(variables, slopes, strict=True) if g is not None}


def _share(learner: KerasLearner) -> float | None:
    """The penalties beside the whole loss, read in training mode."""
    try:
        data, _ = learner.reader.read("train")
        penalties = sum(float(keras.ops.sum(each)) for each in learner.model._get_regularization_losses())
    except Exception:  # a loss that only the step knows
        return None
    return penalties / (data + penalties) if data is not None and data + penalties > 0 else None
