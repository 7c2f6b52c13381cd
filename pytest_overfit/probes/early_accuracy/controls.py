"""The controls of `early_accuracy`: each changes one thing and trains, or reads, again.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.data.splits import Arrays, Split
from pytest_overfit.data.tree import Rows, plain, to_numpy
from pytest_overfit.duplicates.request import Request
from pytest_overfit.duplicates.search import measure_duplicates
from pytest_overfit.probes.early_accuracy.epochs import EpochsRun, Splits, run_epochs
from pytest_overfit.probes.early_accuracy.estimates import Predictions, answers_of, estimate
from pytest_overfit.probes.early_accuracy.in_memory import features_of, inputs_of, with_features, with_targets_of
from pytest_overfit.probes.early_accuracy.symptoms import cured, random_labels_beat_chance

if TYPE_CHECKING:
    from pytest_overfit.adapters.trainer import Trainer


#: factors of the learning rate, tried in this order until one trains
LOWER, HIGHER = (0.1, 0.01, 1e-3, 1e-4), (1e2, 1e4, 1e6)
#: standard deviations of a standardised input are cut here, so that a nearly constant column stays bounded
_CUT = 10.0
#: targets that a score of the user's is read with in place of the true ones
_OTHERS = 5

#: makes a trainer on other data than the case's own train split; None: on that
MakeOn = Callable[[int, Split | None], "Trainer"]


@dataclasses.dataclass(frozen=True)
class ControlRun:
    """What a control needs of the probe."""

    make: MakeOn
    splits: Splits
    seed: int
    epochs: int
    task: str | None

    def trained(
        self, train: Arrays | None, val: Arrays | None = None, shift: int = 0, factor: float = 1.0
    ) -> EpochsRun | None:
        """One training of the same length with something changed; None: the rate cannot be reached."""
        trainer = self.make(self.seed + shift, train)
        if factor != 1.0 and not trainer.scale_rate(factor):
            return None
        splits = dataclasses.replace(self.splits, train=train or self.splits.train, val=val or self.splits.val)
        return run_epochs(trainer, splits, self.epochs, self.task, every=False)


# --------------------------------------------------------------------------------------------------------------- leaks


def copies(splits: Splits, answers: Predictions | None, near: bool) -> dict[str, Any]:
    """Rows of the judged split with a copy in train, and the score with and without them."""
    given = {name: _given(split) for name, split in (("train", splits.train), (splits.name, splits.val))}
    found = measure_duplicates(Request(given=given, near="auto" if near else False, windows=False))
    touched = found["touched"][splits.name]
    kinds = {"exact": set(touched.get("exact", ())), "near": set(touched.get("near", ()))}
    rows = splits.val.batch.rows
    told: dict[str, Any] = {"rows": rows, "within": found["expected_rate"], "near_searched": near}
    told.update(_repetition(splits))
    told["near_testable"] = any(each["testable"] for each in found["near"])
    told["near_expected"] = sum(each.get("expected") or 0.0 for each in found["near"])
    for kind, places in (("exact", kinds["exact"]), ("near", kinds["exact"] | kinds["near"])):
        told[kind] = {"rows": len(places), "with": None, "without": None}
        rest = sorted(set(range(rows)) - places)
        if answers is not None and places:
            told[kind]["with"] = estimate(answers.of(sorted(places)))
            told[kind]["without"] = estimate(answers.of(rest)) if rest else None
    return told


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
        if (column % 1 != 0).any():  # whole numbers may be names of kinds
            values = max(values, len(counts))
    rows = np.ascontiguousarray(table).view(np.dtype((np.void, table.shape[1] * table.itemsize))).reshape(-1)
    different = len(np.unique(rows))
    return {"by_columns": -math.expm1(-len(table) * math.exp(agree)), "identified": values >= different / 2}


def _given(split: Arrays) -> Any:
    x, y = plain(split.batch.x), plain(split.batch.y)
    return (x, y) if y is not None else x


def without_columns(trainer: Trainer, splits: Splits, columns: list[int], task: str | None) -> dict[str, Any] | None:
    """The trained model's score with these columns of the judged split permuted among its rows."""
    rows = splits.val.batch.rows
    order = np.random.default_rng(0).permutation(rows)
    starts = iter(_offsets(splits.val))

    def permuted(table: Array) -> Array:
        start = next(starts)
        mine = [each - start for each in columns if start <= each < start + table.shape[1]]
        table = table.copy()
        table[:, mine] = table[order][:, mine]
        return table

    answers = answers_of(trainer.read(with_features(splits.val, permuted)), task)
    return None if answers is None else estimate(answers)


