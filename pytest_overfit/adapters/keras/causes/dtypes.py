"""Numbers, or other values, of a kind that an operation does not take."""

from __future__ import annotations

from pytest_overfit.adapters.causes.table import MessageRule, says
from pytest_overfit.adapters.keras.causes.message import Message

_CAST = "bring both sides to one dtype: keras.ops.cast(x, 'float32')"
_NUMBERS = "make numbers of it first: x.astype('float32'), a StringLookup layer for text"

RULES: tuple[MessageRule[Message], ...] = tuple(
    says(pattern, "dtype_mismatch", cure)
    for pattern, cure in (
        (r"has type \w+ that does not match type \w+ of argument", _CAST),
        (r"cannot compute \w+ as input #\d+\S* was expected to be an? \w+ tensor but is an? \w+ tensor", _CAST),
        (r"has DataType \w+ not in list of allowed values", _CAST),
        (r"[Vv]alue for attr '\w+' of \w+ is not in the list of allowed values", _CAST),
        (r"Tensor conversion requested dtype \w+ for Tensor with dtype", _CAST),
        (r"Cannot convert -?[\d.]+(e[+-]?\d+)? to EagerTensor of dtype \w+", _CAST),
        (r"Expected u?int\d+,? but got -?[\d.]+(e[+-]?\d+)? of type 'float'", _CAST),
        (r"expected (an? )?\w+ tensor but is an? \w+ tensor", _CAST),
        (r"Invalid dtype: (object|str\d*|string)", _NUMBERS),
        (r"Failed to convert a NumPy array to a Tensor \(Unsupported object type", _NUMBERS),
        (r"[Cc]ast string to (float|int|half|double)\w* is not supported", _NUMBERS),
    )
)
