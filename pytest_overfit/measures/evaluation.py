"""Is a model steady in evaluation, and does each row stand alone? A few forward passes tell, trained or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from pytest_overfit.adapters.base import Learner
from pytest_overfit.core.arrays import Array

#: outputs in float32, and in float64
Pair = tuple[Sequence[Array], Sequence[Array]]

#: differences below this share of the outputs' own spread are arithmetic: kernels sum in other orders for other rows
_TOLERANCE = 1e-3

#: where large numbers cancel, arithmetic costs more: so many times what float32 costs the outputs against float64, but
#: no more than this share of their spread
_ROUNDING, _MOST = 10.0, 0.05

#: what counts as infinite: the square of it, summed over all there is, is still a number
_LARGE = 1e100

#: with fewer rows a permutation can commute with the very mix-up it looks for, so the batch is repeated
_FEWEST = 5


def both_at_once(learner: Learner, rows: int, evaluated: Sequence[Array]) -> bool:
    """One more forward pass, on permuted rows, that answers as `evaluated` did: evaluation is steady, rows independent.

    False says nothing yet; the two checks below then tell what is wrong.
    """
    order = np.random.default_rng(0).permutation(rows)
    mixed = learner.outputs_for(order.tolist()) if rows >= _FEWEST else None
    if mixed is None or len(mixed) != len(evaluated):
        return False
    pairs = [(a, b) for a, b in zip(evaluated, mixed, strict=True) if a.shape[:1] == (rows,)]
    return bool(pairs) and all(_permuted(a, b, order) for a, b in pairs)


def eval_forwards_agree(learner: Learner, rows: int) -> bool | None:
    """Two eval-mode forward passes on the same batch give the same outputs; None: the model cannot be asked."""
    everything = list(range(rows))
    return answers_agree(learner.outputs_for(everything), learner.outputs_for(everything))


def answers_agree(first: Sequence[Array] | None, second: Sequence[Array] | None) -> bool | None:
    """Two answers to one question are the same; None: there are none."""
    if first is None or second is None or not first:
        return None
    return all(close(a, b) for a, b in zip(first, second, strict=True))


def rows_stand_alone(
    learner: Learner, rows: int, in_both_precisions: Callable[[], Pair | None] = lambda: None
) -> bool | None:
    """Permuting the rows permutes the eval-mode outputs, and does nothing else; None: cannot be asked.

    Outputs with a row on two axes (similarities of all pairs) may be permuted on both. Blind to mixing that is the
    same for every order, such as a mean over the batch. `in_both_precisions` gives the outputs in float32 and float64;
    it is asked only where a small difference was found, which rounding may have made.
    """
    base = [row % rows for row in range(max(rows, _FEWEST))]
    order = np.random.default_rng(0).permutation(len(base))
    plain, mixed = learner.outputs_for(base), learner.outputs_for([base[each] for each in order])
    if plain is None or mixed is None:
        return None
    pairs = [(a, b) for a, b in zip(plain, mixed, strict=True) if a.shape[:1] == (len(base),)]
    if not pairs or all(_permuted(a, b, order) for a, b in pairs):
        return True if pairs else None
    if not all(_permuted(a, b, order, _MOST) for a, b in pairs):
        return False
    rounding = _rounding(in_both_precisions())
    return all(_permuted(a, b, order, min(_MOST, _ROUNDING * rounding)) for a, b in pairs)


def others_moved(ask: Callable[[Array], Sequence[Array] | None], base: Sequence[Array], rows: int) -> Array:
    """For each row how far its outputs went, at most, when other rows were replaced by further ones of the batch.

    `ask` gives the outputs for a batch made of these rows. Sees a mean over the batch, which no order changes. With the
    rows numbered in binary, each digit gives two groups, so every row is once replaced while each other one stays, and
    the passes grow with the logarithm of the rows. All have one shape, so that no kernel sums in another order.
    """
    found, numbers = np.zeros(rows), np.arange(rows)
    for group in groups_of(rows):
        after = ask(np.where(group, (numbers + 1) % rows, numbers))
        found = np.maximum(found, row_distances(base, after, rows) * ~group)
    return found


def groups_of(rows: int) -> Iterator[Array]:
    """Rows to be replaced, as masks."""
    numbers = np.arange(rows)
    for digit in range(max(1, (rows - 1).bit_length())):
        group = (numbers >> digit) & 1 == 1
        yield group
        yield ~group


def row_distances(base: Sequence[Array], after: Sequence[Array] | None, rows: int) -> Array:
    """The largest difference in each row, as a share of the outputs' spread."""
    found = np.zeros(rows)
    for old, new in zip(base, after or (), strict=False):
        if is_by_row(old, rows) and old.shape == new.shape:
            a, b = finite(old), finite(new)
            found = np.maximum(found, np.abs(a - b).reshape(rows, -1).max(axis=1, initial=0.0) / _spread(a))
    return found