def _offsets(split: Arrays) -> list[int]:
    """Where the columns of each floating-point leaf begin in the table of all of them."""
    starts, at = [], 0
    for leaf in inputs_of(split.batch):
        array = None if isinstance(leaf, Rows) else to_numpy(leaf)
        if array is None:
            continue
        if array.dtype.kind == "f":
            starts.append(at)
        at += array.reshape(len(array), -1).shape[1] if array.size else 0
    return starts


# ------------------------------------------------------------------------------------------------------------ pipeline


def permuted_labels(bench: ControlRun, repeats: int, alpha: float) -> list[dict[str, Any]] | str:
    """Trained anew on permuted training labels, judged by the labels as they are.

    Once; again, up to `repeats` times, for as long as each run beats chance. A string: why it cannot be done.
    """
    train = bench.splits.train
    runs: list[dict[str, Any]] = []
    for repeat in range(repeats):
        order = np.random.default_rng([bench.seed, repeat]).permutation(train.batch.rows).tolist()
        changed = with_targets_of(train, order)
        if changed is None:
            return "the targets do not stand apart from the inputs, so they cannot be permuted"
        run = bench.trained(changed, shift=repeat)
        if run is None or run.val_answers is None:
            return "its answers cannot be read"
        runs.append({**run.ends(), "before": run.before})
        if not random_labels_beat_chance(runs[-1:], alpha):
            break
    return runs


def score_with_other_targets(trainer: Trainer, splits: Splits, task: str | None) -> list[float]:
    """The user's own score with one row's target in the place of all, for some rows; empty: there are no targets."""
    from pytest_overfit.measures.predictions.scores import scores_of

    rows = splits.val.batch.rows
    found = []
    for row in np.random.default_rng(0).permutation(rows)[:_OTHERS].tolist():
        other = with_targets_of(splits.val, [row] * rows)
        if other is None:
            return []
        score = scores_of(trainer.read(other), task).score
        found.append(math.nan if score is None else score)
    return found


# ----------------------------------------------------------------------------------------------- why nothing is learnt


def other_rates(
    bench: ControlRun, factors: tuple[float, ...], stuck: dict[str, Any], alpha: float
) -> list[dict[str, Any]]:
    """The same training with other learning rates, until one cures; empty: the rate cannot be reached."""
    found: list[dict[str, Any]] = []
    for factor in factors:
        run = bench.trained(None, factor=factor)
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


def standardised(bench: ControlRun) -> dict[str, Any] | None:
    """The same training on standardised copies of the floating-point inputs; None: there are none."""
    facts: list[tuple[Array, Array]] = []

    def learn(table: Array) -> Array:
        spread = table.std(axis=0, dtype=np.float64)
        facts.append((table.mean(axis=0, dtype=np.float64), np.where(spread > 0, spread, 1.0)))
        return table

    with_features(bench.splits.train, learn)
    if not facts:
        return None

    def scaled(split: Arrays) -> Arrays:
        each = iter(facts)

        def change(table: Array) -> Array:
            mean, spread = next(each)
            return ((table - mean) / spread).clip(-_CUT, _CUT)

        return with_features(split, change)

    run = bench.trained(scaled(bench.splits.train), scaled(bench.splits.val))
    return None if run is None else run.ends()
