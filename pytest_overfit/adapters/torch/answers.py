"""What a model answers in evaluation, asked for chosen rows, or for the same again."""

from __future__ import annotations

from typing import Any

import torch

from pytest_overfit.adapters.arrays import alike
from pytest_overfit.adapters.output_rows import OutputRows
from pytest_overfit.adapters.torch.forward import Forward
from pytest_overfit.adapters.torch.modes import Modes
from pytest_overfit.adapters.torch.records import tensors
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.usercode import users_own
from pytest_overfit.data.batch import to_numpy


class Answers:
    """Asks a model in evaluation."""

    def __init__(self, forward: Forward, modes: Modes, rows: OutputRows) -> None:
        self._forward, self._modes, self._rows = forward, modes, rows

    def to(self, x: Any, seed: int | None = None) -> tuple[Array, ...] | None:
        """Outputs for these inputs, rows first; None where the model cannot be asked.

        State that has one entry a row starts anew: it belongs to its row.
        """
        outputs = self.as_given(x, seed)
        return None if outputs is None else self._rows.first(outputs)

    def as_given(self, x: Any, seed: int | None = None) -> tuple[Array, ...] | None:
        """The same as the model gives them."""
        rows = self._forward.batch.rows
        with self._modes.reading("eval", fresh=True, rows=rows, seed=seed), torch.no_grad():
            try:
                return tuple(to_numpy(each) for each in tensors(self._forward.call(x)))
            except Exception as error:  # a model that takes one batch size only cannot be asked; that is not a fault
                refused = error
        if users_own(refused):  # it may have raised whatever it was given, which the whole batch shows
            self._ask_again(seed)
        return None

    def _ask_again(self, seed: int | None) -> None:
        with self._modes.reading("eval", seed=seed), self._forward.explained("the model in evaluation"):
            self._forward.quiet()

    def compared(self) -> list[bytes]:
        """Its answer on the whole batch, to be compared with the one when asked the same again."""
        with self._modes.reading("eval", seed=0):
            try:
                return [to_numpy(each).tobytes() for each in tensors(self._forward.quiet())]
            except Exception as error:  # outputs that are no arrays
                refused = error
        if users_own(refused):
            self._ask_again(0)
        return []

    def are_drawn(self) -> bool | None:
        """Equal random numbers make equal answers, or a generator of the model's own is drawn from."""
        first, second = (self.to(self._forward.batch.x, seed=0) for _ in range(2))
        if first is None or second is None:
            return None
        return self._modes.state.draws or alike(first, second)
