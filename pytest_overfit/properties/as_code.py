"""A batch as Python that makes it again, to be copied from a message into a test."""

from __future__ import annotations

import base64
import dataclasses
import zlib
from typing import Any

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.data.tree import Rows, is_leaf, parts_of, to_numpy

#: an array with more numbers than this is written as one value with exceptions, where there are few
_SHORT = 40

#: beyond this a literal is no longer for reading, and is packed
_READABLE = 2_000


def as_code(**values: Any) -> str:
    """Assignments that make these values again, bit for bit: `x = np.array(...)`.

    Arrays and tensors become numpy arrays; containers are written around them. Large arrays that are one value but
    for a few numbers are written so; what has thousands of different numbers is packed (base 85 of zlib).
    """
    writer = _Writer()
    for name, value in values.items():
        writer.assign(name, value)
    return "\n".join([*writer.imports(), *writer.lines])


class _Writer:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self._count = 0
        self._packed = False

    def imports(self) -> list[str]:
        return (
            ["import base64", "import zlib", "", "import numpy as np", ""]
            if self._packed
            else ["import numpy as np", ""]
        )

    def assign(self, name: str, value: Any) -> None:
        if is_leaf(value) and not isinstance(value, Rows):
            self._array(name, to_numpy(value))
        else:
            self.lines.append(f"{name} = {self._expression(value)}")

    def _expression(self, value: Any) -> str:
        if isinstance(value, Rows):
            return repr([each if isinstance(each, (str, int, float)) else to_numpy(each).tolist() for each in value])
        if is_leaf(value):
            array = to_numpy(value)
            if array.size <= _SHORT:
                return _literal(array)
            self._count += 1
            self._array(f"part_{self._count}", array)
            return f"part_{self._count}"
        if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
            inside = ", ".join(self._expression(each) for each in value)
            return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' * (len(value) == 1)})"
        return self._named(value)

    def _named(self, value: Any) -> str:
        parts = value._asdict() if hasattr(value, "_asdict") else parts_of(value)
        if parts is None:
            return repr(value)
        if dataclasses.is_dataclass(value) or hasattr(value, "_asdict"):
            inside = ", ".join(f"{key}={self._expression(each)}" for key, each in parts.items())
            return f"{type(value).__name__}({inside})"
        return "{" + ", ".join(f"{key!r}: {self._expression(each)}" for key, each in parts.items()) + "}"

    def _array(self, name: str, array: Array) -> None:
        if array.size <= _SHORT or array.dtype.kind not in "fiub":
            self.lines.append(f"{name} = {_literal(array)}")
            return
        bits = np.ascontiguousarray(array).reshape(-1).view(f"u{array.itemsize}")
        values, counts = np.unique(bits, return_counts=True)
        usual = values[counts.argmax()]
        others = np.flatnonzero(bits != usual)
        if len(others) <= _SHORT:
            filled = _number(np.array([usual]).view(array.dtype)[0])
            made = f"np.zeros({array.shape}, {str(array.dtype)!r})"
            if usual != 0:
                made = f"np.full({array.shape}, {filled}, {str(array.dtype)!r})"
            self.lines.append(f"{name} = {made}")
            for place in others:
                index = tuple(int(each) for each in np.unravel_index(place, array.shape))
                self.lines.append(f"{name}[{', '.join(map(str, index))}] = {_number(array[index])}")
        elif array.size <= _READABLE:
            self.lines.append(f"{name} = {_literal(array)}")
        else:
            self.lines.append(f"{name} = {self._pack(array)}")

    def _pack(self, array: Array) -> str:
        self._packed = True
        text = base64.b85encode(zlib.compress(array.tobytes(), 9)).decode()
        data = f"zlib.decompress(base64.b85decode({text!r}))"
        return f"np.frombuffer({data}, {str(array.dtype)!r}).reshape({array.shape})"


def _literal(array: Array) -> str:
    if array.dtype.kind not in "fiub":
        return f"np.array({array.tolist()!r})"
    text = f"np.array({_nested(array)}, {str(array.dtype)!r})"
    return text if array.size else f"np.zeros({array.shape}, {str(array.dtype)!r})"


def _nested(array: Array) -> str:
    if array.ndim == 0:
        return _number(array[()])
    return f"[{', '.join(_nested(each) for each in array)}]"


def _number(value: Any) -> str:
    """The shortest text that gives the number back in its own precision."""
    text = str(value)
    return {"nan": "np.nan", "inf": "np.inf", "-inf": "-np.inf"}.get(text, text)
