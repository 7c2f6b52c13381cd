"""Rate, epsilon and weight decay as variables of one traced step, which is started again from the first weights.

Tracing a small model takes several times as long as its training, and these three are all that differs between a dozen
changed programs.
"""

from __future__ import annotations

import copy
import dataclasses
import weakref
from typing import Any

import keras

from pytest_overfit.adapters.keras import stepper as stepping
from pytest_overfit.adapters.keras.learner import KerasLearner
from pytest_overfit.adapters.keras.programs.optimizer import inner_optimizers
from pytest_overfit.adapters.keras.programs.original import Alteration, Original, everything
from pytest_overfit.adapters.keras.reader import numbers
from pytest_overfit.adapters.keras.state import forget
from pytest_overfit.adapters.programs import Change
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.usercode import is_users_class

#: attributes of an optimizer that become variables
_AS_VARIABLES = ("epsilon", "weight_decay")


@dataclasses.dataclass(kw_only=True)
class _Traced:
    """A model whose step is traced, or will be at its first training."""

    learner: KerasLearner
    #: every variable with its value before the first step
    start: list[tuple[Any, Array]]
    rate: float
    settings: dict[str, Any]
    #: the learner that was handed out last; while it lives, the model is its own
    user: weakref.ref[KerasLearner] | None = None


class Reused:
    """Learners that differ in hyperparameters only."""

    def __init__(self, original: Original, learner: KerasLearner) -> None:
        self._original = original
        self._may = _may_be_reused(learner)
        self._made: list[_Traced] = []

    def learner(self, change: Change, alteration: Alteration) -> KerasLearner | None:
        """A learner of the changed program, on a model that is traced already where there is one; None: needs its own.

        Its control runs are made by `alteration`.
        """
        if not self._may:
            return None
        traced = next((each for each in self._made if each.user is None or each.user() is None), None)
        if traced is None:
            traced = self._make()
            self._made.append(traced)
        if not _set(traced, change):
            return None
        learner = copy.copy(traced.learner)
        learner._rebuild = lambda: alteration.model(self._original.built())
        traced.user = weakref.ref(learner)
        return learner

    def _make(self) -> _Traced:
        model = self._original.built()
        (optimizer,) = inner_optimizers(model)
        settings = {name: _as_variable(optimizer, name) for name in _AS_VARIABLES}
        learner = self._original.learner_of(model)
        learner.verified_reader()
        learner._steps()
        variables = {id(each): each for each in (*model.variables, *optimizer.variables)}.values()
        return _Traced(
            learner=learner,
            start=[(each, numbers(each).copy()) for each in variables if str(each.dtype) != "string"],
            rate=float(numbers(optimizer._learning_rate)),
            settings={name: each for name, each in settings.items() if each is not None},
        )


def _may_be_reused(learner: KerasLearner) -> bool:
    """Keras' own layers and step, one plain optimizer with a fixed rate, and a step that is compiled."""
    model, case = learner.model, learner.case
    found = inner_optimizers(model)
    if len(found) != 1 or found[0] is not model.optimizer or not _is_keras_own(found[0]):
        return False
    own = any(stepping.own(model, name) for name in ("train_step", "compute_loss"))
    users = any(is_users_class(type(each)) for each in everything(model))
    fixed = isinstance(found[0]._learning_rate, keras.Variable) and not learner.has_schedule
    return fixed and not own and not users and not stepping.why_fit(case, model) and not model.run_eagerly


def _is_keras_own(thing: Any) -> bool:
    return type(thing).__module__.split(".")[0] == "keras"


def _as_variable(optimizer: Any, name: str) -> Any:
    """Make a variable of a number that an optimizer calculates with; None where it has none of this name."""
    value = getattr(optimizer, name, None)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    variable = keras.Variable(float(value), dtype="float32", trainable=False, name=name)
    vars(optimizer)[name] = variable  # not by `setattr`, which would count it among the optimizer's state
    return variable, float(value)


def _set(traced: _Traced, change: Change) -> bool:
    """Start again with these hyperparameters; False where the change asks for one that is not a variable here."""
    needed = {"epsilon": "epsilon", "without": "weight_decay"}.get(change.kind)
    if needed is not None and needed not in traced.settings:
        return False
    model = traced.learner.model
    for variable, value in traced.start:
        variable.assign(value)
    forget(model)
    for variable, value in traced.settings.values():
        variable.assign(value)
    if needed is not None:
        traced.settings[needed][0].assign(change.factor if change.kind == "epsilon" else 0.0)
    rates = {"rate": traced.rate * change.factor, "rate_to": change.factor}
    model.optimizer.learning_rate = rates.get(change.kind, traced.rate)
    return True
