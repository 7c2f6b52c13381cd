"""What copies between splits do to the score: one run, read with the copied rows and without them.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pytest_overfit.adapters.training import Trainer
from pytest_overfit.data.split_batches import Samples, Split, Subset, Whole
from pytest_overfit.measures.scores import scores_of

#: with fewer rows on one side a score says nothing
_FEW_ROWS = 5


def cost_of_copies(trainer: Trainer, split: Split, copied: Collection[int], epochs: int, task: str | None) -> Any:
    """Train on the train split as it is, and score a split whole, without its copied rows, and on these alone.

    `copied`: numbers of the rows that have a copy in train. Returns plain values, or a string that says why there are
    none. One seed: the difference is shown, nothing is judged by it. Cost: one training run.
    """
    if not isinstance(split, (Whole, Samples)):
        return "a loader's rows have no numbers: give the dataset or the arrays"
    clean = [row for row in range(split.rows) if row not in set(copied)]
    if min(len(clean), len(copied)) < _FEW_ROWS:
        return f"{len(copied)} rows with a copy and {len(clean)} without are too few on one side"
    trainer.train(epochs)
    parts = {"whole": split, "clean": Subset(split, clean), "copied": Subset(split, copied)}
    found = {name: scores_of(trainer.read(part), task) for name, part in parts.items()}
    if any(each.score is None for each in found.values()):
        return "no score was measured on the predictions: give task= or score="
    return {
        "epochs": epochs,
        "metric": found["whole"].metric,
        "rows": len(copied),
        **{name: each.score for name, each in found.items()},
    }
