"""What only Keras can be asked: gradients, idle units, a saved state, float64. The model is left as it was.

Memory is not asked for: TensorFlow tells what is allocated on accelerators alone.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pytest_overfit.adapters import arrays
from pytest_overfit.adapters.base import GradientsInParts
from pytest_overfit.adapters.keras import layers
from pytest_overfit.adapters.keras.errors import user_call
from pytest_overfit.adapters.keras.feed import feed_of, tensors
from pytest_overfit.adapters.keras.learner import KerasLearner
from pytest_overfit.adapters.keras.reader import Reader, numbers, total_loss
from pytest_overfit.adapters.keras.state import guard, held, seed
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.errors import ProgramError
from pytest_overfit.data.batch import map_leaves
from pytest_overfit.data.splits import in_parts, rows_of


def gradient_norms(learner: KerasLearner) -> dict[str, float] | None:
    """See `pytest_overfit.adapters.inspector.Inspector`. None: another backend than tensorflow, or no compiled loss."""
    found = _gradients(learner.verified_reader())
    if not found:
        return None
    squares: dict[str, float] = {}
    for variable, gradient in zip(learner.reader.model.trainable_variables, found, strict=True):
        layer = variable.path.rpartition("/")[0] or variable.path
        squares[layer] = squares.get(layer, 0.0) + float((gradient.astype("float64") ** 2).sum())
    return {layer: math.sqrt(square) for layer, square in squares.items()}


def _gradients(reader: Reader) -> list[Array]:
    """The loss's gradient for each trainable variable, dropout off; empty where there is none to be had."""
    variables = reader.model.trainable_variables
    if keras.backend.backend() != "tensorflow" or not reader.readable or not variables:
        return []
    from pytest_overfit.adapters.keras import graph

    with held(reader.model), layers.on_batch_statistics(reader.normalising()):
        found = graph.gradients(lambda: total_loss(reader.model, reader.feed, reader.forward(False), False), variables)
    pairs = zip(found, variables, strict=True)
    return [np.zeros(tuple(variable.shape)) if gradient is None else gradient for gradient, variable in pairs]


def gradients_in_parts(learner: KerasLearner, parts: int) -> GradientsInParts | None:
    """See `pytest_overfit.adapters.inspector.Inspector`. None: as for `gradient_norms`."""
    reader, batch = learner.verified_reader(), learner.batch
    whole = reader.feed
    if not _gradients(reader):
        return None
    try:
        found = [(whole.rows, _gradient(reader)), (whole.rows, _gradient(reader))]
        for rows in in_parts(whole.rows, parts):
            reader.look_at(feed_of(learner.case, rows_of(batch, rows)))
            found.append((len(rows), _gradient(reader)))
    finally:
        reader.look_at(whole)
    coarse = bool(_dtypes(reader.model) & {"float16", "bfloat16"})
    return GradientsInParts(found[0][1], found[1][1], found[2:], coarse)


def _gradient(reader: Reader) -> Array:
    return np.concatenate([each.reshape(-1) for each in _gradients(reader)])


def reference_kernel(learner: KerasLearner, size: int) -> Callable[[], object]:
    """See `pytest_overfit.adapters.inspector.Inspector`."""
    del learner
    matrix = keras.ops.reshape(keras.ops.linspace(-1.0, 1.0, size * size, dtype="float32"), (size, size))
    return lambda: keras.ops.convert_to_numpy(keras.ops.matmul(matrix, matrix)[0, 0])


