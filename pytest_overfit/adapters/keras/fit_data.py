"""How a split is handed to `fit`: in an order of ours where we may choose it, as it is where it has its own."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import keras

from pytest_overfit.adapters.keras.feed import feed_of
from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError
from pytest_overfit.data.batch import Batch, leaves
from pytest_overfit.data.splits import Arrays, Loader, MapStyle, Split, in_order, rows_of, shuffled

Reseed = Callable[[int], int]
Permutation = Callable[[int, int, int], Iterator[list[int]]]


class Feeding:
    """What `fit` trains on."""

    #: steps of one epoch; None: the data tell
    steps: int | None = None
    _reseed: Reseed

    def arguments(self, epochs: range) -> dict[str, Any]:
        """Arguments of one call of `fit` that makes these epochs."""
        raise NotImplementedError

    def begin(self, epoch: int, /) -> Any:
        """`fit` begins an epoch: seed what it draws from."""
        return self._reseed(epoch)

    def again(self, reseed: Reseed) -> bool:
        """Feed another training, from its own seed; False where a new one must be made for it."""
        del reseed
        return False

    def close(self) -> None:
        """`fit` has returned."""


def feeding_of(case: Case, train: Split, reseed: Reseed) -> Feeding:
    """Choose how `fit` gets this split. Raises `CaseError` for weights or a share that it does not take."""
    given = case.fit_kwargs
    if not isinstance(train, Arrays):
        for name in ("sample_weight", "validation_split"):
            if given.get(name) is not None:
                raise CaseError(
                    f"Case {case.name!r}: fit_kwargs has {name}, but train= is not an array, and Keras takes {name} "
                    "with arrays only; give train=(x, y)" + (", or batches (x, y, weights)" if "weight" in name else "")
                )
    if isinstance(train, Loader) and _is_keras_own(train.source):
        return _AsItIs(train.source, case, reseed)
    if not isinstance(train, Arrays):
        return _Streamed(case, train, reseed)
    order = in_given_order if given.get("shuffle") is False else shuffled
    regular = all(len(each) == train.rows for each in leaves([train.batch.x, train.batch.y, train.batch.weights]))
    if regular and keras.backend.backend() == "tensorflow":
        return _Gathered(case, train, order, reseed)
    return _ByNumber(case, train, order, reseed)


def in_given_order(rows: int, size: int, order: int) -> Iterator[list[int]]:
    """Row numbers as they stand, whatever the seed."""
    del order
    return in_order(rows, size)


def without_share(case: Case, train: Split) -> tuple[Split, Batch | None]:
    """The split without the share that `validation_split` asks for, its last rows as in Keras, and that share."""
    share = case.fit_kwargs.get("validation_split")
    if not share or case.fit_kwargs.get("validation_data") is not None or not isinstance(train, Arrays):
        return train, None
    at = int(train.rows * (1.0 - share))
    kept, held = (rows_of(train.batch, range(*each)) for each in ((0, at), (at, train.rows)))
    return Arrays(train.source, kept, train.size), held


def weighted(case: Case, train: Split) -> Split:
    """Arrays together with the weights that `fit_kwargs` gives each row of them."""
    if not isinstance(train, Arrays) or case.fit_kwargs.get("sample_weight") is None:
        return train
    feed = feed_of(dataclasses.replace(case, batch=(train.batch.x, train.batch.y)), train.batch)
    return Arrays(train.source, dataclasses.replace(train.batch, weights=feed.row_weights), train.size)


def as_validation(case: Case, val: Split) -> Any:
    """A split as `fit` takes it for `validation_data`; weights by class are for training only."""
    plain = dataclasses.replace(case, fit_kwargs={})
    if isinstance(val, Loader) and _is_keras_own(val.source):
        return val.source
    if isinstance(val, Arrays):
        return validation_arrays(plain, val.batch)
    return _Kept([_as_tuple(feed_of(plain, each).arrays_as_data) for each in val.chunks()])


def validation_arrays(case: Case, batch: Batch) -> Any:
    """Arrays as `fit` takes them for `validation_data`."""
    return _as_tuple(feed_of(dataclasses.replace(case, fit_kwargs={}), batch).arrays_as_data)


def _is_keras_own(source: Any) -> bool:
    tensorflow = sys.modules.get("tensorflow")
    if isinstance(source, keras.utils.PyDataset):
        return True
    return tensorflow is not None and isinstance(source, tensorflow.data.Dataset)


def _counted(train: Split) -> int:
    """Batches of one epoch: by rows, by the loader's own length, or by reading it once."""
    if isinstance(train, MapStyle):
        return -(-train.rows // next(train.epoch(0)).rows)
    with contextlib.suppress(TypeError, NotImplementedError):
        return len(train.source)
    return sum(1 for _ in train.epoch(0))


def _as_tuple(data: Any) -> tuple[Any, ...]:
    return data if isinstance(data, tuple) else (data,)


class _Kept(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches in memory."""

    def __init__(self, batches: list[Any]) -> None:
        super().__init__()
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Any:
        return self._batches[index]


class _AsItIs(Feeding):
    """A `tf.data.Dataset` or a `PyDataset`: batches and order are its own."""

    def __init__(self, source: Any, case: Case, reseed: Reseed) -> None:
        names = ("shuffle", "class_weight", "steps_per_epoch")
        given = {name: case.fit_kwargs[name] for name in names if case.fit_kwargs.get(name) is not None}
        if not isinstance(source, keras.utils.PyDataset):
            given["shuffle"] = False  # a tf.data.Dataset shuffles itself, and Keras warns of anything else
        self._arguments, self._reseed = {"x": source, **given}, reseed

    def arguments(self, epochs: range) -> dict[str, Any]:
        self.begin(epochs[0])  # `fit` asks a PyDataset for another order before its first epoch
        return self._arguments


class _Gathered(Feeding):
    """Arrays, gathered batch by batch in TensorFlow, so that Python is asked once an epoch."""

    def __init__(self, case: Case, train: Arrays, order: Permutation, reseed: Reseed) -> None:
        self.steps = _fewer(case, -(-train.rows // train.size))
        self._rows, self._size, self._order, self._reseed = train.rows, train.size, order, reseed
        self._data = feed_of(case, train.batch).data
        self._orders: list[int] = []
        self._dataset = self._made()

    def _made(self) -> Any:
        import tensorflow as tf

        even = self._rows % self._size == 0

        def batches(rows: Any) -> Any:
            return tf.data.Dataset.from_tensor_slices(rows).batch(self._size, drop_remainder=even)

        def gathered(rows: Any) -> Any:
            return tf.nest.map_structure(lambda leaf: tf.gather(leaf, rows), self._data)

        permutations = tf.data.Dataset.from_generator(
            self._permutations, output_signature=tf.TensorSpec([self._rows], tf.int64)
        )
        return permutations.flat_map(batches).map(gathered).prefetch(tf.data.AUTOTUNE)

    def _permutations(self) -> Iterator[list[int]]:
        return (next(self._order(self._rows, self._rows, each)) for each in self._orders)

    def arguments(self, epochs: range) -> dict[str, Any]:
        self._orders = [self.begin(each) for each in epochs]
        return {"x": self._dataset, "steps_per_epoch": self.steps, "shuffle": False}

    def again(self, reseed: Reseed) -> bool:
        self._reseed = reseed
        return True


class _ByNumber(Feeding, keras.utils.PyDataset):  # type: ignore[misc]
    """Arrays, cut into batches in Python."""

    def __init__(self, case: Case, train: Arrays, order: Permutation, reseed: Reseed) -> None:
        super().__init__()
        self._case, self._train, self._order, self._reseed = case, train, order, reseed
        self.steps: int = _fewer(case, -(-train.rows // train.size))
        self._batches: list[list[int]] = []

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> Any:
        return _as_tuple(feed_of(self._case, rows_of(self._train.batch, self._batches[index])).arrays_as_data)

    def arguments(self, epochs: range) -> dict[str, Any]:
        self.begin(epochs[0])
        return {"x": self, "shuffle": False}

    def begin(self, epoch: int, /) -> None:
        self._batches = list(self._order(self._train.rows, self._train.size, self._reseed(epoch)))


class _Streamed(Feeding):
    """Batches made in Python, epoch after epoch.

    Making them may draw from the global generators, and Keras makes them ahead, at times in another thread: so who
    makes them seeds.
    """

    def __init__(self, case: Case, train: Split, reseed: Reseed) -> None:
        self._case, self._train, self._reseed = case, train, reseed
        self.steps = _fewer(case, _counted(train))
        self._stream: Any = None

    def arguments(self, epochs: range) -> dict[str, Any]:
        self._stream = self._batches(epochs)
        return {"x": self._stream, "steps_per_epoch": self.steps, "shuffle": False}

    def _batches(self, epochs: range) -> Iterator[Any]:
        for epoch in epochs:
            for batch in itertools.islice(self._train.epoch(self._reseed(epoch)), self.steps):
                yield _as_tuple(feed_of(self._case, batch).arrays_as_data)

    def begin(self, epoch: int, /) -> None:
        """Nothing: the batches of this epoch may be made already."""
        del epoch

    def close(self) -> None:
        with contextlib.suppress(ValueError):  # a thread of Keras' may still be reading ahead
            self._stream.close()


def _fewer(case: Case, steps: int) -> int:
    asked = case.fit_kwargs.get("steps_per_epoch")
    return steps if asked is None else min(steps, int(asked))
