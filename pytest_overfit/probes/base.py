"""What a probe is: a measurement, which trains, and a judgement, which is pure.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from pytest_overfit.adapters.trainer import JointTraining, Trainer
from pytest_overfit.core.limits import Resolved
from pytest_overfit.core.verdict import Judgement

if TYPE_CHECKING:
    from pytest_overfit.adapters.base import Learner
    from pytest_overfit.core.calibration import Calibration
    from pytest_overfit.core.case import Case
    from pytest_overfit.data.splits import Split


class MakeTrainer(Protocol):
    """Makes trainers; each arm's training data are opened once."""

    def __call__(self, seed: int, plain: bool = False, train: Split | None = None) -> Trainer:
        """`train`: another split to train on than the case's."""


class Report(Protocol):
    """How far a probe is: steps with a loss, or, without one, samples; `of` is None where nobody knows how many."""

    def __call__(self, step: int, of: int | None, loss: float | None = None) -> None:
        """Called at chunk ends."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """What a probe works with: it asks for learners here and reports progress."""

    case: Case
    seed: int
    #: a new learner of the case on its one batch, from the probe's seed, or from the seed that is given
    make_learner: Callable[..., Learner]
    #: a new trainer from a seed; `plain` takes the regularisers out
    make_trainer: MakeTrainer
    #: the limits of another probe on this case, as the call, the marker, the case and ini have them; None: not known
    limits_of: Callable[[str], Any] = lambda probe: None
    #: trains several of these at once
    joint_training: JointTraining = dataclasses.field(default_factory=JointTraining)
    progress: Report = lambda step, of, loss=None: None
    #: seconds, for budgets only: no verdict depends on it unless the user sets a budget
    clock: Callable[[], float] = lambda: 0.0
    #: for bounds that are written as `calibrated`; None: they cannot be judged here
    calibration: Calibration | None = None


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
