"""Does the loss spread outputs over targets of another shape?

The loss is asked: it is computed on outputs of our own. Where two shapes of one size become a table of all pairs, the
loss stays the same when outputs change places. Where one number is compared with several targets of its row, it is
the same for that number written out once a target.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from pytest_overfit.adapters.base import Head, Learner, Reading
from pytest_overfit.core.arrays import Array

#: two losses that differ by less than this share are one
_SAME = 1e-5

#: share of the outputs that a loss of targets pulls to their own ones; times, events and weights are no targets
_PULLED = 0.98

#: noise on outputs that may all be alike, as a share of their size
_NUDGE = 0.1

#: share of the targets' variance that one answer for several of them leaves: from the first on it cannot be memorised,
#: from the second on the targets have more that differs than they have in common, so they are no repeated measurements
SOME, MOST = 0.05, 0.25

#: "all_pairs": every output against every target; "shared": one output against several targets of its row;
#: "repeated": several outputs against one target
Kind = Literal["all_pairs", "shared", "repeated"]


def broadcast_of(learner: Learner, first: Reading) -> dict[str, Any] | None:
    """What is broadcast, as plain values; None: nothing is, or nobody can tell. Cost: some ten losses, without a model.

    Keys: `kind`, the shapes of `outputs` and `targets`, `left`: the share of the targets' variance out of reach.
    """
    for place, output, target in _unlike(first, learner.targets):
        asked = _Asked(learner, first.outputs, place)
        if output.size == target.size and asked.takes_all_pairs(output, target):
            return _found("all_pairs", output, target, 1.0)
        left = _left(output, target)
        if left > SOME and asked.shares(output, target):
            return _found("shared", output, target, left)
    repeated = next((each for each in first.heads if _is_repeated(each)), None)
    return None if repeated is None else _found("repeated", repeated.outputs, repeated.targets, 0.0)


def _found(kind: Kind, output: Array, target: Array, left: float) -> dict[str, Any]:
    return {"kind": kind, "outputs": list(output.shape), "targets": list(target.shape), "left": left}


def fault_of(found: Mapping[str, Any]) -> tuple[str, Literal["failed", "warning"]]:
    """Its name, and whether it is certain. What one target has in common with the next may be all that is wanted."""
    if found["kind"] == "all_pairs":
        return "target_broadcast", "failed"
    return "wrong_output_units", "failed" if found["left"] > MOST else "warning"


def words_of(found: Mapping[str, Any]) -> tuple[str, str]:
    """Evidence and cure."""
    outputs, targets = tuple(found["outputs"]), tuple(found["targets"])
    both = f"outputs {outputs} and targets {targets} broadcast inside the loss"
    if found["kind"] == "all_pairs":
        one_shape = "give both one shape: targets[:, None], or outputs.squeeze(-1)"
        return f"{both}: its value is that of every output against every target", one_shape
    if found["kind"] == "repeated":
        units = f"{outputs[-1]} outputs of a row are compared with its one target"
        return f"{both}: all {units}", "give the last layer one unit"
    several = math.prod(targets) // math.prod(outputs)
    evidence = f"{both}: one output is compared with {several} targets of its row"
    evidence += f", and {found['left']:.0%} of their variance is out of its reach"
    return evidence, f"give the last layer {several} times the units, one for each target"


def _unlike(first: Reading, targets: Sequence[Array]) -> Iterator[tuple[int, Array, Array]]:
    """Outputs with their targets, by their order, where no target at all has the output's shape."""
    if first.loss is None or len(first.outputs) != len(targets):
        return
    shapes = {each.shape for each in targets}
    for place, (output, target) in enumerate(zip(first.outputs, targets, strict=True)):
        rows = len(output) if output.ndim else 0
        if output.shape not in shapes and target.shape[:1] == (rows,) and rows > 1 and output.dtype.kind == "f":
            yield place, output, target


