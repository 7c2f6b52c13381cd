"""One pass through the user's model and loss, as the user's own loop makes it."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from pytest_overfit.adapters.torch import checks
from pytest_overfit.adapters.torch.facts import explain_crash
from pytest_overfit.adapters.torch.handed_out import HandedOut
from pytest_overfit.adapters.torch.losses import LossCall, LossCalls
from pytest_overfit.adapters.torch.pass_state import state_of_loss
from pytest_overfit.adapters.torch.state import preserved_generators
from pytest_overfit.adapters.torch.step_as_loss import Arguments, StepAsLoss
from pytest_overfit.core.case import Case
from pytest_overfit.core.usercode import user_code
from pytest_overfit.data.batch import Batch


class Forward:
    """Calls the model on the batch, and the loss on what it answers."""

    def __init__(self, case: Case, model: nn.Module, given: Batch | HandedOut) -> None:
        self.case, self.model, self.given = case, model, given
        self.device = next((each.device for each in model.parameters()), torch.device("cpu"))
        self._unpacked = self._unpacking(self.batch.x)
        self.is_compiled = "torch._dynamo" in sys.modules and any(
            isinstance(each, torch._dynamo.OptimizedModule) or getattr(each, "_compiled_call_impl", None) is not None
            for each in model.modules()
        )
        #: the loss inside a step that also does other things with its model
        self.captured: LossCall | None = None
        #: the user's own step as a loss of outputs
        self.own: StepAsLoss | None = None
        #: what calls of the loss change in it and around it
        self.loss_state = state_of_loss(case.loss)
        #: False where only the user's step knows how to call the model
        self.can_be_called = True

    @property
    def batch(self) -> Batch:
        """The batch as the user's code gets it."""
        return self.given.now() if isinstance(self.given, HandedOut) else self.given

    @property
    def loss_is_inside(self) -> bool:
        """The model computes its own loss while it answers."""
        return self.case.loss is None and self.case.step is None

    @property
    def has_loss(self) -> bool:
        """The loss can be computed apart from a step."""
        return self.case.step is None or self.case.loss is not None or self.own is not None or self.captured is not None

    @property
    def runs_as_written(self) -> bool:
        """No compiler changes how the model's code is computed, and it can be called apart from a step."""
        return not self.is_compiled and self.can_be_called

    def call(self, x: Any) -> Any:
        """The model's answer."""
        if not self.can_be_called:
            return ()
        with self._autocast():
            if isinstance(x, Arguments):
                return self.model(*x.args, **x.kwargs)
            if self._unpacked is dict:
                return self.model(**x)
            if self._unpacked is tuple:
                return self.model(*x)
            return self.model(x)

    def loss_with(self, weights: dict[str, torch.Tensor], x: Any, y: Any) -> torch.Tensor:
        """The loss with these weights in place of the model's; works under `torch.func`."""
        args, kwargs = ((), x) if self._unpacked is dict else (x, {}) if self._unpacked is tuple else ((x,), {})
        return self.loss(torch.func.functional_call(self.model, weights, tuple(args), kwargs), y)

    def _unpacking(self, x: Any) -> type | None:
        """How `forward` takes the inputs: a dict as keywords, a tuple as arguments, or the whole as its one."""
        if isinstance(x, dict) and self._takes(x):
            return dict
        return tuple if isinstance(x, (tuple, list)) and self._takes(len(x)) else None

    @property
    def unpacks(self) -> bool:
        """Parts of the inputs are arguments of `forward`, by their names or places."""
        return self._unpacked is not None

    def argument_names(self) -> list[str]:
        """What `forward` calls its arguments, as far as they have names."""
        forward = getattr(self.model, "_orig_mod", self.model).forward
        try:
            parameters = inspect.signature(forward).parameters.values()
        except (TypeError, ValueError):  # a scripted one has none
            return []
        return [each.name for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]

    def _takes(self, given: Any) -> bool:
        """True if `forward` takes these names, or this many arguments."""
        forward = getattr(self.model, "_orig_mod", self.model).forward  # a compiled module wraps the user's
        try:
            signature = inspect.signature(forward)
            signature.bind(*([None] * given)) if isinstance(given, int) else signature.bind(**given)
        except TypeError:
            return False
        return True

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.case.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=getattr(torch, self.case.autocast))

    def loss(self, outputs: Any, y: Any) -> torch.Tensor:
        """The user's loss, as a tensor without axes where it is one number."""
        with self._autocast():
            if self.captured is not None and isinstance(outputs, torch.Tensor):
                loss: Any = self.captured.again(outputs, self.captured.target)
            elif self.own is not None:
                loss = self.own.loss(outputs)
            elif self.case.loss is None:
                loss = checks.loss_of_outputs(outputs, self.case)
            else:
                loss = self.case.loss(outputs, y)
        return loss.reshape(()) if isinstance(loss, torch.Tensor) and loss.ndim and loss.numel() == 1 else loss

    def loss_again(self, outputs: Any) -> float:
        """The loss of these outputs, without gradients and with the generators put back."""
        with preserved_generators(), torch.no_grad():
            return float(self.loss(outputs, self.batch.y))

    def pass_with_loss(self) -> torch.Tensor:
        """What a training step computes before its update; the loss too may call the model, and differentiate."""
        return self.loss(self.call(self.batch.x), self.batch.y)

    def quiet(self) -> Any:
        """A forward pass without gradients; with them where the model differentiates inside itself."""
        try:
            with torch.no_grad():
                return self.call(self.batch.x)
        except RuntimeError:
            with torch.enable_grad():
                return self.call(self.batch.x)

    @contextlib.contextmanager
    def explained(self, what: str) -> Iterator[None]:
        """User code whose exception gets a note on the layer that raised."""
        with user_code(f"Case {self.case.name!r}: {what}"):
            try:
                yield
            except Exception as error:
                with contextlib.suppress(Exception):
                    for note in explain_crash(self.model, self.quiet):
                        error.add_note(note)
                raise

    @property
    def watching_is_free(self) -> bool:
        """A pass can be watched without changing what it computes: a compiled model runs as written while it is."""
        return not (self.is_compiled and self.loss_is_inside)

    def as_written(self) -> contextlib.AbstractContextManager[Any]:
        """A compiled model runs uncompiled inside: its compiler would trace into whatever watches the pass."""
        return torch.compiler.set_stance("force_eager") if self.is_compiled else contextlib.nullcontext()

    def watched(self, quiet: bool) -> tuple[Any, torch.Tensor | None, list[LossCall]]:
        """Outputs, loss (None: only the user's step knows it) and the loss functions it was made of."""
        inside = LossCalls()
        with contextlib.ExitStack() as stack:
            if self.loss_is_inside:
                stack.enter_context(self.as_written())
                stack.enter_context(inside)
            outputs = self.quiet() if quiet else self.call(self.batch.x)
        if not self.has_loss:
            return outputs, None, []
        with LossCalls() as seen, torch.set_grad_enabled(not quiet):
            loss = self.loss(outputs, self.batch.y)
        return outputs, loss, inside.calls if self.loss_is_inside else seen.calls
