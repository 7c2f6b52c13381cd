"""Is a split the same when it is read again? Random augmentation is meant to make it differ, in training only."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from pytest_overfit.core.case import Case
from pytest_overfit.core.state import seed_standard_library
from pytest_overfit.core.usercode import user_code
from pytest_overfit.data.batch import Batch, to_numpy
from pytest_overfit.data.rereading import TWICE, changed_place, spread
from pytest_overfit.data.splits import Arrays, Loader, MapStyle, open_split
from pytest_overfit.data.tree import leaves

#: readings of each where a transform has a random name and nothing was seen: 0.9 ** (32 * 5) is 5e-8
READINGS = 6

#: that labels keep their order in a shuffled batch by chance must be less likely than this
_CHANCE = 1e-6

_RANDOM = re.compile("Random|Jitter|Augment|Erasing|Mix[uU]p|Cut[mM]ix|Noise|Drop")


@dataclasses.dataclass(frozen=True)
class Reread:
    """What reading a split again showed."""

    split: str
    #: it is the training split
    trains: bool
    varies: bool
    how: str


def reread(case: Case) -> Iterator[Reread]:
    """Read each split of a case again; splits that cannot be judged this way are left out.

    Cost: 32 samples twice, or one batch twice. Arrays in memory are not read: they cannot change.
    """
    for name in ("train", "val", "test"):
        if getattr(case, name) is not None:
            found = _reread(case, name)
            if found is not None:
                yield found


def _reread(case: Case, name: str) -> Reread | None:
    split = open_split(case, name)
    trains = name == "train"
    if isinstance(split, Arrays):
        return None
    dataset = split.source if isinstance(split, MapStyle) else _dataset_of(split.source)
    if dataset is not None:
        with user_code(f"Case {case.name!r}: reading {name}="):
            found = _by_place(dataset, name, trains)
        if found is not None and (found.varies or isinstance(split, MapStyle)):
            return found
    return _by_batch(split, name, trains) if isinstance(split, Loader) else None


def _dataset_of(loader: Any) -> Any:
    """The samples behind a loader, where they can be read by their index."""
    dataset = getattr(loader, "dataset", None)
    return dataset if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__") else None


def _by_place(dataset: Any, name: str, trains: bool) -> Reread | None:
    places = spread(len(dataset)).tolist()
    random = _random_transform(dataset) if trains else ""
    changed = changed_place(places, functools.partial(_read, dataset), _same, READINGS if random else 2)
    if changed is not None:
        return Reread(name, trains, True, f"sample {changed} of {len(dataset)}")
    if not trains:
        return Reread(name, trains, False, f"{len(places)} samples")
    if not random or len(places) < TWICE:
        return None
    return Reread(name, trains, False, f"{random}, but {TWICE} samples read {READINGS} times were the same each time")


def _read(dataset: Any, place: int, number: int) -> Any:
    seed_standard_library(1_000_003 * number + place)
    return dataset[place]


def _random_transform(dataset: Any) -> str:
    """The name of a random transform of this data set, with where it is; empty where none can be seen."""
    for _ in range(4):
        for name in ("transform", "transforms"):
            found = getattr(dataset, name, None)
            match = _RANDOM.search(repr(found)) if found is not None else None
            if match is not None:
                return f"{name} holds {re.findall(r'[A-Za-z]*' + match.group() + r'[A-Za-z]*', repr(found))[0]}"
        dataset = getattr(dataset, "dataset", None)  # a Subset
        if dataset is None:
            break
    return ""


def _by_batch(split: Loader, name: str, trains: bool) -> Reread | None:
    """The first batch twice: if the labels are in the same order, the samples should be the same."""
    first, second = next(split.epoch(0)), next(split.epoch(0))
    if _same(first.x, second.x):
        return None if trains else Reread(name, trains, False, "the first batch")
    if not _keeps_order(first, second):
        return None
    return Reread(name, trains, True, "the first batch, whose labels kept their order")


def _keeps_order(first: Batch, second: Batch) -> bool:
    labels = [to_numpy(each) for each in leaves(first.y)]
    if not labels or not _same(first.y, second.y):
        return False
    _, counts = np.unique(labels[0].reshape(len(labels[0]), -1), axis=0, return_counts=True)
    orders = math.lgamma(int(counts.sum()) + 1) - sum(math.lgamma(int(each) + 1) for each in counts)
    return orders > -math.log(_CHANCE)


def _same(first: Any, second: Any) -> bool:
    one, other = _leaves(first), _leaves(second)
    if len(one) != len(other):
        return False
    return all(
        a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        for a, b in zip(one, other, strict=True)
    )


def _leaves(value: Any) -> list[Any]:
    """Arrays of a sample, whatever holds them; plain numbers, texts and pictures too."""
    found: list[Any] = []
    pending = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            pending.extend(part.values())
        elif isinstance(part, (tuple, list)):
            pending.extend(part)
        elif part is not None:
            found.append(to_numpy(part) if hasattr(part, "shape") else np.asarray(part))
    return found
