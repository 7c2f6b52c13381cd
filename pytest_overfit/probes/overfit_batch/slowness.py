"""A run that fits, but only after many steps: what made it slow? One intervention, and two cheap looks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pytest_overfit.adapters.base import Learner
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.figures import legible
from pytest_overfit.core.verdict import Finding
from pytest_overfit.measures.memorising.extension import MORE_STEPS
from pytest_overfit.measures.memorising.memorise import BatchRun, Fit, MemoriseLimits, memorise

#: how many times the rate, and the share of the steps in which a rate that was too low then fits
_FASTER, _SHARE = 10.0, 0.25

#: inputs whose largest value or whose columns' spreads lie further off than this are called unscaled
_LARGE, _UNEVEN = 10.0, 100.0


def measured_slowness(
    run: BatchRun, make_learner: Callable[[], Learner], task: str | None, limits: MemoriseLimits
) -> dict[str, Any] | None:
    """Plain values on why it took so long; None: it did not fit, or not slowly."""
    if run.stop != "fits" or not (run.is_slow or len(run.losses) > MORE_STEPS):
        return None
    learner = make_learner()
    return {
        "equal_units": list(learner.equal_units()),
        "inputs": [words for each in learner.inputs if (words := _unscaled(each))],
        "faster": _at_ten_times_the_rate(learner, task, limits, int(_SHARE * len(run.losses))),
    }


def _at_ten_times_the_rate(learner: Learner, task: str | None, limits: Any, steps: int) -> int | None:
    """Steps that it takes then; None: no fewer than a quarter, or the rate cannot be set."""
    if not learner.scale_rate(_FASTER):
        return None
    run = memorise(Fit(learner, task), dataclasses.replace(limits, steps=steps))
    return len(run.losses) if run.stop == "fits" else None


def _unscaled(inputs: Array) -> str:
    """How inputs that are quantities or grey levels are off unit scale; integers of other kinds are names."""
    if inputs.dtype.kind != "f" and inputs.dtype != np.uint8:
        return ""
    values = inputs.reshape(len(inputs), -1).astype(np.float64)
    largest, spreads = float(np.abs(values).max(initial=0.0)), values.std(axis=0)
    spreads = spreads[spreads > 0]
    if largest > _LARGE:
        return f"inputs reach {legible(largest)}"
    if len(spreads) and spreads.max() > _UNEVEN * np.median(spreads):
        return f"one column of the inputs has {legible(spreads.max() / np.median(spreads))} times the usual spread"
    return ""


def slowness_findings(measured: Mapping[str, Any]) -> Sequence[Finding]:
    """The warning that a verdict on a slow run carries."""
    slow, steps = measured.get("slow"), int(measured["steps"])
    if slow is None:
        return ()
    reasons = list(slow["inputs"])
    if slow["equal_units"]:
        reasons.append(f"all units of {slow['equal_units'][0]} start alike")
    if slow["faster"] is not None:
        reasons.insert(0, f"at {_FASTER:g} times the learning rate it takes {slow['faster']} steps")
    name = "slow_to_fit" if slow["faster"] is None else "lr_too_low"
    message = f"it fits, but slowly: in {steps:,} steps"
    return [Finding(name=name, value=steps, outcome="warning", message=f"{message}; {'; '.join(reasons)}".rstrip("; "))]
