"""The batch as Keras' `fit` would hand it to a step: tensors, in tuples, with weights of samples where given."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.foreign import brief, describe
from pytest_overfit.data.arrays import times_as_numbers
from pytest_overfit.data.batch import Batch, leaves, map_leaves, to_numpy


@dataclasses.dataclass(frozen=True)
class Feed:
    """One batch, as arrays for `fit` and as tensors for a step."""

    arrays: Batch
    x: Any
    y: Any
    #: weight of each sample, or one array an output; None where there are none
    weights: Any
    rows: int
    #: the weights as arrays
    row_weights: Any = None

    @property
    def data(self) -> Any:
        """What `train_step` receives."""
        return keras.utils.pack_x_y_sample_weight(self.x, self.y, self.weights)

    @property
    def arrays_as_data(self) -> Any:
        """What `train_step` receives, as arrays."""
        return keras.utils.pack_x_y_sample_weight(self.arrays.x, self.arrays.y, self.row_weights)

    def gathered(self, rows: Sequence[int]) -> Any:
        """The inputs of these rows."""
        index = list(rows)
        return tensors(map_leaves(self.arrays.x, lambda leaf: leaf[index]))

    def blinded(self) -> Batch:
        """The batch with row 0 of the inputs in every row."""
        first = [0] * self.rows
        return dataclasses.replace(self.arrays, x=map_leaves(self.arrays.x, lambda leaf: leaf[first]))


def feed_of(case: Case, batch: Batch) -> Feed:
    """Cast and weigh the batch as `fit` does. Raises `CaseError` for weights that do not go with it."""
    if batch.axes:
        raise CaseError(
            f"Case {case.name!r}: row_axis={case.row_axis!r}: Keras hands rows out along the first axis; give data "
            "with their rows first, and turn them round inside the model or its train_step"
        )
    arrays = batch.map(lambda leaf: _cast(to_numpy(leaf)))
    for leaf in leaves([arrays.x, arrays.y]):
        if cure := times_as_numbers(leaf):
            raise CaseError(f"Case {case.name!r}: the batch holds {describe(leaf)}; {cure}")
    arrays = dataclasses.replace(arrays, x=_tuples(arrays.x), y=_tuples(arrays.y), weights=_tuples(arrays.weights))
    weights = _weights(case, arrays)
    return Feed(arrays, tensors(arrays.x), tensors(arrays.y), tensors(weights), arrays.rows, weights)


def tensors(value: Any) -> Any:
    """Every array as a tensor of the backend."""
    return map_leaves(value, _tensor)


def _tensor(array: Array) -> Any:
    if array.dtype.kind in "USO":  # text for a preprocessing layer; only TensorFlow has such tensors
        tensorflow = sys.modules.get("tensorflow")
        return array if tensorflow is None else tensorflow.constant(array.tolist())
    return keras.ops.convert_to_tensor(array)


def _cast(array: Array) -> Array:
    return array.astype(keras.config.floatx()) if array.dtype.kind == "f" else array


def _tuples(value: Any) -> Any:
    """Lists of arrays as tuples, which is what a step sees under `fit`."""
    if isinstance(value, list):
        return tuple(_tuples(each) for each in value)
    if isinstance(value, dict):
        return {key: _tuples(each) for key, each in value.items()}
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(_tuples(each) for each in value)
    return value


def _weights(case: Case, batch: Batch) -> Any:
    classes, samples = case.fit_kwargs.get("class_weight"), case.fit_kwargs.get("sample_weight")
    if batch.weights is not None:
        samples = batch.weights
    where = f"Case {case.name!r}: fit_kwargs"
    if classes is not None and samples is not None:
        raise CaseError(f"{where} has class_weight and sample_weight, but Keras takes one of them; leave one out")
    if classes is not None:
        if batch.y is None or isinstance(batch.y, (tuple, dict)):
            raise CaseError(f"{where}: class_weight goes with one array of targets only; write sample_weight=...")
        return _of_classes(batch.y, classes)
    if samples is None:
        return None
    return _of_samples(samples, batch, case)


def _of_classes(targets: Array, weights: Any) -> Array:
    """One weight a row, from its class: the column of the largest target, or the rounded target."""
    labels = targets
    if labels.ndim > 1:
        labels = labels.argmax(axis=-1) if labels.shape[-1] != 1 else labels[..., 0]
    labels = np.round(labels).astype(int)
    return np.array(
        [weights.get(int(each), 1.0) for each in labels.reshape(len(labels), -1)[:, 0]], keras.config.floatx()
    )


def _of_samples(samples: Any, batch: Batch, case: Case) -> Any:
    given = _tuples(map_leaves(samples, lambda leaf: _cast(to_numpy(leaf))))
    given = map_leaves(given, lambda leaf: np.asarray(leaf, keras.config.floatx()))
    lengths = {len(each) for each in leaves(given)}
    if not lengths:
        raise CaseError(
            f"Case {case.name!r}: fit_kwargs: sample_weight: expected an array with one weight a row, got "
            f"{brief(samples)}; write numpy.asarray(weights)"
        )
    if case.batch is None and min(lengths) > batch.rows:  # the weights of all of `train`, of which we took some rows
        places = list(range(batch.rows) if batch.places is None else batch.places)
        given = map_leaves(given, lambda leaf: leaf[places])
    elif lengths != {batch.rows}:
        raise CaseError(
            f"Case {case.name!r}: fit_kwargs sample_weight has {', '.join(map(str, sorted(lengths)))} rows, but the "
            f"batch has {batch.rows}; give one weight a row of the batch"
        )
    if isinstance(batch.y, (tuple, dict)) and not isinstance(given, (tuple, dict)):
        return map_leaves(batch.y, lambda _: given)
    return given
