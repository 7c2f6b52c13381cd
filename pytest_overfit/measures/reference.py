"""The two losses a fit is judged between: what a constant output can reach, and what memorising can reach.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pytest_overfit.measures.minimise import Minimum, minimise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_overfit.adapters.base import Head, Learner, Reading

    Array = NDArray[Any]


#: constant and best loss nearer than this share of what the search gained over its start are the same
_ALIKE = 1e-5

#: standard deviation of the noise at the start of a search, as a share of the outputs' own spread
_NUDGE = 1e-2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference:
    """The reference losses of one batch under one loss. `None`: there is no such number."""

    #: loss of the best output that is the same for every row (positions within a row are free)
    constant: float | None
    #: loss of the best free outputs, one row each, rows of identical inputs tied together
    best: float | None
    how: str
    #: the outputs that reach `best`, where they were searched for
    best_outputs: tuple[Array, ...] = ()


def tied_rows(inputs: Sequence[Array], rows: int) -> Array:
    """Number the distinct inputs: rows with the same number have identical inputs."""
    import numpy as np

    numbers: dict[bytes, int] = {}
    arrays = [np.ascontiguousarray(each) for each in inputs if each.shape[:1] == (rows,)]
    keys = [b"|".join(each[row].tobytes() for each in arrays) for row in range(rows)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def prefix_cells(head: Head, inputs: Sequence[Array], groups: Array) -> Array | None:
    """Ties at single positions: (rows, positions) numbers of what a causal model can tell apart; None: not needed.

    A model that reads from left to right cannot know how rows with a common beginning go on, so its outputs on that
    beginning are the same. Whether it reads so is measured: only if all its outputs on common beginnings agree.
    """
    import numpy as np

    rows = len(groups)
    sequences = [each.reshape(rows, each.shape[1], -1) for each in inputs if each.ndim > 1]
    if head.kind != "classes" or head.targets.ndim != 2 or head.outputs.ndim != 3 or not sequences:
        return None
    positions = head.targets.shape[1]
    sequences = [each for each in sequences if positions <= each.shape[1] <= positions + 1]
    if not sequences:
        return None
    outputs = np.moveaxis(head.outputs, head.class_axis, -1)
    slack = 1e-3 * (float(outputs.std()) or 1.0)
    known, cells, shared = np.zeros(rows, np.int64), np.zeros((rows, positions), np.int64), False
    for position in range(positions):
        keys = [(int(known[row]), *(each[row, position].tobytes() for each in sequences)) for row in range(rows)]
        numbers: dict[Any, int] = {}
        known = np.array([numbers.setdefault(key, len(numbers)) for key in keys])
        for number in range(len(numbers)):
            same = known == number
            if len(set(groups[same].tolist())) > 1:
                shared = True
                if float(np.ptp(outputs[same, position], axis=0).max()) > slack:
                    return None
        cells[:, position] = known * positions + position
    return cells if shared else None


def closed_form(head: Head, groups: Array, cells: Array | None = None) -> Reference:
    """References of a recognised plain loss: label entropy, binary entropy, variance, deviation from the median.

    `cells`: finer ties, from `prefix_cells`.
    """
    import numpy as np

    per_group = _PLAIN[head.plain]
    constant = per_group(head, np.zeros_like(groups))
    best = _label_entropy(head, cells) if cells is not None else per_group(head, groups)
    # + 0.0 makes 0.0 of -0.0
    return Reference(constant=constant * head.scale + 0.0, best=best * head.scale + 0.0, how=f"closed form of {head.loss_name}")


def _entropy(head: Head, groups: Array) -> float:
    import numpy as np

    if head.targets.ndim == head.outputs.ndim:
        share = np.moveaxis(head.targets, head.class_axis, -1).astype(np.float64)
        return _mean_over_groups(share, groups, lambda part: _cross_entropy_with_mean(part, axis=-1))
    positions = int(np.prod(head.targets.shape[1:]))
    return _label_entropy(head, groups[:, None] * positions + np.arange(positions)[None, :])


def _label_entropy(head: Head, cells: Array) -> float:
    """Mean entropy of the counted labels that share a cell."""
    import numpy as np

    classes = int(head.targets.max(initial=0)) + 1
    flat = head.targets.reshape(cells.shape)
    counted = np.ones(flat.shape, bool) if head.mask is None else head.mask.reshape(flat.shape)
    _, cell = np.unique(cells[counted], return_inverse=True)
    pairs, counts = np.unique(cell * classes + flat[counted].astype(np.int64), return_counts=True)
    share_of_cell = counts / np.bincount(cell)[pairs // classes]
    return float((counts * -np.log(share_of_cell)).sum() / max(1, counted.sum()))


def _cross_entropy_with_mean(targets: Array, axis: int) -> Array:
    """Per row: cross-entropy of its target distribution with the rows' mean distribution."""
    import numpy as np

    mean = targets.mean(axis=0, keepdims=True)
    return -(targets * np.log(np.where(mean > 0, mean, 1.0))).sum(axis=axis)


