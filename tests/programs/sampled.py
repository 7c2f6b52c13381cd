"""What the corpora of programs share: some by name, and a sample of them for the gate."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any, Generic, Protocol, Self, TypeVar

import pytest


class Planted(Protocol):
    """A program of a corpus."""

    @property
    def missed(self) -> str:
        """Why the fault is not seen."""

    @property
    def alarm(self) -> str:
        """Why the healthy one is refused."""

    @property
    def faulty(self) -> bool:
        """It has a fault; others are always healthy."""


Kind = TypeVar("Kind", bound=Planted)


class Sampled(dict[str, Kind], Generic[Kind]):
    """Programs by their functions' names."""

    @classmethod
    def of(cls, parts: Iterable[Self]) -> Self:
        together = cls()
        for part in parts:
            assert not together.keys() & part.keys(), together.keys() & part.keys()
            together.update(part)
        return together

    def add(self, name: str, program: Kind) -> None:
        assert name not in self, name
        self[name] = program

    def broken_ones(self, one_in: int = 1) -> list[Any]:
        """All with a fault; those that are not one in so many are slow tests."""
        return [drawn(name, each.missed, one_in) for name, each in self.items() if each.faulty]

    def healthy_ones(self, one_in: int = 1) -> list[Any]:
        return [drawn(name, each.alarm, one_in) for name, each in self.items()]


def drawn(name: str, reason: str, one_in: int) -> Any:
    """The sample is drawn by the name, so that it stays the same when others come."""
    marks = [pytest.mark.xfail(strict=True, reason=reason)] if reason else []
    return pytest.param(name, marks=marks if zlib.crc32(name.encode()) % one_in == 0 else [*marks, pytest.mark.slow])
