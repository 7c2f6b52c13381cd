"""Misuse of a Keras case that shows before a step is made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from pytest_overfit.adapters.keras.feed import Feed
from pytest_overfit.adapters.keras.losses import Pair
from pytest_overfit.adapters.keras.stepper import own
from pytest_overfit.core import foreign
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.diagnosed import diagnosed
from pytest_overfit.core.errors import CaseError, ProgramError
from pytest_overfit.data.batch import leaves


def check_compiled(model: Any, where: str) -> None:
    """The model has an optimizer, or its own step has."""
    if not getattr(model, "compiled", False):
        raise CaseError(
            f"{where} the model factory returned a {type(model).__name__} that is not compiled, expected a compiled "
            "model, because its loss and optimizer are under test too; write model.compile(optimizer=..., "
            "loss=...) in the factory, before return model"
        )
    if getattr(model, "optimizer", None) is None and not own(model, "train_step"):
        raise CaseError(
            f"{where} the model is compiled without an optimizer, expected one; write "
            "model.compile(optimizer='adam', loss=...)"
        )


def check_batched(model: Any, feed: Feed, where: str) -> None:
    """The inputs are a batch, not one sample of an unbatched dataset, and of numbers that the model takes."""
    _check_real(model, feed, where)
    declared = [tuple(each.shape) for each in getattr(model, "inputs", None) or ()]
    given = [tuple(each.shape) for each in leaves(feed.arrays.x)]
    if len(given) == 1 == len(declared) and given[0] == declared[0][1:] and given[0] and given[0][-1] != 1:
        raise CaseError(
            f"{where} the batch's inputs have the shape {given[0]}, which is that of one sample, expected a batch of "
            f"shape {('rows', *given[0])}; write train=dataset.batch(32)".replace("'rows'", "rows")
        )


def _check_real(model: Any, feed: Feed, where: str) -> None:
    """Complex numbers go where complex ones are declared: elsewhere Keras drops their imaginary parts."""
    for side, value, declared in (("inputs", feed.arrays.x, "inputs"), ("targets", feed.arrays.y, "outputs")):
        takes = [str(each.dtype) for each in getattr(model, declared, None) or ()]
        if takes and not any("complex" in each for each in takes):
            for leaf in leaves(value):
                if leaf.dtype.kind == "c":
                    raise CaseError(
                        f"{where} the batch's {side} are {foreign.describe(leaf)}, expected real numbers, as the model "
                        "declares them; write numpy.stack([x.real, x.imag], axis=-1)"
                    )


def check_loss(model: Any, where: str) -> None:
    """Something is there to be minimised. Called after a forward pass, which is what adds losses."""
    if model.loss is not None or own(model, "train_step") or own(model, "compute_loss") or model.losses:
        return
    raise CaseError(
        f"{where} the model is compiled without a loss, expected one; write model.compile(optimizer=..., "
        "loss=...), or give the model a train_step or compute_loss of its own"
    )


def check_trainable(model: Any, where: str) -> None:
    """Something is there to be trained. Called after a forward pass, when all variables are there."""
    if not model.trainable_weights and not own(model, "train_step"):
        frozen = sum(math.prod(each.shape) for each in model.weights)
        error = ProgramError(
            f"{where} nothing can be trained: all {frozen} weights of the model are frozen (trainable = False), "
            "or it has none"
        )
        raise (
            diagnosed(error, "frozen_parameters", "set trainable = True on what is to be trained") if frozen else error
        )


def check_optimizer(model: Any, where: str) -> None:
    """The optimizer is not in use by another model. Called after a forward pass, when all variables are there."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not optimizer.built:
        return
    known = {id(each) for each in getattr(optimizer, "_trainable_variables", ())}
    mine = {id(each) for each in model.trainable_variables}
    if known and not mine <= known:
        kind = type(optimizer).__name__
        cure = f"make the optimizer inside the factory: model.compile(optimizer=keras.optimizers.{kind}(...), loss=...)"
        error = CaseError(
            f"{where} the optimizer {kind} was already built for other variables than this "
            f"model's, but each model needs its own optimizer; {cure}"
        )
        raise diagnosed(error, "optimizer_wrong_params", cure)


def check_targets(pairs: Sequence[Pair], outputs: Any, where: str) -> None:
    """Targets go with their losses, by shape and by value."""
    flat = keras.tree.flatten(outputs)
    for pair in pairs:
        shape = tuple(flat[pair.output].shape)
        what = f"{where} the targets{f' of output {pair.name!r}' if pair.name else ''} are"
        if pair.targets.dtype.kind in "USO":
            cure = "number the classes, e.g. labels = numpy.unique(y, return_inverse=True)[1]"
            error = CaseError(f"{what} {foreign.describe(pair.targets)}, text, expected numbers; {cure}")
            raise diagnosed(error, "dtype_mismatch", cure)
        if pair.loss.kind.family == "one_hot":
            _check_one_hot(pair, shape, what)
        elif pair.loss.kind.family == "sparse":
            _check_sparse(pair, shape, what)
        elif pair.loss.kind.family == "binary":
            _check_binary(pair, what)


