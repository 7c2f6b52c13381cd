"""What a framework may be asked beyond a `Learner`'s methods, each answer optional; nothing is left changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from pytest_overfit.adapters.base import GradientsInParts, Learner
from pytest_overfit.adapters.frameworks import part_of
from pytest_overfit.core.arrays import Array


class Inspector(Protocol):
    """A module `inspector` of an adapter, with some or all of these functions.

    None as an answer: it cannot be measured on this model.
    """

    def gradient_norms(self, learner: Any) -> dict[str, float] | None:
        """Layer -> Euclidean norm of the gradient of the loss on the batch, by all of the layer's own parameters."""

    def idle_units(self, learner: Any) -> dict[str, tuple[int, int]] | None:
        """For "dead" and "saturated": how many units are, of how many."""

    def saved_and_loaded(self, learner: Any) -> tuple[Sequence[Array], Sequence[Array]] | None:
        """Evaluation's outputs, of the model and of a new one that took over its saved state."""

    def gradients_in_parts(self, learner: Any, parts: int) -> GradientsInParts | None:
        """Gradients of the loss on the batch, and on so many parts of it; dropout off."""

    def memory_peak(self, learner: Any) -> int | None:
        """Most bytes that tensors hold at once in the first two steps. The learner must not be used afterwards."""

    def reference_kernel(self, learner: Any, size: int) -> Callable[[], object] | None:
        """A product of two square float32 matrices where the learner computes, done when it returns."""

    def in_both_precisions(self, learner: Any) -> tuple[Sequence[Array], Sequence[Array]] | None:
        """Evaluation's outputs, in float32 and computed in float64."""


def inspector_for(learner: Learner) -> Inspector | None:
    """The inspector of the learner's framework; None: it has none."""
    return cast("Inspector | None", part_of(learner.framework, "inspector"))
