"""What a batch is made of: containers, and leaves with one entry a row."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pytest_overfit.core import foreign
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.errors import CaseError


class Rows(list[Any]):
    """A list with one entry a row that is not an array: texts, images of unequal size, boxes. It counts as one leaf."""


def is_array(value: Any) -> bool:
    """Arrays and tensors of any library, tables and sparse matrices too; no class or module that speaks of a shape."""
    if foreign.is_torch_tensor(value):
        return True
    shape = getattr(value, "shape", None)
    return shape is not None and not callable(shape) and not isinstance(value, (Mapping, type, memoryview))


def rank(array: Any) -> int:
    """Number of axes; 0 for a nested tensor, which has none that could be asked."""
    try:
        return len(array.shape)
    except RuntimeError:
        return 0


def is_leaf(value: Any) -> bool:
    return isinstance(value, Rows) or is_array(value)


def parts_of(value: Any) -> dict[Any, Any] | None:
    """The named parts of a mapping, a dataclass, or an object with keys (a graph of torch_geometric); else None."""
    if isinstance(value, Mapping):
        return dict(value.items())
    if isinstance(value, type) or is_array(value):
        return None
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if all(hasattr(value, name) for name in ("keys", "__getitem__", "__setitem__")):
        return {key: value[key] for key in value.keys()}  # noqa: SIM118 - no mapping: iterating may give other things
    return None


def by_place(value: Any) -> dict[Any, Any]:
    """The named parts of a container, or those of a tuple or list by their places; empty for a leaf."""
    parts = parts_of(value)
    if parts is not None or is_leaf(value):
        return parts or {}
    return dict(enumerate(value)) if isinstance(value, (tuple, list)) else {}


def rebuilt(value: Any, parts: dict[Any, Any]) -> Any:
    """A container of the same kind around other parts."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*parts.values())
    if isinstance(value, (tuple, list)):
        return type(value)(parts.values())
    if type(value) is dict:
        return parts
    if isinstance(value, Mapping) and not hasattr(value, "__setitem__"):
        return parts
    new = copy.copy(value)
    for key, part in parts.items():
        if isinstance(value, Mapping) or not dataclasses.is_dataclass(value):
            new[key] = part
        else:
            object.__setattr__(new, key, part)  # `replace` refuses fields that `__init__` does not take
    return new


def map_leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    """Rebuild tuples, lists, dicts and dataclasses around changed leaves; what is not a leaf stays as it is."""
    if is_leaf(value):
        return change(value)
    parts = by_place(value)
    return rebuilt(value, {key: map_leaves(part, change) for key, part in parts.items()}) if parts else value


def leaves(value: Any) -> Iterator[Any]:
    """The arrays, tensors and `Rows` inside tuples, lists, dicts and dataclasses, in order."""
    if is_leaf(value):
        yield value
        return
    for part in by_place(value).values():
        yield from leaves(part)


def length(leaf: Any) -> int:
    """Rows of a leaf; sparse matrices have no `len`."""
    return len(leaf) if isinstance(leaf, Rows) else int(leaf.shape[0])


def is_sparse(leaf: Any) -> bool:
    """A tensor of torch's that is not laid out in strides."""
    return foreign.is_torch_tensor(leaf) and str(leaf.layout) != "torch.strided"


def tensor_trouble(leaf: Any) -> str:
    """Why the rows or numbers of a tensor cannot be had, and what to give instead; "": they can."""
    if foreign.is_instance(leaf, "tensorflow", "RaggedTensor"):
        return "a ragged tensor, whose rows are of unequal length; write x.to_tensor(), which pads them"
    if foreign.is_instance(leaf, "tensorflow", "SparseTensor"):
        return "a sparse tensor of TensorFlow's, whose rows cannot be taken one by one; write tf.sparse.to_dense(x)"
    if foreign.is_instance(leaf, "keras", "KerasTensor"):
        return "a symbolic tensor of Keras, which holds no numbers; give the arrays that the model is to be called with"
    if not foreign.is_torch_tensor(leaf):
        return ""
    if leaf.is_nested:
        cure = "write torch.nested.to_padded_tensor(x, 0.0), or a list of tensors, one a row"
        return f"a nested tensor, whose rows cannot be counted; {cure}"
    if leaf.is_meta:
        return f"{foreign.describe(leaf)} on the meta device, which holds no numbers; make it on the cpu"
    return f"{foreign.describe(leaf)}, which is quantized; write x.dequantize()" if leaf.is_quantized else ""


