"""Planting a fault in a healthy case: what is known of the case, and what each framework can plant in it.

A plant is a new case around factories of its own; the user's case, models and data stay as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, cast

from pytest_overfit.adapters.base import Head, Learner, Reading
from pytest_overfit.adapters.frameworks import part_of
from pytest_overfit.adapters.programs import Anatomy, UnchangeableError
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.case import Case
from pytest_overfit.data.batch import Batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ground:
    """A healthy case, opened on its batch."""

    case: Case
    batch: Batch
    #: for looking only; None: the case could not be opened, and its data alone can be changed
    learner: Learner | None = None
    anatomy: Anatomy | None = None
    first: Reading = dataclasses.field(default_factory=lambda: Reading(loss=None))
    seed: int = 0

    @property
    def known(self) -> Anatomy:
        """Raises `UnchangeableError` where nobody could look inside."""
        if self.anatomy is None:
            raise UnchangeableError("its program cannot be looked into")
        return self.anatomy

    @property
    def outputs(self) -> Array:
        """The one output. Raises `UnchangeableError` where there are several or none."""
        if len(self.first.outputs) != 1:
            raise UnchangeableError("it does not have exactly one output")
        return self.first.outputs[0]

    def head(self, *kinds: str, otherwise: str) -> Head:
        """The one head, of one of these kinds. Raises `UnchangeableError` with the reason where it has another."""
        found = self.first.heads
        if len(found) != 1 or found[0].kind not in kinds or len(self.first.outputs) != 1:
            raise UnchangeableError(otherwise)
        return found[0]

    def class_axis(self, head: Head) -> int:
        """The axis of the one output that holds the classes, which the loss may see reshaped."""
        shape = self.outputs.shape
        count = head.outputs.shape[head.class_axis]
        axes = [axis for axis in (len(shape) - 1, 1) if 0 < axis < len(shape) and shape[axis] == count]
        if not axes:
            raise UnchangeableError("no axis of its outputs holds the classes")
        return axes[0]


#: plants one fault; raises `UnchangeableError` with the reason where the case has no place for it
Plant = Callable[[Ground], Case]


def plants_of(framework: str) -> Mapping[str, Plant]:
    """What the framework's adapter can plant, by name."""
    module = part_of(framework, "planting")
    return {} if module is None else cast("Mapping[str, Plant]", cast("Any", module).PLANTS)


def with_model(case: Case, surgery: Callable[[Any], Any]) -> Case:
    """The case whose new models, and those of its unregularised twin, go through the surgery."""

    def through(factory: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: surgery(factory())

    plain = case.unregularized
    if plain is not None and callable(plain):
        return dataclasses.replace(case, model=through(case.model), unregularized=through(plain))
    return dataclasses.replace(case, model=through(case.model))
