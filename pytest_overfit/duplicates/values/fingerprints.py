"""Sixteen bytes for any sample, the same for equal samples; made for whole columns at once where that can be.

With xxhash installed these are xxh3_128, else blake2b: both are long enough that no two samples of any data set share
one by chance, and every match that can be read again is compared for real all the same.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pytest_overfit.core import foreign
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.errors import CaseError
from pytest_overfit.data.tree import to_numpy
from pytest_overfit.duplicates.values.canonical import ValueComparison, canonical, common_dtype, numeric, plain_numbers

#: `digest(data, seed) -> 16 bytes`
Digest = Callable[[Any, int], bytes]

_TEXT, _BYTES, _NOTHING, _LIST, _LARGE = 1, 2, 3, 4, 5


def digest_function() -> Digest:
    """The fastest 128-bit hash there is."""
    try:
        from xxhash import xxh3_128_digest  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return standard_digest
    return xxh3_128_digest  # type: ignore[no-any-return, unused-ignore]


def standard_digest(data: Any, seed: int) -> bytes:
    from hashlib import blake2b

    return blake2b(data, digest_size=16, person=seed.to_bytes(8, "little")).digest()


def label_words(labels: Sequence[Any] | None, count: int) -> Array:
    """Eight bytes a label, the same for equal labels: a number as a float, anything else (long ones, too) by a hash."""
    if labels is None:
        return np.zeros(count, np.uint64)
    numbers = [isinstance(each, float) or (isinstance(each, int) and abs(each) < 2**53) for each in labels]
    floats = np.array([each if number else 0.0 for each, number in zip(labels, numbers, strict=True)], np.float64)
    found = canonical(floats, "<f8").view(np.uint64)
    for place, number in enumerate(numbers):
        if not number:
            found[place] = _label_word(repr(labels[place]))
    return found


@functools.lru_cache(maxsize=4096)
def _label_word(label: str) -> int:
    return int.from_bytes(standard_digest(label.encode("utf-8", "surrogatepass"), 0)[:8], "little")


def folded(text: str) -> str:
    """Text without differences of Unicode form, case and white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def as_leaf(value: Any) -> Any:
    """A number, tensor or picture as a numpy array of plain numbers; text, bytes, None and lists as they are."""
    if value is None or isinstance(value, (str, bytes)):
        return value
    if isinstance(value, np.ndarray):
        return plain_numbers(value) if numeric(value.dtype) else value.tolist()
    if (
        isinstance(value, (bool, int, float, complex, np.generic))
        or hasattr(value, "__array__")
        or hasattr(value, "numpy")
    ):
        array = to_numpy(value.resolve_conj() if foreign.is_torch_tensor(value) and value.is_complex() else value)
        if numeric(array.dtype):
            return plain_numbers(array)
        if isinstance(value, int):  # a large one
            return str(value).encode()
        return array.item() if array.ndim == 0 else array.tolist()
    if isinstance(value, (list, tuple)):
        return _listed(value)
    raise CaseError(
        f"a sample holds {foreign.describe(value)}, which cannot be compared by value; give key=, a function that "
        "returns arrays, numbers or text for a sample"
    )


def _listed(value: Any) -> Any:
    """A list of numbers is an array; any other list stays one."""
    if not value or isinstance(value[0], (str, bytes)):
        return list(value)
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError):  # of unequal lengths
        return list(value)
    return plain_numbers(array) if numeric(array.dtype) else list(value)


