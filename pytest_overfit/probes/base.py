"""What a probe is: a measurement, which trains, and a judgement, which is pure.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from pytest_overfit.core.limits import Resolved
from pytest_overfit.core.verdict import Judgement

if TYPE_CHECKING:
    from pytest_overfit.adapters.base import Learner
    from pytest_overfit.adapters.training import Trainer
    from pytest_overfit.core.case import Case
    from pytest_overfit.data.split_batches import Split


class MakeTrainer(Protocol):
    """Makes a new trainer of the case from a seed."""

    def __call__(self, seed: int, plain: bool, train: Split | None = None) -> Trainer:
        """`plain` takes the regularisers out; `train`: other data than the case's own train split."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """What a probe works with: it asks for learners here and reports progress."""

    case: Case
    seed: int
    #: a new learner of the case on its one batch, from the probe's seed
    make_learner: Callable[[], Learner]
    #: a new trainer, see `MakeTrainer`
    make_trainer: MakeTrainer
    #: `progress(step, of, loss)`, called at chunk ends
    progress: Callable[[int, int, float], None] = lambda step, of, loss: None
    #: seconds, for budgets only: no verdict depends on it unless the user sets a budget
    clock: Callable[[], float] = lambda: 0.0


class Probe(Protocol):
    """One question. `measured` is made of plain values: floats, strings, lists and dicts of them.

    Three of its keys go into the verdict by name: `framework`, `steps` and `losses`.
    """

    name: str
    #: frozen dataclass of the limits, each with a default
    limits: type[Any]

    def measure(self, bench: Bench, limits: Any) -> dict[str, Any]:
        """Train and read; touches frameworks only through learners."""

    def judge(self, measured: Mapping[str, Any], limits: Resolved[Any]) -> Judgement:
        """Decide from the measured values alone."""
