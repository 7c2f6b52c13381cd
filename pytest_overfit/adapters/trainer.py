"""What an adapter must offer to train on a whole split: a `Trainer`, which trains by epochs and is read on any split.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from pytest_overfit.core.arrays import Array

if TYPE_CHECKING:
    from pytest_overfit.adapters.base import Mode, Reading
    from pytest_overfit.data.splits import Split


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChunkReading:
    """Some rows of a split, as they were read."""

    rows: int
    reading: Reading
    #: leaves of the targets, rows first
    targets: tuple[Array, ...]
    #: the case's own `score` on these rows; None: it has none
    score: float | None = None


class Trainer(Protocol):
    """One live model with its loss and optimizer, trained on a split as the user's own loop would.

    The same seed gives the same initial weights, the same order of the data and, for the same model, the same masks.
    """

    framework: str
    #: regularisers that were taken out, in words, e.g. "dropout 0.5 (head.2)"; empty for the model as it is
    removed: tuple[str, ...]
    #: how it was trained and read, where there is something to say
    remarks: tuple[str, ...]

    def train(self, epochs: int, after_epoch: Callable[[], None] = lambda: None) -> list[float]:
        """Make so many further epochs; the mean training loss of each, as the user's loop would print it.

        `after_epoch` is called after each and may read. Fewer losses come back where the training ended itself (early
        stopping).
        """

    def read(self, split: Split, mode: Mode = "eval") -> Iterator[ChunkReading]:
        """The model's answers on a split, in evaluation mode or another, in parts; nothing is updated."""

    def scale_rate(self, factor: float) -> bool:
        """Multiply the learning rate, and whatever a schedule takes it from, before any training.

        False, and nothing changed, where the rate is not ours to reach (a loop of the user's own).
        """

    def state(self) -> Any:
        """A copy of the model's weights and statistics."""

    def start_from(self, state: Any) -> bool:
        """Take over such a copy; False, and nothing changed, where names or shapes differ."""


class JointTraining(Protocol):
    """Trains several trainers of one case at once, where their framework can and where it pays."""

    def may_join(self, trainer: Trainer, members: int, epochs: int) -> bool:
        """True if it is worth a try with so many trainers like this fresh one; nothing is trained."""

    def train(
        self, trainers: Sequence[Trainer], epochs: int, after_epoch: Callable[[int], None]
    ) -> list[list[float]] | None:
        """What `Trainer.train` does, for each of them; `after_epoch` gets the place of a trainer, and may read it.

        The losses of each, which are those of one after the other but for rounding. None: it could not be done; the
        trainers must not be used afterwards: new ones of the same seeds are trained one after the other.
        """


class OneAfterAnother:
    """Implements `JointTraining` where none is tried."""

    def may_join(self, trainer: Trainer, members: int, epochs: int) -> bool:
        del trainer, members, epochs
        return False

    def train(
        self, trainers: Sequence[Trainer], epochs: int, after_epoch: Callable[[int], None]
    ) -> list[list[float]] | None:
        del trainers, epochs, after_epoch
        return None
