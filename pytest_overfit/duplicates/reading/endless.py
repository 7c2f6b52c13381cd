"""A stream without a length that starts again is read once."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.duplicates.reading.split import SampleChunk

#: samples by which a stream that starts again is recognised
_CYCLE = 64


class FirstRound:
    """Passes chunks and their fingerprints on until the stream gives its first samples again, in the same order.

    The last samples are held back: only what comes after them tells whether they belong to a second round.
    """

    def __init__(self) -> None:
        #: samples of the first round; 0: no second one was seen
        self.length = 0
        self._start: list[tuple[int, int]] = []
        self._recent: list[tuple[int, int]] = []
        self._count = 0

    def __call__(self, read: Iterable[tuple[SampleChunk, Array]]) -> Iterator[tuple[SampleChunk, Array]]:
        waiting: collections.deque[tuple[SampleChunk, Array]] = collections.deque()
        held = passed = 0
        for chunk, marks in read:
            waiting.append((chunk, marks))
            held += len(marks)
            self.length = self._second(marks)
            if self.length:
                break
            while held - len(waiting[0][1]) >= _CYCLE:
                held -= len(waiting[0][1])
                passed += len(waiting[0][1])
                yield waiting.popleft()
        for chunk, marks in waiting:
            left = slice(self.length - passed if self.length else None)
            yield chunk.part(left), marks[left]
            passed += len(marks)
            if self.length and passed >= self.length:
                return

    def _second(self, marks: Array) -> int:
        """Where the second round begins, if that is known by now; else 0."""
        if len(self._start) < _CYCLE:
            self._start += [tuple(each) for each in marks[: _CYCLE - len(self._start)].tolist()]
        seen = np.concatenate([np.array(self._recent, np.uint64).reshape(-1, 2), marks])
        first = self._count - len(self._recent)
        self._count += len(marks)
        self._recent = [tuple(each) for each in seen[-(_CYCLE - 1) :].tolist()]
        if len(self._start) < _CYCLE or len(set(self._start)) < _CYCLE // 2:  # too few, or too much alike
            return 0
        pattern = np.array(self._start, np.uint64)
        for place in np.flatnonzero((seen == pattern[0]).all(axis=1)).tolist():
            there = seen[place : place + _CYCLE]
            if first + place > 0 and len(there) == _CYCLE and (there == pattern).all():
                return int(first + place)
        return 0
