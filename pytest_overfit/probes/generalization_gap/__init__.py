"""Does what is learnt carry over: validation score and gap, against bounds and against chance?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.limits import Resolved, at_least, share
from pytest_overfit.core.verdict import BaselineNumber, Judgement, Verdict
from pytest_overfit.data.splits import Split, judged_by, open_split
from pytest_overfit.measures.training_runs import (
    TrainingRun,
    curves,
    epochs_of,
    numbers_of_runs,
    plain_form,
    seed_of_run,
    training_run,
)
from pytest_overfit.probes.base import Bench, Probe, of_findings
from pytest_overfit.probes.generalization_gap.controls import blank_inputs, permuted_targets
from pytest_overfit.probes.generalization_gap.judgement import GapBounds, judge_gap

#: permutations of the labels that are trained on. One says little: what was learnt from it gives whole clusters of
#: validation rows one label, so its score is as uncertain as that of a handful of rows
PERMUTATIONS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneralizationGapLimits:
    """Limits of `generalization_gap`. Bounds are on the mean over seeds."""

    #: train score minus validation score at most; None: not bounded, because what is usual depends on data and size
    max_gap: float | None = None
    #: validation score at least; None: chance and `above_chance` alone
    min_score: float | None = None
    #: how far the validation score must lie above the best constant answer's: a model that learnt nothing is within
    #: the error of some hundred rows, 0.05, of it
    above_chance: float = 0.05
    #: runs at most; fewer where every bound is known to hold or not
    seeds: int = 8
    #: epochs of each run; None: `fit_kwargs["epochs"]`, else 20
    epochs: int | None = None
    #: share of wrong answers that is accepted
    alpha: float = 0.05
    #: also train on permuted labels and on blank inputs, which must both end at chance
    controls: bool = False

    def __post_init__(self) -> None:
        at_least(3, self, "seeds", why=": fewer have no spread between them")
        at_least(1, self, "epochs")
        share(self, "alpha", below=0.5)
        if self.min_score is not None and self.min_score > 1:
            raise CaseError(f"min_score: expected a score of at most 1, got {self.min_score:g}")


class GeneralizationGap(Probe):
    """Trains the model from several seeds and holds validation score and gap against bounds.

    *Measured*: score of the trained model in evaluation mode on both splits (accuracy, R2, or the case's own); the gap,
    train minus validation; means over seeds with an interval that holds although seeds are added one by one.
    *Passing* means: the whole interval lies within each bound, and the validation score at least `above_chance` above
    the best constant answer's. *Failing*: the whole interval lies outside one. Else *inconclusive*.

    With `controls=True` more models are trained: on four permutations of the training labels, and on inputs that are
    all zero. A validation score above chance then did not come from the labels, or not from the inputs. And the model
    must be better than by luck those on permuted labels are.

    *Cannot see*: whether the validation rows are unseen (probe `split_duplicates`), and what another cut of the rows
    would give: the interval covers initial weights, order and masks. *Cost*: one training run a seed, five more for the
    controls.
    """

    name = "generalization_gap"
    limits = GeneralizationGapLimits
    cost = 60
    options = ()
    default = False

    def needs(self, case: Case) -> str | None:
        """A split to be judged by."""
        return "it has no val= data to generalise to" if getattr(case, judged_by(case)) is None else None

    def measure(self, bench: Bench, limits: GeneralizationGapLimits) -> dict[str, Any]:
        """Train and return plain values."""
        case = bench.case
        name = judged_by(case)
        train, val = open_split(case, "train"), open_split(case, name)
        epochs = epochs_of(case, limits.epochs)
        bounds, framework = GapBounds(limits), ""
        runs: list[TrainingRun] = []
        remarks: tuple[str, ...] = ()
        for number in range(limits.seeds):
            seed = seed_of_run(bench.seed, number)
            trainer = bench.make_trainer(seed)
            remarks, framework = trainer.remarks, trainer.framework
            runs.append(training_run(trainer, seed, epochs, train, val, case.task))
            bench.progress(number + 1, limits.seeds, runs[-1].val.loss)
            if not math.isfinite(runs[-1].score) or bounds.decided(runs):
                break
        found = self._controls(bench, epochs, train, val) if limits.controls else {}
        return {
            "framework": framework,
            "steps": 0,
            "losses": [],
            "split": name,
            "epochs": epochs,
            "runs": [plain_form(each) for each in runs],
            "controls": {control: [plain_form(each) for each in made] for control, made in found.items()},
            "pictures": [curves({case.name: runs}, case.name)],
            "remarks": list(remarks),
        }

    def _controls(self, bench: Bench, epochs: int, train: Split, val: Split) -> dict[str, list[TrainingRun]]:
        def trained(seed: int, spoilt: Split, judged: Split) -> TrainingRun:
            return training_run(bench.make_trainer(seed, train=spoilt), seed, epochs, spoilt, judged, bench.case.task)

        seeds = [seed_of_run(bench.seed, -number) for number in range(1, PERMUTATIONS + 1)]
        return {
            "permuted labels": [trained(each, permuted_targets(train, each), val) for each in seeds],
            "blank inputs": [trained(seeds[0], blank_inputs(train), blank_inputs(val))],
        }

    def judge(self, measured: Mapping[str, Any], limits: Resolved[GeneralizationGapLimits]) -> Judgement:
        """Decide from the measured values alone."""
        return judge_gap(measured, limits)

    def numbers(self, verdict: Verdict) -> Iterator[BaselineNumber]:
        """Also the mean scores and losses of the runs."""
        yield from numbers_of_runs(verdict.data["runs"])
        yield from of_findings(verdict)


PROBE = GeneralizationGap()
