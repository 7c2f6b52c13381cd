"""A batch that is the same at each use, whatever the user's code does to it in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pytest_overfit.data.arrays import copied
from pytest_overfit.data.batch import Batch
from pytest_overfit.data.tree import is_array, leaves, to_numpy

#: what a verdict says where it was needed
CHANGED = "the batch is changed in place by the model, the loss or the step: each pass got it as it was at first"


class FreshBatch:
    """Hands a batch out, and looks before each time whether what was handed out has been changed since.

    Tensors of torch count their changes and containers show theirs (a key that was popped); both are looked at each
    time. Changes that nothing counts (of numpy arrays, through `.data`) are found by `compare`, and from then on every
    time is given a copy.
    """

    def __init__(self, batch: Batch, say: Callable[[str], None]) -> None:
        self._kept, self._say = batch, say
        #: the user's code has changed the batch
        self.changes = False
        self._always = False
        self._hand_out()

    def now(self) -> Batch:
        """The batch as it was given."""
        if self._always or self._state() != self._handed:
            self.changes = True
            self._say(CHANGED)
            self._hand_out()
        return self._batch

    def compare(self) -> None:
        """Look for changes that nothing counts, number by number."""
        if not self._always and self._state() == self._handed:
            pairs = zip(self._leaves(), leaves([self._kept.plain().x, self._kept.plain().y]), strict=True)
            self._always = not all(_equal(*pair) for pair in pairs)

    def _hand_out(self) -> None:
        self._batch = self._kept.map(copied).plain()
        x, y = self._batch.x, self._batch.y
        self._flat = [each for each in (x, y) if each is not None] if is_array(x) and (y is None or is_array(y)) else []
        self._held = self._leaves()  # an id may be given again after a tensor has gone
        self._handed = self._state()

    def _leaves(self) -> list[Any]:
        return self._flat or [*leaves([self._batch.x, self._batch.y])]

    def _state(self) -> list[tuple[int, int]]:
        """Which leaves there are, and how often each was changed."""
        return [(id(each), getattr(each, "_version", 0)) for each in self._leaves()]


def _equal(first: Any, second: Any) -> bool:
    a, b = to_numpy(first), to_numpy(second)
    return np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")
