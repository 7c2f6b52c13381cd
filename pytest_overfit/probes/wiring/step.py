"""Does the user's step make one update with one batch's gradient? Read off the order of what happened in each call."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from pytest_overfit.adapters.wires import BackwardPass, OptimizerStep, Unscaling, Update, Wires
from pytest_overfit.core.figures import legible
from pytest_overfit.probes.wiring.faults import Fault
from pytest_overfit.probes.wiring.observation import Observation

#: calls in which something must be seen before it counts as the way of the step
_OFTEN = 3

#: share of the gradient that the optimizer is left with, below which clipping leaves nothing
_CLIPPED = 1e-3

#: share of the last optimizer step that something takes back, above which it is undone
_UNDONE = 0.5

#: share of the weights that decay takes at each step: half of them within 70
_DECAY = 0.01

#: steps that a schedule is followed for, as `overfit_batch` makes them by default, and the share of the highest rate
#: below which nothing is learnt; a schedule that ends so is meant to, one that spends half its steps there is not
_STEPS, _NOTHING = 500, 0.01

#: a rate that falls to less than this share of itself at each call
_FALLS = 0.98

#: two losses that differ by less than this share are one
_SAME = 1e-4


def look(wires: Wires, seen: Observation, plain: bool) -> dict[str, Any]:
    """`plain`: the loss that a call returns is that of the whole batch, as one loss function has it."""
    carried = [each.carried for each in seen.events(BackwardPass)]
    held, unscaled = seen.held(), list(seen.events(Unscaling))
    piled = [each & held for each in carried[1:]]
    shares = [sorted(share for share in each.kept.values() if share) for each in seen.events(OptimizerStep)]
    kept = [each for each in shares if each]
    undone = [each.undone or 0.0 for each in seen.updates if each.changed]
    decays = [each.decay for each in seen.events(OptimizerStep) if each.decay is not None]
    return {
        "calls": len(seen.updates),
        "piled": sorted(frozenset.intersection(*piled)) if len(piled) >= _OFTEN else [],
        "repeated": sum(map(_repeats, seen.updates)),
        "updating": sum(map(_steps_twice, seen.updates)),
        "evaluating": sum(each.in_evaluation for each in seen.updates),
        "discarded": _discarded(seen) if seen.made else 0,
        "reverted": sum(map(_ends_where_it_began, seen.updates)) if seen.made else 0,
        "kept": max((each[len(each) // 2] for each in kept), default=None) if len(kept) >= _OFTEN else None,
        "undone": sorted(undone)[len(undone) // 2] if len(undone) >= _OFTEN else 0.0,
        "decay": max(decays, default=0.0),
        "touched": bool(unscaled) and all(each.touched and each.scaled for each in unscaled),
        "unscaled": bool(unscaled) and not any(each.scaled for each in unscaled),
        "factor": max((each.factor for each in unscaled), default=1.0),
        "added": _added(seen, plain),
        "without_rate": _without_rate(seen) if seen.made else 0,
        "rates": _rates(wires.rates(_STEPS) or _followed(seen)),
    }


def _repeats(update: Update) -> bool:
    """One optimizer stepped twice in a row with one gradient, and moved the same parameters both times."""
    before: OptimizerStep | None = None
    for event in update.events:
        if isinstance(event, BackwardPass):
            before = None
        elif isinstance(event, OptimizerStep) and not event.inside:
            if before is not None and before.optimizer == event.optimizer and before.changed & event.changed:
                return True
            before = event
    return False


def _steps_twice(update: Update) -> bool:
    """One optimizer moved the same parameters twice in one call."""
    steps = [each for each in update.events if isinstance(each, OptimizerStep) and not each.inside]
    return any(
        first.optimizer == second.optimizer and first.changed & second.changed
        for index, first in enumerate(steps)
        for second in steps[index + 1 :]
    )


def _discarded(seen: Observation) -> int:
    """Calls without a step that changed nothing, and whose gradients, finite and not zero, were then gone.

    Where gradients are kept nowhere between calls (Keras), those of such a call are gone by themselves.
    """
    count = 0
    for update, after in zip(seen.updates, seen.updates[1:], strict=False):
        made = [each for each in update.events if isinstance(each, BackwardPass)]
        later = next((each for each in after.events if isinstance(each, BackwardPass)), None)
        if update.changed or update.buffers or _stepped(update) or not made or later is None:
            continue
        gradients = {name: norm for name, norm in made[-1].gradients.items() if norm}
        finite = all(math.isfinite(each) for each in gradients.values())
        count += bool(gradients) and finite and not (gradients.keys() & later.onto)
    return count


def _stepped(update: Update) -> bool:
    return any(isinstance(each, OptimizerStep) for each in update.events)


def _ends_where_it_began(update: Update) -> bool:
    """An optimizer changed something, and all of it was back before the call ended."""
    moved = any(each.changed for each in update.events if isinstance(each, OptimizerStep))
    return moved and not update.changed


def _added(seen: Observation, plain: bool) -> int | None:
    """Micro-batches whose losses are added, not averaged, and whose sum is stepped with; None: none are."""
    update = seen.updates[0] if seen.updates else None
    if update is None or not _as_left(seen):
        return None
    passes = [each.value for each in update.events if isinstance(each, BackwardPass)]
    values = [each for each in passes if each is not None]
    if len(values) == len(passes) > 1 and len(update.rows) == len(passes):
        apart = sum(update.rows) == max(seen.rows, 1) and max(update.rows) < seen.rows
        if apart and math.isclose(sum(values) / len(values), update.loss, rel_tol=_SAME):
            return len(values)
    every = round(len(seen.updates) / seen.made) if seen.made else 0
    between = [each for each in seen.updates if not _stepped(each)]
    alone = len(values) == len(passes) == 1 and every > 1 and bool(between) and not _discarded(seen)
    return every if alone and plain and math.isclose(values[0], update.loss, rel_tol=_SAME) else None


def _as_left(seen: Observation) -> bool:
    """Optimizers step with the gradients that the last backward pass left: nothing divides them afterwards."""
    kept = [share for step in seen.events(OptimizerStep) for share in step.kept.values()]
    return bool(kept) and all(math.isclose(share, 1.0, rel_tol=_SAME) for share in kept)


def _without_rate(seen: Observation) -> int:
    """Calls in which optimizers stepped, all with a rate of 0, and nothing changed."""
    calls = [[each for each in update.events if isinstance(each, OptimizerStep)] for update in seen.updates]
    idle = [steps for steps in calls if steps and all(each.rate == 0 and not each.changed for each in steps)]
    return len(idle)


def rate_changes(seen: Observation) -> bool:
    """The step has a schedule of its own, or nobody sees its rate."""
    return len(set(seen.rates)) != 1


def _followed(seen: Observation) -> list[float]:
    """A rate that fell by one factor at each call, or to nothing, carried on; empty: it did not."""
    rates = seen.rates
    if seen.rate_falls and rates[-1] < _NOTHING * rates[0]:
        return [*rates, *[rates[-1]] * (_STEPS - len(rates))]
    factors = [after / before for before, after in itertools.pairwise(rates) if before > 0]
    if len(factors) < _OFTEN or max(factors) > _FALLS or max(factors) - min(factors) > 1 - _FALLS:
        return []
    return [rates[0] * factors[0] ** number for number in range(_STEPS)]


def _rates(rates: Any) -> dict[str, Any] | None:
    highest = max(rates, default=0.0)
    low = [index for index, each in enumerate(rates) if each < _NOTHING * highest]
    return {"from": low[0], "of": len(rates), "low": len(low)} if low else None


def faults(measured: Mapping[str, Any]) -> Iterator[Fault]:
    yield from _of_gradients(measured)
    yield from _of_scaling(measured)
    yield from _of_updates(measured)
    rates = measured["rates"]
    if rates is not None and rates["low"] > rates["of"] / 2:
        yield _fault(
            "schedule_kills_rate",
            f"the schedule takes the learning rate below 1 % of its highest value after {rates['from']} of "
            f"{rates['of']} steps",
            "step the scheduler once an epoch, or give it numbers of steps; a case steps it after every update",
        )
    if measured["without_rate"] >= _OFTEN:  # a warm-up has its first step at 0
        yield _fault(
            "lr_zero",
            f"the learning rate is exactly 0 in {measured['without_rate']} of {measured['calls']} steps, and nothing "
            "changes in them",
            "look for a division of whole numbers in the schedule, or a warm-up that is counted in epochs",
        )
    if measured["decay"] >= _DECAY:
        yield _fault(
            "excessive_weight_decay",
            f"weight decay takes {legible(measured['decay'], usual='.1%')} of the weights at every step",
            "lower weight_decay: 1e-4 to 0.1 are usual, times a learning rate of 1e-2 or less",
        )


def _of_gradients(measured: Mapping[str, Any]) -> Iterator[Fault]:
    if measured["piled"]:
        yield Fault(
            name="missing_zero_grad",
            outcome="failed",
            subjects=tuple(measured["piled"]),
            evidence="gradients pile up: before each backward pass, {subjects} still hold the gradient that the "
            "optimizer has already stepped with",
            cure="call optimizer.zero_grad() in each step, before loss.backward()",
        )
    if measured["kept"] is not None and measured["kept"] < _CLIPPED:
        yield _fault(
            "grad_clip_too_small",
            f"the optimizer is given {measured['kept']:.1g} of the gradient that loss.backward() leaves",
            "raise the limit of the clipping: gradients of 1 and more are usual",
        )
    if measured["added"]:
        yield _fault(
            "accumulation_not_divided",
            f"the losses of {measured['added']} micro-batches are added up, so the update is {measured['added']} times "
            "that of the batch",
            "divide the loss by the number of micro-batches before loss.backward()",
        )


def _of_scaling(measured: Mapping[str, Any]) -> Iterator[Fault]:
    if measured["touched"]:
        yield _fault(
            "clipped_before_unscaling",
            f"gradients were changed while the scaler's factor of {measured['factor']:g} was on them",
            "call scaler.unscale_(optimizer) before clipping",
        )
    if measured["unscaled"]:
        yield _fault(
            "loss_not_scaled",
            f"the scaler divides gradients by {measured['factor']:g}, and the loss was never multiplied by it",
            "write scaler.scale(loss).backward()",
        )


def _of_updates(measured: Mapping[str, Any]) -> Iterator[Fault]:
    if measured["repeated"] >= _OFTEN:
        yield _fault(
            "updated_twice",
            "one call of the step makes two updates with one gradient",
            "call optimizer.step() once after each loss.backward()",
        )
    if measured["discarded"] >= _OFTEN:
        yield _fault(
            "update_skipped",
            f"{measured['discarded']} of {measured['calls']} steps changed nothing, and their gradients were lost",
            "call optimizer.step() in each step, or zero_grad() only after it",
        )
    if measured["reverted"] >= _OFTEN:
        yield _fault(
            "update_skipped",
            f"{measured['reverted']} of {measured['calls']} steps ended with the weights they began with, although "
            "an optimizer had changed them",
            "look for what loads or writes the weights after optimizer.step()",
        )
    if measured["undone"] > _UNDONE:
        yield _fault(
            "ema_overwrite",
            f"after optimizer.step() something takes back {legible(measured['undone'], usual='.0%')} of each update",
            "keep an average of the weights beside them, and leave the trained ones alone",
        )
    if measured["evaluating"] >= _OFTEN:
        yield _fault(
            "step_in_eval_mode",
            f"the model was in evaluation mode in {measured['evaluating']} of {measured['calls']} steps",
            "call model.train() at the beginning of each step, or after each evaluation",
        )


def _fault(name: str, evidence: str, cure: str) -> Fault:
    return Fault(name=name, outcome="warning", subjects=(), evidence=evidence, cure=cure)


def remarks(measured: Mapping[str, Any]) -> Iterator[str]:
    if measured["updating"] and not measured["repeated"]:
        yield "one call of the step makes more than one update"
