"""Probe `early_accuracy`: are the scores of the first epochs believable, and if not, why?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pytest_overfit.core.case import Case
from pytest_overfit.core.limits import Resolved, at_least, share
from pytest_overfit.core.verdict import BaselineNumber, Judgement, Verdict
from pytest_overfit.data.splits import judged_by
from pytest_overfit.probes.base import Bench, Probe, of_findings
from pytest_overfit.probes.early_accuracy import controls, leaks, symptoms
from pytest_overfit.probes.early_accuracy.epochs import EpochsRun, open_splits, run_epochs
from pytest_overfit.probes.early_accuracy.estimates import Predictions
from pytest_overfit.probes.early_accuracy.evaluation import measure_evaluation
from pytest_overfit.probes.early_accuracy.judgement import judge_early
from pytest_overfit.probes.early_accuracy.label_in_input import best_column, label_columns
from pytest_overfit.probes.early_accuracy.relabelling import better, relabelling
from pytest_overfit.probes.early_accuracy.sameness import same_rows
from pytest_overfit.probes.early_accuracy.simple_models import (
    FeatureTable,
    constant_only,
    holds_inside,
    holds_inside_both,
    measure_baselines,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarlyAccuracyLimits:
    """Limits of `early_accuracy`."""

    #: epochs trained. 2: the loss of a loop is a mean over its epoch, so it takes two to see it fall without trusting a
    #: reading before training; every fault of the planted programs shows by then
    epochs: int = 2
    #: chance of a comparison being called clear when it is luck. A verdict makes about ten of them: 1 % a verdict
    alpha: float = 0.001
    #: trainings on permuted labels that must all beat chance. One alone does so by luck up to half of the time, where
    #: rows lie in two heaps and only the sign is drawn: 2^-10 is 0.1 %
    repeats: int = 10
    #: share of judged rows with a copy in train; so few move a score by a point at most
    max_copies: float = 0.01
    #: share of the way from chance to perfect that train has come when it counts as memorising
    min_memorised: float = 0.5
    #: rows below which a score says next to nothing: at 20 rows the interval of one half is 0.30 to 0.70
    min_rows: int = 20

    def __post_init__(self) -> None:
        at_least(1, self, "epochs", "repeats", "min_rows")
        share(self, "alpha", "min_memorised")
        share(self, "max_copies", zero=True)


class EarlyAccuracy(Probe):
    """Trains the first epochs and asks whether the scores on train and validation are believable.

    *Measured*: accuracy or R2 on train and on `val` (else `test`) before training and after each epoch, in evaluation
    mode; what a constant, a linear model and the nearest neighbour reach; copies between the splits; columns of the
    input that spell out the target. Further trainings of the same length are made only where the scores ask for them:
    on permuted labels, on a part of train, with other learning rates, on standardised inputs, with more updates.

    *Passing* means: no control shows a fault. A high score alone is none. *Failed*: copies or a label in the input
    (a leak), a score above chance from permuted labels (a fault of the pipeline), memorising, classes that train has
    none of or numbers otherwise, labels apart from their inputs in one split, an evaluation that never comes, or
    nothing learnt. *Inconclusive*: fewer than `min_rows` rows to judge by, or labels of train that depend on the inputs
    neither for this model nor for a simple one.

    *Cannot see*: a leak of what is known too late (the best single column is named, whether it may be known is for
    people), smoothed or leave-one-out target encoding, and what only later epochs show. *Cost*: `epochs` epochs, the
    same again on permuted labels where validation beats chance, three quarters of it where no simple model learns, a
    matrix decomposition of at most 2,000 rows.
    """

    name = "early_accuracy"
    limits = EarlyAccuracyLimits
    cost = 40
    options = ()
    default = True

    def needs(self, case: Case) -> str | None:
        """A train split and one to be judged by."""
        if getattr(case, judged_by(case)) is None:
            return "it has no val= or test data to compare scores on; give val= or test="
        return None if case.train is not None else "it has no train data to compare scores on; give train="

    def measure(self, bench: Bench, limits: EarlyAccuracyLimits) -> dict[str, Any]:
        """Train the case and the controls that its scores ask for; plain values."""
        splits = open_splits(bench.case)
        trainer = bench.make_trainer(bench.seed, False)
        run = run_epochs(trainer, splits, limits.epochs, bench.case.task,
                         lambda epoch, loss: bench.progress(epoch, limits.epochs, loss))  # fmt: skip
        measured = _of_run(run, bench)
        after = measured["after"]["train"]
        alike = after is not None and not after["varies"]
        measured["evaluation_lags"] = alike and run.answers_differ()
        measured["own"] = _own_score(run)
        train, val = run.train_answers, run.val_answers
        if train is None or val is None:
            measured["copies"], _ = controls.copies(splits, None, near=False)
            return measured
        tables = splits.tables(train, val)
        measured.update(_of_data(tables, train, val))
        for found in measured["label_columns"]:
            found["without"] = controls.without_columns(run, found["columns"])
        control = controls.ControlRun(bench, splits, limits.epochs)
        measured["moved"] = run.moved()
        measured["relabelled"] = {"train": relabelling(train), "val": relabelling(val)}
        measured["evaluation"] = measure_evaluation(run, measured, control, limits.alpha)
        measured.update(_of_labels(measured, control, limits.alpha, tables))
        measured.update(_controls(measured, control, limits))
        measured["redrawn"] = controls.redrawn(control) if symptoms.suspected_before(measured, limits.alpha) else None
        best, knows = measured["best_column"], symptoms.knows(measured, limits.alpha)
        measured["copies"], places = controls.copies(splits, val, near=knows)
        if leaks.only_inflated(measured, limits):
            measured["copies"]["exact"]["unknown"] = controls.without_copies(control, places)
        if best is not None and knows:
            best["without"] = controls.without_columns(run, [best["column"]])
        return measured

    def judge(self, measured: Mapping[str, Any], limits: Resolved[EarlyAccuracyLimits]) -> Judgement:
        """Decide from the measured values alone."""
        return judge_early(measured, limits)

    def numbers(self, verdict: Verdict) -> Iterator[BaselineNumber]:
        """Also the last score and loss on each split."""
        for name in ("train", "val", "train_loss", "val_loss"):
            curve = verdict.data.get("curves", {}).get(name) or [None]
            if name.endswith("loss"):
                yield BaselineNumber(name, curve[-1], "lower")
            else:
                yield BaselineNumber(f"{name}_score", curve[-1], "higher")
        yield from of_findings(verdict)


def _of_run(run: EpochsRun, bench: Bench) -> dict[str, Any]:
    train, val, splits = run.train[-1], run.val[-1], run.splits
    return {
        "framework": run.trainer.framework,
        "losses": run.losses,
        "steps": len(run.losses) * math.ceil(splits.train.rows / max(1, splits.train.size)),
        "split": splits.name,
        "rows": {"train": splits.train.rows, "val": splits.val.rows},
        "metric": val.metric,
        "chance": {"train": train.chance or 0.0, "val": val.chance or 0.0},
        "curves": {
            "train": [each.score for each in run.train],
            "val": [each.score for each in run.val],
            "train_loss": [each.loss for each in run.train],
            "val_loss": [each.loss for each in run.val],
        },
        "before": run.before,
        "after": run.ends(),
        "has_schedule": bench.case.scheduler is not None or bench.case.step is not None,
        "remarks": list(run.trainer.remarks),
        "in_part": not splits.whole,
    }


def _own_score(run: EpochsRun) -> dict[str, Any] | None:
    """What the user's own score does when the model, or the targets, are others; None: there is no such score."""
    if run.val[-1].metric != "score":
        return None
    others = controls.score_with_other_targets(run)
    return {"before": run.val[0].score, "after": run.val[-1].score, "other_targets": others}


