"""What is sent to another process: pickled by us, so that memory maps go as their path and errors can be named."""

from __future__ import annotations

import io
import mmap
import pickle
import sys
import threading
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from pytest_overfit.core.arrays import Array

#: what a thread of a worker opened last: a dataset is made once for all of its shards, and never shared by two threads
_kept = threading.local()


class Parcel:
    """A value on its way. In the process that made it it is the value itself; elsewhere bytes, until it is opened.

    Opened late, so that what goes wrong there (a module or a file that the worker has not) is an exception of the
    task; an engine that meets it while it unpickles a task loses the whole worker.
    """

    def __init__(self, value: Any) -> None:
        self._value, self._token = value, uuid.uuid4().hex
        self._data: bytes | None = None

    def open(self, keep: bool = False) -> Any:
        """The value; `keep`: this thread will be asked for it again."""
        if self._value is not None:
            return self._value
        if getattr(_kept, "token", None) == self._token:
            return _kept.value
        value = pickle.loads(self._data or b"")  # noqa: S301 - made by `packed` in the process that asks
        if keep:
            _kept.token, _kept.value = self._token, value
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        if self._data is None:
            self._data = packed(self._value)
        return _arrived, (self._token, self._data)

    def __dask_tokenize__(self) -> str:
        """Dask names a task by its arguments: no two parcels are the same, and none is pickled to find that out."""
        return self._token


def _arrived(token: str, data: bytes) -> Parcel:
    parcel = Parcel(None)
    parcel._token, parcel._data = token, data
    return parcel


def packed(value: Any) -> bytes:
    """Pickled, by cloudpickle where an engine has loaded it: it takes functions of notebooks and of `__main__`, too."""
    cloudpickle = sys.modules.get("cloudpickle")
    base: Any = cloudpickle.Pickler if cloudpickle is not None else pickle.Pickler
    outer: Any = getattr(base, "reducer_override", None)

    class Pickler(base):  # type: ignore[misc]
        def reducer_override(self, each: Any) -> Any:
            place = _mapped(each)
            if place is not None:
                return _map_again, place
            return NotImplemented if outer is None else outer(self, each)

    stream = io.BytesIO()
    Pickler(stream, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    return stream.getvalue()


def can_travel(value: Any) -> bool:
    """True if it can be pickled."""
    try:
        packed(value)
    except Exception:  # each library has its own way to refuse
        return False
    return True


def _mapped(value: Any) -> tuple[Any, ...] | None:
    """Where in which file an array lies; None for one that lies in memory."""
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value) not in (numpy.ndarray, numpy.memmap):
        return None
    root = value
    while isinstance(root.base, numpy.ndarray):
        root = root.base
    if type(root) is not numpy.memmap or not isinstance(root.base, mmap.mmap) or root.mode == "c":
        return None  # of mode "c" are changes that the file does not have
    if root.filename is None or not Path(root.filename).is_file():
        return None
    offset = root.offset + _address(value) - _address(root)
    return str(root.filename), value.dtype, value.shape, value.strides, offset


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def _map_again(path: str, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> Array:
    return np.ndarray(shape, dtype, np.memmap(path, np.uint8, "r"), offset, strides)
