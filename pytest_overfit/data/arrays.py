"""One leaf of a batch: what can be fed to a model, what is converted, what is refused and why."""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from pytest_overfit.core import foreign
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.diagnosed import diagnosed
from pytest_overfit.core.errors import CaseError
from pytest_overfit.data.layout import is_plain
from pytest_overfit.data.tree import (
    Rows,
    is_array,
    is_sparse,
    length,
    map_entries,
    rank,
    take,
    to_numpy,
)


def with_shape(value: Any) -> Any:
    """Arrays that only offer `__array__` (columns of pyarrow) as numpy arrays, anywhere inside the value."""
    if isinstance(value, memoryview):
        return np.asarray(value)
    if not is_array(value) and hasattr(value, "__array__") and not isinstance(value, type):
        return np.asarray(value)
    if type(value) is dict:
        return {key: with_shape(each) for key, each in value.items()}
    if type(value) in (tuple, list) and not is_plain(value):
        return type(value)(with_shape(each) for each in value)
    return value


def chosen_rows(leaf: Any, places: Sequence[int]) -> Any:
    """These rows of a leaf, without a copy of the rest."""
    if not isinstance(places, range):
        return take(leaf.tocsr() if hasattr(leaf, "tocsr") else leaf, places)
    count = len(places)
    if length(leaf) <= count:
        return leaf
    if isinstance(leaf, Rows):
        return Rows(leaf[:count])
    if hasattr(leaf, "tocsr"):
        return leaf.tocsr()[:count]
    if is_sparse(leaf):
        return take(leaf, places)
    return leaf.iloc[:count] if hasattr(leaf, "iloc") else leaf[:count]


def settled(leaf: Any) -> Any:
    """Arrays made of what is an array in all but name: lists of numbers, of arrays of one shape, sparse matrices."""
    if isinstance(leaf, Rows):
        return _stacked(leaf)
    if hasattr(leaf, "toarray"):
        return leaf.toarray()
    if isinstance(leaf, np.ma.MaskedArray) and not np.ma.is_masked(leaf):
        return leaf.data
    if isinstance(leaf, np.ndarray) and leaf.dtype == object and all(isinstance(each, str) for each in leaf.flat):
        return leaf.astype(str)  # as tables give it
    if isinstance(leaf, np.ndarray) and not leaf.dtype.isnative:
        return leaf.astype(leaf.dtype.newbyteorder("="))
    return leaf


def _stacked(rows: Rows) -> Any:
    if all(foreign.is_torch_tensor(each) and rank(each) == 0 for each in rows):
        return sys.modules["torch"].stack(list(rows))
    arrays = all(isinstance(each, np.ndarray) for each in rows) and len({each.shape for each in rows}) == 1
    if arrays or (is_plain(rows) and not is_text(rows)):
        try:
            return settled(np.asarray(rows))
        except ValueError:  # rows of unequal length
            return rows
    return rows


def is_text(leaf: Any) -> bool:
    return isinstance(leaf, Rows) and all(isinstance(each, str) for each in leaf)


def copied(leaf: Any) -> Any:
    """A copy that nothing a step does to it can bring back to the user's data; it lies in memory, in order."""
    if isinstance(leaf, Rows):
        return map_entries(leaf, copied)
    if foreign.is_torch_tensor(leaf):
        return leaf.detach().clone().requires_grad_(leaf.requires_grad)
    if isinstance(leaf, np.ndarray):
        return np.array(leaf, order="C")
    return leaf.copy() if hasattr(leaf, "copy") else copy.deepcopy(leaf)


def check_leaf(leaf: Any, where: str, ragged: bool) -> None:
    """Refuse what cannot be fed to a model. `ragged`: lists of unequal rows are the user's own affair."""
    if isinstance(leaf, Rows):
        if is_plain(leaf) and not is_text(leaf) and not ragged:
            raise CaseError(
                f"{where}: rows of unequal length, which cannot become an array; pad them to one length (a tokenizer's "
                "padding=True, a loader's collate_fn), or train with step=, which takes them as they are"
            )
        return
    if not is_array(leaf):
        raise CaseError(
            f"{where}: {foreign.describe(leaf)}; expected numpy arrays or tensors; write numpy.asarray(...), or "
            "tuples, dicts and "
            "dataclasses of arrays"
        )
    if rank(leaf) == 0:
        raise CaseError(f"{where}: a single number without rows; expected an array with one row a sample")
    if isinstance(leaf, np.ma.MaskedArray) and np.ma.is_masked(leaf):
        cure = "write x.filled(value), and give the mask as an input of its own"
        error = CaseError(
            f"{where}: a masked array with {int(np.ma.getmaskarray(leaf).sum())} masked numbers, of which a model "
            f"would see what lies under the mask; {cure}"
        )
        raise diagnosed(error, "nan_in_input", cure)
    if isinstance(leaf, np.ndarray) and leaf.dtype.names:
        first = leaf.dtype.names[0]
        raise CaseError(
            f"{where}: a structured array with the fields {', '.join(leaf.dtype.names)}; write a dict of plain arrays, "
            f"e.g. {{{first!r}: x[{first!r}], ...}}, or numpy.lib.recfunctions.structured_to_unstructured(x)"
        )
    if isinstance(leaf, np.ndarray) and leaf.dtype == object:  # texts have become an array of texts before
        cure = "write x.astype('float32'), or pad rows of unequal length to one length"
        error = CaseError(
            f"{where}: {foreign.describe(leaf)}; an array of Python objects cannot be fed to a model; {cure}"
        )
        raise diagnosed(error, "dtype_mismatch", cure)


def table_trouble(leaf: Any) -> str | None:
    """Which columns of a table are not numbers, in words; None: it is not such a table."""
    names = getattr(leaf, "columns", None)
    if names is None or to_numpy(leaf).dtype.kind in "biufc":
        return None
    bad = [str(name) for name in names if to_numpy(leaf[name]).dtype.kind not in "biufc"]
    return f"a table with columns that are not numbers ({', '.join(bad[:5]) or 'all'})"


def times_as_numbers(array: Array) -> str:
    """How to write times or durations as numbers; "": it is neither."""
    if array.dtype.kind == "M":
        return "write times as numbers, e.g. (x - x.min()) / numpy.timedelta64(1, 'D')"
    return "write durations as numbers, e.g. x / numpy.timedelta64(1, 'D')" if array.dtype.kind == "m" else ""
