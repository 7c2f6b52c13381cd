"""Do the regularisers help the validation score, measured against the same model without them?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from pytest_overfit.adapters.trainer import Trainer
from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError, NotApplicable
from pytest_overfit.core.limits import Resolved, at_least, share
from pytest_overfit.core.verdict import BaselineNumber, Judgement, Verdict
from pytest_overfit.data.splits import Split, judged_by, open_split
from pytest_overfit.measures.training_runs import (
    Start,
    TrainingRun,
    curves,
    epochs_of,
    joint_training_runs,
    numbers_of_runs,
    plain_form,
    seed_of_run,
    training_run,
)
from pytest_overfit.probes.base import Bench, Probe, of_findings
from pytest_overfit.probes.regularization.judgement import judge_pairs
from pytest_overfit.probes.regularization.new_split import resplit
from pytest_overfit.probes.regularization.paired import FIRST_LOOK, MOST, batch_of_pairs, compare


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegularizationLimits:
    """Limits of `regularization`."""

    #: least difference of the validation score that matters; 0.01 is one point of accuracy or of explained variance
    margin: float = 0.01
    #: paired runs at most, 10 or more; no more than are wanted for the answer are made
    seeds: int = MOST
    #: epochs of each run; None: `fit_kwargs["epochs"]`, else 20
    epochs: int | None = None
    #: share of wrong answers that is accepted
    alpha: float = 0.05
    #: cut train and validation again for each seed, so that the interval covers the choice of the split
    resplit: bool = False
    #: seconds; None: no limit, so that a slow machine cannot change a verdict
    budget: float | None = None

    def __post_init__(self) -> None:
        at_least(FIRST_LOOK, self, "seeds", why=": fewer pairs cannot give an answer")
        at_least(1, self, "epochs")
        share(self, "margin")
        share(self, "alpha", below=0.5)


class Regularization(Probe):
    """Trains the model with and without its regularisers on the same split, in pairs, until the answer is known.

    *Measured*: for each seed, the validation score of both arms, trained from the same initial weights (where shapes
    agree) on the same data in the same order; the difference, regularised minus unregularised, over the seeds, with a
    confidence interval that holds although seeds are added one by one (see
    `pytest_overfit.probes.regularization.paired`). Loss and gap are reported as well.

    *Passing* means: the regularisers help, or make no measurable effect (the difference is shown to lie within
    `margin`). *Failing*: they harm (the difference is shown to be below 0, and is at least `margin` as far as the pairs
    tell), or they are inert (both arms do the same to the bit).

    The unregularised arm is derived from the model: dropout of any kind to 0, weight decay and penalties to 0,
    augmentation layers off, early stopping removed; batch normalisation stays. `Case.unregularized` overrides it, with
    a factory or with the fields of the case that differ.

    *Cannot see*: other budgets than the one trained for: a regulariser that harms after 20 epochs may help after 200.
    The interval covers initial weights, order and masks; the choice of the split only with `resplit=True`.
    *Cost*: two training runs a seed.
    """

    name = "regularization"
    limits = RegularizationLimits
    cost = 70
    options = ()
    default = False

    def needs(self, case: Case) -> str | None:
        """A split to be judged by."""
        if getattr(case, judged_by(case)) is not None:
            return None
        return "it has no val= data, and regularisers are judged by the validation score"

    def measure(self, bench: Bench, limits: RegularizationLimits) -> dict[str, Any]:
        """Train pairs and return plain values."""
        case = bench.case
        if limits.resplit and isinstance(case.unregularized, Mapping) and "train" in case.unregularized:
            raise CaseError(
                f"Case {case.name!r}: resplit=True cuts one set of rows again, but unregularized= has another train=; "
                "leave resplit out"
            )
        name = judged_by(case)
        train, val = open_split(case.without_regularizers() or case, "train"), open_split(case, name)
        pairs = _Pairs(bench, limits, train, val)
        outcome = pairs.run()
        return {
            "framework": pairs.framework,
            "steps": 0,
            "losses": [],
            "split": name,
            "epochs": pairs.epochs,
            "removed": list(pairs.removed),
            "declared": case.unregularized is not None,
            "same_start": pairs.same_start,
            "remarks": list(pairs.remarks),
            "outside": list(pairs.outside),
            "stop": outcome,
            "resplit": limits.resplit,
            "regularized": [plain_form(each) for each in pairs.own],
            "unregularized": [plain_form(each) for each in pairs.plain],
            "pictures": [curves({"regularised": pairs.own, "unregularised": pairs.plain}, case.name)],
        }

    def judge(self, measured: Mapping[str, Any], limits: Resolved[RegularizationLimits]) -> Judgement:
        """Decide from the measured values alone."""
        return judge_pairs(measured, limits)

    def numbers(self, verdict: Verdict) -> Iterator[BaselineNumber]:
        """Also the mean scores and losses of the regularised runs."""
        yield from numbers_of_runs(verdict.data["regularized"])
        yield from of_findings(verdict)


class _Pairs:
    """Runs pairs until the comparison is decided."""

    def __init__(self, bench: Bench, limits: RegularizationLimits, train: Split, val: Split) -> None:
        self.bench, self.limits, self.train, self.val = bench, limits, train, val
        self.epochs = epochs_of(bench.case, limits.epochs)
        self.own: list[TrainingRun] = []
        self.plain: list[TrainingRun] = []
        self.removed: tuple[str, ...] = ()
        #: trainable weights of others that a loss depends on
        self.outside: tuple[str, ...] = ()
        self.remarks: tuple[str, ...] = ()
        self.same_start = True
        self.framework = ""
        #: several pairs may be tried at once
        self.at_once = True

    def run(self) -> str:
        """Why it ended: "decided", "seeds", "budget" or "nan"."""
        start = self.bench.clock()
        if self.bench.case.unregularized is None:
            self._look_for_regularizers()
        while len(self.own) < self.limits.seeds:
            for own, plain in self._next():
                self.own.append(own)
                self.plain.append(plain)
                if ended := self._ended(start):
                    return ended
        return "seeds"

    def _ended(self, start: float) -> str:
        own, plain, limits = self.own, self.plain, self.limits
        if self.outside:
            return "outside"
        if not (math.isfinite(own[-1].score) and math.isfinite(plain[-1].score)):
            return "nan"
        self.bench.progress(len(own), limits.seeds, own[-1].val.loss)
        if compare(own, plain, limits.margin, limits.alpha, limits.seeds).decided:
            return "decided"
        return "budget" if limits.budget is not None and self.bench.clock() - start >= limits.budget else ""

    def _next(self) -> list[tuple[TrainingRun, TrainingRun]]:
        """The next pair, or all pairs up to the next look, where they can train at once."""
        number = len(self.own)
        count = 1 if self.limits.budget is not None else batch_of_pairs(number, self.limits.seeds)
        first = self._own(number)
        if self.at_once and self._may_join(first, count):
            rest = [self._own(each) for each in range(number + 1, number + count)]
            together = self._together(number, [first, *rest])
            if together is not None:
                return together
            first = self._own(number)
        self.at_once = False
        state = first.trainer.state()
        own = self._trained(first)
        return [(own, self._trained(self._plain(number, state)))]

    def _may_join(self, first: Start, count: int) -> bool:
        return self.bench.joint_training.may_join(first.trainer, count, self.epochs)

    def _together(self, number: int, starts: list[Start]) -> list[tuple[TrainingRun, TrainingRun]] | None:
        """All of these pairs; None: one of the arms cannot train at once."""
        joint, task = self.bench.joint_training, self.bench.case.task
        states = [each.trainer.state() for each in starts]
        own = joint_training_runs(joint, starts, self.epochs, task)
        plain = [] if own is None else [self._plain(number + place, state) for place, state in enumerate(states)]
        if own is None or not self._may_join(plain[0], len(plain)):
            return None
        others = joint_training_runs(joint, plain, self.epochs, task)
        return None if others is None else list(zip(own, others, strict=True))

    def _trained(self, start: Start) -> TrainingRun:
        task = self.bench.case.task
        run = training_run(start.trainer, start.seed, self.epochs, start.train, start.val, task)
        self._note(start.trainer)  # what a step depends on shows while it trains
        return run

    # An arm's model is made just before it trains: a loss that reads "the model", whichever was made last, then reads
    # the one that it trains.

    def _own(self, number: int) -> Start:
        """A new trainer for the regularised arm of the pair with this number."""
        return self._made(number, plain=False)

    def _plain(self, number: int, state: Any) -> Start:
        """The same for the other arm, which starts from the weights that the first one had."""
        start = self._made(number, plain=True)
        self.removed = start.trainer.removed
        self.same_start = start.trainer.start_from(state) and self.same_start
        return start

    def _made(self, number: int, plain: bool) -> Start:
        train, val, cut = self.train, self.val, None
        seed = seed_of_run(self.bench.seed, number)
        if self.limits.resplit:
            train, val = resplit(self.train, self.val, seed, f"Case {self.bench.case.name!r}:")
            cut = train
        trainer = self.bench.make_trainer(seed, plain=plain, train=cut)
        self.framework = trainer.framework
        self._note(trainer)
        return Start(trainer, seed, train, val)

    def _note(self, trainer: Trainer) -> None:
        self.remarks = tuple(dict.fromkeys((*self.remarks, *trainer.remarks)))
        self.outside = tuple(dict.fromkeys((*self.outside, *trainer.outside)))

    def _look_for_regularizers(self) -> None:
        """Before anything is trained: is there something to take out?"""
        trainer = self._made(0, plain=True).trainer
        if not trainer.removed:
            raise NotApplicable(
                f"no regulariser found in the model or its optimizer ({trainer.looked_for} were looked for); one in "
                "another place, as a penalty inside the loss, is compared with unregularized="
            )


PROBE = Regularization()
