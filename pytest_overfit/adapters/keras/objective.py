"""The loss that a training step differentiates, read apart from the update: for losses that are made inside the step.

That is a custom `train_step` with a loss of its own, or a model whose loss comes from `add_loss` alone. The step is run
with its update left out; the loss is what it hands to `GradientTape.gradient`. Imported only where TensorFlow is Keras'
backend.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from pytest_overfit.adapters.base import Mode
from pytest_overfit.adapters.keras import layers
from pytest_overfit.adapters.keras.feed import Feed
from pytest_overfit.adapters.keras.state import held
from pytest_overfit.adapters.keras.tapes import tapes_answering
from pytest_overfit.core.arrays import Array
from pytest_overfit.data.batch import leaves, map_leaves

#: how deep inside the model the layers are looked for whose outputs the loss is a function of
_DEEPEST = 4

_GRADIENT = tf.GradientTape.gradient


class NoObjectiveError(Exception):
    """The step has no one loss as a function of its layers' outputs."""


class Objective:
    """The loss of one step as a function of the outputs of the layers that the step calls.

    An output that the loss does not compare with the batch (a latent mean, say, that is only kept near 0) is left as
    the model gives it, and its term is taken off the loss as a penalty is.
    """

    def __init__(self, model: Any, feed: Feed) -> None:
        self._model, self._data = model, feed.data
        #: layers on this level are the ones whose outputs count: 0 for those that the step calls itself
        self._level = 0
        #: positions of the outputs that the loss compares with the batch
        self.free: list[int] = []
        #: names of the layers that give them
        self.names: tuple[str, ...] = ()
        #: outputs at the start, and the loss there
        self._base: list[Any] = []
        self._offset = 0.0
        #: loss where every output is what it is compared with, where that is known
        self._floor = 0.0
        #: some outputs are compared with nothing: their terms are taken off
        self.has_penalties = False
        self._find()

    def _find(self) -> None:
        for self._level in range(_DEEPEST):
            _, self._base, names = self._run("train", ())
            slopes = self._slopes(self._data)
            asked = [i for i, each in enumerate(slopes) if each is not None]
            if asked:
                break
        else:
            raise NoObjectiveError("the loss depends on no layer's outputs")
        moved = self._slopes(map_leaves(self._data, lambda leaf: tf.roll(leaf, 1, axis=0)))
        self.free = [i for i in asked if _differ(slopes[i], moved[i])] or asked
        self.has_penalties = len(self.free) < len(asked)
        self.names = tuple(dict.fromkeys(names[i] for i in self.free))
        self._offset = float(self._run("train", (), self._base)[0])

    def left_out(self) -> float:
        """What the reported loss has that this one has not: terms on weights, and those on other outputs."""
        on_weights = [float(keras.ops.sum(each)) for each in self._model._get_regularization_losses()]
        outputs = self._run("train", ())[1]
        return sum(on_weights) + float(self._penalties(outputs, "train")) + self._floor

    def count_from(self, compared: Sequence[Array | None]) -> None:
        """Count the loss from that of perfect outputs, where other terms would hide how much of it can be had."""
        if not self.has_penalties or any(
            each is None or each.shape != tuple(base.shape) for each, base in zip(compared, self.base, strict=True)
        ):
            return
        perfect = [tf.cast(each, base.dtype) for each, base in zip(compared, self.base, strict=True)]
        least = float(self.substituted(perfect))
        self._floor = least if least < float(self._offset) else 0.0

    def compared(self, feed: Feed) -> list[Array | None]:
        """For each output the array of the batch that the loss compares it with: the input of an autoencoder, say."""
        arrays = list(enumerate(leaves(feed.arrays_as_data)))
        found: list[Array | None] = []
        for output, base in enumerate(self.base):
            shapes = (tuple(base.shape), tuple(base.shape)[:-1])
            match = [array for leaf, array in arrays if array.shape in shapes and self._compares(output, leaf)]
            found.append(match[0] if match else None)
        return found

    def _compares(self, output: int, leaf: int) -> bool:
        """The loss compares this output with that array of the batch: its slope changes when the rows move."""
        count = -1

        def rolled(value: Any) -> Any:
            nonlocal count
            count += 1
            return tf.roll(value, 1, axis=0) if count == leaf else value

        position = self.free[output]
        return _differ(self._slopes(self._data)[position], self._slopes(map_leaves(self._data, rolled))[position])

    def _slopes(self, data: Any) -> list[Any]:
        """Gradient of the loss by every output at the starting outputs; None where the loss does not depend on it."""
        outputs = [tf.identity(each) for each in self._base]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([each for each in outputs if each.dtype.is_floating])
            loss = self._run("train", (), outputs, data)[0]
        found: list[Any] = _GRADIENT(tape, loss, outputs)
        return found

    @property
    def base(self) -> list[Any]:
        """The outputs that count, as they were at the start."""
        return [self._base[i] for i in self.free]

    def read(self, mode: Mode, normalising: Sequence[Any]) -> tuple[Any, list[Any]]:
        """Loss without penalties, and the outputs that count."""
        loss, outputs, _ = self._run(mode, normalising)
        return loss - self._penalties(outputs, mode) - self._floor, [outputs[i] for i in self.free]

    def outputs(self, data: Any) -> list[Any]:
        """Eval-mode outputs on other rows."""
        outputs = self._run("eval", (), None, data)[1]
        return [outputs[i] for i in self.free]

    def substituted(self, free: Sequence[Any]) -> Any:
        """The loss with these outputs in place of the model's; the others are those of the start."""
        return self._run("train", (), self._with(self._base, free))[0] - self._floor

    def _penalties(self, outputs: list[Any], mode: Mode) -> Any:
        """What the other outputs cost by now, beyond what they cost at the start."""
        if not self.has_penalties:
            return 0.0
        start = self._with(outputs, self.base)
        return self._run(mode, (), start)[0] - self._offset

    def _with(self, outputs: Sequence[Any], free: Sequence[Any]) -> list[Any]:
        changed = list(outputs)
        for position, each in zip(self.free, free, strict=True):
            changed[position] = each
        return changed

    def _run(
        self, mode: Mode, normalising: Sequence[Any], instead: Sequence[Any] | None = None, data: Any = None
    ) -> tuple[Any, list[Any], list[str]]:
        """Run the step without its update; returns loss, outputs, and the name of the layer of each."""
        taken: list[Any] = []
        outputs: list[Any] = []
        names: list[str] = []
        levels = [0]
        quiet = {id(each) for each in normalising}

        def wrapper(layer: Any, own: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
            if mode != "train" and getattr(layer, "_call_has_training_arg", False):
                kwargs = {**kwargs, "training": id(layer) in quiet}
            levels[0] += 1
            try:
                given = own(*args, **kwargs)
            finally:
                levels[0] -= 1
            if levels[0] != self._level:
                return given
            flat = keras.tree.flatten(given)
            if instead is not None:
                flat = list(instead[len(outputs) : len(outputs) + len(flat)])
                given = keras.tree.pack_sequence_as(given, flat)
            outputs.extend(flat)
            names.extend(str(layer.name) for _ in flat)
            return given

        everything = [*layers.layers_of(self._model), self._model]
        with _without_update(self._model, everything, taken), layers.called_through(everything, wrapper):
            self._model.train_step(self._data if data is None else data)
        if not taken or any(each is not taken[0] for each in taken):
            raise NoObjectiveError(f"the step differentiates {len(taken)} losses")
        if instead is not None and len(instead) != len(outputs):
            raise NoObjectiveError("the step calls other layers each time")
        return tf.reduce_mean(tf.cast(taken[0], tf.float32)), outputs, names


def _differ(first: Any, second: Any) -> bool:
    if first is None or second is None:
        return first is not second
    return not bool(tf.reduce_all(tf.abs(first - second) <= 1e-5 * (tf.abs(first) + tf.abs(second)) + 1e-12))


@contextlib.contextmanager
def _without_update(model: Any, everything: list[Any], taken: list[Any]) -> Iterator[None]:
    """Take down what is differentiated, differentiate nothing, update nothing, and leave penalties on weights out."""

    def gradient(_: Any, target: Any, sources: Any, *__: Any, **___: Any) -> Any:
        taken.append(target)
        return tf.nest.map_structure(lambda each: tf.zeros(each.shape, each.dtype), sources)

    def nothing(*_: Any, **__: Any) -> None:
        return None

    optimizers = [each for each in vars(model).values() if isinstance(each, keras.optimizers.Optimizer)]
    with contextlib.ExitStack() as stack:
        for each in optimizers:
            for name, change in (("apply", nothing), ("apply_gradients", nothing), ("scale_loss", lambda loss: loss)):
                stack.callback(layers.substitute(each, name, change))
        for each in everything:
            if hasattr(each, "_get_regularization_losses"):
                stack.callback(layers.substitute(each, "_get_regularization_losses", list))
        stack.enter_context(tapes_answering(gradient))
        yield


def found_in(model: Any, feed: Feed) -> Objective | None:
    """The objective of this model's step; None where it cannot be had, whatever the reason."""
    try:
        with held(model, weights=True):
            return Objective(model, feed)
    except Exception:  # a step that cannot be taken apart is judged by the loss it reports
        return None
