"""Short names for samples that last: the same in every process, with and without xxhash; for allow-lists."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pytest_overfit.duplicates.values.canonical import canonical, numeric, plain_numbers
from pytest_overfit.duplicates.values.fingerprints import as_leaf, standard_digest

#: numbers that are converted together, however many rows they are: as float64 they take 8 MB
AT_ONCE = 1 << 20


def lasting(data: bytes) -> str:
    """The name of these bytes."""
    return standard_digest(data, 0).hex()[:16]


def lasting_name(leaves: Mapping[str, Any]) -> str:
    """A short name of a sample, the same whatever its number type and whichever hash is installed."""
    return lasting_names({name: [leaf] for name, leaf in leaves.items()}, [0])[0]


def lasting_names(leaves: Mapping[str, Any], rows: Sequence[int]) -> list[str]:
    """The same names for some rows of columns, many at once."""
    found: list[str] = []
    names = sorted(leaves)
    block = max(1, AT_ONCE // max(1, sum(_width(leaves[name]) for name in names)))
    for start in range(0, len(rows), block):
        part = list(rows[start : start + block])
        columns = [_lasting_column(leaves[name], part) for name in names]
        for values in zip(*columns, strict=True):
            pairs = zip(names, values, strict=True)
            found.append(lasting(b"\x00".join(each for name, value in pairs for each in (name.encode(), value))))
    return found


def _is_numeric(column: Any) -> bool:
    return isinstance(column, np.ndarray) and numeric(column.dtype)


def _width(column: Any) -> int:
    """How many numbers of a row are converted together with those of others; what is not a number goes row by row."""
    return math.prod(column.shape[1:]) if _is_numeric(column) else 0


def _lasting_column(column: Any, rows: list[int]) -> Iterator[bytes]:
    """The bytes of one row after the other: only one row's are held."""
    if not _is_numeric(column):
        return (_lasting_bytes(as_leaf(column[row])) for row in rows)
    values = canonical(plain_numbers(column[rows]), "<f8")
    shape = f"{values.shape[1:]}".encode()
    return (shape + each.tobytes() for each in values)


def _lasting_bytes(leaf: Any) -> bytes:
    if isinstance(leaf, np.ndarray):
        return f"{leaf.shape}".encode() + canonical(leaf, "<f8").tobytes()
    return repr(leaf.item() if isinstance(leaf, np.generic) else leaf).encode()
