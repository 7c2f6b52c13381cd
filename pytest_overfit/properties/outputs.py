"""What a case's new model answers on any batch, and how its answers follow the number of rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from pytest_overfit.adapters.base import Learner, Reading
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError, ProgramError
from pytest_overfit.data.batch import Batch
from pytest_overfit.data.checked import checked
from pytest_overfit.data.splits import rows_of
from pytest_overfit.data.tree import Rows, leaves
from pytest_overfit.properties.perturbed import pair_of

#: share of the largest output that arithmetic may change: kernels sum in other orders for other sizes of a batch
TOLERANCE = 1e-3

#: the same where the outputs have at most ten bits behind the point (half precision, autocast)
_COARSE = 5e-2


@dataclasses.dataclass(frozen=True)
class Output:
    """One output: each axis is a fixed size, a multiple of the rows (`per_row`), or neither (None in both)."""

    fixed: tuple[int | None, ...]
    per_row: tuple[int | None, ...]

    def shape(self, rows: int) -> tuple[int | None, ...]:
        """The shape on a batch of so many rows; None: any size."""
        pairs = zip(self.fixed, self.per_row, strict=True)
        return tuple(fixed if times is None else times * rows for fixed, times in pairs)

    @property
    def row_axes(self) -> list[int]:
        return [axis for axis, times in enumerate(self.per_row) if times is not None]


class ModelOutputs:
    """One live, untrained model of a case, asked on one batch after another."""

    def __init__(self, case: Case, learner: Learner, own: Batch) -> None:
        self.case, self._learner = case, learner
        if not hasattr(learner, "look_at"):
            raise CaseError(f"Case {case.name!r}: its learner reads one batch only; it has no method look_at(batch)")
        twice = own if own.rows > 1 else rows_of(own, [0, 0])
        first = self._outputs(twice)
        if not first:
            raise CaseError(
                f"Case {case.name!r}: its model cannot be called with a batch's inputs alone (only its step can), so "
                "its outputs cannot be looked at"
            )
        self.own_shapes = _shapes(own)
        self.outputs = self._templates(twice, first)
        #: the largest output on the case's own batch, for tolerances
        self.scale = _largest(first)
        self.tolerance = _COARSE if case.autocast is not None or all(map(_is_coarse, first)) else TOLERANCE

    def _templates(self, own: Batch, first: tuple[Array, ...]) -> list[Output]:
        try:
            more = self._outputs(rows_of(own, [*range(own.rows), 0]))
        except ProgramError:  # one size of a batch only: what the axes mean is then a guess by their sizes
            return [_guessed(each, own.rows) for each in first]
        return [_template(a, b, own.rows) for a, b in zip(first, more, strict=False)]

    def _outputs(self, batch: Batch) -> tuple[Array, ...]:
        self._learner.look_at(batch)  # type: ignore[attr-defined]
        outputs = self._learner.outputs_for(range(batch.rows))
        # a reading says why there are none
        return self._learner.read("eval").outputs if outputs is None else outputs

    def outputs_on(self, batch: Any, *orders: Sequence[int]) -> list[tuple[Array, ...]]:
        """Outputs in evaluation, leaf by leaf: of the batch, then of each choice of its rows.

        Raises `ProgramError` where the model does.
        """
        whole = self.checked(batch)
        found = [self._outputs(whole)]
        for order in orders:
            outputs = self._learner.outputs_for(order)
            if outputs is None:
                outputs = self._outputs(rows_of(whole, order))
                self._learner.look_at(whole)  # type: ignore[attr-defined]
            found.append(outputs)
        return found

    def reading_on(self, batch: Any) -> Reading:
        """Loss and heads in evaluation."""
        self._learner.look_at(self.checked(batch))  # type: ignore[attr-defined]
        return self._learner.read("eval")

    def checked(self, batch: Any) -> Batch:
        """An `(x, y)` pair as the learner takes it."""
        x, y = pair_of(batch)
        return checked(x, y, None, self.case)

    def looks_like_own(self, batch: Any) -> bool:
        """Rows of the batch have the shapes that rows of the case's own batch have."""
        return _shapes(self.checked(batch)) == self.own_shapes


def _shapes(batch: Batch) -> list[tuple[int, ...]]:
    return [tuple(each.shape[1:]) for each in leaves(batch.x) if not isinstance(each, Rows)]


def _template(first: Array, more: Array, rows: int) -> Output:
    """What each axis means, from the shapes at `rows` and at one row more."""
    if first.ndim != more.ndim:
        return Output((None,) * first.ndim, (None,) * first.ndim)
    fixed: list[int | None] = []
    times: list[int | None] = []
    for one, other in zip(first.shape, more.shape, strict=True):
        follows = one != other and one * (rows + 1) == other * rows
        fixed.append(one if one == other else None)
        times.append(one // rows if follows else None)
    return Output(tuple(fixed), tuple(times))


def _guessed(first: Array, rows: int) -> Output:
    follows = first.ndim > 0 and first.shape[0] > 0 and first.shape[0] % rows == 0
    times = (first.shape[0] // rows if follows else None, *[None] * (first.ndim - 1)) if first.ndim else ()
    fixed = (None if follows else first.shape[0], *first.shape[1:]) if first.ndim else ()
    return Output(fixed, times)


def _largest(outputs: tuple[Array, ...]) -> float:
    sizes = [np.abs(each[np.isfinite(each)]) for each in outputs if each.dtype.kind == "f"]
    return max((float(each.max(initial=0.0)) for each in sizes), default=0.0)


def _is_coarse(output: Array) -> bool:
    """The last 13 bits of every float32 are zero: half precision, bfloat16, or whole numbers."""
    if output.dtype != np.float32:
        return bool(output.dtype == np.float16)
    return not (np.ascontiguousarray(output).view(np.uint32) & 0x1FFF).any()
