"""Quantities that say what a training step costs: memory and time."""

from __future__ import annotations

from pytest_overfit.probes.bounds.quantities.registry import quantity
from pytest_overfit.probes.bounds.quantities.step_time import SIZE, numpy_kernel, step_time
from pytest_overfit.probes.bounds.subject import NOT_HERE, Found, Subject


@quantity("MB", "two training steps, slowly", "lower", once=True)
def memory_peak(subject: Subject) -> Found:
    """Most bytes that tensors hold at a moment of one of the first two training steps on the batch, in MB of 10^6.

    Parameters, buffers, gradients, the optimizer's state, the batch, and all that is made in between, each storage
    once. The same on every machine: what an allocator rounds up or keeps, and scratch space inside a kernel, is not
    counted. Of a compiled model: as it runs uncompiled.
    """
    found = subject.inspect(subject.make_learner(), "memory_peak")
    return Found(why=NOT_HERE) if found is None else Found(value=found / 1e6)


@quantity("ratio", "34 training steps or more", "lower", timed=True)
def step_time_ratio(subject: Subject) -> Found:
    """Seconds of a training step on the batch over those of a product of two 256 x 256 matrices beside it.

    Both take 30 turns, one after the other in this process, and the least time of each counts.
    """
    learner = subject.make_learner()
    kernel = subject.inspect(learner, "reference_kernel", SIZE) or numpy_kernel()
    return Found(value=step_time(learner.train, kernel))
