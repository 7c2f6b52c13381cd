"""One property asked of one batch: its outputs, compared, and the failure with the batch as code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
            self.has_shape(number, outputs[number], self.answers.outputs[number].row_axes, rows)

    def has_shape(self, number: int, output: Array, axes: Iterable[int], rows: int) -> None:
        """Fail where one of these axes has another size than on the case's own batch, for so many rows."""
        __tracebackhide__ = True
        expected = self.answers.outputs[number].shape(rows)
        if output.ndim != len(expected) or any(expected[axis] not in (None, output.shape[axis]) for axis in axes):
            self.fail(
                f"output {number}: expected the shape {_shown(expected)} on {counted(rows)}, as on the case's own "
                f"batch, got {output.shape}"
            )

    def close(self, number: int, expected: Array, found: Array, what: str) -> None:
        """Fail where the two differ by more than the tolerance times the largest output."""
        __tracebackhide__ = True
        difference = self._difference(expected, found)
        if difference:
            self.fail(f"expected {what}; output {number} {difference}")

    def _difference(self, expected: Array, found: Array) -> str:
        """How the second array differs from the first, in words; "" where it does not."""
        if expected.shape != found.shape:
            return f"has the shape {found.shape} in place of {expected.shape}"
        if expected.dtype.kind not in "fc":
            other = int((expected != found).sum())
            return f"differs in {other} numbers (limit: 0)" if other else ""
        holes = int((np.isfinite(expected) != np.isfinite(found)).sum())
        if holes:
            return f"has {holes} numbers that are finite in one only (limit: 0)"
        # infinite numbers are so in both; that is a question for finite_outputs
        a, b = (np.where(np.isfinite(each), each, 0.0).astype(np.float64) for each in (expected, found))
        scale = max(self.answers.scale, float(np.abs(a).max(initial=0.0)), float(np.abs(b).max(initial=0.0)))
        difference, limit = float(np.abs(a - b).max(initial=0.0)), self._tolerance * scale
        if difference <= limit:
            return ""
        return f"differs by {difference:.4g} (limit: {limit:.4g}, {self._tolerance:g} of the largest output)"

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


def _shown(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('any' if each is None else str(each) for each in shape)}{',' * (len(shape) == 1)})"
