"""Keras' answers to what the probe of the wiring asks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from pytest_overfit.adapters.base import Mode, Reading
from pytest_overfit.adapters.keras import layers
from pytest_overfit.adapters.keras.feed import tensors
from pytest_overfit.adapters.keras.learner import KerasLearner
from pytest_overfit.adapters.keras.reader import numbers, total_loss
from pytest_overfit.adapters.keras.state import forget, held
from pytest_overfit.adapters.keras.stepper import StepLoss, why_fit
from pytest_overfit.adapters.keras.wires.arrays import largest, noise, places, relative
from pytest_overfit.adapters.wires import Descent, Moved, Update, Weight, short_ways
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.usercode import is_users_class
from pytest_overfit.data.tree import map_leaves

#: a variable's change must exceed its spacing by this much to be demanded
_SPACINGS = 4.0

#: names of the variables that are their layer's main one
_MAIN = ("kernel", "embeddings", "recurrent_kernel", "depthwise_kernel", "pointwise_kernel")


class KerasWires:
    """One learner, watched. Steps run eagerly: what is patched into a traced function runs only at tracing."""

    def __init__(self, learner: KerasLearner) -> None:
        self.learner, self.model, self.reader = learner, learner.model, learner.reader
        self.remarks: tuple[str, ...] = ()
        self._owners = {id(each): layer for layer in self._layers() for each in layer._trainable_variables}
        found = {each.path: each for each in self.model.variables}
        #: what may be trained, frozen now or not
        self._weights = {path: each for path, each in found.items() if id(each) in self._owners}
        self._buffers = {path: each for path, each in found.items() if path not in self._weights and _floating(each)}
        self._stepped = self._stepper()

    def _layers(self) -> list[Any]:
        return [self.model, *layers.layers_of(self.model)]

    # ------------------------------------------------------------------ weights

    def weights(self) -> list[Weight]:
        return [self._weight(path, each) for path, each in self._weights.items()]

    def _weight(self, path: str, variable: Any) -> Weight:
        module, _, own = path.rpartition("/")
        owner = self._owners[id(variable)]
        kind = type(owner)
        return Weight(
            name=path,
            module=module,
            kind=kind.__name__,
            trainable=bool(variable.trainable),
            main=own in _MAIN,
            of_library=not is_users_class(kind) and not kind.__module__.startswith("keras."),
        )

    # ------------------------------------------------------------------- update

    def _stepper(self) -> Callable[[], float]:
        """One step, watched where TensorFlow lets us watch; else through whatever steps this model."""
        reason = why_fit(self.learner.case, self.model)
        if keras.backend.backend() != "tensorflow" or reason:
            self.remarks = (f"gradients were not looked at, because {reason}",)
            return lambda: self.learner.train(1)[0]
        from pytest_overfit.adapters.keras.graph import EagerStepper

        stepper = EagerStepper(self.model, self.learner.feed, StepLoss(self.learner.case))
        return lambda: stepper.train(1)[0]

    def update(self) -> Update:
        before = {path: numbers(each) for path, each in (self._weights | self._buffers).items()}
        evaluating: list[bool] = []

        def note(_layer: Any, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            evaluating.append(kwargs.get("training") is False)
            return own(*args, **kwargs)

        with self._watching() as watch, layers.called_through([self.model], note):
            loss = self._stepped()
        return Update(
            loss=loss,
            in_evaluation=bool(evaluating) and all(evaluating),
            events=tuple(watch.events) if watch else (),
            changed=_changed(self._weights, before),
            buffers=_changed(self._buffers, before),
        )

    @contextlib.contextmanager
    def _watching(self) -> Iterator[Any]:
        if self.remarks:
            yield None
            return
        if not hasattr(self, "_watch"):
            from pytest_overfit.adapters.keras.wires.watch import TapeWatch

            self._watch = TapeWatch(self._weights, _optimizers(self.model))
        with self._watch.watching():
            yield self._watch

    def silent(self, names: Sequence[str]) -> bool:
        del names
        return False  # not known: a factor of 0 cannot be told from one that other data would change

    def unregistered(self) -> Sequence[str]:
        return ()  # Keras looks into lists and dicts of layers

    def wrong_functions(self) -> Sequence[str]:
        return ()

    def rates(self, steps: int) -> list[float]:
        rate = getattr(self.model.optimizer, "_learning_rate", None)
        if not isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            return []
        return [float(rate(step)) for step in range(steps)]

    def should_move(self, name: str) -> bool:
        gradient, rate = self._watch.last.get(name), self._watch.rates.get(name)
        if gradient is None or rate is None:
            return False
        values = np.abs(numbers(self._weights[name]).astype(np.float64))
        spacing = float(np.finfo(np.float32).eps) * np.maximum(values, float(np.finfo(np.float32).tiny))
        return bool((rate * np.abs(gradient) > _SPACINGS * spacing).any())

    # -------------------------------------------------------------------- moves

    def gradients(self) -> dict[str, float | None] | None:
        if not self._readable():
            return None
        pairs = zip(self._trainable(), self._loss_and_gradients()[1], strict=True)
        return {path: None if each is None else float(np.linalg.norm(each.ravel())) for path, each in pairs}

    def moved_by(self, names: Sequence[str], share: float) -> Moved:
        found = [self._moved_in(mode, names, share) for mode in ("fit", "train")]
        return Moved(outputs=largest(each.outputs for each in found), loss=largest(each.loss for each in found))

    def _moved_in(self, mode: Mode, names: Sequence[str], share: float) -> Moved:
        reader = self.learner.verified_reader()
        if not reader.has_outputs:
            return Moved(outputs=None, loss=None)
        before = reader.read(mode)
        with self._noisy(names, share, 0):
            after = reader.read(mode)
        loss = None if before[0] is None or after[0] is None else relative(np.array(before[0]), np.array(after[0]))
        pairs = zip(before[1], after[1], self._shown_only(len(before[1])), strict=True)
        outputs = [relative(old, new) for old, new, shown in pairs if not shown]
        return Moved(outputs=max(outputs, default=None), loss=loss)

    def _shown_only(self, count: int) -> list[bool]:
        """Outputs that the model was compiled with a loss of None for, and that have no targets either."""
        names = list(getattr(self.model, "output_names", None) or ())
        losses, targets = (_by_output(each, names) for each in (self.model.loss, self.learner.feed.arrays.y))
        if len(losses) != count:
            return [False] * count
        return [each is None and (len(targets) != count or targets[place] is None) for place, each in enumerate(losses)]

    @contextlib.contextmanager
    def _noisy(self, names: Iterable[str], share: float, first: int) -> Iterator[None]:
        variables = [self._weights[name] for name in names]
        kept = [numbers(each) for each in variables]
        try:
            for number, (variable, old) in enumerate(zip(variables, kept, strict=True), first):
                variable.assign(old + noise(old, share, number))
            yield
        finally:
            for variable, old in zip(variables, kept, strict=True):
                variable.assign(old)

    def _trainable(self) -> dict[str, Any]:
        return {path: each for path, each in self._weights.items() if each.trainable}

    def shaken(self, share: float, index: int) -> Reading | None:
        with self._noisy(self._trainable(), share, 1000 * index):
            try:
                return self.learner.read("fit")
            except Exception:  # a model or loss that refuses such numbers has nothing to say about them
                return None

    def descent(self, shares: Sequence[float]) -> Descent | None:
        variables = list(self._trainable().values())
        start = [numbers(each) for each in variables]
        if not self._readable():
            return None
        self._stepped()
        end = [numbers(each) for each in variables]
        update = [new.astype(np.float64) - old for new, old in zip(end, start, strict=True)]
        try:  # all is read after the step, so that a state which it carries on is the same
            _assign(variables, start)
            loss, gradients = self._loss_and_gradients()
            promised = sum(float((g * u).sum()) for g, u in zip(gradients, update, strict=True) if g is not None)

            def change(way: float) -> float:
                _assign(variables, [old + way * along for old, along in zip(start, update, strict=True)])
                return self._training_loss() - loss

            changes = [(way * promised, change(way)) for way in short_ways(shares, loss, promised)]
            whole = change(1.0)
        finally:
            _assign(variables, end)
        return Descent(
            loss=loss,
            promised=promised,
            changes=tuple(changes),
            whole=whole,
            smooth=True,
            scheduled=self.learner.has_schedule,
            checked=False,
        )

    def _readable(self) -> bool:
        reader = self.learner.verified_reader()
        return keras.backend.backend() == "tensorflow" and reader.readable and reader.objective is None

    def _training_loss(self) -> float:
        """With its penalties: that is what the step differentiates."""
        with held(self.model, same_noise=True):
            forget(self.model)
            outputs = self.reader.forward(training=True)
            return float(keras.ops.mean(total_loss(self.model, self.reader.feed, outputs, True)))

    def _loss_and_gradients(self) -> tuple[float, list[Array | None]]:
        from pytest_overfit.adapters.keras import graph

        reader = self.reader
        with held(self.model, same_noise=True):
            forget(self.model)
            found = graph.gradients(
                lambda: total_loss(self.model, reader.feed, reader.forward(training=True), True),
                list(self._trainable().values()),
            )
        return self._training_loss(), found

    # ------------------------------------------------------------------- inputs

    def inputs(self) -> dict[str, Array]:
        return dict(places(self.learner.feed.arrays.x, self._input_names()))

    def _input_names(self) -> list[str]:
        """What its owner called them; names that Keras made up say nothing."""
        named = [str(each.name) for each in getattr(self.model, "inputs", None) or ()]
        return [] if any(each.startswith("keras_tensor") for each in named) else named

    def arguments(self) -> frozenset[str]:
        whole = getattr(self.model, "inputs", None) or not isinstance(self.learner.feed.arrays.x, dict)
        return frozenset(self.inputs()) if whole else frozenset()

    def buffers(self) -> list[str]:
        return list(self._buffers)

    def answer(self, inputs: Mapping[str, Array], training: bool = False) -> tuple[Array, ...] | None:
        given = self.learner.feed.arrays.x
        names = iter(name for name, _ in places(given, self._input_names()))
        x = map_leaves(given, lambda leaf: inputs.get(next(names), leaf))
        if self.reader.structure is None:
            return None
        try:
            with held(self.model, same_noise=True):
                forget(self.model)
                outputs = self.reader.forward(training=training, x=tensors(x))
                inside = [keras.ops.sum(each) for each in self.model.losses] if training else []
                return tuple(numbers(each) for each in [*keras.tree.flatten(outputs), *inside])
        except Exception:  # a model that takes these values only cannot be asked; that is no fault
            return None

    def strides(self) -> bool:
        return any(_steps_over(each) for each in layers.layers_of(self.model))


def _by_output(value: Any, names: Sequence[str]) -> list[Any]:
    return [value.get(name) for name in names] if isinstance(value, dict) else list(value) if _is_list(value) else []


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _assign(variables: Sequence[Any], values: Sequence[Array]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value.astype(str(variable.dtype)))


def _steps_over(layer: Any) -> bool:
    strides = np.atleast_1d(getattr(layer, "strides", None) or 1)
    return bool((strides > 1).any())


def _changed(variables: Mapping[str, Any], before: Mapping[str, Array]) -> frozenset[str]:
    return frozenset(path for path, each in variables.items() if numbers(each).tobytes() != before[path].tobytes())


def _floating(variable: Any) -> bool:
    return "float" in str(variable.dtype)


def _optimizers(model: Any) -> list[Any]:
    held_by_model = [each for each in vars(model).values() if isinstance(each, keras.optimizers.Optimizer)]
    return list({id(each): each for each in [model.optimizer, *held_by_model] if each is not None}.values())