def _binary_entropy(head: Head, groups: Array) -> float:
    import numpy as np

    pair = np.stack([head.targets, 1.0 - head.targets], axis=-1)
    return _mean_over_groups(pair, groups, lambda part: _cross_entropy_with_mean(part, axis=-1))


def _variance(head: Head, groups: Array) -> float:
    return _mean_over_groups(head.targets, groups, lambda part: (part - part.mean(axis=0, keepdims=True)) ** 2)


def _deviation(head: Head, groups: Array) -> float:
    import numpy as np

    return _mean_over_groups(head.targets, groups, lambda part: np.abs(part - np.median(part, axis=0, keepdims=True)))


def _mean_over_groups(values: Array, groups: Array, per_target: Callable[[Array], Array]) -> float:
    import numpy as np

    values = values.astype(np.float64)
    parts = [per_target(values[groups == group]) for group in np.unique(groups)]
    return float(np.concatenate(parts).mean())


_PLAIN: dict[str, Callable[[Any, Any], float]] = {
    "cross_entropy": _entropy,
    "binary_cross_entropy": _binary_entropy,
    "squared_error": _variance,
    "absolute_error": _deviation,
}


def optimised(learner: Learner, reading: Reading, groups: Array) -> Reference | None:
    """References found by optimising free outputs under the user's own loss; None: outputs cannot be substituted.

    Cost: some 50 to 300 evaluations of the loss alone, on outputs of the batch's size.
    """
    outputs = reading.outputs
    rows = len(groups)
    if not outputs or any(each.ndim == 0 or each.shape[0] != rows for each in outputs):
        return None
    if learner.loss_and_gradient(outputs) is None:
        return None
    candidates = _candidate_links(outputs, {head.domain for head in reading.heads})
    found = [reference for links in candidates if (reference := _search(learner, outputs, groups, links)) is not None]
    # a loss meant for distributions can be cheated outside of them: it falls below 0, or stops telling rows apart
    sound = [each for each in found if each.best is not None and -1e-6 <= each.best < (each.constant or 0.0) - 1e-6]
    for each in (*sound, *reversed(found)):
        return each
    return Reference(constant=None, best=None, how="optimised outputs under the loss itself")


def _search(learner: Learner, outputs: Sequence[Array], groups: Array, links: Sequence[_Link]) -> Reference | None:
    import numpy as np

    same = np.zeros_like(groups)
    constant = _minimum(learner, outputs, same, links)
    if not (constant.valid and constant.bounded):
        return None
    best = _minimum(learner, outputs, groups, links)
    shapes = [each.shape[1:] for each in outputs]
    found = _split(best.point, int(groups.max()) + 1, shapes)
    free = tuple(link.out(z[groups]) for link, z in zip(links, found, strict=True))
    how = "optimised outputs under the loss itself"
    if not best.valid:
        return Reference(constant=constant.value, best=None, how=f"{how}; memorising outputs not found")
    # a search that ends on a slope below zero was ended by rounding: a likelihood falls as its variance shrinks
    if not best.bounded or (best.value < -1e-6 and not best.stationary):
        return Reference(constant=constant.value, best=None, how=f"{how}; no lower bound", best_outputs=free)
    floor = min(best.value, constant.value)
    if constant.value - floor <= _ALIKE * (constant.start - floor):  # zero, but for rounding and the search's patience
        floor = constant.value
    return Reference(constant=constant.value + 0.0, best=floor + 0.0, how=how, best_outputs=free)


