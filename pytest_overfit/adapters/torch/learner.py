"""The learner for `nn.Module`: a plain training loop, and readings that leave no trace.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

# the tree functions are not in the documented API, but the only ones that rebuild a library's own output classes
from torch.utils import _pytree as pytree

from pytest_overfit.adapters.base import Mode, ParameterFacts, Reading, RunningStatistics
from pytest_overfit.adapters.torch import checks, feed, forensics
from pytest_overfit.adapters.torch.losses import LossCall, LossCalls, Scrutiny, heads_of
from pytest_overfit.adapters.torch.modes import Modes
from pytest_overfit.adapters.torch.state import preserved_generators
from pytest_overfit.core.usercode import user_code
from pytest_overfit.data.batch import map_leaves, to_numpy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_overfit.core.case import Case
    from pytest_overfit.data.batch import Batch

    Array = NDArray[Any]

Rebuild = Callable[[], Any]


def make_learner(case: Case, model: nn.Module, batch: Batch, rebuild: Rebuild) -> TorchLearner:
    """Make the learner of a freshly built module."""
    return TorchLearner(case, model, batch, rebuild)


class TorchLearner:
    """Steps an `nn.Module` as a hand-written loop would."""

    framework = "torch"

    def __init__(self, case: Case, model: nn.Module, batch: Batch, rebuild: Rebuild) -> None:
        self.case, self.model, self._rebuild, self._given = case, model, rebuild, batch
        checks.needs_loss_and_optimizer(case)
        self.batch = feed.on_device(case, model, batch)
        self.inputs, self.targets = feed.sides(self.batch)
        self._device = next((each.device for each in model.parameters()), torch.device("cpu"))
        self.remarks: tuple[str, ...] = ()
        self._captured: LossCall | None = None
        self._scrutiny = Scrutiny()
        self._modes = Modes(model)
        self._where = f"Case {case.name!r}:"
        self._unpacked = self._unpacking(self.batch.x)
        self._first_forward()
        self._modes.find_updating_modules(self._quiet_forward)
        self._optimizer = checks.make_optimizer(case, model)
        self._scheduler = checks.make_scheduler(case, self._optimizer)
        # a step of the user's may update every so many calls only
        self.has_schedule = self._scheduler is not None or case.step is not None
        self._start = {name: each.detach().clone() for name, each in model.named_parameters()}
        self._start_statistics = forensics.running_statistics(self._modes)

    # --------------------------------------------------------------- forward

    def _call(self, x: Any) -> Any:
        with self._autocast():
            if self._unpacked is dict:
                return self.model(**x)
            if self._unpacked is tuple:
                return self.model(*x)
            return self.model(x)

    def _unpacking(self, x: Any) -> type | None:
        """How `forward` takes the inputs: a dict as keywords, a tuple as arguments, or the whole as its one."""
        if isinstance(x, dict) and self._takes(x):
            return dict
        return tuple if isinstance(x, (tuple, list)) and self._takes(len(x)) else None

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
        return torch.autocast(self._device.type, dtype=getattr(torch, self.case.autocast))

    def _loss(self, outputs: Any, y: Any) -> torch.Tensor:
        with self._autocast():
            if self._captured is not None:
                return self._captured.again(outputs, y)  # type: ignore[no-any-return]
            if self.case.loss is None:
                return checks.loss_of_outputs(outputs, self.case)
            return self.case.loss(outputs, y)  # type: ignore[no-any-return]

    def _quiet_forward(self) -> Any:
        """A forward pass without gradients; with them where the model differentiates inside itself."""
        try:
            with torch.no_grad():
                return self._call(self.batch.x)
        except RuntimeError:
            with torch.enable_grad():
                return self._call(self.batch.x)

    def _first_forward(self) -> None:
        """Materialise lazy layers, see what the loss is made of, and refuse what cannot be trained."""
        with self._modes.reading("train"), self._explained("the model"):
            outputs = self._call(self.batch.x)
        self._modes = Modes(self.model)
        with self._modes.reading("eval"), self._explained("the model in evaluation"):
            evaluated = self._quiet_forward()
        self._modes.evaluates_differently = pytree.tree_structure(outputs) != pytree.tree_structure(evaluated)
        if self.case.step is not None and self.case.loss is None:
            return
        seen = LossCalls(before=lambda call: checks.labels_fit_the_loss(self.case, call))
        with seen, user_code(f"{self._where} the loss"):
            loss = self._loss(outputs, self.batch.y)
        checks.is_scalar_loss(loss, self.case)
        checks.can_be_trained(loss, self.model, self.case)
        self._scrutiny = Scrutiny.of(seen.calls, loss)

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """User code whose exception gets a note on the layer that raised."""
        with user_code(f"{self._where} {what}"):
            try:
                yield
            except Exception as error:
                with contextlib.suppress(Exception):
                    for note in forensics.explain_crash(self.model, self._quiet_forward):
                        error.add_note(note)
                raise

    # ------------------------------------------------------------------ steps

    def train(self, steps: int) -> list[float]:
        if self.case.step is not None:
            return self._user_steps(steps)
        with self._explained("a training step"):
            losses = [self._step() for _ in range(steps)]
        return [float(each) for each in torch.stack(losses).tolist()]

    def _step(self) -> torch.Tensor:
        if isinstance(self._optimizer, torch.optim.LBFGS):
            loss = self._optimizer.step(self._backward)  # type: ignore[no-untyped-call]
        else:
            loss = self._backward()
            self._optimizer.step()
        if self._scheduler is not None:
            checks.step_scheduler(self._scheduler, loss)
        return loss.detach()  # type: ignore[no-any-return]

    def _backward(self) -> torch.Tensor:
        self._optimizer.zero_grad()
        loss = self._loss(self._call(self.batch.x), self.batch.y)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    def _user_steps(self, steps: int) -> list[float]:
        losses: list[Any] = []
        step = self.case.step
        with user_code(f"{self._where} step"):
            for _ in range(steps):
                if step is not None and self._captured is None and not losses and self.case.loss is None:
                    losses.append(self._watched_step())
                elif step is not None:
                    losses.append(step(self.model, self.batch.x, self.batch.y))
        return [checks.step_loss(each, self.case) for each in losses]

    def _watched_step(self) -> Any:
        """One step of the user's loop, to see which loss it computes; that loss can then be read apart."""
        step = self.case.step
        with LossCalls() as seen:
            loss = step(self.model, self.batch.x, self.batch.y) if step is not None else None
        if len(seen.calls) == 1 and isinstance(self.batch.y, torch.Tensor):
            call = seen.calls[0]
            same_target = call.target.shape == self.batch.y.shape and torch.equal(call.target, self.batch.y)
            same_value = checks.step_loss(loss, self.case) == float(call.result.detach().mean())
            with self._modes.reading("eval"):
                outputs = self._quiet_forward()
            if same_target and same_value and isinstance(outputs, torch.Tensor) and outputs.shape == call.input.shape:
                self._captured = call
                self.remarks = (f"step: its loss is {call.name}, read apart from the steps",)
        return loss

    # --------------------------------------------------------------- readings

    def read(self, mode: Mode) -> Reading:
        with self._modes.reading(mode, self._quiet_forward), self._explained(f"the model in mode {mode!r}"):
            return self._reading(mode)

    def _reading(self, mode: Mode) -> Reading:
        inside = LossCalls()  # a model that computes its own loss does so in its forward pass
        with inside if self.case.loss is None else contextlib.nullcontext():
            outputs = self._quiet_forward()
        shown = tuple(to_numpy(each) for each in self._tensors(outputs))
        if self._modes.evaluates_differently and mode in ("eval", "reestimated"):
            return Reading(loss=None, outputs=shown)
        if self.case.loss is None and self.case.step is not None and self._captured is None:
            return Reading(loss=None, outputs=shown)
        with LossCalls() as seen, torch.no_grad():
            loss = self._loss(outputs, self.batch.y)
        if len(inside.calls) == 1 and self._captured is None:
            seen, loss = inside, inside.calls[0].result  # auxiliary terms (routers, penalties) are no part of the fit
        heads = heads_of(seen.calls, loss, self.batch.rows, self._scrutiny)
        return Reading(loss=float(loss), outputs=shown, heads=heads)

    @staticmethod
    def _tensors(outputs: Any) -> list[torch.Tensor]:
        return [each for each in pytree.tree_leaves(outputs) if isinstance(each, torch.Tensor)]

    def outputs_for(self, rows: Sequence[int]) -> tuple[Array, ...] | None:
        index = torch.as_tensor(rows, device=self._device)
        x = map_leaves(self.batch.x, lambda leaf: leaf[index])
        with self._modes.reading("eval"), torch.no_grad():
            try:
                return tuple(to_numpy(each) for each in self._tensors(self._call(x)))
            except Exception:  # a model that takes one batch size only cannot be asked; that is no fault
                return None

    def loss_and_gradient(self, outputs: Sequence[Array]) -> tuple[float, list[Array]] | None:
        if self.case.loss is None and self._captured is None:
            return None
        with preserved_generators(), torch.enable_grad():
            try:
                free, whole = self._substituted(outputs)
                loss = self._loss(whole, self.batch.y)
                wanted = [each for each in free if each.requires_grad]
                gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
            except Exception:  # outputs that the loss refuses: the caller takes another way
                return None
        found = iter(gradients)
        filled = [next(found) if each.requires_grad else None for each in free]
        return float(loss.detach()), [
            to_numpy(torch.zeros_like(each) if grad is None else grad).astype("float64")
            for each, grad in zip(free, filled, strict=True)
        ]

    def _substituted(self, outputs: Sequence[Array]) -> tuple[list[torch.Tensor], Any]:
        if not hasattr(self, "_example"):
            with self._modes.reading("fit"):
                self._example = self._quiet_forward()
        flat, spec = pytree.tree_flatten(self._example)
        given = iter(outputs)
        free: list[torch.Tensor] = []
        for number, each in enumerate(flat):
            if isinstance(each, torch.Tensor):
                new = torch.as_tensor(next(given)).to(each.device, each.dtype)
                flat[number] = new.requires_grad_(new.is_floating_point())
                free.append(flat[number])
        return free, pytree.tree_unflatten(flat, spec)

    # ------------------------------------------------------------------ facts

    def blinded(self) -> TorchLearner:
        return TorchLearner(self.case, self._rebuild(), feed.blinded(self._given), self._rebuild)

    def score(self) -> float | None:
        if self.case.score is None:
            return None
        with self._modes.reading("eval"), torch.no_grad(), user_code(f"{self._where} score"):
            return float(self.case.score(self.model, self.batch.x, self.batch.y))

    def parameters(self) -> ParameterFacts:
        return forensics.parameter_facts(self.model, self._start)

    def statistics(self) -> list[RunningStatistics]:
        with self._modes.reading("fit"), self._modes.observed_statistics() as seen:
            self._quiet_forward()
        return forensics.movement(self.model, self._start_statistics, seen)

    def differing_module(self, first: Mode, second: Mode) -> str | None:
        calls = []
        for mode in (first, second):
            with self._modes.reading(mode, self._quiet_forward), forensics.recorded(self.model) as seen:
                self._quiet_forward()
            calls.append(seen)
        return forensics.first_difference(self.model, *calls)
