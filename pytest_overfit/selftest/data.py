"""Faults that are planted in data: of any framework, batch by batch, and without a change to what the user gave."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from pytest_overfit.adapters.planting import Ground, Plant
from pytest_overfit.adapters.programs import UnchangeableError
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import OverfitError
from pytest_overfit.data.batch import Batch
from pytest_overfit.data.splits import Arrays, Split, open_split, rows_of
from pytest_overfit.data.telling import batch_of
from pytest_overfit.data.tree import Rows, is_array, leaves, length, map_leaves, rank, take, to_numpy

_SPLITS = ("train", "val", "test")

Alter = Callable[[Batch], Batch]


class _Altered:
    """The batches of a split, each altered where it is read; the same ones in the same order each time."""

    def __init__(self, split: Split, alter: Alter) -> None:
        self._split, self._alter = split, alter

    def __iter__(self) -> Iterator[Any]:
        return (_given(self._alter(batch)) for batch in self._split.epoch(0))


def _given(batch: Batch) -> Any:
    """As a user would give it."""
    plain = batch.plain()
    if plain.weights is not None:
        return plain.x, plain.y, plain.weights
    return (plain.x, plain.y) if plain.y is not None else plain.x


def altered(ground: Ground, alter: Alter, *names: str) -> Case:
    """The case with these parts of its data altered: of "batch", "train", "val", "test" those that it has."""
    fields: dict[str, Any] = {}
    for name in names:
        if getattr(ground.case, name) is None:
            continue
        if name == "batch":
            fields[name] = _given(alter(batch_of(ground.case)))
            continue
        split = opened(ground.case, name)
        fields[name] = _given(alter(split.batch)) if isinstance(split, Arrays) else _Altered(split, alter)
    if not fields:
        raise UnchangeableError(f"it has no {' or '.join(f'{name}=' for name in names)}")
    return dataclasses.replace(ground.case, **fields)


def opened(case: Case, name: str) -> Split:
    """Raises `UnchangeableError` where it cannot be read as batches."""
    try:
        return open_split(case, name)
    except OverfitError as error:
        raise UnchangeableError(str(error).splitlines()[0].removeprefix(f"Case {case.name!r}: ")) from None


def _everywhere(alter: Callable[[Ground], Alter]) -> Plant:
    return lambda ground: altered(ground, alter(ground), "batch", *_SPLITS)


def _judging(ground: Ground) -> tuple[str, ...]:
    """The splits that scores are compared on."""
    found = tuple(name for name in ("val", "test") if getattr(ground.case, name) is not None)
    if not found or ground.case.train is None:
        raise UnchangeableError("it does not have train= and one of val= and test=")
    return found


# ------------------------------------------------------------------------------------------------------- inputs


def _inputs(ground: Ground) -> list[Any]:
    found = [leaf for leaf in ground.batch.input_leaves() if not isinstance(leaf, Rows) and _kind(leaf) == "f"]
    if not found:
        raise UnchangeableError("its inputs are no floating point numbers")
    return found


def _kind(leaf: Any) -> str:
    return to_numpy(leaf).dtype.kind


def _changed_inputs(change: Callable[[Any], Any]) -> Alter:
    def changed(leaf: Any) -> Any:
        return change(leaf) if not isinstance(leaf, Rows) and _kind(leaf) == "f" else leaf

    return lambda batch: batch._with_inputs(changed, batch.named_targets())


def _constant_input(ground: Ground) -> Alter:
    del ground
    return lambda batch: batch.blinded(batch.named_targets())


def _nan_in_input(ground: Ground) -> Alter:
    _inputs(ground)
    return _changed_inputs(lambda leaf: _with(leaf, (0,) * rank(leaf), float("nan")))


def _with(leaf: Any, place: Any, value: Any) -> Any:
    new = _copied(leaf)
    new[place] = value
    return new


def _copied(leaf: Any) -> Any:
    return leaf.clone() if hasattr(leaf, "clone") else np.array(to_numpy(leaf))


def _unnormalised_input(ground: Ground) -> Alter:
    _inputs(ground)
    return _changed_inputs(lambda leaf: leaf * 1e4)


def label_in_input(ground: Ground) -> Case:
    _judging(ground)
    if len(_inputs(ground)) != 1 or not is_array(ground.batch.x) or rank(ground.batch.x) < 2:
        raise UnchangeableError("its inputs are no single array of numbers with columns")
    _numbers_of_targets(ground)

    def alter(batch: Batch) -> Batch:
        x = _copied(batch.x)
        labels = to_numpy(batch.y).reshape(batch.rows, -1)[:, 0]
        last = x.reshape(batch.rows, -1)
        last[:, -1] = last.new_tensor(labels) if hasattr(last, "new_tensor") else labels
        return dataclasses.replace(batch, x=last.reshape(x.shape))

    return altered(ground, alter, "batch", *_SPLITS)


# ------------------------------------------------------------------------------------------------------ targets


def _numbers_of_targets(ground: Ground) -> Array:
    """The one array of targets."""
    found = list(leaves(ground.batch.y)) if ground.batch.y is not None else []
    if len(found) != 1 or isinstance(found[0], Rows) or _kind(found[0]) not in "iuf":
        raise UnchangeableError("its targets are no single array of numbers")
    return to_numpy(found[0])


def _classes(ground: Ground) -> Array:
    labels, kinds = _numbers_of_targets(ground), {each.kind for each in ground.first.heads}
    one_each = labels.ndim == 1 or (labels.ndim == 2 and labels.shape[1] == 1)
    if kinds - {"classes", "binary"} or not one_each or not (labels == np.round(labels)).all():
        raise UnchangeableError("its targets are no numbers of classes, one a row")
    return labels


def _unnormalised_target(ground: Ground) -> Alter:
    ground.head("values", otherwise="its targets are no quantities")
    if _numbers_of_targets(ground).dtype.kind != "f":
        raise UnchangeableError("its targets are no floating point numbers")
    return lambda batch: dataclasses.replace(batch, y=map_leaves(batch.y, lambda leaf: leaf * 1e4))


def _labels_collapsed(ground: Ground) -> Alter:
    if ground.batch.with_equal_targets() is None:
        raise UnchangeableError("it has no targets")
    first = list(leaves(ground.batch.y)) if ground.batch.y is not None else []

    def alter(batch: Batch) -> Batch:
        """All splits have the target of the same row."""
        if not first or any(length(leaf) != batch.rows for leaf in leaves(batch.y)):
            return batch.with_equal_targets() or batch
        sources = iter(first)
        return dataclasses.replace(batch, y=map_leaves(batch.y, lambda _: take(next(sources), [0] * batch.rows)))

    return alter


def _label_off_by_one(ground: Ground) -> Alter:
    if ground.head("classes", otherwise="its targets are no numbers of classes").targets.ndim != 1:
        raise UnchangeableError("its targets are no numbers of classes, one a row")
    _classes(ground)
    return lambda batch: dataclasses.replace(batch, y=map_leaves(batch.y, lambda leaf: leaf + 1))


def _conflicting_labels(ground: Ground) -> Alter:
    labels = to_numpy(next(iter(leaves(ground.batch.y)), np.zeros(ground.batch.rows))).reshape(ground.batch.rows, -1)
    pairs = len(labels) // 2
    if not pairs or (labels[0 : 2 * pairs : 2] == labels[1 : 2 * pairs : 2]).all():
        raise UnchangeableError("rows that follow each other have the same targets")
    return lambda batch: dataclasses.replace(batch, x=rows_of(batch, [2 * (row // 2) for row in range(batch.rows)]).x)


def _random(ground: Ground) -> np.random.Generator:
    return np.random.default_rng(ground.seed)


def misaligned_labels(ground: Ground) -> Case:
    _judging(ground)

    def alter(batch: Batch) -> Batch:
        return batch.with_targets_of(_random(ground).permutation(batch.rows).tolist(), keep_others=True) or batch

    return altered(ground, alter, "train")


def classes_renumbered(ground: Ground) -> Case:
    names, classes = _judging(ground), np.unique(_classes(ground))
    if len(classes) < 2:
        raise UnchangeableError("its batch has one class only")

    def alter(batch: Batch) -> Batch:
        return dataclasses.replace(batch, y=map_leaves(batch.y, lambda leaf: _renumbered(leaf, classes)))

    return altered(ground, alter, *names)


def _renumbered(leaf: Any, classes: Array) -> Any:
    """Each class has the number of the next one."""
    new, old = _copied(leaf), to_numpy(leaf)
    for one, following in zip(classes, np.roll(classes, -1), strict=True):
        new[_like(leaf, old == one)] = following.item()
    return new


def _like(leaf: Any, mask: Array) -> Any:
    return leaf.new_tensor(mask).bool() if hasattr(leaf, "new_tensor") else mask


def unseen_class(ground: Ground) -> Case:
    _judging(ground)
    highest = _classes(ground).max()

    def alter(batch: Batch) -> Batch:
        labels = to_numpy(next(leaves(batch.y))).reshape(batch.rows)
        others = np.flatnonzero(labels != highest)
        if not len(others):
            return batch
        chosen = np.where(labels == highest, np.resize(others, batch.rows), np.arange(batch.rows))
        return rows_of(batch, chosen.tolist())

    return altered(ground, alter, "train")


def split_leak(ground: Ground) -> Case:
    names = _judging(ground)
    source = next(iter(opened(ground.case, "train").epoch(0)))

    def alter(batch: Batch) -> Batch:
        count = min(batch.rows // 2, source.rows)
        both = [(batch.x, source.x), (batch.y, source.y)]
        if batch.weights is not None and source.weights is not None:
            both.append((batch.weights, source.weights))
        new = [_replaced(mine, its, count, batch.rows, source.rows) for mine, its in both]
        return dataclasses.replace(batch, x=new[0], y=new[1], **({"weights": new[2]} if len(new) > 2 else {}))

    return altered(ground, alter, *names)


def _replaced(mine: Any, its: Any, count: int, rows: int, of: int) -> Any:
    """The first rows are the other's."""
    sources = iter(list(leaves(its)))

    def change(leaf: Any) -> Any:
        other = next(sources)
        if length(leaf) != rows or length(other) != of:
            return leaf
        if isinstance(leaf, Rows):
            return Rows([*other[:count], *leaf[count:]])
        if leaf.shape[1:] != other.shape[1:]:
            raise UnchangeableError("rows of train= have another shape than those of val= or test=")
        if hasattr(leaf, "iloc"):
            raise UnchangeableError("rows of tables are not put together here")
        return _with(leaf, slice(0, count), take(other, range(count)))

    return map_leaves(mine, change)


PLANTS: Mapping[str, Plant] = {
    "constant_input": _everywhere(_constant_input),
    "nan_in_input": _everywhere(_nan_in_input),
    "unnormalised_input": _everywhere(_unnormalised_input),
    "unnormalised_target": _everywhere(_unnormalised_target),
    "labels_collapsed": _everywhere(_labels_collapsed),
    "label_off_by_one": _everywhere(_label_off_by_one),
    "conflicting_labels": _everywhere(_conflicting_labels),
    "misaligned_labels": misaligned_labels,
    "classes_renumbered": classes_renumbered,
    "unseen_class": unseen_class,
    "label_in_input": label_in_input,
    "split_leak": split_leak,
}