def _minimum(learner: Learner, outputs: Sequence[Array], groups: Array, links: Sequence[_Link]) -> Minimum:
    import numpy as np

    count = int(groups.max()) + 1
    shapes = [each.shape[1:] for each in outputs]
    # a little noise, because a constant output is a stationary point of more losses than it is a minimum of
    noise = np.random.default_rng(0)
    first = [
        np.stack([link.into(each)[groups == g].mean(axis=0) for g in range(count)])
        for link, each in zip(links, outputs, strict=True)
    ]
    first = [each + _NUDGE * (1.0 + each.std()) * noise.standard_normal(each.shape) for each in first]

    def function(point: Array) -> tuple[float, Array]:
        free = _split(point, count, shapes)
        shown = [link.out(z) for link, z in zip(links, free, strict=True)]
        answer = learner.loss_and_gradient([each[groups] for each in shown])
        if answer is None:  # the loss refused these outputs: a wall for the line search
            return float("inf"), np.zeros_like(point)
        value, gradients = answer
        back = []
        for link, out, gradient in zip(links, shown, gradients, strict=True):
            tied = np.zeros_like(out)
            np.add.at(tied, groups, gradient)
            back.append(link.pull(out, tied).ravel())
        return value, np.concatenate(back)

    return minimise(function, np.concatenate([each.ravel() for each in first]))


def _split(point: Array, count: int, shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    import numpy as np

    sizes = [count * int(np.prod(shape)) for shape in shapes]
    ends = np.cumsum([0, *sizes])
    return [point[a:b].reshape(count, *shape) for a, b, shape in zip(ends, ends[1:], shapes, strict=False)]


@dataclasses.dataclass(frozen=True)
class _Link:
    """Maps free numbers onto what an output can be; `pull` carries the gradient back."""

    into: Callable[[Array], Array]
    out: Callable[[Array], Array]
    pull: Callable[[Array, Array], Array]


def _identity() -> _Link:
    import numpy as np

    return _Link(lambda o: np.asarray(o, np.float64), lambda z: z, lambda o, g: g)


def _sigmoid() -> _Link:
    import numpy as np

    def into(o: Array) -> Array:
        inside = np.clip(np.asarray(o, np.float64), 1e-6, 1 - 1e-6)
        logit: Array = np.log(inside) - np.log1p(-inside)
        return logit

    return _Link(into, lambda z: 1.0 / (1.0 + np.exp(-np.clip(z, -500, 500))), lambda o, g: g * o * (1.0 - o))


def _softmax(axis: int) -> _Link:
    import numpy as np

    def out(z: Array) -> Array:
        e = np.exp(z - z.max(axis=axis, keepdims=True))
        share: Array = e / e.sum(axis=axis, keepdims=True)
        return share

    return _Link(
        lambda o: np.log(np.clip(np.asarray(o, np.float64), 1e-6, None)),
        out,
        lambda o, g: o * (g - (g * o).sum(axis=axis, keepdims=True)),
    )


def _log_softmax(axis: int) -> _Link:
    import numpy as np

    def out(z: Array) -> Array:
        shifted = z - z.max(axis=axis, keepdims=True)
        logs: Array = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
        return logs

    return _Link(
        lambda o: np.asarray(o, np.float64), out, lambda o, g: g - np.exp(o) * g.sum(axis=axis, keepdims=True)
    )


def _candidate_links(outputs: Sequence[Array], declared: set[str]) -> list[list[_Link]]:
    """Which domains to try, in order: what recognised losses declare, else all numbers and then what the outputs are.

    A row that sums to one is a distribution by design, never by chance; a range of (0, 1) can be chance.
    """
    unbounded = [_identity() for _ in outputs]
    if declared == {"unbounded"}:
        return [unbounded]
    special = [_special_link(each) for each in outputs]
    if not any(special):
        return [unbounded]
    linked = [link or _identity() for link in special]
    return [linked] if declared and "unbounded" not in declared else [unbounded, linked]


def _special_link(outputs: Array) -> _Link | None:
    """The link of a distribution, its logarithm, or a probability; None for outputs that are just numbers."""
    import numpy as np

    if (axis := simplex_axis(outputs)) is not None:
        return _softmax(axis)
    if (axis := simplex_axis(np.exp(outputs.clip(max=1)))) is not None:
        return _log_softmax(axis)
    return _sigmoid() if bool(((outputs > 0) & (outputs < 1)).all()) and outputs.std() > 0 else None


def simplex_axis(values: Array) -> int | None:
    """The axis along which these are distributions over at least two classes, or None."""
    import numpy as np

    if values.ndim < 2 or not np.issubdtype(values.dtype, np.floating) or values.min(initial=0) < -1e-6:
        return None
    for axis in (values.ndim - 1, 1):
        if values.shape[axis] > 1 and np.allclose(values.sum(axis=axis), 1.0, atol=1e-3):
            return axis
    return None
