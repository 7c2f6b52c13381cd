"""Is everything connected? A few updates of the case's own loop, and a question for each way parts get lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from pytest_overfit.adapters.base import Learner, Reading
from pytest_overfit.adapters.wires import wires_of
from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError, NotApplicable
from pytest_overfit.core.limits import Resolved
from pytest_overfit.core.verdict import Finding, Judgement
from pytest_overfit.measures.missing_values import refuse_missing_values
from pytest_overfit.probes.base import Bench, Probe
from pytest_overfit.probes.wiring import (
    answers_dropped,
    descent,
    frozen,
    gradients,
    inputs,
    labels,
    losses,
    masks,
    membership,
    outputs,
    rows,
    sequences,
    several_labels,
    start,
    step,
    units,
)
from pytest_overfit.probes.wiring.faults import Fault, listed
from pytest_overfit.probes.wiring.observation import UPDATES, Observation, observe
from pytest_overfit.probes.wiring.recognised import with_heads


@dataclasses.dataclass(frozen=True, kw_only=True)
class WiringLimits:
    """Limits of `wiring`."""

    #: pattern of names -> why what is found there is meant so; one that matches nothing found is an error
    allow: dict[str, str] = dataclasses.field(default_factory=dict)


class Wiring(Probe):
    """Makes a few updates by the case's own loop and looks at what reached which parameter.

    *Measured*, for each parameter: the gradients that the step's own backward passes leave, and one that we compute;
    which optimizers hold it; whether it changed, and by what; and for what got no gradient, what moving it does to
    loss and outputs. *Passing* means: every part that moves the loss gets a gradient; every trainable parameter is in
    one optimizer and changes; gradients do not pile up; what the case declares as `frozen` stays; nothing became
    infinite or NaN.

    *Cannot see*: whether what is connected learns anything (`overfit_batch`), and what happens only after the first
    updates. *Cost*: 4 to 12 updates, and for each part without a gradient some forward passes.
    """

    name = "wiring"
    limits = WiringLimits
    cost = 5
    options = ()
    default = True

    def measure(self, bench: Bench, limits: WiringLimits) -> dict[str, Any]:
        """Make the updates; the keys are the questions."""
        del limits
        learner = bench.make_learner()
        wires = wires_of(learner)
        if wires is None:
            raise NotApplicable("a model of neither PyTorch nor Keras has no parameters that can be looked at")
        first = learner.read("fit")
        if first.loss is not None:  # a step shows its loss when it is made
            refuse_missing_values(learner, first, f"Case {bench.case.name!r}:")
        kept = frozen.declared(bench.case, [*(each.name for each in wires.weights()), *wires.buffers()])
        known = with_heads(first, learner.targets, bench.case.task)
        informed, downhill = start.look(learner, wires, known), descent.look(wires)
        rows_, progress = len(learner.inputs[0]), lambda calls, loss: bench.progress(calls, UPDATES, loss)
        seen = observe(wires, rows_, kept, progress)
        if first.loss is None:  # a step shows its loss when it is made
            first, downhill = learner.read("fit"), descent.look(wires)
            known = with_heads(first, learner.targets, bench.case.task)
        if downhill is not None:
            downhill["scheduled"] = downhill.get("scheduled") or step.rate_changes(seen)
        mixed = rows.look(wires, _rows_interact(bench.case))
        return {
            "framework": learner.framework,
            "steps": len(seen.updates),
            "losses": [each.loss for each in seen.updates],
            "gradients": gradients.look(wires, seen),
            "membership": membership.look(wires, seen),
            "step": step.look(wires, seen, _is_plain(first)),
            "outputs": outputs.look(wires, known, _has_classes(bench.case), _reconstructs(learner, known)),
            "loss": losses.look(learner, first, bench.case.task),
            "several_labels": several_labels.look(learner, known),
            "answers_dropped": answers_dropped.look(learner, known),
            "masks": masks.look(wires) if mixed["moved"] is not None else [],
            "start": informed,
            "units": units.look(learner, seen),
            "descent": downhill,
            "rows": mixed,
            "inputs": inputs.look(wires, mixed["moved"] is not None and not mixed["rows"]),
            "frozen": frozen.look(bench.case, seen, _buffers(seen)),
            "not_finite": list(learner.parameters().not_finite),
            "labels": labels.look(bench.case, known),
            "sequences": sequences.look(learner, wires, first),
            "remarks": list(wires.remarks),
            "parameters": len(seen.weights),
        }

    def judge(self, measured: Mapping[str, Any], limits: Resolved[WiringLimits]) -> Judgement:
        """Decide from the measured values alone."""
        found = list(_faults(measured))
        left, notes = _excused(found, limits.values.allow)
        findings = [
            *(each.finding() for each in left),
            *(Finding.note(each) for each in (*notes, *_remarks(measured))),
        ]
        judgement = Judgement.of(findings, lambda: _passed(measured, left))
        return dataclasses.replace(judgement, diagnoses=tuple(each.diagnosis() for each in left))


def _has_classes(case: Case) -> bool:
    return case.classes is not None or case.task in ("multiclass", "segmentation", "language_model")


def _is_plain(first: Reading) -> bool:
    """The loss that the step returns is the value of one loss function on the whole batch."""
    return len(first.heads) == 1 and bool(first.heads[0].plain)


def _reconstructs(learner: Learner, first: Reading) -> bool:
    """Some target is some input."""
    pairs = [(each, head.targets) for each in learner.inputs for head in first.heads]
    return any(a.size == b.size and np.allclose(a.ravel(), b.ravel()) for a, b in pairs)


def _rows_interact(case: Case) -> bool:
    """Declared for any probe: the batch is the same for all."""
    return any(bool(given.get("rows_interact")) for given in case.options.values())


def _buffers(seen: Observation) -> list[str]:
    return sorted(frozenset().union(*(each.buffers for each in seen.updates)))


def _faults(measured: Mapping[str, Any]) -> Iterator[Fault]:
    """The gravest first: what is not a number explains whatever follows."""
    if measured["not_finite"]:
        yield Fault(
            name="nan_parameter",
            outcome="failed",
            subjects=(),
            evidence=f"{listed(measured['not_finite'])} after {measured['steps']} steps",
            cure="look there for a square root or division at 0, a logarithm of 0, or an overflow",
        )
    if not measured["membership"]["unregistered"]:  # weights that nobody knows could not be shaken
        yield from outputs.faults(measured["outputs"])
    yield from labels.faults(measured["labels"])
    yield from several_labels.faults(measured.get("several_labels"))
    yield from answers_dropped.faults(measured.get("answers_dropped"))
    yield from losses.faults(measured["loss"])
    yield from membership.faults(measured["membership"])
    yield from gradients.faults(measured["gradients"])
    yield from masks.faults(measured["masks"])
    yield from sequences.faults(measured["sequences"])
    yield from descent.faults(measured["descent"], measured["losses"])
    yield from step.faults(measured["step"])
    yield from rows.faults(measured["rows"])
    yield from inputs.faults(measured["inputs"], masks.needless(measured["masks"]))
    yield from frozen.faults(measured["frozen"])
    yield from start.faults(measured["start"])
    yield from units.faults(measured.get("units", ()), measured["steps"])


def _remarks(measured: Mapping[str, Any]) -> Iterator[str]:
    yield from membership.remarks(measured["membership"])
    yield from gradients.remarks(measured["gradients"])
    yield from step.remarks(measured["step"])
    yield from sequences.remarks(measured["sequences"])
    yield from start.remarks(measured["start"])
    yield from measured["remarks"]


def _excused(found: Sequence[Fault], allow: Mapping[str, str]) -> tuple[list[Fault], list[str]]:
    """What is left without what `allow` names, and what was left out with its reason."""
    notes = []
    for pattern, reason in allow.items():
        matched = sorted({name for fault in found for name in fault.subjects if fnmatchcase(name, pattern)})
        if not matched:
            raise CaseError(f"allow: {pattern!r} ({reason}) matches nothing that wiring found; take it out")
        notes.append(f"allowed: {len(matched)} by {pattern!r}: {reason}")
        parts = [fault.without(matched) for fault in found]
        found = [fault for fault in parts if fault is not None]
    return list(found), notes


def _passed(measured: Mapping[str, Any], warnings: Sequence[Fault]) -> str:
    held = measured["membership"]
    connected = f"{measured['parameters']} parameters connected in {measured['steps']} steps"
    if not held["watched"]:
        changed = held["trainable"] - len(held["still"])
        connected = f"{changed} of {held['trainable']} trainable parameters changed in {measured['steps']} steps"
    return f"{connected}; {warnings[0].message}" if warnings else connected


PROBE = Wiring()
