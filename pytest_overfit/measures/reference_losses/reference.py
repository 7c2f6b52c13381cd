"""The two losses a fit is judged between: what a constant output can reach, and what memorising can reach."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from pytest_overfit.adapters.base import Learner, Reading
from pytest_overfit.core.arrays import Array
from pytest_overfit.measures.reference_losses.lbfgs import Minimum, minimise
from pytest_overfit.measures.reference_losses.output_domains import Link, candidate_links

#: how references are found where outputs cannot be substituted: the same factory, trained on inputs that are all alike
BLINDED = "blinded run"

#: how where the loss looks at no target, so that blinding the inputs would change the task: not at all
SCORE_ALONE = "none: the loss looks at no target, only at the inputs, so the score decides"

#: how where a loss of one number a row falls with the size of the numbers without limit
PROPORTIONAL = "none: the loss falls without limit, in proportion to the outputs"

#: how the control on blinded inputs gives the constant's loss, and where losses below zero show that there is no floor
CONTROL = "least loss of the same factory trained on blinded inputs"
FLOORLESS_CONTROL = f"{CONTROL}; no lower bound"

#: words of a `how`: why there is no best loss although the loss may have a floor
NOT_FOUND, BEATEN = "memorising outputs not found", "the model went below the best that was found"

#: growth of the gain when the outputs double
_PROPORTION = 1.5

#: constant and best loss nearer than this share of what the search gained over its start are the same
_ALIKE = 1e-9

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
    leaders = learner.shared_outputs()
    candidates = candidate_links(outputs, {head.domain for head in reading.heads})
    found = [
        reference
        for links in candidates
        if (reference := _search(learner, outputs, groups, links, leaders)) is not None
    ]
    # a loss meant for distributions can be cheated outside of them: it falls below 0, or stops telling rows apart
    sound = [each for each in found if each.best is not None and -1e-6 <= each.best < (each.constant or 0.0) - 1e-6]
    for each in (*sound, *reversed(found)):
        return each
    return Reference(constant=None, best=None, how="optimised outputs under the loss itself")


def _search(
    learner: Learner, outputs: Sequence[Array], groups: Array, links: Sequence[Link], leaders: Sequence[int]
) -> Reference | None:
    same = np.zeros_like(groups)
    constant = _minimum(learner, outputs, same, links, leaders)
    if not (constant.valid and constant.bounded):
        return None
    best = _minimum(learner, outputs, groups, links, range(len(outputs)))
    shapes = [each.shape[1:] for each in outputs]
    found = _split(best.point, int(groups.max()) + 1, shapes)
    free = tuple(link.out(z[groups]) for link, z in zip(links, found, strict=True))
    how = "optimised outputs under the loss itself"
    if not best.valid:
        return Reference(constant=constant.value, best=None, how=f"{how}; {NOT_FOUND}")
    # a search that ends on a slope below zero was ended by rounding: a likelihood falls as its variance shrinks
    if not best.bounded or (best.value < -1e-6 and not best.stationary):
        if _falls_in_proportion(learner, free, constant.value):
            return Reference(constant=None, best=None, how=PROPORTIONAL)
        return Reference(constant=constant.value, best=None, how=f"{how}; no lower bound", best_outputs=free)
    floor = min(best.value, constant.value)
    if constant.value - floor <= _ALIKE * (constant.start - floor):  # zero, but for rounding and the search's patience
        floor = constant.value
    return Reference(constant=constant.value + 0.0, best=floor + 0.0, how=how, best_outputs=free)


def _falls_in_proportion(learner: Learner, outputs: Sequence[Array], constant: float) -> bool:
    """Twice the outputs, twice the gain, where each row has one number only: no likelihood with a learnt spread.

    That is what a sign the wrong way round does to a loss of scores, and what a critic's loss is by design.
    """
    if len(outputs) != 1 or outputs[0].size != len(outputs[0]):
        return False
    once, twice = learner.loss_and_gradient(outputs), learner.loss_and_gradient([2.0 * outputs[0]])
    if once is None or twice is None or not once[0] < constant:
        return False
    return (twice[0] - constant) / (once[0] - constant) > _PROPORTION


def _minimum(
    learner: Learner, outputs: Sequence[Array], groups: Array, links: Sequence[Link], leaders: Sequence[int]
) -> Minimum:
    """`leaders`: for each output the one whose values it shares, itself if it is free."""
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
        free = [free[leader] for leader in leaders]
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
        for number, leader in enumerate(leaders):
            if leader != number:
                back[leader] = back[leader] + back[number]
                back[number] = np.zeros_like(back[number])
        return value, np.concatenate(back)

    return minimise(function, np.concatenate([each.ravel() for each in first]))


def _split(point: Array, count: int, shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    sizes = [count * int(np.prod(shape)) for shape in shapes]
    ends = np.cumsum([0, *sizes])
    return [point[a:b].reshape(count, *shape) for a, b, shape in zip(ends, ends[1:], shapes, strict=False)]
