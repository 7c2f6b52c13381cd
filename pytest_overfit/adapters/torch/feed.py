"""The batch as tensors on the model's device, and which of its parts are targets."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pytest_overfit.core.arrays import Array
from pytest_overfit.core.case import Case
from pytest_overfit.core.diagnosed import diagnosed
from pytest_overfit.core.errors import CaseError
from pytest_overfit.data.arrays import is_text, table_trouble, times_as_numbers
from pytest_overfit.data.batch import Batch, map_leaves, to_numpy
from pytest_overfit.data.tree import Rows, leaves, map_entries, parts_of

if TYPE_CHECKING:
    import numpy as np


#: integers that torch can hold but hardly compute with
_HELD_ONLY = (torch.uint16, torch.uint32, torch.uint64)


def on_device(case: Case, model: nn.Module, batch: Batch) -> Batch:
    """The batch as a user's own conversion would make it; tensors keep their dtype.

    numpy floats take the model's dtype; numpy integers stay what they are as inputs and become int64 as targets, which
    torch's losses want of class indices. Lists with one entry a row stay lists.
    """
    first = next(model.parameters(), None)
    device = first.device if first is not None else torch.device("cpu")
    floats = (each.dtype for each in model.parameters() if each.is_floating_point())
    dtype = next(floats, torch.get_default_dtype())

    _check_objects(case, batch.x)

    def change(leaf: Any, target: bool) -> Any:
        if isinstance(leaf, torch.Tensor):
            return leaf.to(device) if leaf.device != device else leaf
        if isinstance(leaf, Rows):
            _check_rows(case, leaf, target)
            return map_entries(leaf, lambda each: change(each, target))
        if case.step is not None and to_numpy(leaf).dtype.kind == "U":  # a step may number its texts itself
            return Rows(to_numpy(leaf).tolist())
        tensor = _tensor(case, leaf, target).to(device)
        if tensor.is_floating_point():
            return tensor.to(dtype)
        wide = tensor.dtype in _HELD_ONLY or (target and not (tensor.dtype is torch.bool or tensor.is_complex()))
        return tensor.long() if wide else tensor

    return dataclasses.replace(
        batch,
        x=_as_arguments(case, model, map_leaves(batch.x, lambda leaf: change(leaf, target=False))),
        y=map_leaves(batch.y, lambda leaf: change(leaf, target=True)),
    )


def _tensor(case: Case, leaf: Any, target: bool) -> torch.Tensor:
    array: np.ndarray[Any, Any] = to_numpy(leaf)
    try:
        return torch.as_tensor(array if array.flags.writeable else array.copy())
    except TypeError as error:
        holds = table_trouble(leaf) or f"an array of dtype {array.dtype}, which torch has no tensor for"
        cure = _instead(array, target)
        refused = CaseError(f"Case {case.name!r}: the batch holds {holds}; {cure}")
        raise diagnosed(refused, "dtype_mismatch", cure) from error


def _instead(array: Array, target: bool) -> str:
    if times := times_as_numbers(array):
        return times
    if target and array.dtype.kind in "US":
        return "number the labels, e.g. y = numpy.unique(labels, return_inverse=True)[1]"
    lists = "; a model that takes a list of texts gets one inside a dict, batch=lambda: ({'texts': texts}, y)"
    return (
        "number text (a vocabulary, numpy.unique) and write other numbers as x.astype('float32')"
        f"{lists if array.dtype.kind in 'US' and array.ndim == 1 else ''}"
    )


def _check_rows(case: Case, rows: Rows, target: bool) -> None:
    if target and is_text(rows) and case.step is None:
        raise CaseError(
            f"Case {case.name!r}: the batch's targets are texts, which torch has no tensor for; number them, e.g. "
            "y = numpy.unique(texts, return_inverse=True)[1]"
        )


def _check_objects(case: Case, x: Any) -> None:
    """Objects of other libraries (pictures) as all of the inputs are more likely forgotten than meant."""
    if isinstance(x, Rows) and case.step is None and not any(_holds_arrays(each) for each in x):
        raise CaseError(
            f"Case {case.name!r}: the batch's inputs: a list of {len(x)} rows of type {type(x[0]).__name__}, which "
            "torch has no tensor for; make tensors of them (torch.as_tensor(numpy.asarray(entry)), or torchvision's "
            "ToTensor) and stack these; a model that takes such a list gets one inside a dict, "
            "batch=lambda: ({'images': entries}, y)"
        )


def _holds_arrays(entry: Any) -> bool:
    return isinstance(entry, (str, list)) or next(leaves(entry), None) is not None


def _as_arguments(case: Case, model: nn.Module, x: Any) -> Any:
    """Named parts of a batch object as a dict where `forward` takes them by name; a step gets its own object."""
    parts = parts_of(x)
    if case.step is not None or parts is None or type(x) is dict:
        return x
    given = {key: each for key, each in parts.items() if each is not None}
    forward = getattr(model, "_orig_mod", model).forward  # a compiled module wraps the user's
    try:
        inspect.signature(forward).bind(**given)
    except TypeError:
        return given if isinstance(x, Mapping) else x
    return given
