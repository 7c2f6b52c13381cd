"""The user's loss on other outputs than the model's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pytest_overfit.adapters.arrays import by_each_output
from pytest_overfit.adapters.output_rows import OutputRows
from pytest_overfit.adapters.torch import records
from pytest_overfit.adapters.torch.forward import Forward
from pytest_overfit.adapters.torch.losses import LossCall, LossCalls
from pytest_overfit.adapters.torch.modes import Modes
from pytest_overfit.adapters.torch.state import preserved_generators
from pytest_overfit.core.arrays import Array


class FreeOutputs:
    """Puts arrays in place of the model's outputs, in the same containers."""

    def __init__(self, forward: Forward, modes: Modes, rows: OutputRows) -> None:
        self._forward, self._modes, self._rows = forward, modes, rows
        #: which tensors among the outputs carry a gradient; the others (a teacher's) are held
        self.carries: list[bool] = []
        self._example: Any = None

    def loss_and_gradient(self, outputs: Sequence[Array]) -> tuple[float, list[Array]] | None:
        """The loss and its gradient by each output; None where the loss refuses them."""
        with preserved_generators(), self._forward.loss_state.kept(), torch.enable_grad():
            try:
                free, whole = self._substituted(outputs)
                loss = self._forward.loss(whole, self._forward.batch.y)
                by = [each for each in free if each.requires_grad]
                gradients = torch.autograd.grad(loss, by, allow_unused=True)
            except Exception:  # outputs that the loss refuses: the caller takes another way
                return None
        found = iter(gradients)
        filled = [next(found) if each.requires_grad else None for each in free]
        return float(loss.detach()), list(self._rows.first(by_each_output(filled, self._as_answered(outputs))))

    def loss_calls(self, outputs: Sequence[Array]) -> list[LossCall]:
        """The loss functions that the loss calls on these outputs; empty where it refuses them."""
        seen = LossCalls()
        with preserved_generators(), self._forward.loss_state.kept(), torch.no_grad():
            try:
                _, whole = self._substituted(outputs)
                with seen:
                    self._forward.loss(whole, self._forward.batch.y)
            except Exception:  # as above
                return []
        return seen.calls

    def _as_answered(self, outputs: Sequence[Array]) -> Sequence[Array]:
        """Outputs with their rows where the model has them."""
        if self._example is None:
            with self._modes.reading("fit"):
                self._example = self._forward.quiet()
        return self._rows.back(outputs, records.tensors(self._example))

    def _substituted(self, outputs: Sequence[Array]) -> tuple[list[torch.Tensor], Any]:
        given = iter(self._as_answered(outputs))
        free: list[torch.Tensor] = []

        def put(output: Any) -> Any:
            if not isinstance(output, torch.Tensor):
                return output
            new = torch.as_tensor(next(given)).to(output.device, output.dtype)
            held = not self.carries[len(free)] or not new.is_floating_point()
            free.append(output if held else new.requires_grad_())
            return free[-1]

        whole = records.mapped(self._example, put)
        return free, whole
