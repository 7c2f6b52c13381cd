"""Read a model's loss and outputs on the batch, in any mode, and leave no trace."""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from pytest_overfit.adapters.base import Mode
from pytest_overfit.adapters.keras import layers
from pytest_overfit.adapters.keras import substituted_loss as slopes
from pytest_overfit.adapters.keras.compiled_eval import Answering
from pytest_overfit.adapters.keras.errors import user_call
from pytest_overfit.adapters.keras.feed import Feed, tensors
from pytest_overfit.adapters.keras.state import forget, held
from pytest_overfit.core.arrays import Array
from pytest_overfit.data.batch import map_leaves, to_numpy

if TYPE_CHECKING:  # it imports tensorflow, which other backends do without
    from pytest_overfit.adapters.keras.objective import Objective

#: seconds spent on uncompiled readings in one mode before that mode is compiled: tracing costs about as much
_PATIENCE = 0.3

#: loss or None, outputs leaf by leaf, Keras masks of the outputs (None where there is none)
Pass = tuple[Any, list[Any], list[Any]]


class Reader:
    """Reads one model on one batch. Every reading restores the model and the generators."""

    def __init__(self, model: Any, feed: Feed, where: str) -> None:
        self.model, self.feed, self.where = model, feed, where
        #: a nested structure like the outputs, or None where the model gives none by itself
        self.structure: Any = None
        #: the loss can be had from the outputs
        self.readable = True
        #: how to read a loss that is made inside the step; None: it is the compiled one, or cannot be read
        self.objective: Objective | None = None
        #: Keras masks of the outputs at the last reading: they depend on the inputs alone
        self.masks: list[Any] = []
        self._readings = 0
        self._spent: dict[str, float] = {}
        self._compiled: dict[str, Callable[[], Any] | None] = {}
        self._normalising: list[Any] | None = None
        self._substituted: Any = None
        #: seconds of readings of other batches, and the pass compiled for all of them once these were many
        self._looked = 0.0
        self._answers: Callable[[Any], Any] | None = None
        self._compiles = keras.backend.backend() == "tensorflow" and not model.run_eagerly
        #: the eval-mode pass for chosen rows
        self._asked = Answering(lambda x: self.forward(training=False, x=x), compiles=self._compiles)

    @property
    def has_outputs(self) -> bool:
        """There are outputs to read: the model's own, or those of the layers inside a step."""
        return self.structure is not None or self.objective is not None

    def look_at(self, feed: Feed) -> None:
        """Read another batch from now on. What was compiled for the batch before is bound to it."""
        self.feed, self._substituted = feed, None
        self._compiled.clear()
        self._looked += self._spent.get("eval", 0.0)
        self._spent.clear()
        if self._answers is None and self._looked > _PATIENCE and self.objective is None:
            self._answers = self._compiled_answers()

    def _compiled_answers(self) -> Callable[[Any], Any]:
        """The eval-mode pass for batches of any length, compiled where that can be; masks are lost in compiling."""

        def forward(x: Any) -> Any:
            return self.forward(training=False, x=x)

        masked = any(each is not None for each in self.masks)
        if masked or not self._compiles:
            return forward
        from pytest_overfit.adapters.keras import graph

        return graph.compiled_for_any_length(forward, self.feed.x)

    def forward(self, training: bool, x: Any = None) -> Any:
        """Call the model as Keras' own step does, which looks whether it takes `training`."""
        given = self.feed.x if x is None else x
        with user_call(f"{self.where}: the model's call"):
            if getattr(self.model, "_call_has_training_arg", True):
                return self.model(given, training=training)
            return self.model(given)

    def data_term(self, outputs: Any, *, training: bool) -> Any:
        """The user's loss without penalties and other added losses, as a scalar."""
        with user_call(f"{self.where}: the loss"), _without_penalties(self.model) as penalties:
            loss = total_loss(self.model, self.feed, outputs, training) - penalties()
        return keras.ops.mean(loss) if len(loss.shape) else loss

    def normalising(self) -> list[Any]:
        """The batch normalisations that use the batch's statistics in training, found by one pass in that mode."""
        if self._normalising is None:
            candidates = layers.batch_normalisations(self.model)
            noted: set[int] = set()
            if candidates:
                with held(self.model), layers.noting_training(candidates) as noted:
                    self._whole_pass("train")
            self._normalising = [each for each in candidates if id(each) in noted]
        return self._normalising

    def read(self, mode: Mode) -> tuple[float | None, tuple[Array, ...]]:
        """Loss (None where it is not readable) and outputs."""
        self._readings += 1
        normalising = self.normalising() if mode in ("fit", "reestimated") else []
        # a training reading draws what the next step will; the others draw other numbers, so that noise shows
        noise = None if mode == "train" else self._readings
        with held(self.model, other_noise=noise, evaluating=mode == "eval"):
            if mode == "reestimated":
                self._reestimate(normalising)
            loss, outputs, masks = self._timed(mode, normalising)
            self.masks = [None if each is None else keras.ops.convert_to_numpy(each) for each in masks]
            return None if loss is None else float(numbers(loss)), tuple(numbers(each) for each in outputs)

    def _timed(self, mode: Mode, normalising: list[Any]) -> Pass:
        def once() -> Pass:
            return self._pass(mode, normalising)

        if mode in ("fit", "eval") and self._spent.get(mode, 0.0) > _PATIENCE and mode not in self._compiled:
            self._compiled[mode] = self._compile(once)
        start = time.perf_counter()
        found: Pass = (self._compiled.get(mode) or once)()
        self._spent[mode] = self._spent.get(mode, 0.0) + time.perf_counter() - start
        return found

    def _compile(self, once: Callable[[], Pass]) -> Callable[[], Pass] | None:
        if not self._compiles:
            return None
        from pytest_overfit.adapters.keras import graph

        try:
            return graph.compiled(once)
        except Exception:  # not every forward pass can be traced; it was read without before
            return None

    def _whole_pass(self, mode: Mode, normalising: Sequence[Any] = ()) -> Any:
        if self.objective is not None:
            return self.objective.read(mode, normalising)[1]
        with layers.on_batch_statistics(normalising):
            return self.forward(training=mode == "train")

    def _pass(self, mode: Mode, normalising: list[Any]) -> Pass:
        if self.objective is not None:
            loss, flat = self.objective.read(mode, normalising if mode == "fit" else ())
            return loss, flat, []
        with layers.on_batch_statistics(normalising if mode == "fit" else ()):
            asked = self._answers if mode == "eval" else None
            outputs = self.forward(training=mode == "train") if asked is None else asked(self.feed.x)
        loss = self.data_term(outputs, training=mode in ("fit", "train")) if self.readable else None
        flat = keras.tree.flatten(outputs)
        return loss, flat, [getattr(each, "_keras_mask", None) for each in flat]

    def calls(self, mode: Mode) -> list[layers.Call]:
        """What every layer got and gave in one forward pass."""
        self._readings += 1
        normalising = self.normalising() if mode in ("fit", "reestimated") else []
        with held(self.model, other_noise=self._readings):
            if mode == "reestimated":
                self._reestimate(normalising)
            return layers.recorded(self.model, lambda: self._whole_pass(mode, normalising if mode == "fit" else ()))

    def moments(self) -> dict[int, tuple[Array, Array, int]]:
        """Mean and variance of each normalisation's input on this batch, and its number of calls, by the layer's id."""
        taken = self.moments_of_calls("eval")
        return {name: (*_averaged(pairs), len(pairs)) for name, pairs in taken.items() if pairs}

    def moments_of_calls(self, mode: Mode) -> dict[int, list[tuple[Array, Array]]]:
        """The same for each call, in one pass of the batch in this mode with its own statistics."""
        normalising = self.normalising()
        if not normalising:
            return {}
        self._readings += 1
        with held(self.model, other_noise=self._readings), layers.taking_statistics(normalising) as taken:
            self._whole_pass(mode)
            return {name: [(numbers(a), numbers(b)) for a, b in pairs] for name, pairs in taken.items()}

    def _reestimate(self, normalising: list[Any]) -> None:
        """Give each normalisation this batch's statistics; a layer that is called twice gets the average."""
        if not normalising:
            return
        with layers.taking_statistics(normalising) as taken:
            self._whole_pass("eval")
        for layer in normalising:
            if taken[id(layer)]:
                mean, variance = _averaged(taken[id(layer)])
                layer.moving_mean.assign(mean)
                layer.moving_variance.assign(variance)

    def outputs_for(self, rows: Sequence[int], noise: int | None = None) -> tuple[Array, ...] | None:
        """Eval-mode outputs of these rows. State that is kept for each row starts anew: it belongs to its row.

        `noise`: with the random numbers of another call with it.
        """
        self._readings += 1
        noise = self._readings if noise is None else noise
        try:
            with held(self.model, other_noise=noise, evaluating=True, rows=self.feed.rows):
                forget(self.model)
                if self.objective is not None:
                    data = map_leaves(self.feed.arrays_as_data, lambda leaf: leaf[list(rows)])
                    return tuple(numbers(each) for each in self.objective.outputs(tensors(data)))
                outputs = self._asked(self.feed.gathered(rows))
                return tuple(numbers(each) for each in keras.tree.flatten(outputs))
        except Exception:  # e.g. a fixed batch size: the model cannot be asked
            return None

    def substituted(self, outputs: Sequence[Array]) -> tuple[float, list[Array]] | None:
        """The data term with these outputs, and its gradient. Masks that the model gave its outputs stay on them."""
        if self.objective is None and (not self.readable or self.structure is None):
            return None
        try:
            if self._substituted is None:
                self._substituted = self._substitute()
            found: tuple[float, list[Array]] | None = self._substituted(outputs)
        except Exception:  # a loss that refuses these outputs has nothing to say about them
            return None
        return found

    def _substitute(self) -> Callable[[Sequence[Array]], tuple[float, list[Array]] | None]:
        given = keras.tree.flatten(self.structure) if self.objective is None else self.objective.base
        if keras.backend.backend() != "tensorflow":
            return slopes.substituted_loss(self._loss_of_flat, given) or (lambda _: None)
        from pytest_overfit.adapters.keras import graph

        return graph.SubstitutedLoss(self._loss_of_flat, given)

    def _loss_of_flat(self, outputs: Sequence[Any]) -> Any:
        if self.objective is not None:
            return self.objective.substituted(outputs)
        masked = [keras.ops.copy(each) for each in outputs]
        for each, mask in zip(masked, self.masks, strict=False):
            if mask is not None:
                each._keras_mask = keras.ops.convert_to_tensor(mask)
        return self.data_term(keras.tree.pack_sequence_as(self.structure, masked), training=True)


