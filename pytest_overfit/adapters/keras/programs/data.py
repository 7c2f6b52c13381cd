"""The batch in another scale or shape."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np

from pytest_overfit.adapters.keras import layers
from pytest_overfit.adapters.keras.learner import KerasLearner
from pytest_overfit.adapters.keras.losses import pairs_of
from pytest_overfit.adapters.keras.programs.original import Alteration
from pytest_overfit.adapters.programs import Change, UnchangeableError
from pytest_overfit.core.arrays import Array
from pytest_overfit.data.batch import leaves, map_leaves

#: layers that take numbers for names
_LOOKING_UP = ("Embedding", "IntegerLookup", "StringLookup", "Hashing", "CategoryEncoding", "TextVectorization")


def standardised(learner: KerasLearner, change: Change) -> Alteration:
    """Each column of inputs or targets has mean 0 and spread 1 in this batch."""
    arrays = learner.feed.arrays
    if change.value == "targets":
        _check_quantities(learner)
        return Alteration(batch=dataclasses.replace(learner.batch, y=map_leaves(arrays.y, _scaled)))
    named = any(type(each).__name__ in _LOOKING_UP for each in layers.layers_of(learner.model))
    measured = [each for each in leaves(arrays.x) if not _is_index(each, named)]
    if not measured:
        raise UnchangeableError("its inputs are indices, not quantities")
    x = map_leaves(arrays.x, lambda leaf: leaf if _is_index(leaf, named) else _scaled(leaf))
    return Alteration(batch=dataclasses.replace(learner.batch, x=x))


def _is_index(leaf: Array, named: bool) -> bool:
    return leaf.dtype.kind not in "iuf" or (named and bool((leaf == np.round(leaf)).all()))


def _check_quantities(learner: KerasLearner) -> None:
    targets = list(leaves(learner.feed.arrays.y))
    if not targets:
        raise UnchangeableError("it has no targets")
    pairs = pairs_of(learner.model, learner.reader.structure, learner.feed.arrays.y)
    classes = any(each.loss.kind.family in ("sparse", "one_hot", "binary", "hinge") for each in pairs)
    if classes or not all(each.dtype.kind == "f" for each in targets):
        raise UnchangeableError("its targets are classes, not quantities")


def _scaled(leaf: Array) -> Array:
    """By column, which is the last axis; a constant column becomes 0."""
    wide = leaf.astype(np.float64)
    axes = tuple(range(wide.ndim - 1)) if wide.ndim > 1 else (0,)
    mean, spread = wide.mean(axis=axes, keepdims=True), wide.std(axis=axes, keepdims=True)
    scaled: Array = ((wide - mean) / np.where(spread > 0, spread, 1.0)).astype(keras.config.floatx())
    return scaled


def targets_shaped(learner: KerasLearner) -> Alteration:
    """Targets have the shape of the outputs."""
    outputs = [tuple(each.shape) for each in keras.tree.flatten(learner.reader.structure)]
    targets = list(leaves(learner.feed.arrays.y))
    if len(outputs) != len(targets) or not targets or learner.reader.structure is None:
        raise UnchangeableError("it does not have an output for each of its targets")
    if any(int(np.prod(shape)) != each.size for shape, each in zip(outputs, targets, strict=True)):
        raise UnchangeableError("its targets do not have as many numbers as its outputs")
    if all(shape == each.shape for shape, each in zip(outputs, targets, strict=True)):
        raise UnchangeableError("its targets have the shape of its outputs")
    shapes: Any = iter(outputs)
    y = map_leaves(learner.feed.arrays.y, lambda leaf: leaf.reshape(next(shapes)))
    return Alteration(batch=dataclasses.replace(learner.batch, y=y))