def idle_units(learner: KerasLearner) -> dict[str, tuple[int, int]] | None:
    """See `pytest_overfit.adapters.inspector.Inspector`. Of layers with `activation=`, and of activation layers."""
    reader = learner.verified_reader()
    if reader.structure is None:
        return None
    functions = [(each, _activation(each)) for each in layers.layers_of(reader.model)]
    watched = {id(layer): function for layer, function in functions if function}
    seen: list[tuple[Any, Array]] = []

    def note(layer: Any, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = own(*args, **kwargs)
        if hasattr(result, "shape") and len(result.shape) >= 2:
            seen.append((layer, numbers(result)))
        return result

    normalising = reader.normalising()
    chosen = [layer for layer, function in functions if function]
    with held(reader.model), layers.on_batch_statistics(normalising), layers.called_through(chosen, note):
        outputs = [numbers(each) for each in keras.tree.flatten(reader.forward(training=False))]
    counts = []
    for layer, values in seen:
        function = watched[id(layer)]
        if function != "relu" and any(each.shape == values.shape and (each == values).all() for each in outputs):
            continue  # the model's own outputs are meant to be certain
        axis = 1 if getattr(layer, "data_format", "") == "channels_first" else -1
        counts.append((function, arrays.idle_units(values, function, axis)))
    return arrays.dead_and_saturated(counts)


def _activation(layer: Any) -> arrays.Activation | None:
    """Which of the activations that can be idle a layer ends with; None for all others."""
    if isinstance(layer, keras.layers.ReLU):
        return None if layer.negative_slope else "relu"
    activation = getattr(layer, "activation", None)
    known: dict[Any, arrays.Activation] = {
        keras.activations.relu: "relu",
        keras.activations.sigmoid: "sigmoid",
        keras.activations.tanh: "tanh",
    }
    recurrent = isinstance(layer, keras.layers.RNN) or hasattr(layer, "recurrent_activation")
    return None if recurrent or isinstance(layer, keras.Model) else known.get(activation)


def saved_and_loaded(learner: KerasLearner) -> tuple[Sequence[Array], Sequence[Array]] | None:
    """See `pytest_overfit.adapters.inspector.Inspector`."""
    reader = learner.verified_reader()
    if reader.structure is None:
        return None
    with held(reader.model), tempfile.TemporaryDirectory() as folder:
        saved = _evaluated(reader)
        path = Path(folder) / "model.weights.h5"
        reader.model.save_weights(path)
        seed(1)  # whatever is not saved differs then
        other = Reader(learner.case.model(), reader.feed, reader.where)
        _evaluated(other)  # some models make their variables in the first call
        try:
            with warnings.catch_warnings():  # the new optimizer has no state yet, which does not matter here
                warnings.simplefilter("ignore")
                other.model.load_weights(path)
        except (ValueError, KeyError, OSError):  # variables of another model
            return saved, []
        return saved, _evaluated(other)


def _evaluated(reader: Reader) -> list[Array]:
    return [numbers(each) for each in keras.tree.flatten(reader.forward(training=False))]


_SINGLE, _DOUBLE = "float32", "float64"


def in_both_precisions(learner: KerasLearner) -> tuple[Sequence[Array], Sequence[Array]] | None:
    """See `pytest_overfit.adapters.inspector.Inspector`. None: a model that does not follow Keras' default dtype.

    The layers of a model keep the dtype they were made with, so the factory makes another one under float64.
    """
    reader = learner.verified_reader()
    if reader.structure is None or _dtypes(reader.model) != {_SINGLE}:
        return None
    with held(reader.model), guard():
        single = _evaluated(reader)
        keras.config.set_floatx(_DOUBLE)
        keras.config.set_dtype_policy(_DOUBLE)
        x = map_leaves(reader.feed.arrays.x, lambda leaf: leaf.astype(_DOUBLE) if leaf.dtype.kind == "f" else leaf)
        try:
            with user_call(reader.where):
                other = Reader(learner.case.model(), dataclasses.replace(reader.feed, x=tensors(x)), reader.where)
            _evaluated(other)  # some models make their variables in the first call
            if _dtypes(other.model) != {_DOUBLE} or not _took_over(other.model, reader.model):
                return None
            return single, _evaluated(other)
        except ProgramError:  # a model that makes float32 numbers of its own cannot be computed so
            return None


def _dtypes(model: Any) -> set[str]:
    """What the layers compute in, and what the weights are kept in, of floating point."""
    found = {str(each.compute_dtype) for each in layers.layers_of(model)} | {str(each.dtype) for each in model.weights}
    return {each for each in found if "float" in each}


def _took_over(model: Any, other: Any) -> bool:
    """The weights of the other model are in the first now; False where these are not of the same shapes."""
    pairs = list(zip(model.weights, other.weights, strict=False))
    same = len(model.weights) == len(other.weights) and all(tuple(a.shape) == tuple(b.shape) for a, b in pairs)
    for mine, its in pairs if same else ():
        mine.assign(keras.ops.cast(its.value, mine.dtype))
    return same
