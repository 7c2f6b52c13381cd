"""Properties that hold for every batch of a sound model, to be asserted under Hypothesis' `@given` or by themselves.

Each takes a case and an `(x, y)` batch, looks at the case's new, untrained model in evaluation, and raises
`PropertyFailed` (an `AssertionError`) with the measured number, the limit and the batch as code. Under `@given` that is
the smallest failing batch that Hypothesis found. The model is built once a case and kept for the last eight cases, so
make the case outside of the test. Generators, threads, default dtype and environment are afterwards as they were.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pytest_overfit.adapters.dispatch import guards, learner_for, seed_everything
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError, PropertyFailed
from pytest_overfit.core.state import preserved
from pytest_overfit.data.telling import batch_of
from pytest_overfit.properties.batch_spec import BatchSpec
from pytest_overfit.properties.check import Question, counted
from pytest_overfit.properties.outputs import ModelOutputs
from pytest_overfit.properties.perturbed import padded, rows_of
from pytest_overfit.run import checked_case
from pytest_overfit.settings import current_settings

__all__ = [
    "PropertyFailed",
    "batch_size_does_not_matter",
    "finite_outputs",
    "loss_not_negative",
    "order_does_not_matter",
    "padding_does_not_matter",
    "right_shape",
]

#: models kept, each with its case
_KEPT = 8


def finite_outputs(case: Case, batch: Any) -> None:
    """No output is NaN or infinite.

    Blind to gradients and to the loss. Cost: one forward pass.
    """
    __tracebackhide__ = True
    with _asked(case, batch, "finite_outputs") as ask:
        for number, output in enumerate(ask.outputs(batch)[0]):
            bad = ~np.isfinite(output) if output.dtype.kind in "fc" else np.zeros(output.shape, bool)
            if bad.any():
                place = tuple(int(each) for each in np.argwhere(bad)[0])
                ask.fail(
                    f"{int(bad.sum())} of {output.size} numbers of output {number} are NaN or infinite (limit: 0), the "
                    f"first, {output[place]}, at {list(place)}"
                )


def right_shape(case: Case, batch: Any) -> None:
    """Every output has one entry a row, and else the shape it has on the case's own batch.

    Which axes follow the rows is measured on the case's own batch and on one with a row more. The other axes are
    compared where the inputs' own axes are the same. Cost: one forward pass.
    """
    __tracebackhide__ = True
    with _asked(case, batch, "right_shape") as ask:
        outputs, known = ask.outputs(batch)[0], ask.answers.outputs
        rows, same = rows_of(batch), ask.answers.looks_like_own(batch)
        if len(outputs) != len(known):
            ask.fail(f"expected {len(known)} outputs, as on the case's own batch, got {len(outputs)}")
        for number, (output, own) in enumerate(zip(outputs, known, strict=True)):
            ask.has_shape(number, output, range(len(own.fixed)) if same else own.row_axes, rows)


def order_does_not_matter(case: Case, batch: Any, tolerance: float | None = None) -> None:
    """Rows in another order give the same outputs in that order: reversed, and moved on by one.

    `tolerance`: share of the largest output, default 1e-3 (5e-2 in half precision). Blind to what is the same for every
    order, such as a mean over the batch (`batch_size_does_not_matter` sees it). Cost: three forward passes.
    """
    __tracebackhide__ = True
    with _asked(case, batch, "order_does_not_matter", tolerance) as ask:
        rows = rows_of(batch)
        orders = {"reversed": [*range(rows)][::-1], "moved on by one": [*range(1, rows), 0]}
        plain, *others = ask.outputs(batch, *orders.values())
        ask.has_rows(plain, rows)
        for (name, order), mixed in zip(orders.items(), others, strict=True):
            for number in ask.by_row:
                expected = plain[number]
                for axis in ask.answers.outputs[number].row_axes:
                    expected = _taken(expected, order, axis)
                ask.close(number, expected, mixed[number], f"the same outputs with its {rows} rows {name}")


def batch_size_does_not_matter(case: Case, batch: Any, tolerance: float | None = None) -> None:
    """Each row alone gives what it gives among the others.

    `tolerance`: share of the largest output, default 1e-3 (5e-2 in half precision). Outputs with a row on two axes
    (similarities of all pairs) are left out. Cost: a forward pass a row, and one.
    """
    __tracebackhide__ = True
    with _asked(case, batch, "batch_size_does_not_matter", tolerance) as ask:
        rows = rows_of(batch)
        together, *alone = ask.outputs(batch, *([row] for row in range(rows)))
        ask.has_rows(together, rows)
        for number in ask.by_row:
            axes = ask.answers.outputs[number].row_axes
            if len(axes) == 1:
                parts = [outputs[number] for outputs in alone]
                for part in parts:
                    ask.has_shape(number, part, axes, 1)
                joined = np.concatenate(parts, axis=axes[0])
                what = f"the same outputs row by row as for {counted(rows)} at once"
                ask.close(number, together[number], joined, what)


def padding_does_not_matter(
    case: Case, batch: Any, padding: BatchSpec | float, columns: int = 3, tolerance: float | None = None
) -> None:
    """More padding behind the sequences leaves the outputs as they are.

    `padding`: the spec of the batch (`spec_of(case)`), which tells the sequences and what pads each, masks too; or the
    number that pads every input. Outputs with an axis of time are compared on the steps they had. For models that take
    any length; one of a fixed length refuses the longer batch, which fails. Cost: two forward passes.
    """
    __tracebackhide__ = True
    if columns < 1:
        raise CaseError(f"padding_does_not_matter(columns={columns!r}): expected at least one column")
    shown = "spec" if isinstance(padding, BatchSpec) else repr(padding)
    with _asked(case, batch, "padding_does_not_matter", tolerance, shown, f"columns={columns}") as ask:
        longer = padded(batch, columns, padding)
        for number, (short, long) in enumerate(zip(ask.outputs(batch)[0], ask.outputs(longer)[0], strict=True)):
            if short.ndim == long.ndim and short.ndim:
                long = long[tuple(slice(size) for size in short.shape)]
            ask.close(number, short, long, f"the same outputs with {columns} more columns of padding")


def loss_not_negative(case: Case, batch: Any, minimum: float | None = None) -> None:
    """The loss in evaluation is not below the least value it can have.

    `minimum`: that value; default: of a recognised loss, 0 for cross-entropy, squared and absolute error. A loss that
    is not recognised, or a sum of several, needs `minimum=`, else `CaseError`. A loss below it gets something else than
    it is made for: probabilities in place of log-probabilities, a flipped sign. Cost: a forward pass with its loss.
    """
    __tracebackhide__ = True
    with _asked(case, batch, "loss_not_negative", None, "" if minimum is None else f"minimum={minimum!r}") as ask:
        reading = ask.read(batch)
        if reading.loss is None:
            raise CaseError(f"Case {case.name!r}: its loss cannot be read apart from a step, so it cannot be checked")
        least, name = minimum, "the loss"
        if least is None:
            known = [each for each in reading.heads if each.plain and each.minimum is not None]
            if len(reading.heads) != 1 or not known:
                raise CaseError(
                    f"Case {case.name!r}: the least value of its loss is not known; write "
                    "loss_not_negative(case, batch, minimum=0.0) if it has one"
                )
            least, name = known[0].minimum or 0.0, known[0].loss_name
        if reading.loss < least - 1e-6 * max(1.0, abs(least)):
            ask.fail(f"the loss is {reading.loss:.6g}, below {least:g}, the least that {name} can be")


@contextlib.contextmanager
def _asked(case: Case, batch: Any, name: str, tolerance: float | None = None, *arguments: str) -> Iterator[Question]:
    __tracebackhide__ = True
    if tolerance is not None and not 0 <= tolerance < 1:
        raise CaseError(f"{name}(tolerance={tolerance!r}): expected a share from 0 to below 1, of the largest output")
    checked_case(case)
    rows_of(batch)
    given = [*arguments, *([] if tolerance is None else [f"tolerance={tolerance!r}"])]
    settings = current_settings()
    with preserved(guards()):
        answers = _answers(case, settings.seed_of(case), settings.make_learner)
        yield Question(answers, batch, name, tolerance, ", ".join(each for each in given if each))


@functools.lru_cache(maxsize=_KEPT)
def _answers(case: Case, seed: int, make_learner: Callable[..., Any]) -> ModelOutputs:
    """The model of a case, built and asked once on the case's own batch."""
    seed_everything(seed)
    batch = batch_of(case)
    learner = make_learner(case, batch, seed) or learner_for(case, batch, seed)
    return ModelOutputs(case, learner, batch)


def _taken(array: Array, order: list[int], axis: int) -> Array:
    """Rows of the axis in this order; each row may be several entries, one after the other."""
    entries = array.shape[axis] // len(order)
    index = (np.asarray(order)[:, None] * entries + np.arange(entries)).ravel()
    return np.asarray(array.take(index, axis=axis))
