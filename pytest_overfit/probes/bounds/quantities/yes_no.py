"""Quantities that hold or do not: 1.0 and 0.0, measured on one seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.measures.memorising.evaluation import close, eval_forwards_agree
from pytest_overfit.probes.bounds.quantities.registry import NOT_HERE, YES_NO, quantity
from pytest_overfit.probes.bounds.subject import Found, Subject


def _holds(answer: bool | None, why: str = NOT_HERE) -> Found:
    return Found(why=why) if answer is None else Found(value=float(answer))


#: steps that two runs from one seed are compared for, at most
_SAME_STEPS = 10


@quantity(YES_NO, "two times 10 steps on one batch", "higher", once=True)
def determinism(subject: Subject) -> Found:
    """Two new models from the same seed have the same losses to the bit, for the first 10 steps on the batch."""
    first, second = (subject.make_learner().train(_SAME_STEPS) for _ in range(2))
    return _holds(first == second)


@quantity(YES_NO, "two forward passes", "higher", once=True)
def eval_twice(subject: Subject) -> Found:
    """Two forward passes of the same batch in evaluation mode agree but for rounding."""
    return _holds(eval_forwards_agree(subject.untrained, len(subject.untrained.inputs[0])), _NO_OUTPUTS)


_NO_OUTPUTS = "the model's outputs cannot be asked for"


def _same(pair: Any) -> bool | None:
    if pair is None or not pair[0]:
        return None
    return len(pair[0]) == len(pair[1]) and all(close(a, b) for a, b in zip(*pair, strict=True))


@quantity(YES_NO, "`k` steps, a new model, two forward passes", "higher", once=True)
def save_load(subject: Subject) -> Found:
    """A new model that takes over the saved state, after `k` steps, gives the same outputs on the batch.

    torch: `state_dict` through a file image, loaded with `weights_only=True`. Keras: `save_weights`. The new model
    starts from another seed, so that whatever is not saved shows.
    """
    return _holds(_same(subject.inspect(subject.stepped, "saved_and_loaded")))


@quantity(YES_NO, "one forward pass a row, 16 at most, and two more", "higher", once=True)
def batch_size_invariance(subject: Subject) -> Found:
    """In evaluation mode a row gets the same answer alone, in an odd batch and in the whole batch."""
    learner = subject.untrained
    rows = len(learner.inputs[0])
    whole = learner.outputs_for(range(rows))
    if whole is None:
        return Found(why=_NO_OUTPUTS)
    kept = [number for number, each in enumerate(whole) if each.shape[:1] == (rows,)]
    if not kept or rows < 2:
        return Found(why="the batch has one row only" if rows < 2 else "no output has one entry a row")
    parts = [range(rows - 1 + rows % 2), *([row] for row in range(min(rows, 16)))]
    for part in parts:
        answer = learner.outputs_for(list(part))
        if answer is None:
            return Found(value=0.0)  # a model of one batch size only
        for number in kept:
            shown = np.concatenate([answer[number], np.delete(whole[number], list(part), axis=0)])
            wanted = np.concatenate([whole[number][list(part)], np.delete(whole[number], list(part), axis=0)])
            if not close(wanted, shown):  # beside all other rows, so that the spread is that of the batch
                return Found(value=0.0)
    return Found(value=1.0)


#: parts that the batch is accumulated from, as far as it has rows: more parts have more occasions to differ
_PARTS = 4

_NO_PARTS = "the gradients of parts of the batch cannot be read here"

#: share of the gradients' size that their sum in another order may change
_SUMMED = 1e-3

#: the same in half precision, which has eight to eleven bits
_SUMMED_COARSELY = 5e-2


@quantity(YES_NO, "six training passes", "higher", once=True)
def accumulation(subject: Subject) -> Found:
    """The mean of the gradients of 4 parts of the batch, by their rows, is the gradient of the whole batch.

    That is what `loss / parts` with several `backward` calls a step relies on. It does not hold for a loss that is a
    sum, for a mean over what counts in each part (unpadded tokens), and for batch normalisation. Dropout is off.
    """
    rows = len(subject.untrained.inputs[0])
    found = subject.inspect(subject.untrained, "gradients_in_parts", min(_PARTS, rows))
    if rows < 2 or found is None:
        return Found(why="the batch has one row only" if rows < 2 else _NO_PARTS)
    tolerance = _SUMMED_COARSELY if found.coarse else _SUMMED
    return gradients_add_up(found.whole, found.again, found.parts, tolerance)


def gradients_add_up(
    whole: Array, again: Array, parts: Sequence[tuple[int, Array]], tolerance: float = _SUMMED
) -> Found:
    """Is the whole's gradient the parts' mean, weighted by rows? Not known where it differs from pass to pass."""
    rows = sum(count for count, _ in parts)
    mean = sum(count / rows * each for count, each in parts)
    size = max(float(np.linalg.norm(whole)), sum(count / rows * float(np.linalg.norm(each)) for count, each in parts))
    if not np.isfinite(size):
        return Found(value=0.0)
    if float(np.linalg.norm(whole - again)) > tolerance * size:
        return Found(why="the gradient of the same batch differs from pass to pass")
    return Found(value=float(float(np.linalg.norm(whole - mean)) <= tolerance * size))


@quantity(YES_NO, "two forward passes, one in float64", "higher", once=True)
def float64_agrees(subject: Subject) -> Found:
    """The untrained model computed in float64 answers as it does in float32, but for rounding."""
    return _holds(_same(subject.inspect(subject.untrained, "in_both_precisions")))
