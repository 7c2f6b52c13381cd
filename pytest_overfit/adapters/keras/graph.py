"""What is done in TensorFlow itself: many steps in one compiled function, and gradients.

Imported only where TensorFlow is Keras' backend.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from pytest_overfit.adapters.arrays import by_each_output
from pytest_overfit.adapters.keras.feed import Feed
from pytest_overfit.adapters.keras.latent_sampling import draws_of_its_own, scales_noise
from pytest_overfit.core.arrays import Array


class GraphStepper:
    """Steps inside one compiled function that loops over the model's own `train_step`.

    Metrics are reset before each step, as `fit` does at each epoch, so that the loss is that step's and no running
    mean. The function is traced at construction, which raises whatever the step raises when it is traced; the number
    of steps is a tensor, so that there is one trace. A declared `jit_compile` is not honoured: it changes no result.
    """

    def __init__(self, model: Any, feed: Feed, loss_of: Callable[[Any], Any]) -> None:
        data = feed.data

        def many(steps: Any) -> Any:
            def body(step: Any, losses: Any) -> Any:
                model.reset_metrics()
                loss = tf.reduce_mean(tf.cast(loss_of(model.train_step(data)), tf.float32))
                self._graph = loss.graph
                return step + 1, losses.write(step, loss)

            start = (0, tf.TensorArray(tf.float32, size=steps, element_shape=()))
            return tf.while_loop(lambda step, _: step < steps, body, start)[1].stack()

        self._model, self._graph = model, None
        # Keras keeps autograph out of train_step too
        function = tf.function(many, autograph=False)
        self._many = function.get_concrete_function(tf.TensorSpec([], tf.int32))

    def train(self, steps: int) -> list[float]:
        return [float(loss) for loss in self._many(tf.constant(steps, tf.int32)).numpy()]

    @property
    def samples(self) -> bool:
        """The model draws noise and scales it itself."""
        return scales_noise(self._graph, self._model.trainable_variables)

    @property
    def draws(self) -> bool:
        """The step draws random numbers that are not those of a layer of Keras'."""
        return draws_of_its_own(self._model, self._graph)


class EagerStepper:
    """Steps one by one without compiling, for models that were compiled with `run_eagerly=True`."""

    #: unknown: there is no graph to look at
    samples = draws = False

    def __init__(self, model: Any, feed: Feed, loss_of: Callable[[Any], Any]) -> None:
        self._model, self._data, self._loss_of = model, feed.data, loss_of

    def train(self, steps: int) -> list[float]:
        losses = []
        for _ in range(steps):
            self._model.reset_metrics()
            losses.append(float(tf.reduce_mean(tf.cast(self._loss_of(self._model.train_step(self._data)), tf.float32))))
        return losses


def compiled(function: Callable[[], Any]) -> Callable[[], Any]:
    """Trace a function without arguments; raises what tracing raises."""
    traced: Callable[[], Any] = tf.function(function, autograph=False).get_concrete_function()
    return traced


def compiled_for(function: Callable[[Any], Any], example: Any) -> Callable[[Any], Any]:
    """A function of a batch, traced for the shapes of this one; raises what tracing raises."""
    specs = tf.nest.map_structure(lambda leaf: tf.TensorSpec(leaf.shape, leaf.dtype), example)
    traced = tf.function(function, autograph=False, input_signature=[specs])

    def asked(x: Any) -> Any:
        with _as_written():
            return traced(x)

    return asked


@contextlib.contextmanager
def _as_written() -> Iterator[None]:
    """Inside, TensorFlow computes what stands there: its rewriting joins constants, which loses overflows and NaN."""
    name = "disable_meta_optimizer"
    before = tf.config.optimizer.get_experimental_options().get(name, False)
    tf.config.optimizer.set_experimental_options({name: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({name: before})


def compiled_for_any_length(function: Callable[[Any], Any], example: Any) -> Callable[[Any], Any]:
    """A function of a batch, traced once for any number of rows; itself where it cannot be traced so."""

    def spec(leaf: Any) -> Any:
        return tf.TensorSpec([None, *leaf.shape[1:]], leaf.dtype)

    try:
        specs = tf.nest.map_structure(spec, example)
        traced: Callable[[Any], Any] = tf.function(function, autograph=False, input_signature=[specs])
        traced(example)
    except Exception:  # not every forward pass can be traced; it was read without before
        return function
    return traced


def reached(loss_of: Callable[[], Any], own: Sequence[Any]) -> list[Any]:
    """The trainable variables, without these, that a loss has a gradient by."""
    known = {each.ref() for each in own}
    with tf.GradientTape() as tape:
        loss = loss_of()
    others = [each for each in tape.watched_variables() if each.ref() not in known]
    gradients = tape.gradient(loss, others) if others else []
    return [each for each, slope in zip(others, gradients, strict=True) if slope is not None]


class SubstitutedLoss:
    """The loss, and its gradient, as a function of the outputs."""

    def __init__(self, loss_of: Callable[[Sequence[Any]], Any], outputs: Sequence[Array]) -> None:
        self._loss_of = loss_of
        self._dtypes = [each.dtype for each in outputs]
        self._shapes = [tuple(each.shape) for each in outputs]
        self._function: Callable[..., Any] = self._evaluate
        try:
            specs = [tf.TensorSpec(each.shape, each.dtype) for each in outputs]
            self._function = tf.function(self._evaluate, autograph=False).get_concrete_function(*specs)
        except Exception:  # a loss that cannot be traced is evaluated as it is
            self._function = self._evaluate

    def _evaluate(self, *outputs: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(outputs)
            loss = self._loss_of(outputs)
        return loss, [None if each is None else tf.convert_to_tensor(each) for each in tape.gradient(loss, outputs)]

    def __call__(self, outputs: Sequence[Array]) -> tuple[float, list[Array]] | None:
        """None where the loss depends on none of the outputs."""
        given = [tf.constant(each, dtype) for each, dtype in zip(outputs, self._dtypes, strict=True)]
        traced = [each.shape for each in outputs] == self._shapes
        # a graph that was traced for one shape takes another without a word, and its gradients are then wrong
        loss, gradients = (self._function if traced else self._evaluate)(*given)
        if all(each is None for each in gradients):
            return None
        return float(loss), by_each_output(gradients, outputs)


def gradients(loss_of: Callable[[], Any], variables: Sequence[Any]) -> list[Array | None]:
    """Gradient of the loss for each variable; None where the loss does not depend on it."""
    with tf.GradientTape() as tape:
        loss = loss_of()
    found = tape.gradient(loss, [each.value for each in variables])
    return [None if each is None else tf.convert_to_tensor(each).numpy() for each in found]
