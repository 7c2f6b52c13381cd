"""Keras' answers to what the probe of the wiring asks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from pytest_overfit.adapters.base import Reading
from pytest_overfit.adapters.keras import layers
from pytest_overfit.adapters.keras.feed import tensors
from pytest_overfit.adapters.keras.learner import KerasLearner
from pytest_overfit.adapters.keras.reader import numbers, total_loss
from pytest_overfit.adapters.keras.state import begin_again, forget, held
from pytest_overfit.adapters.keras.stepper import own
from pytest_overfit.adapters.keras.wires import masking, moves
from pytest_overfit.adapters.keras.wires.arrays import places
from pytest_overfit.adapters.keras.wires.stepping import WatchedSteps, optimizers_of
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
        self._owners = {id(each): layer for layer in self._layers() for each in layer._trainable_variables}
        found = _by_path(self.model.variables)
        #: what may be trained, frozen now or not
        self._weights = {path: each for path, each in found.items() if id(each) in self._owners}
        self._buffers = {path: each for path, each in found.items() if path not in self._weights and _floating(each)}
        self._steps = WatchedSteps(learner, self._weights, self._buffers)
        self.remarks: tuple[str, ...] = self._steps.remarks

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

    def update(self) -> Update:
        return self._steps.update()

    @property
    def _own_step(self) -> bool:
        return not self.remarks and own(self.model, "train_step")

    def _slopes(self, data: Any = None) -> Any:
        """What the step differentiates; None where it is Keras' own, or cannot be run without its update."""
        if not self._own_step:
            return None
        from pytest_overfit.adapters.keras.wires.slopes import slopes_of_step

        given = self.learner.feed.data if data is None else data
        return slopes_of_step(self.model, given, self._trainable(), optimizers_of(self.model))

    def _graph(self) -> Any:
        """The step as operations; None where it cannot be traced."""
        if not hasattr(self, "_traced"):
            self._traced = None
            if not self.remarks and not self.model.run_eagerly:
                from pytest_overfit.adapters.keras.wires.traced import TracedStep

                with contextlib.suppress(Exception):  # not every step can be traced
                    self._traced = TracedStep(self.model, self.learner.feed.data, optimizers_of(self.model))
        return self._traced

    def silent(self, names: Sequence[str]) -> bool:
        owners = {id(owner): owner for name in names if (owner := self._owners[id(self._weights[name])])}
        graph = self._graph()
        return graph is not None and graph.silenced(list(owners.values()))

    def unregistered(self) -> Sequence[str]:
        """Keras looks into lists and dicts of layers, and takes no variable of TensorFlow's for one of its own."""
        if self.remarks:
            return ()
        from pytest_overfit.adapters.keras.wires.strangers import called_by_the_model, unknown_to_all

        with called_by_the_model(self.model) as called:
            slopes = self._slopes()
            found = self._reached() if slopes is None else slopes.others
        return unknown_to_all(found, called)

    def _reached(self) -> list[Any]:
        """Variables beside the model's own that its loss depends on."""
        if not self._readable():
            return []
        from pytest_overfit.adapters.keras import graph

        with held(self.model, same_noise=True):
            forget(self.model)
            owned = [each.value for each in self.model.variables]
            return graph.reached(lambda: total_loss(self.model, self.reader.feed, self._trained(), True), owned)

    def _trained(self) -> Any:
        return self.reader.forward(training=True)

    def wrong_functions(self) -> Sequence[str]:
        return ()

    def rates(self, steps: int) -> list[float]:
        rate = getattr(self.model.optimizer, "_learning_rate", None)
        if not isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            return []
        return [float(rate(step)) for step in range(steps)]

    def should_move(self, name: str) -> bool:
        gradient, rate = self._steps.last.get(name), self._steps.rates.get(name)
        if gradient is None or rate is None:
            return False
        values = np.abs(numbers(self._weights[name]).astype(np.float64))
        spacing = float(np.finfo(np.float32).eps) * np.maximum(values, float(np.finfo(np.float32).tiny))
        return bool((rate * np.abs(gradient) > _SPACINGS * spacing).any())

    # -------------------------------------------------------------------- moves

    def gradients(self) -> dict[str, float | None] | None:
        if self._own_step:
            slopes = self._slopes()
            return None if slopes is None or not slopes.losses else _norms(slopes.gradients)
        if not self._readable():
            return None
        return _norms(dict(zip(self._trainable(), self._loss_and_gradients()[1], strict=True)))

    def moved_by(self, names: Sequence[str], share: float) -> Moved:
        return moves.moved_by(self.learner, self._weights, names, share)

    def _trainable(self) -> dict[str, Any]:
        return {path: each for path, each in self._weights.items() if each.trainable}

    def shaken(self, share: float, index: int) -> Reading | None:
        with moves.noisy(self._weights, self._trainable(), share, 1000 * index):
            try:
                return self.learner.read("fit")
            except Exception:  # a model or loss that refuses such numbers has nothing to say about them
                return None

    def descent(self, shares: Sequence[float]) -> Descent | None:
        variables = list(self._trainable().values())
        start = [numbers(each) for each in variables]
        if not self._readable():
            return None
        begin_again(self.model)  # the step draws what the readings below draw
        self._steps.made()
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
        graph = self._graph()
        return Descent(
            loss=loss,
            promised=promised,
            changes=tuple(changes),
            whole=whole,
            smooth=graph is None or graph.smooth,
            scheduled=self.learner.has_schedule,
            # where no backward pass is hand-written, all are TensorFlow's own
            checked=graph is not None and not graph.by_hand,
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
                found = tuple(numbers(each) for each in [*keras.tree.flatten(outputs), *inside])
        except Exception:  # a model that takes these values only cannot be asked; that is not a fault
            return None
        slopes = self._slopes((tensors(x), *self.learner.feed.data[1:])) if training else None
        return found if slopes is None else (*found, *(np.array(each) for each in slopes.losses if each is not None))

    def masks(self) -> list[tuple[str, Array]]:
        self._masking = {each.path: (each, mask) for each, mask in masking.masked_layers(self.model, self._as_given)}
        return [(path, mask) for path, (_, mask) in self._masking.items()]

    def answer_repadded(self, mask: str, repadded: Callable[[Array], Array]) -> tuple[Array, ...] | None:
        return masking.answer_repadded(self._masking[mask][0], repadded, self._as_given)

    def _as_given(self) -> tuple[Array, ...] | None:
        return self.answer(self.inputs())

    def strides(self) -> bool:
        return any(_steps_over(each) for each in layers.layers_of(self.model))


def _by_path(variables: Sequence[Any]) -> dict[str, Any]:
    """Under one path each, also where layers that were built by themselves use the same one."""
    found: dict[str, Any] = {}
    for each in variables:
        count = sum(other is not each and other.path == each.path for other in found.values())
        found[f"{each.path}_{count}" if count else each.path] = each
    return found


def _norms(gradients: Mapping[str, Array | None]) -> dict[str, float | None]:
    return {path: None if each is None else float(np.linalg.norm(each.ravel())) for path, each in gradients.items()}


def _assign(variables: Sequence[Any], values: Sequence[Array]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value.astype(str(variable.dtype)))


def _steps_over(layer: Any) -> bool:
    strides = np.atleast_1d(getattr(layer, "strides", None) or 1)
    return bool((strides > 1).any())


def _floating(variable: Any) -> bool:
    return "float" in str(variable.dtype)
