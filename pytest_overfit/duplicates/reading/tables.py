"""Tables of any library as named columns of numpy arrays and lists, without importing that library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.core.errors import CaseError


def columns_of(source: Any) -> dict[str, Any] | None:
    """The columns of a table by name; None for what is not a table."""
    library = type(source).__module__.partition(".")[0]
    if hasattr(source, "collect_schema") and hasattr(source, "collect"):  # lazy polars
        source = source.collect()
    if library == "pandas" or (hasattr(source, "iloc") and hasattr(source, "columns")):
        return _pandas(source)
    if hasattr(source, "get_columns") and hasattr(source, "columns"):
        return {str(each.name): _series(each) for each in source.get_columns()}
    if library == "polars" and hasattr(source, "to_numpy"):
        return {str(source.name): _series(source)}
    if hasattr(source, "column_names") and hasattr(source, "column") and hasattr(source, "num_rows"):
        return {name: _arrow(source.column(number)) for number, name in enumerate(source.column_names)}
    return None


def _pandas(source: Any) -> dict[str, Any] | None:
    if hasattr(source, "columns"):
        names = [str(each) for each in source.columns]
        if len(set(names)) < len(names):
            twice = next(each for each in names if names.count(each) > 1)
            raise CaseError(f"a table has two columns called {twice!r}; give each its own name")
        return {name: _values(source.iloc[:, place]) for place, name in enumerate(names)}
    return {str(source.name): _values(source)} if hasattr(source, "to_numpy") else None


def _values(column: Any) -> Any:
    """One pandas column: numbers as they are, times without zone, anything else as a list."""
    kind = str(column.dtype)
    if kind == "category":
        return _values(column.astype(column.cat.categories.dtype))
    if kind.startswith("datetime64[") and "," in kind:
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    # own (nullable) number types have a missing value apart from their numbers
    nullable = str(column.dtype)[:1] in "IUFB" and hasattr(column.array, "_mask")
    array = _filled(column) if nullable else column.to_numpy()
    return array if array.dtype.kind in "biufcmM" else _plain(array.tolist())


def _filled(column: Any) -> Array:
    if column.isna().any():
        found: Array = column.to_numpy(dtype="float64", na_value=np.nan)
        return found
    return np.asarray(column.to_numpy(dtype=str(column.dtype).lower().replace("boolean", "bool")))


def _plain(items: list[Any]) -> list[Any]:
    """Missing values of any library are None."""
    return [None if each is None or each != each or type(each).__name__ == "NAType" else each for each in items]  # noqa: PLR0124


def _series(column: Any) -> Any:
    """One polars column."""
    plain = column.dtype.is_numeric() or str(column.dtype).startswith(("Boolean", "Date", "Duration"))
    found = column.to_numpy() if plain else None
    return found if found is not None and found.dtype.kind in "biufmM" else _plain(column.to_list())


def _arrow(column: Any) -> Any:
    found = column.to_numpy() if hasattr(column, "num_chunks") else column.to_numpy(zero_copy_only=False)
    return found if found.dtype.kind in "biufmM" else _plain(column.to_pylist())


def is_counter(columns: Mapping[str, Any], name: str) -> bool:
    """A column of whole numbers that only counts its rows: it would make every row unlike any other."""
    column = columns[name]
    if isinstance(column, list):
        if len(column) < 3 or not all(type(each) is int for each in column[:3]):
            return False
        column = np.asarray(column)
    if not isinstance(column, np.ndarray) or column.ndim != 1 or column.dtype.kind not in "iu" or len(column) < 3:
        return False
    return bool((np.diff(column.astype(np.int64)) == 1).all())
