"""One seed's models, made and trained once for all quantities that are asked of them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol

from pytest_overfit.adapters.base import Learner, Reading
from pytest_overfit.adapters.inspector import Inspector
from pytest_overfit.adapters.trainer import Trainer
from pytest_overfit.data.splits import Split
from pytest_overfit.data.telling import unsuitable
from pytest_overfit.measures.memorising.memorise import BatchRun, Fit, MemoriseLimits, memorise
from pytest_overfit.measures.predictions.scores import Scores, scores_of
from pytest_overfit.measures.training_runs import TrainingRun, training_run

NOT_HERE = "not measured for this framework"
NO_OUTPUTS = "the model's outputs cannot be asked for"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """One measurement; `value` is None where `why` says in words why there is none."""

    value: float | None = None
    why: str = ""
    #: beside a value: what was seen of it, in words
    seen: str = ""
    #: there is no value, but it is known to be above this one
    above: float | None = None
    #: the least step of the quantity
    resolution: float = 0.0
    #: what `chance` and `theory` are here
    anchors: dict[str, float] = dataclasses.field(default_factory=dict)
    #: where `theory` comes from
    theory: str = ""


class Counts(Protocol):
    """How much is trained."""

    @property
    def k(self) -> int: ...


@dataclasses.dataclass(kw_only=True)
class Subject:
    """What the quantities are measured on; everything in it is made when it is first asked for."""

    task: str | None
    counts: Counts
    epochs: int
    #: when the batch counts as memorised
    criteria: MemoriseLimits
    seed: int
    #: a new learner, from this seed each time
    make_learner: Callable[[], Learner]
    make_trainer: Callable[[], Trainer]
    inspector_of: Callable[[Learner], Inspector | None]
    #: train, and val or test; None: the case has none
    open_split: Callable[[str], Split | None]

    @functools.cached_property
    def untrained(self) -> Learner:
        """For readings only."""
        return self.make_learner()

    @functools.cached_property
    def first(self) -> Reading:
        """The untrained model on the batch, dropout off, batch normalisation on the batch's statistics."""
        return self.untrained.read("fit")

    @functools.cached_property
    def first_losses(self) -> list[float]:
        """Training losses of the first `k` steps on the batch."""
        return self._stepped[1]

    @property
    def stepped(self) -> Learner:
        """A learner after `k` steps on the batch."""
        return self._stepped[0]

    @functools.cached_property
    def _stepped(self) -> tuple[Learner, list[float]]:
        learner = self.make_learner()
        return learner, learner.train(self.counts.k) if self.counts.k else []

    @functools.cached_property
    def memorising(self) -> BatchRun | str:
        """A run on the batch until it is memorised by the standard of `overfit_batch`; why there is none, in words."""
        learner = self.make_learner()
        why_not = unsuitable(learner.inputs, learner.targets, len(learner.inputs[0]))
        return why_not or memorise(Fit(learner, self.task), self.criteria)

    @functools.cached_property
    def _trained(self) -> tuple[Trainer, TrainingRun] | None:
        train = self.open_split("train")
        if train is None:
            return None
        val, trainer = self.open_split("val") or train, self.make_trainer()
        return trainer, training_run(trainer, self.seed, self.epochs, train, val, self.task)

    @property
    def run(self) -> TrainingRun | None:
        """A training run over the whole train split, read on both; without validation data both are train."""
        return None if self._trained is None else self._trained[1]

    @property
    def trained(self) -> Trainer | None:
        """The model at the end of that run."""
        return None if self._trained is None else self._trained[0]

    @functools.cached_property
    def by_epoch(self) -> dict[str, list[Scores]]:
        """What "train" and "val" read after every epoch, where the case has them; the training of `run`, made again."""
        splits = {name: split for name in ("train", "val") if (split := self.open_split(name)) is not None}
        found: dict[str, list[Scores]] = {name: [] for name in splits}
        if "train" not in splits:
            return {}
        trainer = self.make_trainer()

        def read() -> None:
            for name, split in splits.items():
                found[name].append(scores_of(trainer.read(split), self.task))

        trainer.train(self.epochs, read)
        return found

    @property
    def has_val(self) -> bool:
        """There is a split to validate on."""
        return self.open_split("val") is not None

    def inspect(self, learner: Learner, question: str, *more: Any) -> Any:
        """Ask the framework; None: it cannot answer, `unanswered` says why."""
        ask = self._asking(learner, question)
        return None if ask is None else ask(learner, *more)

    def unanswered(self, learner: Learner, question: str, why: str) -> Found:
        """No value: because of `why` where the framework can be asked this, else because it cannot."""
        return Found(why=NOT_HERE if self._asking(learner, question) is None else why)

    def _asking(self, learner: Learner, question: str) -> Callable[..., Any] | None:
        return getattr(self.inspector_of(learner), question, None)
