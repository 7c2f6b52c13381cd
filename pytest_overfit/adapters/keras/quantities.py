"""What only Keras can be asked: gradients by layer, idle units, a saved state. The model is left as it was.

Float64 is not asked for: the layers of a model keep the dtype they were made with.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from pytest_overfit.adapters.keras import layers
from pytest_overfit.adapters.keras.reading import Reader, numbers, total_loss
from pytest_overfit.adapters.keras.state import held, seed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_overfit.adapters.keras.learner import KerasLearner

    Array = NDArray[Any]


def gradient_norms(learner: KerasLearner) -> dict[str, float] | None:
    """See `pytest_overfit.adapters.inspector.Inspector`. None: another backend than tensorflow, or no compiled loss."""
    learner._verify()
    reader = learner._reader
    variables = reader.model.trainable_variables
    if keras.backend.backend() != "tensorflow" or not reader.readable or not variables:
        return None
    from pytest_overfit.adapters.keras import graph

    with held(reader.model), layers.on_batch_statistics(reader.normalising()):
        found = graph.gradients(lambda: total_loss(reader.model, reader.feed, reader.forward(False), False), variables)
    squares: dict[str, float] = {}
    for variable, gradient in zip(variables, found, strict=True):
        layer = variable.path.rpartition("/")[0] or variable.path
        size = 0.0 if gradient is None else float((gradient.astype("float64") ** 2).sum())
        squares[layer] = squares.get(layer, 0.0) + size
    return {layer: math.sqrt(square) for layer, square in squares.items()}


#: a unit nearer to its end than this share of its range lets next to nothing through
_NEAR_END = 0.01


def idle_units(learner: KerasLearner) -> dict[str, tuple[int, int]] | None:
    """See `pytest_overfit.adapters.inspector.Inspector`. Of layers with `activation=`, and of activation layers."""
    learner._verify()
    reader = learner._reader
    if reader.structure is None:
        return None
    watched = {id(each): _kind(each) for each in layers.layers_of(reader.model) if _kind(each)}
    seen: list[tuple[Any, Any, Any]] = []

    def note(layer: Any, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = own(*args, **kwargs)
        if hasattr(result, "shape") and len(result.shape) >= 2:
            seen.append((layer, result, numbers(result)))
        return result

    normalising = reader.normalising()
    chosen = [each for each in layers.layers_of(reader.model) if id(each) in watched]
    with held(reader.model), layers.on_batch_statistics(normalising), layers.called_through(chosen, note):
        outputs = [numbers(each) for each in keras.tree.flatten(reader.forward(training=False))]
    found = {"dead": (0, 0), "saturated": (0, 0)}
    for layer, _, values in seen:
        kind = watched[id(layer)]
        if kind != "relu" and any(each.shape == values.shape and (each == values).all() for each in outputs):
            continue  # the model's own outputs are meant to be certain
        name = "dead" if kind == "relu" else "saturated"
        idle = _idle(values, kind, getattr(layer, "data_format", "") == "channels_first")
        found[name] = (found[name][0] + int(idle.sum()), found[name][1] + idle.size)
    return found


def _kind(layer: Any) -> str:
    """Which of the activations that can be idle a layer ends with; "" for all others."""
    if isinstance(layer, keras.layers.ReLU):
        return "" if layer.negative_slope else "relu"
    activation = getattr(layer, "activation", None)
    known = {keras.activations.relu: "relu", keras.activations.sigmoid: "sigmoid", keras.activations.tanh: "tanh"}
    recurrent = isinstance(layer, keras.layers.RNN) or hasattr(layer, "recurrent_activation")
    return "" if recurrent or isinstance(layer, keras.Model) else known.get(activation, "")


def _idle(values: Array, kind: str, channels_first: bool) -> Array:
    import numpy as np

    low = -1.0 if kind == "tanh" else 0.0
    near = _NEAR_END * (1.0 - low)
    idle = values == 0 if kind == "relu" else (values < low + near) | (values > 1.0 - near)
    units = np.moveaxis(idle, 1 if channels_first else -1, 0)
    answer: Array = np.asarray(units.reshape(len(units), -1).all(axis=1))
    return answer


def moved(learner: KerasLearner) -> float | None:
    """|change since the start| / |start|, over all trainable variables together."""
    pairs = [
        (numbers(each).astype("float64"), learner._start[id(each)].astype("float64"))
        for each in learner._model.trainable_variables
        if id(each) in learner._start
    ]
    size = math.sqrt(sum(float((then**2).sum()) for _, then in pairs))
    change = math.sqrt(sum(float(((now - then) ** 2).sum()) for now, then in pairs))
    return change / size if size > 0 else None


def saved_and_loaded(learner: KerasLearner) -> tuple[Sequence[Array], Sequence[Array]] | None:
    """See `pytest_overfit.adapters.inspector.Inspector`."""
    learner._verify()
    reader = learner._reader
    if reader.structure is None:
        return None
    with held(reader.model), tempfile.TemporaryDirectory() as folder:
        saved = _evaluated(reader)
        path = Path(folder) / "model.weights.h5"
        reader.model.save_weights(path)
        seed(1)  # whatever is not saved differs then
        other = Reader(learner._case.model(), reader.feed, reader.where)
        _evaluated(other)  # some models make their variables in the first call
        try:
            with warnings.catch_warnings():  # the new optimizer has no state yet, which is no matter here
                warnings.simplefilter("ignore")
                other.model.load_weights(path)
        except (ValueError, KeyError, OSError):  # variables of another model
            return saved, []
        return saved, _evaluated(other)


def _evaluated(reader: Reader) -> list[Array]:
    return [numbers(each) for each in keras.tree.flatten(reader.forward(training=False))]