def total_loss(model: Any, feed: Feed, outputs: Any, training: bool) -> Any:
    """What `train_step` differentiates. A `compute_loss` of the user's may be older than its argument `training`."""
    extra = {"training": training} if "training" in inspect.signature(model.compute_loss).parameters else {}
    return model.compute_loss(feed.x, feed.y, outputs, feed.weights, **extra)


@contextlib.contextmanager
def _without_penalties(model: Any) -> Iterator[Callable[[], Any]]:
    """Empty `model.losses` for a moment; yields what is still to be taken off.

    Keras' private override keeps small data terms exact next to large penalties. Without it they are subtracted.
    """
    override = getattr(model, "_losses_override", None)
    if not isinstance(override, list):
        yield lambda: sum(keras.ops.sum(each) for each in model.losses)
        return
    before = list(override)
    override[:] = [keras.ops.zeros(())]
    try:
        yield lambda: 0.0
    finally:
        override[:] = before


def numbers(tensor: Any) -> Array:
    """A tensor as an array; half precision becomes single."""
    array = to_numpy(keras.ops.convert_to_numpy(tensor))
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _averaged(pairs: list[tuple[Any, Any]]) -> tuple[Array, Array]:
    means, variances = zip(*[(numbers(mean), numbers(variance)) for mean, variance in pairs], strict=True)
    return np.mean(means, axis=0), np.mean(variances, axis=0)
