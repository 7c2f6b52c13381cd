"""The controls of `early_accuracy`: each changes one thing and trains, or reads, again."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.data.splits import Arrays, rows_of
from pytest_overfit.duplicates.request import Request
from pytest_overfit.duplicates.search import measure_duplicates
from pytest_overfit.measures.predictions.scores import scores_of
from pytest_overfit.probes.base import Bench
from pytest_overfit.probes.early_accuracy.epochs import EpochsRun, Splits, run_epochs
from pytest_overfit.probes.early_accuracy.estimates import Predictions, answers_of, estimate
from pytest_overfit.probes.early_accuracy.in_memory import features_of, with_batch, with_features, with_targets_of
from pytest_overfit.probes.early_accuracy.symptoms import cured, random_labels_beat_chance

#: factors of the learning rate, tried in this order until one trains
LOWER, HIGHER = (0.1, 0.01, 1e-3, 1e-4), (1e2, 1e4, 1e6)
#: updates after which a model that trains no longer gives every row one answer. The largest of its outputs is at first
#: the same for all rows, where they start equal and classes lie apart by less than their offset: 6 updates were seen
ENOUGH = 300
#: standard deviations of a standardised input are cut here, so that a nearly constant column stays bounded
_CUT = 10.0
#: draws of the weights: their scores are bounded by 4.5 standard deviations at the default `alpha`
_REDRAWN = 10
#: tells the order of this control from those of others
_APART = 1_000
#: targets that a score of the user's is read with in place of the true ones
_OTHERS = 5


@dataclasses.dataclass(frozen=True)
class ControlRun:
    """What a control needs of the probe."""

    bench: Bench
    splits: Splits
    epochs: int

    def trained(
        self,
        train: Arrays | None,
        val: Arrays | None = None,
        shift: int = 0,
        factor: float = 1.0,
        every: bool = False,
    ) -> EpochsRun | None:
        """One training of the same length with something changed; None: the rate cannot be reached."""
        trainer = self.bench.make_trainer(self.bench.seed + shift, False, train)
        if factor != 1.0 and not trainer.scale_rate(factor):
            return None
        splits = dataclasses.replace(self.splits, train=train or self.splits.train, val=val or self.splits.val)
        run = run_epochs(trainer, splits, self.epochs, self.bench.case.task, every=every)
        del run.trainer  # nothing more is asked of a control's model, and it may be large
        return run


# --------------------------------------------------------------------------------------------------------------- leaks


def copies(splits: Splits, answers: Predictions | None, near: bool) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """Rows of the judged split with a copy in train, and the score with and without them; which rows of each split."""
    batches = {"train": splits.train.batch.with_rows_first(), splits.name: splits.val.batch.with_rows_first()}
    given = {name: (batch.x, batch.y) if batch.y is not None else batch.x for name, batch in batches.items()}
    found = measure_duplicates(Request(given=given, near="auto" if near else False, windows=False))
    touched = found["touched"][splits.name]
    exact, rows = set(touched.get("exact", ())), splits.val.batch.rows
    measured: dict[str, Any] = {"rows": rows, "within": found["expected_rate"], "near_searched": near}
    measured.update(_repetition(splits))
    measured["near_testable"] = any(each["testable"] for each in found["near"])
    measured["near_expected"] = sum(each.get("expected") or 0.0 for each in found["near"])
    for kind, places in (("exact", exact), ("near", exact | set(touched.get("near", ())))):
        rest, known = sorted(set(range(rows)) - places), answers if places else None
        measured[kind] = {
            "rows": len(places),
            "with": None if known is None else estimate(known.of(sorted(places))),
            "without": None if known is None or not rest else estimate(known.of(rest)),
        }
    return measured, {name: sorted(rows.get("exact", ())) for name, rows in found["touched"].items()}


def without_copies(control: ControlRun, places: dict[str, list[int]]) -> dict[str, Any] | None:
    """The score on rows that have a copy in train, of a model trained without those copies; None: not measured."""
    splits = control.splits
    kept = np.setdiff1d(np.arange(splits.train.rows), places["train"])
    if not len(kept):
        return None
    rest = with_batch(splits.train, rows_of(splits.train.batch, kept))
    run = control.trained(rest, with_batch(splits.val, rows_of(splits.val.batch, places[splits.name])))
    return None if run is None else dict(run.ends()["val"] or {}) or None


def _repetition(splits: Splits) -> dict[str, Any]:
    """How often rows would repeat by themselves.

    `by_columns`: the share of rows with a copy in train, were the columns independent: 1 - exp(-n * product over
    columns of the chance that two rows agree there). `identified`: one column has another value in at least half of
    the different rows (a measurement), so that whole rows repeat only where they were copied.
    """
    table = features_of(splits.train.batch)
    if table is None or not table.size:
        return {"by_columns": 0.0, "identified": False}
    agree, values = 0.0, 0
    for column in table.T:
        _, counts = np.unique(column, return_counts=True)
        agree += math.log(float(((counts / len(column)) ** 2).sum()))
        if (column != np.round(column)).any():  # whole numbers may be names of kinds
            values = max(values, len(counts))
    rows = np.ascontiguousarray(table).view(np.dtype((np.void, table.shape[1] * table.itemsize))).reshape(-1)
    different = len(np.unique(rows))
    return {"by_columns": -math.expm1(-len(table) * math.exp(agree)), "identified": values >= different / 2}


def without_columns(run: EpochsRun, columns: list[int]) -> dict[str, Any] | None:
    """The trained model's score with these columns of the judged split permuted among its rows."""
    val = run.splits.val
    order = np.random.default_rng(0).permutation(val.batch.rows)

    def permuted(table: Array, start: int) -> Array:
        mine = [column - start for column in columns if start <= column < start + table.shape[1]]
        table = table.copy()
        table[:, mine] = table[order][:, mine]
        return table

    return run.estimate_on(with_features(val, permuted))


