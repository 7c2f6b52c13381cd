"""Regularisers by their names: which attributes are rates of dropout, and how a list of places is shown."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

#: places that are listed by name; more are counted
_LISTED = 3


def dropout_rates(module: object, usual: Container[str]) -> Iterator[tuple[str, float]]:
    """Attributes that are the rate of some dropout: `LSTM.dropout`, `DropPath.drop_prob`, `Dropout.p`, and the like.

    `usual`: names that mean a rate in a class that is named after dropping.
    """
    drops = re.search("drop|stochasticdepth", type(module).__name__.lower()) is not None
    for name, value in list(vars(module).items()):
        named = "drop" in name.lower() or (drops and name in usual)
        if named and isinstance(value, float) and 0 < value <= 1 and not re.search("keep|scale", name.lower()):
            yield name, value


def noise_sizes(module: object) -> Iterator[tuple[str, float]]:
    """Attributes of a class that is named after noise that are the noise's size: `GaussianNoise.stddev`, `sigma`."""
    if re.search("noise|jitter", type(module).__name__.lower()) is None:
        return
    for name, value in list(vars(module).items()):
        is_size = re.search("std|sigma", name.lower()) and not re.search("keep|scale", name.lower())
        if is_size and isinstance(value, float) and value > 0:
            yield name, value


def with_places(found: Mapping[str, Iterable[str]]) -> list[str]:
    """Each regulariser with where it was, as in `dropout 0.5 (first, second, third and 2 more)`."""
    return [f"{what} ({listed(list(places))})" for what, places in found.items()]


def of_others(names: Sequence[str]) -> str:
    """That a loss depends on these, in words; "" where there are none."""
    return f"the loss depends on trainable weights outside the model: {listed(names)}" if names else ""


def listed(names: Sequence[str], most: int = _LISTED) -> str:
    """So many names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
