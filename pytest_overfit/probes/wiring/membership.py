"""Is each trainable parameter in exactly one optimizer, and does it change?

Membership is read off the optimizers' groups; what no optimizer was seen to hold is judged by whether it changes. A
parameter is asked to change only where rate times gradient exceed what its dtype can tell apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pytest_overfit.adapters.wires import BackwardPass, OptimizerStep, Update, Wires
from pytest_overfit.probes.wiring.faults import Fault, listed
from pytest_overfit.probes.wiring.observation import Observation

#: noise on a parameter, as a share of its size, and how far answers go that it moves
_MOVED, _MOVES = 0.1, 1e-5


def look(wires: Wires, seen: Observation) -> dict[str, Any]:
    """Parameters that have a gradient and stay as they are, and those that two optimizers move."""
    still = [each.name for each in seen.trainable if each.name not in seen.changed]
    own = wires.gradients() or {} if still else {}
    with_gradient = [name for name in still if seen.largest_gradient(name) or own.get(name)]
    held, rates = seen.held(), [each.rate for each in seen.events(OptimizerStep)]
    return {
        "calls": len(seen.updates),
        "made": seen.made,
        "trainable": len(seen.trainable),
        "watched": any(True for _ in seen.events(BackwardPass)),
        "still": still,
        "optimizers": len({each.optimizer for each in seen.events(OptimizerStep)}),
        "rate": max((each for each in rates if each is not None), default=None),
        "outside": [name for name in with_gradient if name not in held and _counts(wires, seen, name)],
        "stuck": [name for name in with_gradient if name in held and (wires.should_move(name) or _emptied(seen, name))],
        "unregistered": list(wires.unregistered()),
        "twice": sorted(frozenset().union(*map(_moved_twice, seen.updates))),
    }


def _counts(wires: Wires, seen: Observation, name: str) -> bool:
    """The step asks for its gradient, or it is a part of what answers: no teacher that a loss looks through."""
    if seen.was_asked(name):
        return True
    moved = wires.moved_by([name], _MOVED)
    return ((moved.outputs if moved.answers is None else moved.answers) or 0.0) > _MOVES


def _emptied(seen: Observation, name: str) -> bool:
    """Its gradient was there after each backward pass and gone before the step."""
    kept = [each.kept[name] for each in seen.events(OptimizerStep) if name in each.kept]
    return bool(kept) and not any(kept)


def _moved_twice(update: Update) -> frozenset[str]:
    """Parameters that two optimizers changed in one call, neither being a part of the other."""
    steps = [each for each in update.events if isinstance(each, OptimizerStep) and not each.inside]
    twice: set[str] = set()
    for index, first in enumerate(steps):
        for second in steps[index + 1 :]:
            if first.optimizer != second.optimizer:
                twice |= first.changed & second.changed
    return frozenset(twice)


def faults(measured: Mapping[str, Any]) -> Iterator[Fault]:
    if not measured["made"]:
        yield _no_update(measured)
        return
    if measured["outside"]:
        yield Fault(
            name="optimizer_wrong_params",
            outcome="failed",
            subjects=tuple(measured["outside"]),
            evidence=f"{len(measured['outside'])} of {measured['trainable']} trainable parameters have a gradient, are "
            f"in no optimizer and never change: {{subjects}}",
            cure="give the optimizer all of model.parameters(), after the last layer was added or replaced; what is "
            "meant to stay, freeze with requires_grad_(False)",
        )
    if measured["unregistered"]:
        yield Fault(
            name="unregistered_parameters",
            outcome="failed",
            subjects=tuple(measured["unregistered"]),
            evidence="the loss depends on {subjects}, which neither model.parameters() nor an optimizer knows",
            cure="keep layers in nn.ModuleList or nn.ModuleDict, and tensors in nn.Parameter, not in plain lists",
        )
    if measured["stuck"]:
        yield Fault(
            name="update_skipped",
            outcome="failed",
            subjects=tuple(measured["stuck"]),
            evidence=f"{{subjects}} never changed in {measured['made']} updates, although an optimizer holds them and "
            "their gradient is large enough",
            cure="look for what sets these gradients to zero, or the parameters back, before or after optimizer.step()",
        )
    if measured["twice"]:
        yield Fault(
            name="parameter_twice",
            outcome="failed",
            subjects=tuple(measured["twice"]),
            evidence="two optimizers move {subjects} in one step",
            cure="give each parameter to one optimizer",
        )


def _no_update(measured: Mapping[str, Any]) -> Fault:
    calls, rate = measured["calls"], measured["rate"]
    name = "lr_zero" if rate == 0 else "update_skipped"
    seen = f"{measured['optimizers']} optimizers were seen to step"
    why = (
        "the optimizer's learning rate is 0" if rate == 0 else seen if measured["watched"] else "why was not looked at"
    )
    return Fault(
        name=name,
        outcome="failed",
        subjects=(),
        evidence=f"no parameter changed in {calls} steps: {why}",
        cure="set a learning rate" if rate == 0 else "call optimizer.step() after loss.backward() in each step",
    )


def remarks(measured: Mapping[str, Any]) -> Iterator[str]:
    """Where gradients were not looked at, what stays as it is is a fact, and its cause is open."""
    if not measured["watched"] and measured["made"] and measured["still"]:
        yield (
            f"{listed(measured['still'])} never changed in {measured['made']} updates; whether a gradient reaches them "
            "was not looked at"
        )
