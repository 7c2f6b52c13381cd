"""What copies between splits do to the score: one run, read with the copied rows and without them."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

from pytest_overfit.adapters.trainer import Trainer
from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError, NotApplicable
from pytest_overfit.data.containers import is_torch_loader, is_torch_stream
from pytest_overfit.data.first_batch import ROWS
from pytest_overfit.data.splits import Split, Subset, open_split
from pytest_overfit.data.tree import Rows, leaves, to_numpy
from pytest_overfit.measures.predictions.scores import scores_of
from pytest_overfit.measures.training_runs import epochs_of

#: with fewer rows on one side a score says nothing
_FEW_ROWS = 5

#: updates at most: an additional fact must not cost more than the verdict of another probe
_MOST_STEPS = 4_000

#: sampler and batch sampler of a torch loader that gives its dataset as it stands
_IN_ORDER = ("SequentialSampler", "BatchSampler")


def cost_of_copies(
    case: Case, name: str, copied: Collection[int], numbered: Mapping[str, Any], make_trainer: Callable[[], Trainer]
) -> dict[str, Any] | str:
    """Train on the train split as it is; score a split whole, without the rows that have a copy, and on these alone.

    `copied`: their numbers; `numbered`: how many `samples` the split had as they were numbered, and whether it was
    `ordered`. Returns plain values, or the reason why there are none. One seed and a short run: the difference is
    shown, nothing is judged by it. Cost: one training run of at most 4,000 updates; loaders are read twice more before.
    """
    try:
        split = open_split(case, name)
        rows = _rows_of(split, numbered)
        if isinstance(rows, str):
            return rows
        copied = {row for row in copied if row < rows}
        clean = [row for row in range(rows) if row not in copied]
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


def _rows_of(split: Split, numbered: Mapping[str, Any]) -> int | str:
    """How many rows a split has, if its n-th row is sample n; else the reason why that is unknown."""
    if split.rows is not None:
        return split.rows
    source, samples = split.source, int(numbered["samples"])
    by_place = is_torch_loader(source) and not is_torch_stream(source.dataset)
    if by_place and (type(source.sampler).__name__, type(source.batch_sampler).__name__) != _IN_ORDER:
        return (
            "the loader has an order of its own, and rows are matched by their place; give one without a sampler and "
            "with shuffle=False, or its dataset"
        )
    first, again = _marks(split, samples), _marks(split, samples)
    if not numbered["ordered"] or first != again:
        return "the loader gives its rows in another order each time, and rows are matched by their place"
    rows = sum(rows for rows, _ in first)
    if rows == samples or (by_place and source.drop_last and rows < samples):
        return rows
    return f"the loader gave {rows} rows, and {samples} samples were compared, so its rows cannot be matched"


def _marks(split: Split, samples: int) -> list[tuple[int, int]]:
    """Rows of each batch, and a checksum of its numbers; a loader is read as far as samples were compared."""
    found, rows = [], 0
    for batch in split.chunks():
        rows += batch.rows
        mark = 0
        for leaf in (*leaves(batch.x), *leaves(batch.y)):
            array = None if isinstance(leaf, Rows) else to_numpy(leaf)
            if array is not None and not array.dtype.hasobject:
                mark = zlib.crc32(array.tobytes(), mark)
        found.append((batch.rows, mark))
        if rows > samples:
            break
    return found


def _epochs(case: Case, train: Split) -> int:
    if train.rows is None:
        steps = sum(1 for _ in itertools.islice(train.epoch(0), _MOST_STEPS + 1))
    else:
        steps = math.ceil(train.rows / int(case.fit_kwargs.get("batch_size") or ROWS))
    return min(epochs_of(case), _MOST_STEPS // steps)
