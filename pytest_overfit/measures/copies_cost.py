"""What copies between splits do to the score: one run, read with the copied rows and without them.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError, NotApplicable
from pytest_overfit.data.first_batch import ROWS
from pytest_overfit.data.split_batches import Samples, Split, Subset, Whole, open_split
from pytest_overfit.measures.arms import EPOCHS
from pytest_overfit.measures.scores import scores_of

if TYPE_CHECKING:
    from pytest_overfit.adapters.training import Trainer

#: with fewer rows on one side a score says nothing
_FEW_ROWS = 5

#: updates at most: a fact beside a verdict must not cost more than the verdict of another probe
_MOST_STEPS = 4_000


def cost_of_copies(
    case: Case, name: str, copied: Collection[int], make_trainer: Callable[[], Trainer]
) -> dict[str, Any] | str:
    """Train on the train split as it is; score a split whole, without the rows that have a copy, and on these alone.

    `copied`: their numbers. Returns plain values, or words that say why there are none. One seed and a short run: the
    difference is shown, nothing is judged by it. Cost: one training run of at most 4,000 updates.
    """
    try:
        split = open_split(case, name)
        if not isinstance(split, (Whole, Samples)):
            return "the rows of a loader have no numbers; give its dataset"
        clean = [row for row in range(split.rows) if row not in set(copied)]
        if min(len(clean), len(copied)) < _FEW_ROWS:
            return f"{len(copied)} rows with a copy and {len(clean)} without are too few on one side"
        epochs = _epochs(case, open_split(case, "train"))
        if not epochs:
            return f"one epoch has more than {_MOST_STEPS} updates"
        trainer = make_trainer()
        trainer.train(epochs)
        parts = {"whole": split, "clean": Subset(split, clean), "copied": Subset(split, copied)}
        found = {part: scores_of(trainer.read(rows), case.task) for part, rows in parts.items()}
    except (CaseError, NotApplicable) as error:  # the splits are judged, whatever the model does
        return str(error).splitlines()[0]
    if any(each.score is None for each in found.values()):
        return "no score was measured on the predictions: give task= or score="
    scores = {part: each.score for part, each in found.items()}
    return {"split": name, "epochs": epochs, "metric": found["whole"].metric, "rows": len(copied), **scores}


def _epochs(case: Case, train: Split) -> int:
    wanted = int(case.fit_kwargs.get("epochs") or EPOCHS)
    steps = math.ceil((train.rows or 0) / int(case.fit_kwargs.get("batch_size") or ROWS))
    return min(wanted, _MOST_STEPS // steps) if steps else wanted
