"""Quantities that hold or do not: 1.0 and 0.0, measured on one seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pytest_overfit.adapters.base import Learner
from pytest_overfit.core.arrays import Array
from pytest_overfit.measures.evaluation import close, eval_forwards_agree
from pytest_overfit.probes.bounds.quantities.registry import YES_NO, quantity
from pytest_overfit.probes.bounds.subject import NO_OUTPUTS, Found, Subject


def _fails(seen: str) -> Found:
    return Found(value=0.0, seen=seen)


def _agree(subject: Subject, learner: Learner, question: str, why: str = NO_OUTPUTS) -> Found:
    """The pair of outputs that the framework answers with is the same but for rounding."""
    pair = subject.inspect(learner, question)
    if pair is None or not pair[0]:
        return subject.unanswered(learner, question, why)
    return Found(value=float(len(pair[0]) == len(pair[1]) and all(close(a, b) for a, b in zip(*pair, strict=True))))


#: steps that two runs from one seed are compared for, at most
_SAME_STEPS = 10


@quantity(YES_NO, "two times 10 steps on one batch", "higher", once=True)
def determinism(subject: Subject) -> Found:
    """Two new models from the same seed have the same losses to the bit, for the first 10 steps on the batch."""
    first, second = (subject.make_learner().train(_SAME_STEPS) for _ in range(2))
    return Found(value=float(first == second))


@quantity(YES_NO, "two forward passes", "higher", once=True)
def eval_twice(subject: Subject) -> Found:
    """Two forward passes of the same batch in evaluation mode agree but for rounding."""
    agree = eval_forwards_agree(subject.untrained, len(subject.untrained.inputs[0]))
    return Found(why=NO_OUTPUTS) if agree is None else Found(value=float(agree))


@quantity(YES_NO, "`k` steps, a new model, two forward passes", "higher", once=True)
def save_load(subject: Subject) -> Found:
    """A new model that takes over the saved state, after `k` steps, gives the same outputs on the batch.

    torch: `state_dict` through a file image, loaded with `weights_only=True`. Keras: `save_weights`. The new model
    starts from another seed, so that whatever is not saved shows.
    """
    return _agree(subject, subject.stepped, "saved_and_loaded")


@quantity(YES_NO, "one forward pass a row, 16 at most, and two more", "higher", once=True)
def batch_size_invariance(subject: Subject) -> Found:
    """In evaluation mode a row gets the same answer alone, in an odd batch and in the whole batch."""
    learner = subject.untrained
    rows = len(learner.inputs[0])
    whole = learner.outputs_for(range(rows))
    if not whole:
        return Found(why=NO_OUTPUTS)
    kept = [number for number, each in enumerate(whole) if each.shape[:1] == (rows,)]
    if not kept or rows < 2:
        return Found(why="the batch has one row only" if rows < 2 else "no output has one entry a row")
    parts = [range(rows - 1 + rows % 2), *([row] for row in range(min(rows, 16)))]
    for part in parts:
        answer = learner.outputs_for(list(part))
        who = f"row {part[0]} alone" if len(part) == 1 else f"a batch of {len(part)} rows"
        if answer is None:
            return _fails(f"{who} is refused")
        if len(answer) != len(whole):
            return _fails(f"{who} gets {len(answer)} outputs, all {rows} rows together {len(whole)}")
        for number in kept:
            if differs := _differs(answer[number], whole[number], list(part)):
                return _fails(f"{who} {differs}")
    return Found(value=1.0)


def _differs(answer: Array, whole: Array, part: list[int]) -> str:
    """How the answer for these rows is another one than among all rows; "" where it is not."""
    if answer.shape != whole[part].shape:
        return f"gets an output of shape {answer.shape}, expected {whole[part].shape}"
    others = np.delete(whole, part, axis=0)  # beside all other rows, so that the spread is that of the batch
    same = close(np.concatenate([whole[part], others]), np.concatenate([answer, others]))
    return "" if same else "gets another answer than among all rows"


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


_ONE_PRECISION = "the model cannot be asked, is not all float32 (autocast, other dtypes), or refuses float64"


@quantity(YES_NO, "two forward passes, one in float64", "higher", once=True)
def float64_agrees(subject: Subject) -> Found:
    """The untrained model computed in float64 answers as it does in float32, but for rounding."""
    return _agree(subject, subject.untrained, "in_both_precisions", _ONE_PRECISION)