def _of_data(tables: tuple[FeatureTable, FeatureTable] | None, train: Predictions, val: Predictions) -> dict[str, Any]:
    """What the data alone tell: simple models, columns that are the target, classes of one split only."""
    if tables is None:
        found: dict[str, Any] = {"baselines": constant_only(train, val), "label_columns": [], "best_column": None}
    else:
        found = {"baselines": measure_baselines(*tables), "label_columns": label_columns(*tables),
                 "best_column": best_column(*tables)}  # fmt: skip
    found["same"] = same_rows(tables, train, val)
    return {**found, "unseen": _unseen(train, val), "columns": tables[0].features.shape[1] if tables else None}


def _unseen(train: Predictions, val: Predictions) -> list[dict[str, Any]]:
    if train.kind != "classes" or train.target.shape[1] != 1:
        return []
    counts = [
        {str(name): int(count) for name, count in zip(*np.unique(each.target, return_counts=True), strict=True)}
        for each in (train, val)
    ]
    return symptoms.unseen_by_luck(*counts)


def _of_labels(
    measured: Mapping[str, Any],
    control: controls.ControlRun,
    alpha: float,
    tables: tuple[FeatureTable, FeatureTable] | None,
) -> dict[str, Any]:
    """Where nothing that a simple model learns from train holds in validation: what holds inside each of them."""
    found: dict[str, Any] = {"inside": {}, "inside_both": {}, "kept_apart": None}
    other = any(better(each.get("relabelled"), alpha) for each in measured["baselines"].values())
    if symptoms.baselines_signal(measured["baselines"], alpha) and not other:
        return found
    found["inside"] = holds_inside(tables[0]) if tables is not None else {}
    if other or symptoms.baselines_signal(found["inside"], alpha):
        return found
    found["inside_both"] = holds_inside_both(*tables) if tables is not None else {}
    if symptoms.signal(measured["after"]["val"], alpha) or better(measured["relabelled"]["val"], alpha):
        found["kept_apart"] = controls.kept_apart(control)
    return found


def _controls(
    measured: dict[str, Any],
    control: controls.ControlRun,
    limits: EarlyAccuracyLimits,
) -> dict[str, Any]:
    """Trainings with one thing changed, those that the scores ask for."""
    alpha, scale = limits.alpha, controls.scale_of(control.splits)
    found: dict[str, Any] = {"permuted": [], "rates": [], "scale": scale, "standardised": None, "longer": None,
                             "not_run": []}  # fmt: skip
    if symptoms.knows(measured, alpha) or symptoms.memorised(measured, alpha, limits.min_memorised):
        runs = controls.permuted_labels(control, limits.repeats, alpha)
        found["not_run"] += [f"permuted labels: {runs}"] if isinstance(runs, str) else []
        found["permuted"] = [] if isinstance(runs, str) else runs
    learnable = symptoms.baselines_signal(measured["baselines"], alpha)
    if (
        measured["evaluation"] is None
        and learnable is not False
        and (symptoms.stuck(measured, alpha) or symptoms.blank(measured, alpha))
    ):
        found["standardised"] = controls.standardised(control) if symptoms.far_from_unit(scale) else None
        standing = symptoms.standing(measured, alpha)
        factors = (*controls.LOWER, *controls.HIGHER) if standing else controls.LOWER
        found["rates"] = controls.other_rates(control, factors, measured["after"], alpha)
        cures = [each for each in (found["standardised"], *found["rates"]) if each is not None]
        cured = any(symptoms.cured(measured["after"], each, alpha) for each in cures)
        if learnable and not cured and not measured["evaluation_lags"]:
            found["longer"] = controls.longer(control, measured["steps"], controls.ENOUGH)
    return found


PROBE = EarlyAccuracy()
