"""What a probe is: a measurement, which trains, and a judgement, which is pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from pytest_overfit.adapters.base import Learner
from pytest_overfit.adapters.trainer import JointTraining, Trainer
from pytest_overfit.core.calibration import Calibration
from pytest_overfit.core.case import Case
from pytest_overfit.core.limits import Resolved
from pytest_overfit.core.verdict import BaselineNumber, Judgement, Verdict
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
    #: the limits of another probe on this case, as the call, the marker, the case and ini have them
    limits_of: Callable[[str], Any]
    #: trains several of these at once
    joint_training: JointTraining = dataclasses.field(default_factory=JointTraining)
    progress: Report = lambda step, of, loss=None: None
    #: seconds, for budgets only: no verdict depends on it unless the user sets a budget
    clock: Callable[[], float] = lambda: 0.0
    #: for bounds that are written as `calibrated`; None: they cannot be judged here
    calibration: Calibration | None = None


#: the rank of a probe that states none: after all others
LAST = 1_000


class Probe(Protocol):
    """One question. `measured` is made of plain values: floats, strings, lists and dicts of them.

    Three of its keys go into the verdict by name: `framework`, `steps` and `losses`.

    A probe must have `name`, `limits`, `measure` and `judge`. It may state three facts of itself: `cost`, `default` and
    `needs`; whatever orders or chooses probes reads only these. And it may say which `numbers` a baseline keeps, and
    which of its options an error about the batch should point to (`batch_options`).
    """

    name: str
    #: frozen dataclass of the limits, each with a default
    limits: type[Any]

    #: rank by cost: probes run from the lowest to the highest, those of one rank by name. By tens, so that others fit
    #: between: 10 trains nothing, 20 reads the data, 30 one batch, 40 a few epochs, 50 and more whole training runs
    cost: int = LAST
    #: belongs to what a marker or a matrix without names runs: cheap enough for every merge, and its answer needs no
    #: limit that people must choose; or it judges only what the case itself asks for. Whoever adds a probe wants it run
    default: bool = True
    #: options of this probe that are facts of the batch: every probe honours them
    batch_options: tuple[str, ...] = ()
    #: every option that the probe takes, in a case's `options`; None: it takes any name, and checks them itself
    options: tuple[str, ...] | None = None

    #: trains on one batch, and measures it as `measures.memorising` has it: why it did not pass can be found out by
    #: changing the program and training it again
    memorises: bool = False

    def needs(self, case: Case) -> str | None:
        """Why the fields of this case rule the probe out, as a sentence for people; None: it applies.

        From the fields alone: nothing is loaded, called or built. The verdict is then `not_applicable` with this
        reason, and nothing is measured. May raise `CaseError` for options of the case that cannot be used. What only
        data or model show is a `NotApplicable` that `measure` raises.
        """
        del case
        return None

    def measure(self, bench: Bench, limits: Any) -> dict[str, Any]:
        """Train and read; touches frameworks only through learners."""

    def judge(self, measured: Mapping[str, Any], limits: Resolved[Any]) -> Judgement:
        """Decide from the measured values alone."""

    def numbers(self, verdict: Verdict) -> Iterable[BaselineNumber]:
        """What a baseline keeps of a verdict, nothing that a clock has measured; the first of a name counts."""
        return of_findings(verdict)


def of_findings(verdict: Verdict) -> Iterator[BaselineNumber]:
    """The findings that have a limit."""
    for finding in verdict.findings:
        if finding.limit is not None:
            yield BaselineNumber(finding.name, finding.value, finding.better)


class _Completed(Probe):
    """A probe that only looks like one, with the defaults of `Probe` for what it does not state."""

    def __init__(self, probe: Any) -> None:
        for name in (*REQUIRED, *OPTIONAL):
            if hasattr(probe, name):
                setattr(self, name, getattr(probe, name))


#: what a probe must have, and what it may
REQUIRED = ("name", "limits", "measure", "judge")
OPTIONAL = ("cost", "default", "batch_options", "options", "memorises", "needs", "numbers")


def completed(probe: Any) -> Probe:
    """The probe itself where it has everything, else one that does the same and has the defaults for the rest."""
    whole: Probe = probe if all(hasattr(probe, name) for name in OPTIONAL) else _Completed(probe)  # type: ignore[abstract]
    return whole
