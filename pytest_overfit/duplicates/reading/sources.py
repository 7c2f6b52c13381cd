"""Samples by place. Each source is an object of its own, not a closure, so that it can travel to another process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pytest_overfit.duplicates.reading.fields import lines


class Source:
    """Gives samples by place."""

    def __call__(self, places: Sequence[int]) -> Sequence[Any]:
        raise NotImplementedError

    def part(self, start: int, stop: int) -> Source | None:  # noqa: ARG002 - the signature of all sources
        """What gives the samples of these places, by the same places, and holds no others; None: it travels whole."""
        return None


@dataclasses.dataclass(frozen=True)
class Indexed(Source):
    """Anything with `__getitem__`; `places`: where in it the samples stand, None: all of it in order."""

    dataset: Any
    places: Sequence[int] | None = None

    def __call__(self, places: Sequence[int]) -> Sequence[Any]:
        chosen = list(places) if self.places is None else [self.places[place] for place in places]
        many = getattr(self.dataset, "__getitems__", None)
        found: Sequence[Any] = many(chosen) if callable(many) else [self.dataset[place] for place in chosen]
        return found

    def part(self, start: int, stop: int) -> Source | None:
        return Shifted(Indexed(self(range(start, stop))), start) if type(self.dataset) is list else None


@dataclasses.dataclass(frozen=True)
class Shifted(Source):
    """A part of a source that counts its samples from zero."""

    source: Source
    start: int

    def __call__(self, places: Sequence[int]) -> Sequence[Any]:
        return self.source([place - self.start for place in places])


@dataclasses.dataclass(frozen=True)
class Sliced(Source):
    """A Hugging Face dataset, which gives a dict of columns for a list of places."""

    dataset: Any

    def __call__(self, places: Sequence[int]) -> Any:
        return self.dataset[list(places)]


@dataclasses.dataclass(frozen=True)
class Lines(Source):
    """The lines of columns, as samples for functions that take one; a column without a name is the sample."""

    columns: Mapping[str, Any]

    def __call__(self, places: Sequence[int]) -> Sequence[Any]:
        if set(self.columns) == {""}:
            return [self.columns[""][place] for place in places]
        return lines(self.columns, places)

    def part(self, start: int, stop: int) -> Source | None:
        return Shifted(Lines({name: column[start:stop] for name, column in self.columns.items()}), start)


@dataclasses.dataclass(frozen=True)
class Collated(Source):
    """Samples as a loader's own collate function makes them, one at a time."""

    source: Source
    collate: Callable[[Any], Any]

    def __call__(self, places: Sequence[int]) -> Sequence[Any]:
        return [_first_row(self.collate([sample])) for sample in self.source(places)]

    def part(self, start: int, stop: int) -> Source | None:
        inner = self.source.part(start, stop)
        return None if inner is None else Collated(inner, self.collate)


def _first_row(batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return {name: _first_row(each) for name, each in batch.items()}
    if isinstance(batch, list) and len(batch) == 1:  # a column of one row that was not made an array
        return batch[0]
    if isinstance(batch, (tuple, list)):
        return tuple(_first_row(each) for each in batch)
    return batch[0] if getattr(batch, "shape", ()) != () else batch
