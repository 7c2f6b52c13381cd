"""Steps of one learner, watched. They run eagerly: what is patched into a traced function runs only at tracing."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

from pytest_overfit.adapters.keras import layers
from pytest_overfit.adapters.keras.cut_graph import step_call
from pytest_overfit.adapters.keras.learner import KerasLearner
from pytest_overfit.adapters.keras.reader import numbers
from pytest_overfit.adapters.keras.stepper import StepLoss, why_fit
from pytest_overfit.adapters.wires import BackwardPass, OptimizerStep, Update
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.diagnosed import diagnosed
from pytest_overfit.core.errors import ProgramError


class WatchedSteps:
    """Makes one step after the other, and notes what each did."""

    def __init__(self, learner: KerasLearner, weights: Mapping[str, Any], buffers: Mapping[str, Any]) -> None:
        self._learner, self._model = learner, learner.model
        self._weights, self._buffers = weights, buffers
        #: what cannot be looked at
        self.remarks: tuple[str, ...] = ()
        self._step = self._stepper()
        self._watch: Any = None

    @property
    def last(self) -> dict[str, Array]:
        """The last gradient of each variable."""
        return self._watch.last if self._watch else {}

    @property
    def rates(self) -> dict[str, float]:
        """The rate that each variable was last stepped with."""
        return self._watch.rates if self._watch else {}

    def made(self) -> float:
        """One step of which the loss alone is asked."""
        with self._watching() as watch:
            return self._made(watch)

    def _stepper(self) -> Callable[[], float]:
        """One step, watched where TensorFlow lets us watch; else through whatever steps this model."""
        reason = why_fit(self._learner.case, self._model)
        if keras.backend.backend() != "tensorflow" or reason not in ("", "there are callbacks"):
            self.remarks = (f"gradients were not looked at, because {reason}",)
            return lambda: self._learner.train(1)[0]
        if reason:  # fit steps, without compiling
            self._model.run_eagerly = True
            return lambda: self._learner.train(1)[0]
        from pytest_overfit.adapters.keras.graph import EagerStepper

        stepper = EagerStepper(self._model, self._learner.feed, StepLoss(self._learner.case))
        return lambda: stepper.train(1)[0]

    def update(self) -> Update:
        before = {path: numbers(each) for path, each in {**self._weights, **self._buffers}.items()}
        evaluating: list[bool] = []
        rows: list[int] = []

        def note(_layer: Any, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            evaluating.append(kwargs.get("training") is False)
            rows.append(_rows(args))
            return own(*args, **kwargs)

        with self._watching() as watch, layers.called_through([self._model], note):
            loss = self._made(watch)
            undone = watch.undone() if watch else None
        return Update(
            loss=loss,
            in_evaluation=bool(evaluating) and all(evaluating),
            events=_of_this_loss(watch.events, loss) if watch else (),
            changed=_changed(self._weights, before),
            buffers=_changed(self._buffers, before),
            rows=tuple(rows),
            undone=undone,
        )

    def _made(self, watch: Any) -> float:
        """One step; one that nothing can be differentiated in shows what is wrong with it."""
        try:
            with step_call(self._learner.case, self._model, self._learner.feed):
                return self._step()
        except ProgramError as error:
            passes = [each for each in watch.events if isinstance(each, BackwardPass)] if watch else []
            named = {each.fault for each in error.diagnoses} & {"detached_graph", "non_differentiable"}
            nothing = bool(passes) and all(norm is None for each in passes for norm in each.gradients.values())
            if nothing and not named:
                cuts = "stop_gradient, .numpy(), argmax, round, a comparison or a cast"
                raise diagnosed(error, "detached_graph", f"take out what cuts the graph: {cuts}") from None
            raise

    @contextlib.contextmanager
    def _watching(self) -> Iterator[Any]:
        if self.remarks:
            yield None
            return
        if self._watch is None:
            from pytest_overfit.adapters.keras.wires.watch import TapeWatch

            self._watch = TapeWatch(self._weights, optimizers_of(self._model))
        with self._watch.watching():
            yield self._watch


def _rows(args: tuple[Any, ...]) -> int:
    given = [each for each in keras.tree.flatten(args) if len(getattr(each, "shape", ()) or ())]
    return int(given[0].shape[0] or 0) if given else 0


def _of_this_loss(events: Sequence[Any], loss: float) -> tuple[Any, ...]:
    """What the optimizer got says nothing of its size where what was differentiated is not the loss, but scaled."""
    values = [each.value for each in events if isinstance(each, BackwardPass)]
    plain = all(each is not None and abs(each) <= 2.0 * abs(loss) for each in values)
    cleared = [dataclasses.replace(each, kept={}) if isinstance(each, OptimizerStep) else each for each in events]
    return tuple(events if plain else cleared)


def _changed(variables: Mapping[str, Any], before: Mapping[str, Array]) -> frozenset[str]:
    return frozenset(path for path, each in variables.items() if numbers(each).tobytes() != before[path].tobytes())


def optimizers_of(model: Any) -> list[Any]:
    held_by_model = [each for each in vars(model).values() if isinstance(each, keras.optimizers.Optimizer)]
    return list({id(each): each for each in [model.optimizer, *held_by_model] if each is not None}.values())