def redrawn(control: ControlRun) -> list[float] | None:
    """Scores on validation of the untrained model with its weights drawn again; None: they cannot be."""
    trainer, found = control.bench.make_trainer(control.bench.seed), []
    for number in range(_REDRAWN):
        if not trainer.redraw_weights(number):
            return None
        answers = answers_of(trainer.read(control.splits.val), control.bench.case.task)
        found.append(math.nan if answers is None else float(estimate(answers)["score"]))
    return found


# ------------------------------------------------------------------------------------------------------------ pipeline


def permuted_labels(control: ControlRun, repeats: int, alpha: float) -> list[dict[str, Any]] | str:
    """Trained on permuted training labels, judged by the labels as they are.

    Once; again, up to `repeats` times, for as long as each run beats chance. A string: why it cannot be done.
    """
    train = control.splits.train
    runs: list[dict[str, Any]] = []
    for repeat in range(repeats):
        order = np.random.default_rng([control.bench.seed, repeat]).permutation(train.batch.rows).tolist()
        changed = with_targets_of(train, order)
        if changed is None:
            return "the targets are not a separate part of the batch, so they cannot be permuted"
        run = control.trained(changed, shift=repeat)
        if run is None or run.val_answers is None:
            return "its answers cannot be read"
        runs.append({**run.ends(), "before": run.before})
        if not random_labels_beat_chance(runs[-1:], alpha):
            break
    return runs


def kept_apart(control: ControlRun) -> dict[str, Any] | None:
    """Trained on three quarters of the rows of train, judged by the rest of it; None: it cannot be read.

    Were the labels of train shuffled, those of the rest would go with no answers at all.
    """
    batch = control.splits.train.batch
    order = np.random.default_rng([control.bench.seed, _APART]).permutation(batch.rows)
    cut = batch.rows // 4
    if not cut:
        return None
    taught, rest = (with_batch(control.splits.train, rows_of(batch, part)) for part in (order[cut:], order[:cut]))
    run = control.trained(taught, rest)
    found: dict[str, Any] | None = None if run is None else run.ends()["val"]
    return found


def score_with_other_targets(run: EpochsRun) -> list[float]:
    """The user's own score with one row's target in the place of all, for some rows; empty: there are no targets."""
    rows = run.splits.val.batch.rows
    found = []
    for row in np.random.default_rng(0).permutation(rows)[:_OTHERS].tolist():
        other = with_targets_of(run.splits.val, [row] * rows)
        if other is None:
            return []
        score = scores_of(run.trainer.read(other), run.task).score
        found.append(math.nan if score is None else score)
    return found


# ----------------------------------------------------------------------------------------------- why nothing is learnt


def longer(control: ControlRun, steps: int, wanted: int) -> dict[str, Any] | None:
    """The same training with so many updates in place of `steps`, read after each epoch; None: it had as many."""
    if steps >= wanted:
        return None
    epochs = math.ceil(control.epochs * wanted / max(1, steps))
    run = dataclasses.replace(control, epochs=epochs).trained(None, every=True)
    if run is None:
        return None
    curve = [each.score for each in run.train]
    return {**run.ends(), "steps": steps * epochs // control.epochs, "before": run.before, "curve": curve}


def other_rates(
    control: ControlRun, factors: tuple[float, ...], stuck: dict[str, Any], alpha: float
) -> list[dict[str, Any]]:
    """The same training with other learning rates, until one cures; empty: the rate cannot be reached."""
    found: list[dict[str, Any]] = []
    for factor in factors:
        run = control.trained(None, factor=factor)
        if run is None:
            break
        found.append({"factor": factor, **run.ends()})
        if cured(stuck, found[-1], alpha):
            break
    return found


def scale_of(splits: Splits) -> dict[str, float] | None:
    """How far the inputs are from unit scale: mean and standard deviation of all their numbers, largest number."""
    table = features_of(splits.train.batch)
    if table is None or not table.size:
        return None
    table = table[:10_000]
    finite = table[np.isfinite(table)]
    if not finite.size:
        return None
    spread = np.nanstd(np.where(np.isfinite(table), table, np.nan), axis=0) if len(table) > 1 else np.zeros(1)
    spread = spread[spread > 0]
    return {
        "mean": float(finite.mean(dtype=np.float64)),
        "std": float(finite.std(dtype=np.float64)),
        "largest": float(np.abs(finite).max()),
        "largest_spread": float(spread.max()) if spread.size else 0.0,
        "least_spread": float(spread.min()) if spread.size else 0.0,
    }


def standardised(control: ControlRun) -> dict[str, Any] | None:
    """The same training on standardised copies of the floating-point inputs; None: there are none."""
    moments: dict[int, tuple[Array, Array]] = {}

    def scaled(table: Array, start: int) -> Array:
        if start not in moments:  # train comes first, so these are train's
            spread = table.std(axis=0, dtype=np.float64)
            moments[start] = table.mean(axis=0, dtype=np.float64), np.where(spread > 0, spread, 1.0)
        mean, spread = moments[start]
        return ((table - mean) / spread).clip(-_CUT, _CUT)

    train = with_features(control.splits.train, scaled)
    run = control.trained(train, with_features(control.splits.val, scaled)) if moments else None
    return None if run is None else run.ends()
