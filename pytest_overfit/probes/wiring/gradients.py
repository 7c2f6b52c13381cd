"""Does what the forward pass uses get a gradient?

Judged by module: its main weight, or everything that it owns, got none or exactly zero in every update, in the step's
own backward passes and in a gradient that we compute. Such a module is moved by a tenth. If that moves the loss or an
output, the forward pass uses it and the gradient is cut; what moves neither (idle experts, a pooler that no head
uses) is a remark.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_overfit.adapters.wires import BackwardPass, Weight, Wires
from pytest_overfit.probes.wiring.faults import Fault, listed
from pytest_overfit.probes.wiring.observation import Observation, by_module

#: noise on a module's parameters, as shares of their own size: the larger where the smaller moves nothing, because an
#: argmax or a threshold changes only with large steps
_SHARES = (0.1, 1.0)

#: outputs or loss that go less far, as a share of their size, have not moved: float32 rounds at 6e-8, sums of many at
#: some 1e-6 (key biases of attention, which a softmax cancels), and a tenth of a weight that counts moves 1e-3 and more
_MOVES = 1e-5

#: looks at the gradient itself: in one pass a layer may be skipped at random
_LOOKS = 4

#: modules that are moved one by one; more are moved together
_ONE_BY_ONE = 16


def look(wires: Wires, seen: Observation) -> list[dict[str, Any]]:
    """Modules without a gradient: whose, which, and what moving them does."""
    if not any(True for _ in seen.events(BackwardPass)):
        return []
    suspects = _suspects(wires, seen)
    parts = _parts(suspects, seen)
    found = [_moved(wires, seen, part) for part in parts]
    still = [part for part, each in zip(parts, found, strict=True) if _is_still(each)]
    if len(still) > 1:  # zeros behind zeros move nothing one by one
        together = _moved(wires, seen, [each for part in still for each in part])
        if not _is_still(together):
            return [*(each for each in found if not _is_still(each)), together]
    return found


def _suspects(wires: Wires, seen: Observation) -> set[str]:
    """Names of parameters that never had a gradient other than zero, and of which a whole module, or its main one.

    Those that the step asks no gradient of are among them where they stay as they are and its loss has none by them.
    """
    asked = {each.name for each in seen.trainable if seen.was_asked(each.name)}
    idle = {name for name in asked if not seen.largest_gradient(name)}
    left = {each.name for each in seen.trainable} - asked - seen.changed - seen.held()
    for _ in range(_LOOKS if idle or left else 0):
        own = wires.gradients()
        left = set() if own is None else left
        found = {name for name, norm in (own or {}).items() if norm}
        idle, left = idle - found, left - found
    chosen: set[str] = set()
    for weights in by_module(seen.trainable).values():
        cut = [each for each in weights if each.name in idle | left]
        if len(cut) == len(weights) or any(each.main for each in cut):
            chosen |= {each.name for each in cut}
    return chosen


def _parts(suspects: set[str], seen: Observation) -> list[list[Weight]]:
    """The suspects by the largest part of the model of which everything trainable is suspect."""
    whole: dict[str, list[Weight]] = {}
    for each in seen.trainable:
        if each.name in suspects:
            whole.setdefault(_top(each, suspects, seen), []).append(each)
    parts = list(whole.values())
    rest = [each for part in parts[_ONE_BY_ONE:] for each in part]
    return [*parts[:_ONE_BY_ONE], rest] if rest else parts


def _top(weight: Weight, suspects: set[str], seen: Observation) -> str:
    """Path of the outermost module around a weight that holds suspects only."""
    path = weight.module.split(".") if weight.module else []
    for depth in range(1, len(path) + 1):
        around = ".".join(path[:depth])
        inside = [each for each in seen.trainable if f"{each.name}.".startswith(f"{around}.")]
        if all(each.name in suspects for each in inside):
            return around
    return weight.module


def _moved(wires: Wires, seen: Observation, part: Sequence[Weight]) -> dict[str, Any]:
    names = [each.name for each in part]
    for share in _SHARES:
        moved = wires.moved_by(names, share)
        still = max(moved.outputs or 0.0, moved.loss or 0.0) <= _MOVES
        if not still:
            break
    reached = any(seen.largest_gradient(name) == 0.0 for name in names)
    return {
        "names": names,
        "silent": still and reached and wires.silent(names),
        "share": share,
        "asked": any(map(seen.was_asked, names)),
        "outputs": moved.outputs,
        "loss": moved.loss,
        "added": moved.added,
        "of_library": all(each.of_library for each in part),
    }


def _is_still(part: Mapping[str, Any]) -> bool:
    return max(part["outputs"] or 0.0, part["loss"] or 0.0) <= _MOVES


def faults(measured: Sequence[Mapping[str, Any]]) -> Iterator[Fault]:
    for part in measured:
        outputs, loss = part["outputs"] or 0.0, part["loss"] or 0.0
        if not part.get("asked", True):
            yield from _not_asked(part, max(loss, outputs))
        elif loss > _MOVES or (part["loss"] is None and outputs > _MOVES):
            yield _cut(part, max(loss, outputs))
        elif outputs > _MOVES and not part["of_library"]:
            yield _without_loss(part, outputs)
        elif part["silent"]:
            yield _unused(part)
        elif (part.get("added") or 0.0) > _MOVES:
            yield _left_out(part)


def _noise(part: Mapping[str, Any]) -> str:
    return f"noise of {part['share']:g} of their size"


def _cut(part: Mapping[str, Any], moved: float) -> Fault:
    what = "outputs move" if part["loss"] is None else "loss moves"
    return Fault(
        name="cut_gradient",
        outcome="failed",
        subjects=tuple(part["names"]),
        evidence=f"no gradient reaches {{subjects}}, although the {what} by {moved:.2g} of its size with "
        f"{_noise(part)}",
        cure="look behind these layers for what cuts the graph: detach(), .data, .item(), numpy, argmax, rounding, "
        "no_grad(), stop_gradient, a checkpoint whose inputs need no gradient; if they are meant to stay, freeze them",
    )


def _not_asked(part: Mapping[str, Any], moved: float) -> Iterator[Fault]:
    if moved > _MOVES:
        yield Fault(
            name="optimizer_wrong_params",
            outcome="failed",
            subjects=tuple(part["names"]),
            evidence=f"{{subjects}} are trainable and never trained: no optimizer holds them and what the step "
            f"differentiates does not depend on them, although the outputs move by {moved:.2g} of their size with "
            f"{_noise(part)}",
            cure="let the step train the network that gives the outputs, or freeze what is not to be trained",
        )


def _left_out(part: Mapping[str, Any]) -> Fault:
    return Fault(
        name="regularizer_not_in_loss",
        outcome="failed",
        subjects=tuple(part["names"]),
        evidence=f"{{subjects}} get no gradient: what a layer adds to the loss moves by {part['added']:.2g} of its "
        f"size with {_noise(part)}, and the step does not differentiate it",
        cure="add the losses of the layers, sum(self.losses), to the loss of the step",
    )


def _without_loss(part: Mapping[str, Any], outputs: float) -> Fault:
    return Fault(
        name="head_without_loss",
        outcome="failed",
        subjects=tuple(part["names"]),
        evidence=f"{{subjects}} get no gradient: with {_noise(part)} an output moves by {outputs:.2g} of its own, and "
        "it never enters the loss",
        cure="add this output's term to the loss, or freeze these parameters",
    )


def _unused(part: Mapping[str, Any]) -> Fault:
    return Fault(
        name="unused_parameters",
        outcome="warning",
        subjects=tuple(part["names"]),
        evidence="{subjects} are computed, and their result is multiplied by exactly 0",
        cure="take out the constant factor of 0, or the branch",
    )


def remarks(measured: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for part in measured:
        if _is_still(part) and not part["silent"]:
            yield f"{listed(part['names'])} got no gradient, and moving them changes nothing on this batch"
