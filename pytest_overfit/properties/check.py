"""One property asked of one batch: its outputs, compared, and the failure with the batch as code.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.core.errors import CaseError, ProgramError, PropertyFailed
from pytest_overfit.properties.as_code import as_code
from pytest_overfit.properties.outputs import ModelOutputs
from pytest_overfit.properties.perturbed import pair_of, rows_of


class Question:
    """One call of a property: asks the model, and fails with the batch as code."""

    def __init__(self, answers: ModelOutputs, batch: Any, name: str, tolerance: float | None, arguments: str) -> None:
        self.answers, self._batch, self._name, self._arguments = answers, batch, name, arguments
        self._tolerance = answers.tolerance if tolerance is None else tolerance
        #: numbers of the outputs that have a row
        self.by_row = [number for number, each in enumerate(answers.outputs) if each.row_axes]

    def outputs(self, batch: Any, *orders: Sequence[int]) -> list[tuple[Array, ...]]:
        """Outputs on the batch, and on each choice of its rows."""
        __tracebackhide__ = True
        found: list[tuple[Array, ...]] = self._or_fail(lambda: self.answers.outputs_on(batch, *orders))
        return found

    def read(self, batch: Any) -> Any:
        __tracebackhide__ = True
        return self._or_fail(lambda: self.answers.reading_on(batch))

    def _or_fail(self, question: Callable[[], Any]) -> Any:
        __tracebackhide__ = True
        try:
            return question()
        except ProgramError as error:
            self.fail(str(error))

    def has_rows(self, outputs: Sequence[Array], rows: int) -> None:
        """Every output that follows the rows does so here, else nothing can be compared."""
        __tracebackhide__ = True
        if not self.by_row:
            raise CaseError(
                f"Case {self.answers.case.name!r}: none of its outputs has one entry a row, so none is compared"
            )
        for number in self.by_row:
            for axis in self.answers.outputs[number].row_axes:
                self.has_axis(number, outputs[number], axis, rows)

    def has_axis(self, number: int, output: Array, axis: int, rows: int) -> None:
        __tracebackhide__ = True
        wanted = self.answers.outputs[number].shape(rows)
        if output.ndim != len(wanted) or output.shape[axis] != wanted[axis]:
            self.fail(f"output {number} has the shape {output.shape} on {counted(rows)}, but {shown(wanted)} is wanted")

    def close(self, number: int, wanted: Array, found: Array, what: str) -> None:
        """Fail where the two differ by more than the tolerance times the largest output."""
        __tracebackhide__ = True
        if wanted.shape != found.shape:
            self.fail(f"{what} are wanted, but output {number} has the shape {found.shape} in place of {wanted.shape}")
        if wanted.dtype.kind not in "fc":
            if (wanted != found).any():
                self.fail(f"{what} are wanted, but {int((wanted != found).sum())} of output {number} differ (limit: 0)")
            return
        holes = np.isfinite(wanted) != np.isfinite(found)
        if holes.any():
            self.fail(f"{what} are wanted, but {int(holes.sum())} of output {number} are finite in one only (limit: 0)")
        # infinite numbers are so in both; that is a question for finite_outputs
        a, b = (np.where(np.isfinite(each), each, 0.0).astype(np.float64) for each in (wanted, found))
        scale = max(self.answers.scale, float(np.abs(a).max(initial=0.0)), float(np.abs(b).max(initial=0.0)))
        difference, limit = float(np.abs(a - b).max(initial=0.0)), self._tolerance * scale
        if difference > limit:
            self.fail(
                f"{what} are wanted, but output {number} differs by {difference:.4g} (limit: {limit:.4g}, "
                f"{self._tolerance:g} of the largest output)"
            )

    def fail(self, what: str) -> NoReturn:
        __tracebackhide__ = True
        x, y = pair_of(self._batch)
        call = ", ".join(each for each in ("case", "(x, y)", self._arguments) if each)
        code = f"{as_code(x=x, y=y)}\n\nfrom pytest_overfit.properties import {self._name}\n\n{self._name}({call})"
        lines = "\n".join(f"    {line}".rstrip() for line in code.splitlines())
        rows = counted(rows_of(self._batch))
        raise PropertyFailed(
            f"{self._name}: Case {self.answers.case.name!r}: {what}\nThe batch that shows it, {rows}:\n\n{lines}",
            self._batch,
        )


def counted(rows: int) -> str:
    return f"{rows} row{'s' * (rows != 1)}"


def shown(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('any' if each is None else str(each) for each in shape)}{',' * (len(shape) == 1)})"
