"""Losses that spread outputs over targets of another shape, and losses that may."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import pytest

from pytest_overfit.adapters.base import Head, Reading
from pytest_overfit.core.arrays import Array
from pytest_overfit.measures.broadcasting import broadcast_of, fault_of, words_of

Loss = Callable[..., Any]

RNG = np.random.default_rng(0)
COLUMN, VECTOR = RNG.normal(size=(12, 1)), RNG.normal(size=12) + 3
THREE = RNG.normal(size=(12, 3))
#: three readings of one quantity
REPEATS = VECTOR[:, None] + 0.05 * RNG.normal(size=(12, 3))
LABELS = (THREE > 0).astype(float)
IMAGE, MASK = RNG.normal(size=(6, 1, 4, 4)), RNG.normal(size=(6, 4, 4))


class Losing:
    """A learner by its loss alone; gradients are differences."""

    def __init__(self, loss: Loss, outputs: Sequence[Array], targets: Sequence[Array], heads: Any = ()) -> None:
        self.loss, self.targets = loss, tuple(targets)
        self.first = Reading(loss=self._value(outputs), outputs=tuple(outputs), heads=tuple(heads))

    def _value(self, outputs: Sequence[Array]) -> float:
        return float(self.loss(*outputs, *self.targets))

    def loss_and_gradient(self, outputs: Sequence[Array]) -> tuple[float, list[Array]] | None:
        try:
            return self._value(outputs), [self._slope(outputs, place) for place in range(len(outputs))]
        except ValueError:  # shapes that the loss refuses
            return None

    def _slope(self, outputs: Sequence[Array], place: int) -> Array:
        found = np.zeros(outputs[place].shape)
        for at in np.ndindex(found.shape):
            ends = [[each.copy() for each in map(np.array, outputs)] for _ in range(2)]
            ends[0][place][at] += 1e-6
            ends[1][place][at] -= 1e-6
            found[at] = (self._value(ends[0]) - self._value(ends[1])) / 2e-6
        return found


def found(loss: Loss, outputs: Any, targets: Any, heads: Any = ()) -> tuple[str, str] | None:
    outputs, targets = ([each] if isinstance(each, np.ndarray) else each for each in (outputs, targets))
    learner = Losing(loss, outputs, targets, heads)
    measured = broadcast_of(cast("Any", learner), learner.first)
    if measured is None:
        return None
    assert all(words_of(measured))
    return fault_of(measured)


def squared(o: Array, y: Array) -> Any:
    return ((o - y) ** 2).mean()


def entropy(o: Array, y: Array) -> Any:
    return (np.logaddexp(0.0, o) - y * o).mean()


def pinball(o: Array, y: Array) -> Any:
    shares = np.array([0.1, 0.5, 0.9])
    return np.maximum(shares * (y - o), (shares - 1) * (y - o)).mean()


def ranked(o: Array, y: Array) -> Any:
    """Scores of rows by their times and events, as in survival analysis: the two columns are no two targets."""
    later = y[:, 0][None] >= y[:, 0][:, None]
    risks = np.log((np.exp(o.reshape(len(y), -1).mean(1))[None] * later).sum(1))
    return ((risks - o.reshape(len(y), -1).mean(1)) * y[:, 1]).mean()


@pytest.mark.parametrize(
    "loss",
    [
        squared,
        lambda o, y: np.abs(o - y).mean(),
        lambda o, y: (np.exp(o) - y * o).mean(),
        lambda o, y: np.maximum(0.3 * (y - o), -0.7 * (y - o)).mean(),
    ],
)
def test_every_output_against_every_target(loss: Loss) -> None:
    assert found(loss, COLUMN, VECTOR) == ("target_broadcast", "failed")
    assert found(loss, VECTOR, COLUMN) == ("target_broadcast", "failed")
    assert found(lambda o, y: loss(o[:, 0], y), COLUMN, VECTOR) is None
    assert found(lambda o, y: loss(o, y[:, None]), COLUMN, VECTOR) is None


def test_pixels_against_the_pixels_of_every_row() -> None:
    assert found(squared, IMAGE, MASK) == ("target_broadcast", "failed")
    assert found(lambda o, y: squared(o[:, 0], y), IMAGE, MASK) is None


def test_a_loss_of_sets_of_one_shape_may_know_no_order() -> None:
    def moments(o: Array, y: Array) -> Any:
        return (o.mean() - y.mean()) ** 2 + (o.std() - y.std()) ** 2

    assert found(moments, COLUMN, VECTOR[:, None]) is None


@pytest.mark.parametrize("loss", [squared, lambda o, y: np.abs(o - y).mean(), pinball])
def test_one_output_for_several_targets(loss: Loss) -> None:
    assert found(loss, COLUMN, THREE) == ("wrong_output_units", "failed")
    assert found(loss, THREE[:, ::-1].copy(), THREE) is None


def test_one_output_for_several_labels() -> None:
    assert found(entropy, COLUMN, LABELS) == ("wrong_output_units", "failed")


def test_one_output_for_repeated_measurements() -> None:
    assert found(squared, COLUMN, REPEATS) is None
    apart = REPEATS + 0.5 * RNG.normal(size=(12, 3))
    assert found(squared, COLUMN, apart) == ("wrong_output_units", "warning")


def test_columns_that_are_no_targets() -> None:
    times = np.stack([np.abs(VECTOR), (THREE[:, 0] > 0).astype(float)], axis=1)
    assert found(ranked, COLUMN, times) is None


def test_weights_beside_targets() -> None:
    def weighted(o: Array, y: Array, w: Array) -> Any:
        return (w * (o - y) ** 2).mean()

    assert found(weighted, THREE + 1, [THREE, np.abs(COLUMN)]) is None


def test_several_quantiles_of_one_target() -> None:
    assert found(pinball, THREE, VECTOR[:, None]) is None


def test_several_heads() -> None:
    def two(a: Array, b: Array, y: Array, z: Array) -> Any:
        return squared(a, y) + squared(b, z)

    assert found(two, [VECTOR[:, None] + 1, THREE + 1], [VECTOR[:, None], THREE]) is None
    assert found(two, [VECTOR[:, None] + 1, COLUMN], [VECTOR[:, None], THREE]) is None  # which is whose is not known
    assert found(two, [IMAGE, COLUMN], [MASK, THREE[:6].repeat(2, 0)]) == ("target_broadcast", "failed")


@pytest.mark.parametrize(("name", "fault"), [("mse_loss", ("wrong_output_units", "warning")), ("", None)])
def test_several_units_for_one_target(name: str, fault: Any) -> None:
    head = Head(kind="values", outputs=THREE, targets=VECTOR[:, None], loss_name=name)
    assert found(squared, THREE, VECTOR[:, None], [head]) == fault
