"""Keras' answers to what a diagnosis asks of a program."""

from __future__ import annotations

import functools
from collections.abc import Callable

from pytest_overfit.adapters.dispatch import build
from pytest_overfit.adapters.keras.learner import KerasLearner, make_learner
from pytest_overfit.adapters.keras.programs import (
    activations,
    anatomy,
    data,
    first_layers,
    gradient_path,
    guarded,
    objective,
    optimizer,
    origin,
    rows_first,
    shortcuts,
    weights,
    wider,
)
from pytest_overfit.adapters.keras.programs.hyperparameters import Reused
from pytest_overfit.adapters.keras.programs.original import Alteration, Original
from pytest_overfit.adapters.keras.programs.structure import Structure
from pytest_overfit.adapters.keras.regularizers import twin
from pytest_overfit.adapters.programs import Anatomy, Change, Kind, Origin, UnchangeableError


class KerasProgram:
    """A case on its batch. Every answer comes from new models of the case's factory; the learner is only looked at."""

    def __init__(self, learner: KerasLearner) -> None:
        self._learner = learner
        self._original = Original(learner.case, learner.batch, learner._rebuild)
        self._reused = Reused(self._original, learner)

    @functools.cached_property
    def _structure(self) -> Structure:
        return anatomy.structure(self._original, self._learner)

    def anatomy(self) -> Anatomy:
        return anatomy.anatomy(self._original, self._learner, self._structure)

    def changed(self, change: Change) -> KerasLearner:
        try:
            alteration = self._alteration(change)
            if _is_hyperparameter(change, self._learner):
                reused = self._reused.learner(change, alteration)
                if reused is not None:
                    return reused
            return self._original.learner(alteration)
        except UnchangeableError:
            raise
        except Exception as error:  # whatever the changed model meets where it is made
            raise UnchangeableError(_first_line(error)) from error

    def _alteration(self, change: Change) -> Alteration:
        makers: dict[Kind, Callable[[], Alteration]] = {
            "rate": lambda: optimizer.scaled(self._original.case, change.factor),
            "rate_to": lambda: optimizer.rated(self._original.case, change.factor),
            "reversed": optimizer.backwards,
            "negated": objective.negated,
            "epsilon": lambda: optimizer.with_epsilon(self._learner.model, change),
            "without": lambda: self._without(change.value),
            "activation": lambda: activations.one_changed(self._structure, change),
            "activations": lambda: activations.all_changed(self._structure, change),
            "between": lambda: activations.put_between(self._structure, change),
            "on_top": lambda: activations.put_on_top(change),
            "loss": lambda: objective.replaced(self._learner, self._structure, change),
            "standardised": lambda: self._standardised(change),
            "shortcuts": lambda: shortcuts.around_layers(self._structure),
            "targets_shaped": lambda: data.targets_shaped(self._learner),
            "drawn_anew": lambda: weights.drawn_anew(change),
            "all_trained": gradient_path.all_trained,
            "attached": lambda: gradient_path.attached(self._original),
            "wider": lambda: wider.wider(self._structure, change),
            "rows_first": lambda: rows_first.rows_first(self._learner),
            "guarded": lambda: guarded.guarded(self._original),
        }
        if change.kind == "zero_grad":
            raise UnchangeableError("in Keras each step has gradients of its own, which start from zero")
        if change.kind not in makers:
            raise UnchangeableError(f"there is no way to change {change.kind!r} in a Keras program")
        return makers[change.kind]()

    def _standardised(self, change: Change) -> Alteration:
        if change.value == "given":
            return first_layers.standardised(self._structure)
        return data.standardised(self._learner, change)

    def _without(self, value: str) -> Alteration:
        if value == "dropout":
            return optimizer.without_noise()
        if value == "decay":
            return optimizer.without_decay()
        if value == "clipping":
            return optimizer.without_clipping()
        if value == "schedule":
            return optimizer.without_schedule(self._learner.model, self._original.case)
        raise UnchangeableError(f"there is no way to leave out {value!r}")

    def again(self, seed: int) -> KerasProgram:
        case, batch = self._original.case, self._original.batch

        def rebuild() -> object:
            return build(case, seed)

        return KerasProgram(make_learner(case, rebuild(), batch, rebuild))

    def origin(self, steps: int) -> Origin | None:
        return origin.origin(self._original, self._learner, steps)


def _is_hyperparameter(change: Change, learner: KerasLearner) -> bool:
    """It is a number that a traced step can read from a variable."""
    if change.kind == "without":
        return change.value == "decay" and not twin.has_penalties(learner.model)
    return change.kind in ("rate", "rate_to", "epsilon")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
