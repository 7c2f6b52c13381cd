"""A few updates of the case's own loop, and what was seen of each parameter in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from pytest_overfit.adapters.wires import BackwardPass, OptimizerStep, Unscaling, Update, Weight, Wires

Event = TypeVar("Event", BackwardPass, OptimizerStep, Unscaling)

#: updates at most: a chain of zero-initialised parts opens one level an update
UPDATES = 12

#: updates at least: what piles up, is skipped or is undone shows from one update to the next
FEWEST = 4

#: calls at most: some steps update only once in so many calls (gradient accumulation)
CALLS = 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class Observation:
    """All calls of the step, in order."""

    weights: tuple[Weight, ...]
    updates: tuple[Update, ...]
    #: of the batch
    rows: int = 0
    #: parameters that the case declares as frozen
    frozen: frozenset[str] = frozenset()

    def events(self, kind: type[Event]) -> Iterator[Event]:
        for update in self.updates:
            yield from (each for each in update.events if isinstance(each, kind))

    @property
    def trainable(self) -> tuple[Weight, ...]:
        return tuple(each for each in self.weights if each.trainable and each.name not in self.frozen)

    @property
    def changed(self) -> frozenset[str]:
        """Parameters that any call changed."""
        return frozenset().union(*(each.changed for each in self.updates))

    @property
    def made(self) -> int:
        """Calls that changed a parameter."""
        return sum(bool(each.changed) for each in self.updates)

    def largest_gradient(self, name: str) -> float | None:
        """The largest that was seen; None: none was, or nobody asked for it."""
        found = [each.gradients.get(name) for each in self.events(BackwardPass)]
        return max((each for each in found if each is not None), default=None)

    def was_asked(self, name: str) -> bool:
        """Some backward pass would have shown a gradient of this parameter."""
        return any(name in each.gradients for each in self.events(BackwardPass))

    @property
    def rates(self) -> list[float]:
        """Learning rate of the last optimizer step of each call that made one."""
        steps = [[each.rate for each in update.events if isinstance(each, OptimizerStep)] for update in self.updates]
        return [rate for each in steps for rate in each[-1:] if rate is not None]

    @property
    def rate_falls(self) -> bool:
        """It is half of what it was already, and never rose."""
        rates = self.rates
        return bool(rates) and rates[-1] <= rates[0] / 2 and rates == sorted(rates, reverse=True)

    def held(self) -> frozenset[str]:
        """Parameters that an optimizer was seen to hold."""
        return frozenset(name for step in self.events(OptimizerStep) for group in step.groups for name in group)


def observe(wires: Wires, rows: int, frozen: frozenset[str], progress: Callable[[int, float], None]) -> Observation:
    """Update until everything trainable has been seen to get a gradient and to change, or `UPDATES` times."""
    seen = Observation(weights=tuple(wires.weights()), updates=(), rows=rows, frozen=frozen)
    while seen.made < UPDATES and len(seen.updates) < CALLS:
        update = wires.update()
        if update.replaced and not seen.updates:  # a model may be finished in its first step: watch what it has now
            seen = dataclasses.replace(seen, weights=tuple(wires.weights()))
            update = wires.update()
        seen = dataclasses.replace(seen, updates=(*seen.updates, update))
        progress(len(seen.updates), update.loss)
        if seen.made >= FEWEST and _all_seen(seen) and not seen.rate_falls:
            break
    return seen


def _all_seen(seen: Observation) -> bool:
    changed = seen.changed
    return all(each.name in changed and seen.largest_gradient(each.name) for each in seen.trainable)


def by_module(weights: Sequence[Weight]) -> dict[str, list[Weight]]:
    """The parameters of each module that owns some."""
    found: dict[str, list[Weight]] = {}
    for each in weights:
        found.setdefault(each.module, []).append(each)
    return found