def _left(output: Array, target: Array) -> float:
    """What the best answer in the output's shape leaves of the targets' variance; 0 where shapes do not spread."""
    if output.ndim != target.ndim or target.size <= output.size or target.dtype.kind not in "fiub":
        return 0.0
    axes = tuple(n for n, (own, wanted) in enumerate(zip(output.shape, target.shape, strict=True)) if own != wanted)
    if 0 in axes or any(output.shape[axis] != 1 for axis in axes):
        return 0.0
    values = target.astype(np.float64)
    all_of_it = float(values.var(axis=0).mean())
    return min(1.0, float(values.var(axis=axes).mean()) / all_of_it) if all_of_it > 0 else 0.0


def _is_repeated(head: Head) -> bool:
    """A loss of the framework's own compares several units with one target; one that is written so may mean it."""
    outputs, targets = head.outputs.shape, head.targets.shape
    spread = targets in (outputs[:-1], (*outputs[:-1], 1)) and len(outputs) > 1
    return head.kind == "values" and bool(head.loss_name) and spread and outputs[-1] > 1


class _Asked:
    """The loss, with one of the outputs replaced."""

    def __init__(self, learner: Learner, outputs: Sequence[Array], place: int) -> None:
        self._learner, self._outputs, self._place = learner, outputs, place

    def _answer(self, instead: Array) -> tuple[float, Array | None] | None:
        outputs = list(self._outputs)
        outputs[self._place] = instead.astype(outputs[self._place].dtype)
        found = self._learner.loss_and_gradient(outputs)
        if found is None or not math.isfinite(found[0]):
            return None
        gradient = found[1][self._place] if len(found[1]) > self._place else None
        return found[0], gradient

    def takes_all_pairs(self, output: Array, target: Array) -> bool:
        """Whatever row an output stands in, the loss is the same, although it does depend on the outputs."""
        right = target.reshape(output.shape).astype(np.float64)
        if not np.isfinite(right).all():
            return False
        spread = _nudged(output)
        orders = [np.roll(np.arange(len(output)), shift) for shift in (1, 2)]
        answered = 0
        for values in (right, spread):
            found = [self._answer(each) for each in (values, *(values[order] for order in orders), 0.5 * values)]
            losses = [each[0] for each in found if each is not None]
            if len(losses) < len(found):
                continue
            if not all(_same(each, losses[0]) for each in losses[1:-1]):
                return False
            answered += not _same(losses[-1], losses[0])
        return answered > 0 and self._has_order(right)

    def _has_order(self, right: Array) -> bool:
        """Rows differ, so that another order is another answer."""
        return bool((right != np.roll(right, 1, axis=0)).any())

    def shares(self, output: Array, target: Array) -> bool:
        """The loss is that of the same outputs written out to the targets' shape, and pulls each to its own target."""
        values = _nudged(output)
        copies = np.broadcast_to(values, target.shape)
        plain, copied = self._answer(values), self._answer(copies)
        if plain is None or copied is None or not _same(plain[0], copied[0]):
            return False
        return (
            copied[1] is not None and copied[1].shape == target.shape and _pulled(copies, target, copied[1]) > _PULLED
        )


def _pulled(values: Array, target: Array, gradient: Array) -> float:
    """Share of the values that the gradient pulls to the target at their own place, up to 1 or down to 0 for labels."""
    wanted = target.astype(np.float64)
    gap = np.where(wanted > 0.5, -1.0, 1.0) if np.isin(target, (0, 1)).all() else values - wanted
    counted = np.isfinite(gap) & (gap != 0)
    return float((np.sign(gradient) == np.sign(gap))[counted].mean()) if counted.any() else 0.0


def _nudged(output: Array) -> Array:
    """Outputs that differ from row to row, and stay where outputs of this kind can be."""
    values = output.astype(np.float64)
    inside = bool(((values >= 0) & (values <= 1)).all())
    factor = 1.0 + _NUDGE * np.random.default_rng(0).uniform(-1, 1, size=values.shape)
    if inside and values.max() > 0:
        return np.asarray(np.minimum(values * factor, 1.0 - (1.0 - values) * 0.5))
    return np.asarray(values + (np.abs(values).max() or 1.0) * (factor - 1.0))


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_SAME, abs_tol=1e-12)
