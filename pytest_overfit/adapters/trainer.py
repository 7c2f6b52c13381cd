"""What an adapter offers to train on a whole split: a `Trainer`, trained by epochs and read on any split."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from pytest_overfit.adapters.base import Learner, Mode, Reading, RunningStatistics
from pytest_overfit.core.arrays import Array
from pytest_overfit.data.batch import Batch
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

    #: what the framework's adapter looks for to take out, in words
    looked_for: str = "dropout, weight decay"

    @property
    def remarks(self) -> tuple[str, ...]:
        """How it was trained and read, where there is something to say."""

    @property
    def outside(self) -> tuple[str, ...]:
        """Trainable weights of others that the loss depends on, by name: those of another model, as far as is known."""
        return ()

    def train(self, epochs: int, after_epoch: Callable[[], None] = lambda: None) -> list[float]:
        """Make so many further epochs; the mean training loss of each, as the user's loop would print it.

        `after_epoch` is called after each and may read. Fewer losses come back where the training ended itself (early
        stopping).
        """

    def read(self, split: Split, mode: Mode = "eval") -> Iterator[ChunkReading]:
        """The model's answers on a split, in evaluation mode or another, in parts; nothing is updated."""

    def scale_rate(self, factor: float) -> bool:
        """Multiply the learning rate, and whatever a schedule takes it from, before any training.

        False, and nothing changed, where the rate cannot be reached (a custom training loop).
        """
        del factor
        return False

    def state(self) -> Any:
        """A copy of the model's weights and statistics; None: it is not known where they are."""
        return None

    def digest(self) -> str:
        """A text that is the same for the same weights and statistics, to the bit; "": it is not known where they are.

        Names do not count: two models that compute the same may call their layers otherwise.
        """
        return ""

    def start_from(self, state: Any) -> bool:
        """Take over such a copy; False, and nothing changed, where names or shapes differ."""
        del state
        return False

    def statistics(self) -> list[RunningStatistics]:
        """Running statistics of normalisation layers, on the rows that were read last."""
        return []

    def redraw_weights(self, seed: int) -> bool:
        """Permute the numbers inside each matrix of weights, as if they had been drawn again; biases stay.

        False, and nothing changed, where they are not known.
        """
        del seed
        return False


def digest_of(arrays: Iterable[Array]) -> str:
    """A short text for the bits of these arrays, in their order."""
    digest = hashlib.blake2b(digest_size=12)
    for each in arrays:
        digest.update(np.ascontiguousarray(each).tobytes())
    return digest.hexdigest()


class SplitLearner(Learner, Protocol):
    """A learner that can read other batches than the one it was made with."""

    remarks: tuple[str, ...]

    def look_at(self, batch: Batch) -> None:
        """Read another batch from now on."""

    def _say(self, remark: str) -> None:
        """Tell the verdict, once."""
        if remark and remark not in self.remarks:
            self.remarks = (*self.remarks, remark)


def readings(learner: SplitLearner, chunks: Iterable[Batch], mode: Mode) -> Iterator[ChunkReading]:
    """The learner's answers on these parts of a split, one after the other."""
    for batch in chunks:
        learner.look_at(batch)
        reading, score = learner.read(mode), learner.score()
        yield ChunkReading(rows=batch.rows, reading=reading, targets=learner.targets, score=score)


class EpochTrainer(Trainer):
    """A trainer that makes its epochs step by step."""

    learner: SplitLearner

    def __init__(self, reseed: Callable[[int], int]) -> None:
        self._reseed, self._epochs = reseed, 0

    def train(self, epochs: int, after_epoch: Callable[[], None] = lambda: None) -> list[float]:
        losses: list[float] = []
        for _ in range(epochs):
            losses.append(self.epoch(self.next_order()))
            after_epoch()
        return losses

    def statistics(self) -> list[RunningStatistics]:
        return self.learner.statistics()

    def next_order(self) -> int:
        """Seed everything for the next epoch; the seed of its order."""
        order = self._reseed(self._epochs)
        self._epochs += 1
        return order

    def epoch(self, order: int) -> float:
        """One epoch in this order of the data; the mean training loss."""
        raise NotImplementedError

    def read(self, split: Split, mode: Mode = "eval") -> Iterator[ChunkReading]:
        return readings(self.learner, split.chunks(), mode)


class JointTraining:
    """Trains several trainers of one case at once, where their framework can and where it pays: here never."""

    def may_join(self, trainer: Trainer, members: int, epochs: int) -> bool:
        """True if it is worth a try with so many trainers like this fresh one; nothing is trained."""
        del trainer, members, epochs
        return False

    def train(
        self, trainers: Sequence[Trainer], epochs: int, after_epoch: Callable[[int], None]
    ) -> list[list[float]] | None:
        """What `Trainer.train` does, for each of them; `after_epoch` gets the place of a trainer, and may read it.

        The losses of each, which are those of one after the other but for rounding. None: it could not be done; the
        trainers must not be used afterwards: new ones of the same seeds are trained one after the other.
        """
        del trainers, epochs, after_epoch
        return None
