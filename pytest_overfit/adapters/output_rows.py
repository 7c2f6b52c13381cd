"""Which axis of what a model answers holds the rows, where the case declares that a batch has them elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pytest_overfit.adapters.arrays import alike
from pytest_overfit.adapters.base import Head
from pytest_overfit.core.arrays import Array
from pytest_overfit.data.batch import Batch, to_numpy

#: answers to these rows, in the user's own layout; None: cannot be asked
Ask = Callable[[Sequence[int]], Sequence[Array] | None]


class OutputRows:
    """Turns what a model answers so that its rows come first, and back again."""

    def __init__(self, batch: Batch) -> None:
        #: by the place of an output, where several of its axes are as long as there are rows
        self._seen: dict[int, int] = {}
        self.look_at(batch)

    def look_at(self, batch: Batch) -> None:
        """Outputs are those of another batch from now on."""
        self._batch, self._axes = batch, [axis for _, axis in batch.turned_leaves()]

    def learn(self, ask: Ask) -> None:
        """See which axis goes with the rows, where the length alone does not tell."""
        rows = self._batch.rows
        if not self._axes:
            return
        order = np.random.default_rng(0).permutation(rows)
        plain, mixed = ask(range(rows)), ask(order.tolist())
        for place, (one, other) in enumerate(zip(plain or (), mixed or (), strict=False)):
            axes = _as_long(one, rows)
            if len(axes) > 1:
                moving = [axis for axis in axes if alike([one.take(order, axis=axis)], [other])]
                self._seen[place] = moving[0] if len(moving) == 1 else self._likeliest(axes)

    def _likeliest(self, axes: Sequence[int]) -> int:
        return next((axis for axis in self._axes if axis in axes), axes[0])

    def _axis(self, place: int, output: Any) -> int:
        known = self._seen.get(place)
        if known is not None and known < output.ndim:
            return known
        axes = _as_long(output, self._batch.rows) if self._axes else ()
        return self._likeliest(axes) if len(axes) > 1 else next(iter(axes), 0)

    def first(self, outputs: Sequence[Array]) -> tuple[Array, ...]:
        """Outputs with their rows first."""
        if not self._axes:
            return tuple(outputs)
        return tuple(np.moveaxis(each, self._axis(n, each), 0) if each.ndim else each for n, each in enumerate(outputs))

    def back(self, outputs: Sequence[Array], like: Sequence[Any]) -> Sequence[Array]:
        """Such outputs as the model answers them; `like`: an answer of its own, with as many axes."""
        if not self._axes:
            return outputs
        axes = [self._axis(n, each) for n, each in enumerate(like)]
        return [np.moveaxis(each, 0, axis) if each.ndim else each for each, axis in zip(outputs, axes, strict=True)]

    def lined_up(self, head: Head) -> Head | None:
        """A head with its rows first, found by the batch's targets that it holds; None: rows come first as it is."""
        if not self._axes:
            return None
        for leaf, axis in self._batch.turned_leaves():
            first = to_numpy(leaf)
            given = np.moveaxis(first, 0, axis)
            if _holds(head, given):
                return _along(_in_shape(head, given.shape), axis)
            if _holds(head, first):
                return None
        return self._by_length(head)

    def _by_length(self, head: Head) -> Head | None:
        """Of targets that are not part of the batch (shifted, cut) the axis that is as long; flat ones in its order."""
        axes, size = _as_long(head.targets, self._batch.rows), len(head.targets)
        if axes:
            return None if axes[0] == 0 else _along(head, axes[0])
        if head.targets.ndim != 1 or size % self._batch.rows:
            return None
        return _along(_in_shape(head, (size // self._batch.rows, self._batch.rows)), 1)


def _as_long(array: Any, rows: int) -> list[int]:
    return [axis for axis, size in enumerate(array.shape) if size == rows]


def _holds(head: Head, targets: Array) -> bool:
    return head.targets.size == targets.size and np.array_equal(head.targets.ravel(), targets.ravel())


def _in_shape(head: Head, shape: tuple[int, ...]) -> Head:
    """The head with a flattening of its targets undone."""
    if head.targets.shape == shape:
        return head
    with_classes = head.kind == "classes" and head.targets.ndim < head.outputs.ndim
    return dataclasses.replace(
        head,
        outputs=head.outputs.reshape(*shape, -1) if with_classes else head.outputs.reshape(shape),
        targets=head.targets.reshape(shape),
        mask=None if head.mask is None else head.mask.reshape(shape),
        class_axis=-1 if with_classes else head.class_axis,
    )


def _along(head: Head, axis: int) -> Head:
    """The head with this axis of its targets first, in its outputs and its mask too."""
    outputs, targets, mask, classes = axis, axis, axis, head.class_axis
    if head.kind == "classes":
        classes %= head.outputs.ndim
        if head.targets.ndim < head.outputs.ndim:
            outputs += axis >= classes
        else:
            mask -= axis > classes
        classes += classes < outputs
    return dataclasses.replace(
        head,
        outputs=np.moveaxis(head.outputs, outputs, 0),
        targets=np.moveaxis(head.targets, targets, 0),
        mask=None if head.mask is None else np.moveaxis(head.mask, mask, 0),
        class_axis=classes,
    )
