"""What outputs can be: all numbers, probabilities, distributions; as maps from free numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from pytest_overfit.core.arrays import Array


@dataclasses.dataclass(frozen=True)
class Link:
    """Maps free numbers onto what an output can be; `pull` carries the gradient back."""

    into: Callable[[Array], Array]
    out: Callable[[Array], Array]
    pull: Callable[[Array, Array], Array]


def identity() -> Link:
    return Link(lambda o: np.asarray(o, np.float64), lambda z: z, lambda o, g: g)


def _sigmoid() -> Link:
    def into(o: Array) -> Array:
        inside = np.clip(np.asarray(o, np.float64), 1e-6, 1 - 1e-6)
        return np.asarray(np.log(inside) - np.log1p(-inside))

    return Link(into, lambda z: 1.0 / (1.0 + np.exp(-np.clip(z, -500, 500))), lambda o, g: g * o * (1.0 - o))


def _softmax(axis: int) -> Link:
    def out(z: Array) -> Array:
        e = np.exp(z - z.max(axis=axis, keepdims=True))
        return np.asarray(e / e.sum(axis=axis, keepdims=True))

    return Link(
        lambda o: np.log(np.clip(np.asarray(o, np.float64), 1e-6, None)),
        out,
        lambda o, g: o * (g - (g * o).sum(axis=axis, keepdims=True)),
    )


def _log_softmax(axis: int) -> Link:
    def out(z: Array) -> Array:
        shifted = z - z.max(axis=axis, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True)))

    return Link(lambda o: np.asarray(o, np.float64), out, lambda o, g: g - np.exp(o) * g.sum(axis=axis, keepdims=True))


def _softplus() -> Link:
    def into(o: Array) -> Array:
        value = np.maximum(np.asarray(o, np.float64), 1e-6)
        return np.asarray(value + np.log(-np.expm1(-value)))

    return Link(into, lambda z: np.logaddexp(0.0, z), lambda o, g: g * -np.expm1(-o))


def candidate_links(outputs: Sequence[Array], declared: set[str]) -> list[list[Link]]:
    """Which domains to try, in order: what recognised losses declare, else all numbers and then what the outputs are.

    A row that sums to one is a distribution by design, never by chance; a range of (0, 1) can be chance.
    """
    unbounded = [identity() for _ in outputs]
    if declared == {"unbounded"}:
        return [unbounded]
    special = [_special_link(each) for each in outputs]
    if not any(special):
        return [unbounded]
    linked = [link or identity() for link in special]
    return [linked] if declared and "unbounded" not in declared else [unbounded, linked]


def _special_link(outputs: Array) -> Link | None:
    """The link of a distribution, its logarithm, a probability or a distance; None for outputs that are just numbers.

    A loss made for distances may fall without limit below zero, where none can be.
    """
    if (axis := simplex_axis(outputs)) is not None:
        return _softmax(axis)
    if (axis := simplex_axis(np.exp(outputs.clip(max=1)))) is not None:
        return _log_softmax(axis)
    if outputs.std() == 0 or not bool((outputs >= 0).all()):
        return None
    return _sigmoid() if bool(((outputs > 0) & (outputs < 1)).all()) else _softplus()


def simplex_axis(values: Array) -> int | None:
    """The axis along which these are distributions over at least two classes, or None."""
    if values.ndim < 2 or not np.issubdtype(values.dtype, np.floating) or values.min(initial=0) < -1e-6:
        return None
    for axis in (values.ndim - 1, 1):
        if values.shape[axis] > 1 and np.allclose(values.sum(axis=axis), 1.0, atol=1e-3):
            return axis
    return None
