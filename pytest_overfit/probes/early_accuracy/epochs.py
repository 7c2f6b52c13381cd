"""The first epochs of a training run, read on both splits before and after each."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pytest_overfit.adapters.base import Mode
from pytest_overfit.adapters.trainer import Trainer
from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError
from pytest_overfit.data.splits import Arrays, Split, judged_by, open_split
from pytest_overfit.measures.predictions.scores import Scores, scores_of
from pytest_overfit.probes.early_accuracy.estimates import Predictions, answers_of, estimate
from pytest_overfit.probes.early_accuracy.in_memory import features_of, gathered
from pytest_overfit.probes.early_accuracy.simple_models import FeatureTable

_MODES: tuple[Mode, ...] = ("eval", "fit", "train")


@dataclasses.dataclass(frozen=True)
class Splits:
    """What is trained on and what it is judged by, in memory."""

    train: Arrays
    val: Arrays
    #: "val" or "test"
    name: str
    #: train is the whole of the case's own, as it stands
    whole: bool

    def tables(self, train: Predictions, val: Predictions) -> tuple[FeatureTable, FeatureTable] | None:
        """Inputs as tables with the targets; None: inputs are not a table, or rows have many targets."""
        x_train, x_val = features_of(self.train.batch), features_of(self.val.batch)
        if x_train is None or x_val is None or x_train.shape[1:] != x_val.shape[1:] or not x_train.shape[1]:
            return None
        if not (train.flat and val.flat) or train.target.shape[1:] != val.target.shape[1:]:
            return None
        if not (train.counted.all() and val.counted.all()):
            return None
        return FeatureTable(x_train, train), FeatureTable(x_val, val)


def open_splits(case: Case) -> Splits:
    """The train split and the one to be judged by, val before test.

    Raises `CaseError` where batches cannot be joined to one table.
    """
    name = judged_by(case)
    found: list[Arrays] = []
    splits = [open_split(case, each) for each in ("train", name)]
    for split, part in zip(splits, ("train", name), strict=True):
        whole = gathered(split)
        if whole is None:
            raise CaseError(
                f"Case {case.name!r}: the batches of {part}= cannot be joined, because they differ in shape; give "
                f"{part}= padded to one length, as arrays or a loader"
            )
        found.append(whole)
    return Splits(found[0], found[1], name, found[0] is splits[0])


class EpochsRun:
    """One training, read on train and val. Index 0 of a curve is before the first update."""

    def __init__(self, trainer: Trainer, splits: Splits, task: str | None) -> None:
        self.trainer, self.splits, self.task = trainer, splits, task
        self.train: list[Scores] = []
        self.val: list[Scores] = []
        self.losses: list[float] = []
        self.read()
        #: estimates before the first update; empty where answers cannot be read
        self.before = {} if None in (self.train_answers, self.val_answers) else self._estimates()
        self._first = self.train_answers

    def read(self) -> None:
        """Read both splits; the answers kept are the last ones."""
        (train, self.train_answers), (val, self.val_answers) = map(self._read, (self.splits.train, self.splits.val))
        self.train.append(train)
        self.val.append(val)

    def _read(self, split: Split) -> tuple[Scores, Predictions | None]:
        chunks = list(self.trainer.read(split))
        return scores_of(chunks, self.task), answers_of(chunks, self.task)

    def estimate_on(self, split: Split) -> dict[str, Any] | None:
        """What the model comes to on other rows than its own; None: its answers cannot be read."""
        answers = answers_of(self.trainer.read(split), self.task)
        return None if answers is None else estimate(answers)

    def _estimates(self) -> dict[str, Any]:
        answers = {"train": self.train_answers, "val": self.val_answers}
        return {name: None if found is None else estimate(found) for name, found in answers.items()}

    def ends(self) -> dict[str, Any]:
        """Estimates of both splits at the end, and the losses, as plain values."""
        return {
            **self._estimates(),
            "losses": list(self.losses),
            "start_loss": self.train[0].loss,
            "end_loss": self.train[-1].loss,
        }

    def moved(self) -> bool:
        """Some row of train gets another answer than before the first update."""
        first, last = (None if each is None else (each.predicted if each.raw is None else each.raw)
                       for each in (self._first, self.train_answers))  # fmt: skip
        return first is None or last is None or not np.array_equal(first, last, equal_nan=True)

    def in_modes(self) -> dict[str, Any] | None:
        """Estimates on the first rows of train in evaluation, on the batch's own statistics, and as in training."""
        first = ((mode, next(self.trainer.read(self.splits.train, mode))) for mode in _MODES)
        answers = {mode: answers_of([chunk], self.task) for mode, chunk in first}
        if None in answers.values():
            return None
        return {mode: estimate(found) for mode, found in answers.items() if found is not None}

    def answers_differ(self) -> bool:
        """Rows of train get answers that differ on the batch's own statistics, with nothing dropped out."""
        found = answers_of([next(self.trainer.read(self.splits.train, "fit"))], None)
        return found is not None and bool(estimate(found)["varies"])


def run_epochs(
    trainer: Trainer,
    splits: Splits,
    epochs: int,
    task: str | None,
    progress: Callable[[int, float], None] = lambda epoch, loss: None,
    every: bool = True,
) -> EpochsRun:
    """Train some epochs; `every`: read after each, else before and at the end only."""
    run = EpochsRun(trainer, splits, task)
    for epoch in range(epochs):
        losses = trainer.train(1)
        run.losses += losses
        last = epoch + 1 == epochs or not losses or not math.isfinite(losses[-1])
        if every or last:
            run.read()
        progress(epoch + 1, losses[-1] if losses else math.nan)
        if last:
            break
    return run