class Encoder:
    """Makes fingerprints of the chunks of one split."""

    def __init__(self, split: str, comparisons: Mapping[str, ValueComparison], text: str) -> None:
        self.split, self.comparisons, self.fold = split, comparisons, text == "normalized"
        self._digest = digest_function()
        self._seeds: dict[Any, int] = {}

    def chunk(self, leaves: Mapping[str, Any]) -> Array:
        """Fingerprints of a chunk as pairs of 64-bit words, one line a sample."""
        names = sorted(leaves)
        columns = [self._column(name, leaves[name]) for name in names]
        if len(columns) == 1:
            found = columns[0]
        else:
            seed = self._seed(("leaves", *names))
            digest = self._digest
            found = [digest(b"".join(parts), seed) for parts in zip(*columns, strict=True)]
        return np.frombuffer(b"".join(found), np.uint64).reshape(-1, 2)

    def _seed(self, what: Any) -> int:
        """A number for a shape or a structure, the same in every process."""
        seed = self._seeds.get(what)
        if seed is None:
            seed = int.from_bytes(standard_digest(repr(what).encode(), 7)[:8], "little")
            self._seeds[what] = seed
        return seed

    def _shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        how = self.comparisons.get(name)
        return (math.prod(shape),) if how is not None and how.flat else shape

    def _column(self, name: str, column: Any) -> list[bytes]:
        if isinstance(column, np.ndarray) and numeric(column.dtype):
            return self._array(name, plain_numbers(column))
        items = column.tolist() if isinstance(column, np.ndarray) else column
        kinds = set(map(type, items))
        if kinds == {str}:
            return self._texts(items)
        if kinds <= {int, float, bool}:
            numbers = np.asarray(items)
            if numeric(numbers.dtype):
                return self._array(name, plain_numbers(numbers))
        leaves = [as_leaf(item) for item in items]
        if leaves and all(isinstance(leaf, np.ndarray) for leaf in leaves):
            return self._arrays(name, leaves)
        return [self._one(name, leaf) for leaf in leaves]

    def _texts(self, items: Sequence[str]) -> list[bytes]:
        digest = self._digest
        if self.fold:
            items = [folded(item) for item in items]
        return [digest(item.encode("utf-8", "surrogatepass"), _TEXT) for item in items]

    def _canonical(self, name: str, values: Array) -> Array:
        how = self.comparisons.get(name)
        if how is None:
            return canonical(values, "<f8")
        return canonical(values, how.dtype, self.split in how.scaled and values.dtype.kind == "f")

    def _array(self, name: str, values: Array) -> list[bytes]:
        found = self._canonical(name, values)
        seed, digest = self._seed(self._shape(name, values.shape[1:])), self._digest
        width = found[:1].nbytes
        if not width:
            return [digest(b"", seed)] * len(found)
        view = found.reshape(-1).view(np.uint8).data
        return [digest(view[start : start + width], seed) for start in range(0, len(found) * width, width)]

    def _arrays(self, name: str, leaves: Sequence[Array]) -> list[bytes]:
        """Arrays of any shapes: brought to one form together, then hashed one by one."""
        if len({leaf.dtype for leaf in leaves}) > 1:
            return [self._array(name, leaf[None])[0] for leaf in leaves]
        found = self._canonical(name, np.concatenate([leaf.ravel() for leaf in leaves]))
        view, item = found.view(np.uint8).data, found.dtype.itemsize
        digests, start, digest, seeds = [], 0, self._digest, self._seeds
        for leaf in leaves:
            end = start + leaf.size * item
            shape = self._shape(name, leaf.shape)
            digests.append(digest(view[start:end], seeds.get(shape) or self._seed(shape)))
            start = end
        return digests

    def _one(self, name: str, leaf: Any) -> bytes:
        if isinstance(leaf, np.ndarray):
            return self._array(name, leaf[None])[0]
        if leaf is None:
            return self._digest(b"", _NOTHING)
        if isinstance(leaf, str):
            return self._texts([leaf])[0]
        if isinstance(leaf, bytes):
            return self._digest(leaf, _BYTES)
        if isinstance(leaf, (list, tuple)):
            return self._digest(b"".join(self._one(name, as_leaf(each)) for each in leaf), _LIST)
        return self._digest(repr(leaf).encode(), _LARGE)

    def same(self, leaves: Mapping[str, Any], other: Mapping[str, Any], others_split: str) -> bool:
        """The real comparison of two samples, leaf by leaf."""
        if sorted(leaves) != sorted(other):
            return False
        return all(self._same(name, as_leaf(leaves[name]), as_leaf(other[name]), others_split) for name in leaves)

    def _same(self, name: str, one: Any, other: Any, others_split: str) -> bool:
        if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
            if self._shape(name, one.shape) != self._shape(name, other.shape):
                return False
            how = self.comparisons.get(name)
            scaled = how.scaled if how else ()
            dtype = how.dtype if how and scaled else common_dtype([one.dtype, other.dtype])
            left = canonical(one, dtype, self.split in scaled and one.dtype.kind == "f")
            right = canonical(other, dtype, others_split in scaled and other.dtype.kind == "f")
            return left.tobytes() == right.tobytes()
        if isinstance(one, str) and isinstance(other, str) and self.fold:
            return folded(one) == folded(other)
        if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
            return len(one) == len(other) and all(
                self._same(name, as_leaf(left), as_leaf(right), others_split)
                for left, right in zip(one, other, strict=True)
            )
        return type(one) is type(other) and one == other


@dataclasses.dataclass(frozen=True)
class Coding:
    """How fingerprints are made: the same in every process."""

    comparisons: Mapping[str, ValueComparison]
    text: str

    def encoder(self, split: str) -> Encoder:
        return Encoder(split, self.comparisons, self.text)
