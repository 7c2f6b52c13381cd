"""Can the units of a layer become different? Those that start alike and get alike gradients learn one thing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_overfit.adapters.base import Learner
from pytest_overfit.probes.wiring.faults import Fault
from pytest_overfit.probes.wiring.observation import Observation


def look(learner: Learner, seen: Observation) -> list[str]:
    """Main weights of layers whose units were equal at the start, moved, and are equal still."""
    equal = frozenset(learner.equal_units()) & seen.changed
    return [each.name for each in seen.trainable if each.main and each.name in equal]


def faults(alike: Sequence[str], steps: int) -> Iterator[Fault]:
    if alike:
        yield Fault(
            name="constant_init",
            outcome="warning",
            subjects=tuple(alike),
            evidence=f"all units of {{subjects}} start alike and are so after {steps} steps: they learn one thing",
            cure="leave the weights as the layer's class draws them, or use a Kaiming or Glorot initialisation",
        )