def _check_one_hot(pair: Pair, shape: tuple[int, ...], what: str) -> None:
    targets = pair.targets
    if targets.shape == shape or shape[-1:] == (1,):
        return
    message = f"{what} {foreign.describe(targets)}, but {pair.loss.name} expects one-hot targets of shape {shape}"
    if targets.shape in (shape[:-1], (*shape[:-1], 1)) and bool((targets == targets.round()).all()):
        change = (
            "write loss='sparse_categorical_crossentropy'"
            if pair.loss.name == "categorical_crossentropy"
            else "take a loss for class labels"
        )
        cure = f"{change} or one-hot the targets: keras.ops.one_hot(y, {shape[-1]})"
        raise diagnosed(CaseError(f"{message}; they look like class labels: {cure}"), "wrong_loss", cure)
    cure = "make the last layer as wide as the targets, or the targets as wide as it is"
    error = CaseError(f"{message}; {cure}")
    widths = len(targets.shape) == len(shape) and targets.shape[-1] != shape[-1]
    raise diagnosed(error, "wrong_output_units" if widths else "shape_mismatch", cure)


def _check_sparse(pair: Pair, shape: tuple[int, ...], what: str) -> None:
    targets, ignored = pair.targets, pair.loss.ignore_class
    axis = pair.loss.axis % len(shape)
    classes, cells = shape[axis], shape[:axis] + shape[axis + 1 :]
    if targets.shape == shape and classes > 1:
        cure = "write loss='categorical_crossentropy' for one-hot targets"
        error = CaseError(
            f"{what} {foreign.describe(targets)}, as wide as the outputs, but {pair.loss.name} expects one class label "
            f"for each; {cure}"
        )
        raise diagnosed(error, "wrong_loss", cure)
    if targets.dtype.kind == "f" and not bool((targets == np.round(targets)).all()):
        cure = "write loss='mse' for quantities, or loss='categorical_crossentropy' for probabilities"
        error = CaseError(
            f"{what} {foreign.describe(targets)} with fractions, but {pair.loss.name} expects whole class labels from "
            f"0 to {classes - 1}; {cure}"
        )
        raise diagnosed(error, "wrong_loss", cure)
    counted = targets[targets != ignored] if ignored is not None else targets
    outside = np.unique(counted[(counted < 0) | (counted >= classes)])
    if outside.size:
        cure = _remedy(counted, classes)
        error = CaseError(
            f"{what} class labels up to {int(counted.max())} (from {int(counted.min())}), but the outputs of shape "
            f"{shape} have {classes} class{'es' * (classes > 1)}, so {pair.loss.name} expects labels from 0 to "
            f"{classes - 1}; {cure}"
        )
        raise _with_what_follows(diagnosed(error, "label_out_of_range", cure), counted, classes)
    if int(np.prod(targets.shape)) != int(np.prod(cells)):
        cure = "give one label for each place of the outputs"
        error = CaseError(
            f"{what} {foreign.describe(targets)}, but {pair.loss.name} with outputs of shape {shape} expects labels of "
            f"shape {cells}; {cure}"
        )
        raise diagnosed(error, "shape_mismatch", cure)


def _check_binary(pair: Pair, what: str) -> None:
    low, high = float(pair.targets.min()), float(pair.targets.max())
    if low < 0 or high > 1:
        cure = "write loss='sparse_categorical_crossentropy' and one unit a class, or map them to 0 and 1"
        error = CaseError(
            f"{what} numbers from {low:g} to {high:g}, but {pair.loss.name} expects them between 0 and 1, or its loss "
            f"falls without limit; {cure}"
        )
        if bool((pair.targets != np.round(pair.targets)).any()):
            diagnosed(error, "wrong_loss", "write loss='mse': the targets are quantities, not labels")
        raise diagnosed(error, "label_out_of_range", cure)


def _with_what_follows(error: CaseError, labels: Array, classes: int) -> CaseError:
    """The same error with the fault that labels beyond the units most likely come from."""
    low, high = int(labels.min()), int(labels.max())
    if low == 1 and high == classes:
        seen = f"labels go from 1 to {high} for {classes} units"
        return diagnosed(error, "label_off_by_one", "write y - 1", seen, "likely")
    if low >= 0 and np.unique(labels).size == high + 1:
        seen = f"every label from 0 to {high} occurs, {high + 1} classes for {classes} units"
        return diagnosed(error, "wrong_output_units", f"give the last layer {high + 1} units", seen, "likely")
    return error


def _remedy(labels: Array, classes: int) -> str:
    if classes == 1:
        return "write loss='binary_crossentropy' for one unit, or give the last layer one unit a class"
    if labels.min() < 0:
        return (
            "number the classes from 0, or name the label to leave out: SparseCategoricalCrossentropy(ignore_class=...)"
        )
    if labels.min() >= 1 and labels.max() == classes:
        return "number the classes from 0: y - 1"
    return f"give the last layer {int(labels.max()) + 1} units"