def take(leaf: Any, rows: Sequence[int] | Array) -> Any:
    """These rows of a leaf, in this order. An array of numbers is several times as fast as a list of them."""
    index: Any = rows if is_array(rows) else [int(row) for row in rows]
    if isinstance(leaf, Rows):
        return Rows(leaf[row] for row in index)
    if foreign.is_torch_tensor(leaf):
        if is_sparse(leaf):
            return leaf.detach().to_dense()[index].to_sparse(layout=leaf.layout)
        torch = sys.modules["torch"]
        taken = leaf.detach()[torch.as_tensor(index, dtype=torch.long)]
        return taken.requires_grad_() if leaf.requires_grad else taken
    if foreign.is_instance(leaf, "tensorflow", "Tensor", "Variable"):  # they take no list of places
        return sys.modules["tensorflow"].gather(leaf, index)
    return leaf.iloc[index] if hasattr(leaf, "iloc") else leaf[index]


def along(leaf: Any, rows: Sequence[int] | Array, axis: int) -> Any:
    """The same of another axis than the first."""
    return take(leaf, rows) if not axis else swapped(take(swapped(leaf, axis), rows), axis)


def swapped(leaf: Any, axis: int) -> Any:
    """The leaf with this axis first, and the first one in its place."""
    return leaf.transpose(0, axis) if foreign.is_torch_tensor(leaf) else np.swapaxes(leaf, 0, axis)


def take_rows(value: Any, rows: Sequence[int] | Array, count: int | None = None) -> Any:
    """These rows of every leaf inside the value; `count`: a leaf of any other length stays as it is."""
    return map_leaves(value, lambda leaf: take(leaf, rows) if count is None or length(leaf) == count else leaf)


def taker(leaf: Any) -> Callable[[Array], Any]:
    """`take` for many picks of one leaf: what is the same each time is found out once."""
    torch = sys.modules.get("torch")
    if torch is None or type(leaf) is not torch.Tensor:
        return lambda rows: take(leaf, rows)
    if leaf.requires_grad or leaf.is_nested or leaf.is_cuda or is_sparse(leaf):
        return lambda rows: take(leaf, rows)
    return lambda rows: leaf.index_select(0, torch.as_tensor(rows, dtype=torch.long))


def plain(value: Any) -> Any:
    """The value as the user's own code gets it: lists with one entry a row are lists of Python's."""
    return map_leaves(value, lambda leaf: list(leaf) if isinstance(leaf, Rows) else leaf)


def map_entries(rows: Rows, change: Callable[[Any], Any]) -> Rows:
    """Change the arrays inside the entries."""
    return Rows(map_leaves(each, change) for each in rows)


def to_numpy(leaf: Any) -> Array:
    """A leaf as a numpy array on the host; tensors of half precision and less become float32."""
    if isinstance(leaf, Rows):
        return _stacked(leaf)
    if foreign.is_torch_tensor(leaf):
        leaf = leaf.detach()
        if is_sparse(leaf):
            leaf = leaf.to_dense()
        if leaf.is_floating_point() and leaf.element_size() < 4:
            leaf = leaf.float()
        return np.asarray(leaf.cpu())
    array = np.asarray(leaf)
    if array.dtype == object and hasattr(leaf, "to_numpy"):  # a table of columns of several types
        return _of_table(array)
    if array.dtype == object and not isinstance(leaf, np.ndarray):  # a tensor of strings
        return array.astype("S")
    return array.astype(np.float32) if str(array.dtype) == "bfloat16" else array


def _stacked(rows: Rows) -> Array:
    try:
        array = np.stack([to_numpy(each) if is_array(each) else np.asarray(each) for each in rows])
    except ValueError:
        array = np.empty(0, object)
    if array.dtype == object:
        raise CaseError(
            f"the batch holds a list with one entry a row ({foreign.describe(rows[0])} the first) that cannot be "
            "stacked to one array; pad the entries to one size and write numpy.stack(entries)"
        )
    return array


def _of_table(array: Array) -> Array:
    """Numbers and truth values of several types as floats; texts as texts; anything else as it is."""
    for kind, dtype in (((int, float), "float64"), (str, str)):
        if all(isinstance(each, kind) for each in array.flat):
            return array.astype(dtype)
    return array


def row_values(leaf: Any) -> Array:
    """A leaf as an array that shows which rows are equal: a `Rows` of anything becomes one digest a row."""
    if not isinstance(leaf, Rows):
        return to_numpy(leaf)
    if all(isinstance(each, str) for each in leaf):
        return np.asarray(list(leaf))
    return np.asarray([_digest(each) for each in leaf])


def _digest(entry: Any) -> bytes:
    found = hashlib.blake2b(digest_size=16)

    def add(leaf: Any) -> None:
        array = to_numpy(leaf)
        found.update(f"{array.shape}{array.dtype}".encode() + array.tobytes())

    rest = map_leaves(entry, add)
    try:
        found.update(pickle.dumps(rest))
    except Exception:  # an object that cannot be pickled is equal to itself only
        found.update(str(id(entry)).encode())
    return found.hexdigest().encode()
