"""What steps and readings get of a batch: the batch itself, or what a step of the user's makes of it for its model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pytest_overfit.data.batch import Batch
from pytest_overfit.data.fresh import FreshBatch


class HandedOut:
    """One batch, as it was given at each use."""

    def __init__(self, by_row: Batch, say: Callable[[str], None]) -> None:
        self._say = say
        #: the batch of the readings with its lists of rows marked
        self._by_row = by_row
        self._stepped: Batch | FreshBatch = FreshBatch(by_row, say)
        self._read: Batch | FreshBatch = self._stepped

    def stepped(self) -> Batch:
        """What a step gets."""
        return _now(self._stepped)

    def now(self) -> Batch:
        """What a reading gets."""
        return _now(self._read)

    def inputs_of(self, rows: Sequence[int]) -> Any | None:
        """What a reading of these rows gets; None: they cannot be told apart."""
        return self.now().x if list(rows) == list(range(self._by_row.rows)) else self._by_row.inputs_of(rows)

    def read_with(self, by_row: Batch, x: Any | None) -> None:
        """Readings get other inputs than steps; None: the same."""
        self._by_row = by_row
        if x is not None:
            self._by_row = by_row.with_prepared_inputs(x)
            self._read = FreshBatch(self._by_row, self._say)

    def compare(self) -> None:
        """Look for changes in place that nothing counts."""
        for each in self._watched():
            each.compare()

    def use(self, batch: Batch) -> None:
        """Another batch from now on; looked after only where one has been changed before."""
        changed = any(each.changes for each in self._watched())
        self._by_row, self._stepped = batch, FreshBatch(batch, self._say) if changed else batch.plain()
        self._read = self._stepped

    def _watched(self) -> list[FreshBatch]:
        return [each for each in (self._stepped, self._read) if isinstance(each, FreshBatch)]


def _now(held: Batch | FreshBatch) -> Batch:
    return held.now() if isinstance(held, FreshBatch) else held
