"""What numpy and Python themselves say of arrays that do not fit together."""

from __future__ import annotations

import re

from pytest_overfit.adapters.causes.table import Crash, MessageRule, first, on, says, shown
from pytest_overfit.core.verdict import Diagnosis

_SIZES = "change one of the two sizes that the message names, or reshape one of the arrays before this line"


def cause_of(crash: Crash) -> Diagnosis | None:
    """The fault that a message of numpy or Python shows; None: it shows none."""
    return first(_RULES, crash)


def _division(crash: Crash, match: re.Match[str]) -> Diagnosis | None:
    if not crash.trains:
        return None
    cure = "divide by max(n, 1), or leave out what has a count of 0"
    return shown("division_by_zero", f"{crash.kind}: {match.group()}", cure)


_RULES: tuple[MessageRule[Crash], ...] = (
    says(r"shapes \(.*\) and \(.*\) not aligned", "shape_mismatch", _SIZES),
    says(r"operands could not be broadcast together with (remapped )?shapes", "shape_mismatch", _SIZES),
    says(r"matmul: Input operand \d has a mismatch in its core dimension", "shape_mismatch", _SIZES),
    says(r"matmul: dimension \d of .* must match", "shape_mismatch", _SIZES),
    says(r"cannot reshape array of size \d+ into shape", "shape_mismatch", _SIZES),
    says(r"could not broadcast input array from shape", "shape_mismatch", _SIZES),
    says(r"all the input array dimensions .* the concatenation axis must match", "shape_mismatch", _SIZES),
    says(r"all input arrays must have the same shape", "shape_mismatch", _SIZES),
    says(
        r"ufunc '\w+' did not contain a loop with signature matching types",
        "dtype_mismatch",
        "make numbers of the array first, e.g. x.astype('float32')",
    ),
    says(
        r"ufunc '\w+' not supported for the input types",
        "dtype_mismatch",
        "make numbers of the array first, e.g. x.astype('float32')",
    ),
    on(r"division by zero|division or modulo by zero|modulo by zero", _division),
)