def is_by_row(output: Array, rows: int) -> bool:
    """Numbers, a row each; a table of all pairs of rows compares them by design."""
    return output.dtype.kind == "f" and output.shape[:1] == (rows,) and output.shape[1:2] != (rows,)


def rows_lie_elsewhere(learner: Learner, rows: int) -> bool:
    """Another order along the second axis of the inputs is that order of the outputs: rows may lie there.

    So it is for recurrent layers that take time first; and for those that were to take it second, and do not.
    """
    size = next((each.shape[1] for each in learner.inputs if each.ndim > 1), 0)
    order = np.random.default_rng(0).permutation(size)
    plain, mixed = learner.outputs_for(list(range(rows))), learner.outputs_along(1, order.tolist())
    if size < 2 or not plain or mixed is None or len(mixed) != len(plain):
        return False
    return all(size in a.shape and _permuted(a, b, order) for a, b in zip(plain, mixed, strict=True))


def _rounding(both: Pair | None) -> float:
    """The largest difference between outputs in float32 and in float64, as a share of their spread; 0.0: not known."""
    if both is None or len(both[0]) != len(both[1]):
        return 0.0
    found = [0.0]
    for single, double in zip(*both, strict=True):
        if single.dtype.kind == "f" and single.shape == double.shape and np.isfinite(double).all() and double.size:
            found.append(float(np.abs(single - double).max()) / _spread(double))
    return max(found)


def _permuted(plain: Array, mixed: Array, order: Array, tolerance: float = 0.0) -> bool:
    """True if `mixed` is `plain` with its rows in this order, along whichever axis of that size holds the rows."""
    axes = [axis for axis, size in enumerate(plain.shape) if size == len(order)]
    if any(close(plain.take(order, axis=axis), mixed, tolerance) for axis in axes):
        return True
    return axes[:2] == [0, 1] and close(plain[order][:, order], mixed, tolerance)


def close(first: Array, second: Array, tolerance: float = 0.0) -> bool:
    """Equal but for rounding, or up to this share of the outputs' own spread."""
    if first.shape != second.shape:
        return False
    if first.dtype.kind not in "fc":
        return bool((first == second).all())
    if not np.array_equal(np.isfinite(first), np.isfinite(second)):
        return False
    a, b = finite(first), finite(second)
    return bool(np.abs(a - b).max(initial=0.0) <= max(_TOLERANCE, tolerance) * _spread(a))


def row_spread(outputs: Sequence[Array], rows: int) -> float | None:
    """The largest difference between a row of the outputs and their mean, as a share of their size; None: no rows."""
    found = []
    for output in outputs:
        if output.dtype.kind == "f" and output.shape[:1] == (rows,) and np.isfinite(output).all() and output.size:
            values = output.astype(np.float64)
            found.append(float(np.abs(values - values.mean(axis=0)).max() / (np.abs(values).max() or 1.0)))
    return max(found, default=None)


def finite(values: Array) -> Array:
    """In float64, NaN as 0, and infinities as numbers whose squares can still be summed."""
    return np.clip(np.nan_to_num(values.astype(np.float64)), -_LARGE, _LARGE)


def _spread(outputs: Array) -> float:
    return float(outputs.std()) or float(np.abs(outputs).max(initial=0.0)) or 1.0
