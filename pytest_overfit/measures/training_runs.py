"""Training runs of one model on one split, from several seeds: made, kept as plain values, and shown as curves."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_overfit.adapters.trainer import JointTraining, Trainer
from pytest_overfit.core.case import Case
from pytest_overfit.core.verdict import BaselineNumber, Finding
from pytest_overfit.data.splits import Split
from pytest_overfit.measures.predictions.scores import Scores, scores_of

#: epochs where neither the call nor `fit_kwargs` says how many
EPOCHS = 20

_FEW_ROWS = 20


def epochs_of(case: Case, given: int | None = None) -> int:
    """How many epochs a training run of the case has: those of the call, else of `fit_kwargs`, else 20."""
    return given or int(case.fit_kwargs.get("epochs") or EPOCHS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """One training run, read at its end in evaluation mode on both splits."""

    seed: int
    #: mean training loss of each epoch, as the user's loop would print it
    losses: tuple[float, ...]
    #: score on the validation split after each epoch, where it was read
    curve: tuple[float, ...]
    train: Scores
    val: Scores
    #: a text for the bits of the weights, before training and after it; "": not known
    started_as: str = ""
    ended_as: str = ""

    @property
    def gap(self) -> float:
        """Score on the training rows minus score on the validation rows."""
        return (math.nan if self.train.score is None else self.train.score) - self.score

    @property
    def score(self) -> float:
        """Score on the validation rows; NaN where none was measured."""
        return math.nan if self.val.score is None else self.val.score


def training_run(trainer: Trainer, seed: int, epochs: int, train: Split, val: Split, task: str | None) -> TrainingRun:
    """Train for so many epochs and read both splits."""
    run = _Run(trainer, seed, train, val, task)
    return run.ended(trainer.train(epochs, run.after_epoch))


class _Run:
    """A training run that is being made."""

    def __init__(self, trainer: Trainer, seed: int, train: Split, val: Split, task: str | None) -> None:
        self._trainer, self._seed, self._train, self._val, self._task = trainer, seed, train, val, task
        self._curve: list[float] = []
        self._start = trainer.digest()

    def after_epoch(self) -> None:
        score = self._read(self._val).score
        self._curve.append(math.nan if score is None else score)

    def ended(self, losses: Sequence[float]) -> TrainingRun:
        return TrainingRun(
            seed=self._seed,
            losses=tuple(losses),
            curve=tuple(self._curve),
            train=self._read(self._train, bare=True),
            val=self._read(self._val, bare=True),  # early stopping may have gone back to earlier weights
            started_as=self._start,
            ended_as=self._trainer.digest(),
        )

    def _read(self, split: Split, bare: bool = False) -> Scores:
        return scores_of(self._trainer.read(split), self._task, bare)


@dataclasses.dataclass(frozen=True)
class Start:
    """A fresh trainer and what it is to be trained on and judged by."""

    trainer: Trainer
    seed: int
    train: Split
    val: Split


def joint_training_runs(
    joint: JointTraining, starts: Sequence[Start], epochs: int, task: str | None
) -> list[TrainingRun] | None:
    """`training_run` of each at once; None: it could not be done, and the trainers must not be used afterwards."""
    runs = [_Run(each.trainer, each.seed, each.train, each.val, task) for each in starts]
    losses = joint.train([each.trainer for each in starts], epochs, lambda member: runs[member].after_epoch())
    return None if losses is None else [run.ended(each) for run, each in zip(runs, losses, strict=True)]


def resolution_of(run: TrainingRun) -> float:
    """The least step of the validation score: one row, where rows are counted; 0.0 for a continuous score."""
    return 1 / run.val.rows if run.val.metric == "accuracy" else 0.0


def seed_of_run(seed: int, number: int) -> int:
    """The seed of the run with this number: runs differ in weights, order of the data and masks."""
    return zlib.crc32(f"{seed}/{number}".encode())


def plain_form(run: TrainingRun) -> dict[str, Any]:
    """A run as plain values."""
    return dataclasses.asdict(run)


def run_of(form: Any) -> TrainingRun:
    """A run out of its plain form."""
    train, val = Scores(**form["train"]), Scores(**form["val"])
    kept = {**form, "losses": tuple(form["losses"]), "curve": tuple(form["curve"])}
    return TrainingRun(**{**kept, "train": train, "val": val})


def curves(series: Mapping[str, Sequence[TrainingRun]], title: str) -> dict[str, Any]:
    """A picture for reports: mean validation score after each epoch, with a band from the lowest run to the highest."""
    seeds = max(map(len, series.values()))
    metric = next((each.val.metric for runs in series.values() for each in runs if each.val.metric), "score")
    return {
        "kind": "curves",
        "series": [{"name": name, **_band(runs)} for name, runs in series.items()],
        "title": title,
        "x_label": "epoch",
        "y_label": f"validation {metric}",
        "caption": f"mean over {seeds} seeds; the band goes from the lowest run to the highest",
    }


def _band(runs: Sequence[TrainingRun]) -> dict[str, list[float]]:
    """After each epoch that all of the runs made."""
    rows = list(zip(*(each.curve for each in runs), strict=False))
    return {
        "x": [float(number) for number in range(1, len(rows) + 1)],
        "y": [sum(row) / len(row) for row in rows],
        "low": [min(row) for row in rows],
        "high": [max(row) for row in rows],
    }


def numbers_of_runs(runs: Sequence[Mapping[str, Any]]) -> Iterator[BaselineNumber]:
    """What a baseline keeps of training runs in their plain form: mean scores and losses, and the mean gap."""
    for split in ("train", "val"):
        yield BaselineNumber(f"{split}_score", _mean([run[split]["score"] for run in runs]), "higher")
        yield BaselineNumber(f"{split}_loss", _mean([run[split]["loss"] for run in runs]), "lower")
    scores = [(run["train"]["score"], run["val"]["score"]) for run in runs]
    yield BaselineNumber("gap", _mean([None if None in pair else pair[0] - pair[1] for pair in scores]), "lower")


def _mean(values: Sequence[Any]) -> float | None:
    """None where a run has no number."""
    known = [value for value in values if isinstance(value, (int, float))]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def few_rows(run: TrainingRun, split: str) -> Iterator[Finding]:
    """A warning where one validation row is more than 5 % of the score."""
    rows, metric = run.val.rows, run.val.metric or "score"
    if rows < _FEW_ROWS:
        text = f"{split} has {rows} rows: one row is {1 / rows:.0%} of the {metric}"
        yield Finding(name="validation_rows", value=rows, outcome="warning", message=text)


def broken(runs: Sequence[TrainingRun], who: str) -> str:
    """Why the runs of a model cannot be compared with anything, in words; "" where they can."""
    for run in runs:
        lost = next((number for number, loss in enumerate(run.losses, 1) if not math.isfinite(loss)), None)
        if lost is not None:
            return f"the training loss of the {who} is {run.losses[lost - 1]} in epoch {lost}"
        if run.val.score is None:
            return "no score was measured on the predictions: give task= or score="
        if not math.isfinite(run.score):
            return f"the {run.val.metric} of the {who} is {run.score}"
    return ""
