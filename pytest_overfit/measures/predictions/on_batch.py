"""What a model predicts on its batch: read off the loss, else guessed, and scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from pytest_overfit.adapters.base import Head, Learner, Reading
from pytest_overfit.core.arrays import Array
from pytest_overfit.measures.predictions.agreement import Agreement, agreements
from pytest_overfit.measures.predictions.inferred_heads import inferred_heads
from pytest_overfit.measures.reference_losses.output_domains import simplex_axis
from pytest_overfit.measures.reference_losses.reference import Reference
from pytest_overfit.measures.reference_losses.ties import prefix_cells

#: a guessed task is believed when outputs that memorise under the loss score at least this
_BELIEVED = 0.9

#: outputs that memorise under the loss and score less than this show a search gone wrong, not what can be reached
_REACHED = 0.8


class BatchPredictions:
    """Heads and scores of readings."""

    def __init__(self, learner: Learner, first: Reading, groups: Array, task: str | None) -> None:
        self.learner, self.first, self.groups, self.task = learner, first, groups, task
        self.cells = tuple(prefix_cells(head, learner.inputs, groups) for head in first.heads)
        self._guess_is_believed = True
        #: outputs that memorise under the loss are known
        self._searched = False
        #: of several outputs for one target (a mean, its variance, a code) the one that memorising makes the target
        self._mean_of: int | None = None
        self._reachable: dict[str, float] = {}
        self._gradients = self._first_gradients()

    def _first_gradients(self) -> Sequence[Array]:
        """The loss's gradients by the model's first outputs, where a task has to be guessed."""
        if self.first.heads or not self.first.outputs:
            return ()
        answer = self.learner.loss_and_gradient(self.first.outputs)
        return () if answer is None else answer[1]

    def compare_with(self, reference: Reference) -> None:
        """Learn from the outputs that memorise under the loss: is the guess right, and what can a score reach?

        A task guessed from shapes must be one that memorising this loss solves; embeddings are not classes. Of several
        heads one (on a coarser grid, say) may not get everything right even then; a single one has no such excuse.
        """
        self._searched = bool(reference.best_outputs)
        if not self._searched:
            return
        if len(self.first.heads) > 1:
            best = agreements(self.learner.heads_for(reference.best_outputs), self.groups, self.cells)
            self._reachable = {each.name: each.value for each in best}
        elif not self.first.heads and self.task is None:
            self._mean_of = self._prediction_among(reference.best_outputs)
            self._guess_is_believed = self._believe(reference.best_outputs)

    def _prediction_among(self, best_outputs: Sequence[Array]) -> int | None:
        if len(self.learner.targets) != 1 or len(best_outputs) < 2:
            return None
        for number, output in enumerate(best_outputs):
            scores = agreements(inferred_heads([output], self.learner.targets, None), self.groups)
            if scores and is_memorised(scores):
                return number
        return None

    def _believe(self, best_outputs: Sequence[Array]) -> bool:
        heads = self._guessed(best_outputs)
        if len(self.first.outputs) == 1 and simplex_axis(self.first.outputs[0]) is not None:
            return True  # distributions over classes, by design
        scores = agreements(heads, self.groups)
        if len(heads) == 1 and heads[0].kind == "binary" and scores and scores[0].value <= 1 - _BELIEVED:
            return True  # memorising turns every single answer round: the task is right, the loss is not
        return is_memorised(scores)

    def heads(self, reading: Reading) -> Sequence[Head]:
        """The heads the loss showed, else a guess from shapes and the declared task."""
        if reading.heads:
            return reading.heads
        number = None if self._searched else self._prediction_among(reading.outputs)
        if number is not None:
            return inferred_heads([reading.outputs[number]], self.learner.targets, self.task)
        return self._guessed(reading.outputs) if self._guess_is_believed else ()

    def _guessed(self, outputs: Sequence[Array]) -> Sequence[Head]:
        outputs = [outputs[self._mean_of]] if self._mean_of is not None else outputs
        heads = inferred_heads(outputs, self.learner.targets, self.task)
        gradients = self._gradients if len(self._gradients) == len(heads) else [None] * len(heads)
        return [
            dataclasses.replace(head, mask=_asked_for(head, gradient))
            for head, gradient in zip(heads, gradients, strict=True)
        ]

    def agreements(self, reading: Reading) -> tuple[Agreement, ...]:
        """Scores of a reading; the case's own score replaces them."""
        score = self.learner.score()
        if score is not None:
            return (Agreement(measure="score", value=score, best=1.0),)
        found = agreements(self.heads(reading), self.groups, self.cells, self.learner.samples)
        return tuple(self._within_reach(each) for each in found)

    def _within_reach(self, score: Agreement) -> Agreement:
        reached = self._reachable.get(score.name)
        if reached is None:
            return score
        if score.measure == "worst_column":
            return dataclasses.replace(score, best=reached) if reached <= 1 - _REACHED else score
        return dataclasses.replace(score, best=min(score.best, reached)) if reached >= _REACHED else score


def is_memorised(scores: Sequence[Agreement]) -> bool:
    return all(
        each.value <= 1 - _BELIEVED if each.measure == "worst_column" else each.value >= _BELIEVED * each.best
        for each in scores
    )


def _asked_for(head: Head, gradient: Array | None) -> Array | None:
    """True where the loss looks at a target at all: elsewhere (hand-masked padding) its gradient is zero."""
    if gradient is None or gradient.shape != head.outputs.shape:
        return None
    asked: Array = gradient != 0
    if head.kind == "classes":
        return np.asarray(np.any(asked, axis=head.class_axis))
    return asked.reshape(head.targets.shape)
