"""Where the rows of a batch are: which leaves have one entry a row, and how many rows there are.

A list can be several inputs, or one input with one entry a row (texts, images of unequal size). It is several inputs
wherever that reading gives every part the same number of rows.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterator, Mapping
from typing import Any

from pytest_overfit.data.tree import Rows, by_place, is_array, leaves, length, parts_of, rank, rebuilt

#: entries of a list that are looked at to tell what it is; a whole data set may be given as lists
_LOOKED_AT = 64

#: with fewer entries a tuple is more likely one of several inputs
_FEW = 4

#: what `_read` answers where a value has not the asked number of rows
_NO = object()


def laid_out(x: Any, y: Any) -> tuple[Any, Any, int] | None:
    """Inputs and targets with their lists of rows marked as `Rows`; None: not all of it has the same rows."""
    for rows in dict.fromkeys([*_lengths(y), *_lengths(x)]):
        read = [_read(each, rows) for each in (x, y)]
        if any(each is _NO for each in read) or not any(map(_is_anchor, leaves(read))):
            continue
        if any(isinstance(each, Rows) and not is_plain(each) for each in leaves(read)):
            # entries that are not texts or numbers come in lists, so a doubtful list beside them is one of rows too
            read = [_read(each, rows, doubtful=True) for each in (x, y)]
        return read[0], read[1], rows
    return None


def _is_anchor(leaf: Any) -> bool:
    """Shows how many rows there are; a list of arrays alone does not, it may be several inputs of unequal lengths."""
    return not isinstance(leaf, Rows) or not all(is_array(each) and rank(each) for each in leaf)


def likely_rows(value: Any) -> int | None:
    """Rows of a value whose parts may have several lengths: those of all of it, else of its first leaf."""
    found = [*_lengths(value)]
    whole = (each for each in found if any(map(_is_anchor, leaves(_read(value, each)))))
    return next(whole, found[0] if found else None)


def is_plain(value: Any) -> bool:
    """A list of texts or numbers, or of lists of them: an array in all but name. Tuples of them, too, one deep."""
    if not isinstance(value, (list, tuple)) or not value or hasattr(value, "_fields"):
        return False
    first = value[:_LOOKED_AT]
    if all(_is_scalar(each) for each in first):
        return True
    return isinstance(value, list) and all(isinstance(each, (list, tuple)) and is_plain(each) for each in first)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (str, numbers.Number)) or (is_array(value) and rank(value) == 0)


def _lengths(value: Any) -> Iterator[int]:
    """How many rows there could be, the likeliest first."""
    if is_array(value):
        if rank(value):
            yield length(value)
        return
    parts = parts_of(value)
    if parts is None and isinstance(value, (list, tuple)) and not is_plain(value):
        for each in value[:_LOOKED_AT]:
            yield from _lengths(each)
    if isinstance(value, (list, tuple)) and value:
        yield len(value)
    for each in () if parts is None else parts.values():
        yield from _lengths(each)


def _read(value: Any, rows: int, doubtful: bool = False) -> Any:
    """The value with its row lists marked, or `_NO`. `doubtful`: lists that could be several inputs are rows."""
    if value is None:
        return None
    if is_array(value):
        return value if rank(value) and length(value) == rows else _NO
    if is_plain(value):
        return Rows(value) if len(value) == rows else _NO
    parts = parts_of(value)
    if parts is not None:
        # flags among the arguments of a model are not data, nor are fields of a batch object that describe it
        notes = bool if isinstance(value, Mapping) else (str, numbers.Number)
        read = {key: each if isinstance(each, notes) else _read(each, rows, doubtful) for key, each in parts.items()}
        return _NO if any(each is _NO for each in read.values()) else rebuilt(value, read)
    if not isinstance(value, (list, tuple)):
        return _NO
    inner = [_read(each, rows, doubtful) for each in value]
    several = all(each is not _NO for each in inner)
    if len(value) == rows and (_rather_rows(inner, doubtful) if several else _one_a_row(value, inner)):
        return Rows(value)
    return rebuilt(value, dict(enumerate(inner))) if several else _NO


def _one_a_row(value: Any, inner: list[Any]) -> bool:
    """True if the entries are alike, as rows are; two or three arrays in a tuple may be inputs of unequal lengths."""
    if hasattr(value, "_fields"):
        return False
    if isinstance(value, tuple) and len(value) < _FEW and any(each is not _NO for each in inner):
        return False
    if all(is_array(each) for each in value):
        return len({rank(each) for each in value}) == 1
    parts = [parts_of(each) for each in value]
    return len({type(each) for each in value}) == 1 and len({None if p is None else tuple(p) for p in parts}) == 1


def _rather_rows(inner: list[Any], doubtful: bool) -> bool:
    return doubtful and not any(isinstance(each, Rows) for each in leaves(inner))


def marked(value: Any, rows: int) -> Any:
    """The value with its lists of so many rows marked; what has other lengths stays what it is."""
    read = _read(value, rows)
    if read is not _NO:
        return read
    if is_plain(value):
        return Rows(value)
    parts = by_place(value)
    return rebuilt(value, {key: marked(part, rows) for key, part in parts.items()}) if parts else value
