"""Is the loss before training that of a model that knows nothing yet?

It is held against the loss of the best constant output and of outputs that are all zero, the larger of them, never
against other draws of the same factory. Inputs in raw units make large outputs with any weights, so what counts is the
loss on inputs that were standardised column by column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pytest_overfit.adapters.base import Head, Learner, Reading
from pytest_overfit.adapters.wires import Wires
from pytest_overfit.core.arrays import Array
from pytest_overfit.measures.reference_losses.closed_form import closed_form, summed
from pytest_overfit.probes.wiring.faults import Fault

#: times the loss of a model that knows nothing: temperatures of contrastive losses (14 at the start) come to 2,
#: residual nets that start with all branches open to 3.1; errors that grow with the outputs have more room, outputs ten
#: times too large: products of drawn factors come to 5
_TIMES = {"": 4.0, "cross_entropy": 4.0, "binary_cross_entropy": 3.0, "absolute_error": 10.0, "squared_error": 100.0}

#: logits of this size in the mean leave a softmax certain of one class in almost every row
_CERTAIN = 100.0


def look(learner: Learner, wires: Wires, first: Reading) -> dict[str, Any] | None:
    """Loss at the start, what an uninformed model has, and both on standardised inputs; None: not known."""
    if first.loss is None or not first.heads or not all(each.plain for each in first.heads):
        return None
    rows = np.zeros(len(learner.inputs[0]), dtype=np.int64)
    constant = summed([closed_form(head, rows) for head in first.heads]).constant or 0.0
    expected = max(constant, sum(_of_zeros(each) * each.scale for each in first.heads))
    times = max(_TIMES[each.plain] for each in first.heads)
    if not np.isfinite(first.loss) or expected <= 0 or first.loss <= times * expected:
        return None
    calm = _calm(learner, wires)
    return {
        "loss": first.loss,
        "expected": expected,
        "most": times * expected,
        "standardised": None if calm is None else calm[0],
        "size": _size(first.outputs if calm is None else calm[1]),
        "classes": all(each.kind == "classes" for each in first.heads),
    }


def _calm(learner: Learner, wires: Wires) -> tuple[float, Sequence[Array]] | None:
    """Loss and outputs on standardised inputs, as evaluated or as in training, whichever has the lower loss.

    Statistics that have not run yet leave an evaluation without any normalisation.
    """
    inputs = {name: _standardised(each) for name, each in wires.inputs().items()}
    answers = [wires.answer(inputs, training=each) for each in (False, True)]
    found = [(learner.loss_and_gradient(each), each) for each in answers if each is not None]
    return min(((loss[0], each) for loss, each in found if loss is not None), key=lambda pair: pair[0], default=None)


def _of_zeros(head: Head) -> float:
    """Loss of outputs that are all zero."""
    if head.plain == "cross_entropy":
        return float(np.log(head.outputs.shape[head.class_axis]))
    if head.plain == "binary_cross_entropy":
        return float(np.log(2.0))
    targets = np.abs(head.targets.astype(np.float64))
    return float((targets**2).mean() if head.plain == "squared_error" else targets.mean())


def _standardised(values: Array) -> Array:
    """Columns of mean 0 and deviation 1; whole numbers name things and stay."""
    if values.dtype.kind != "f":
        return values
    spread = values.std(axis=0, keepdims=True)
    return np.asarray((values - values.mean(axis=0, keepdims=True)) / np.where(spread > 0, spread, 1.0), values.dtype)


def _size(outputs: Sequence[Array]) -> float:
    return float(max((np.abs(each).mean() for each in outputs if each.dtype.kind == "f"), default=0.0))


def faults(measured: Mapping[str, Any] | None) -> Iterator[Fault]:
    if measured is None or _by_inputs_alone(measured):
        return
    certain = measured["classes"] and measured["size"] > _CERTAIN
    yield Fault(
        name="over_confident_start",
        outcome="failed" if certain else "warning",
        subjects=(),
        evidence=f"the loss before training is {measured['loss']:.3g}, and {measured['expected']:.3g} is that of a "
        f"model that knows nothing; outputs are {measured['size']:.3g} in the mean, on standardised inputs too",
        cure="initialise the last layer smaller, or take out what multiplies its outputs",
    )


def _by_inputs_alone(measured: Mapping[str, Any]) -> bool:
    calm = measured["standardised"]
    return calm is not None and calm <= measured["most"]


def remarks(measured: Mapping[str, Any] | None) -> Iterator[str]:
    if measured is not None and _by_inputs_alone(measured):
        yield (
            f"the loss before training is {measured['loss']:.3g}, on standardised inputs "
            f"{measured['standardised']:.3g}: the inputs are in raw units"
        )
