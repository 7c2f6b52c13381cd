"""The program as its owner wrote it, made anew as often as one likes, and the same with something altered."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from pytest_overfit.adapters.keras import layers, pass_state
from pytest_overfit.adapters.keras import stepper as stepping
from pytest_overfit.adapters.keras.building import first_outputs
from pytest_overfit.adapters.keras.feed import feed_of
from pytest_overfit.adapters.keras.learner import KerasLearner, make_learner
from pytest_overfit.adapters.keras.reader import Reader
from pytest_overfit.adapters.programs import UnchangeableError
from pytest_overfit.core.case import Case
from pytest_overfit.data.batch import Batch


def _as_it_is(model: Any) -> Any:
    return model


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alteration:
    """What is other than in the owner's program."""

    #: alters a model that is built and not yet traced, and returns it or one that takes its place
    model: Callable[[Any], Any] = _as_it_is
    batch: Batch | None = None
    case: Case | None = None


class Original:
    """Makes new models of one program."""

    def __init__(self, case: Case, batch: Batch, rebuild: Callable[[], Any]) -> None:
        self.case, self.batch, self._rebuild = case, batch, rebuild

    def built(self) -> Any:
        """A new model with all its layers built, by a pass that leaves nothing behind. Not traced."""
        model = self._rebuild()
        first_outputs(self.reader(model))
        pass_state.altered(model)
        return model

    def reader(self, model: Any) -> Reader:
        """A reader of such a model."""
        return Reader(model, feed_of(self.case, self.batch), f"Case {self.case.name!r}")

    def learner(self, alteration: Alteration) -> KerasLearner:
        """A new learner of the altered program; its blinded controls are altered as well."""

        def rebuild() -> Any:
            model = alteration.model(self.built())
            pass_state.altered(model)
            return model

        return make_learner(alteration.case or self.case, rebuild(), alteration.batch or self.batch, rebuild)

    def learner_of(self, model: Any) -> KerasLearner:
        """A learner of a model that was made here and is not altered."""
        return make_learner(self.case, model, self.batch, self._rebuild)


def everything(model: Any) -> list[Any]:
    """The model and all its layers; the same layer has the same place in each model of one program."""
    return [model, *layers.layers_of(model)]


def check_calls_itself(model: Any) -> None:
    """Raises `UnchangeableError` where the step does not call the model, but its parts."""
    if stepping.own(model, "train_step") and not stepping.own(model, "call"):
        raise UnchangeableError("its train_step calls the model's parts, not the model")
