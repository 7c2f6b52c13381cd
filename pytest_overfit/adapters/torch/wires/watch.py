"""Sees backward passes and optimizer steps, whosever code makes them, by the state of parameters and gradients.

Not seen are gradients made by `torch.func`, and the steps of optimizers that are not derived from
`torch.optim.Optimizer`. What they do is visible in the parameters, so nothing is called missing on their account.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from pytest_overfit.adapters.torch.wires.scaling import ScalerWatch
from pytest_overfit.adapters.torch.wires.tensors import added, changed, copied, norm, written_back
from pytest_overfit.adapters.wires import BackwardPass, Event, OptimizerStep

Tensor = torch.Tensor
Tensors = Mapping[str, Tensor | None]


class StepWatch:
    """Notes what happens to one model's parameters while it watches."""

    def __init__(self, model: nn.Module) -> None:
        self.follow(model)
        self._optimizers: list[Any] = []
        #: the gradients that an optimizer last stepped with
        self.stepped_with: dict[str, Tensor] = {}
        #: the gradients as the last backward pass left them
        self.left: dict[str, Tensor] = {}
        #: parameters before each step that is being made: an optimizer may step another one inside its own
        self._before: list[dict[str, Tensor]] = []
        #: parameters before and after the last step of a call
        self._last: tuple[dict[str, Tensor], dict[str, Tensor]] | None = None
        self._inside = False
        self._scaler = ScalerWatch(self)
        self.events: list[Event] = []
        #: what the last backward pass started from
        self.root: Tensor | None = None

    def follow(self, model: nn.Module) -> None:
        """Watch what the model has now: parts may have been replaced."""
        self.named = dict(model.named_parameters())
        self._names = {id(each): name for name, each in self.named.items()}

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Note events until the block ends; what was patched is as it was afterwards, also after an exception."""
        self.events, self._before, self._last = [], [], None
        backward, grad = torch.autograd.backward, torch.autograd.grad
        with contextlib.ExitStack() as stack:
            for handle in (
                register_optimizer_step_pre_hook(self._on_step),
                register_optimizer_step_post_hook(self._after_step),
            ):
                stack.callback(handle.remove)
            stack.callback(setattr, torch.autograd, "backward", backward)
            stack.callback(setattr, torch.autograd, "grad", grad)
            torch.autograd.backward = self._seen_backward(backward)
            torch.autograd.grad = self._seen_grad(grad)
            stack.enter_context(self._scaler.watching())
            yield
        self.root = None

    # ----------------------------------------------------------------- backward

    def _seen_backward(self, backward: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(backward)
        def seen(tensors: Any, *args: Any, **kwargs: Any) -> None:
            if self._inside:  # a checkpoint differentiates its part inside the whole pass
                return backward(tensors, *args, **kwargs)
            before = {name: copied(each.grad) for name, each in self.named.items()}
            self._start(tensors)
            self._inside = True
            try:
                backward(tensors, *args, **kwargs)
            finally:
                self._inside = False
            made = {name: added(each.grad, before[name]) for name, each in self.named.items()}
            self.left = {name: now for name, each in self.named.items() if (now := copied(each.grad)) is not None}
            self._note(tensors, made, before)
            return None

        return seen

    def _start(self, tensors: Any) -> None:
        """Before the graph is freed."""
        one = tensors if isinstance(tensors, Tensor) else next(iter(tensors), None)
        self._scaler.at_backward(one)
        self.root = one

    def _seen_grad(self, grad: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(grad)
        def seen(outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            result = grad(outputs, inputs, *args, **kwargs)
            given = [inputs] if isinstance(inputs, Tensor) else list(inputs)
            names = [self._names.get(id(each), "") for each in given]
            found = {name: gradient for name, gradient in zip(names, result, strict=False) if name}
            if found and not self._inside:
                self._note(outputs, found, {})
            return result

        return seen

    def _note(self, tensors: Any, made: Tensors, before: Tensors) -> None:
        held = {name: each for name, each in before.items() if each is not None and bool(each.any())}
        old = self.stepped_with
        one = [tensors] if isinstance(tensors, Tensor) else list(tensors)
        value = float(one[0].detach()) if len(one) == 1 and one[0].numel() == 1 else None
        self.events.append(
            BackwardPass(
                gradients={name: None if each is None else norm(each) for name, each in made.items()},
                onto=frozenset(held),
                carried=frozenset(name for name, each in held.items() if name in old and torch.equal(each, old[name])),
                value=value,
            )
        )

    # ---------------------------------------------------------------- optimizer

    def _groups(self, optimizer: Any) -> tuple[tuple[str, ...], ...]:
        return tuple(
            tuple(self._names[id(each)] for each in group["params"] if id(each) in self._names)
            for group in optimizer.param_groups
        )

    def _on_step(self, optimizer: Any, *_: Any) -> None:
        held = {name for group in self._groups(optimizer) for name in group}
        self.stepped_with.update(
            {name: now for name in held if (now := copied(self.named[name].grad)) is not None},
        )
        self._before.append({name: each.detach().clone() for name, each in self.named.items()})

    def _after_step(self, optimizer: Any, *_: Any) -> None:
        groups, before = self._groups(optimizer), self._before.pop()
        if not any(groups):  # another model's
            return
        if not any(each is optimizer for each in self._optimizers):
            self._optimizers.append(optimizer)
        held = [name for group in groups for name in group]
        self._last = before, {name: each.detach().clone() for name, each in self.named.items()}
        self.events.append(
            OptimizerStep(
                optimizer=next(index for index, each in enumerate(self._optimizers) if each is optimizer),
                kind=type(optimizer).__name__,
                groups=groups,
                rate=_largest(optimizer, lambda group: group["lr"]),
                decay=_largest(optimizer, lambda group: group["lr"] * group["weight_decay"]),
                changed=changed(self.named, before),
                kept={name: share for name in held if (share := self._kept(name)) is not None},
                inside=bool(self._before),
            )
        )

    def _kept(self, name: str) -> float | None:
        """What the step was given of the gradient that the last backward pass left; None: it left none."""
        left, used = self.left.get(name), self.stepped_with.get(name)
        whole = 0.0 if left is None else norm(left)
        return None if whole == 0 else (0.0 if used is None else norm(used) / whole)

    def undone(self) -> float | None:
        """Share of the call's last step that was taken back before the call ended; None: it went another way."""
        return None if self._last is None else written_back(*self._last, self.named)

    def rate_of(self, name: str) -> float | None:
        """The learning rate that a parameter is stepped with; None: nobody was seen to hold it."""
        parameter = self.named[name]
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                if "lr" in group and any(each is parameter for each in group["params"]):
                    return float(group["lr"])
        return None

    def holds(self, parameter: Tensor) -> bool:
        """An optimizer that was seen holds it."""
        groups = [group for optimizer in self._optimizers for group in optimizer.param_groups]
        return any(each is parameter for group in groups for each in group["params"])


def _largest(optimizer: Any, value: Callable[[Any], Any]) -> float | None:
    found = []
    for group in optimizer.param_groups:
        with contextlib.suppress(KeyError, TypeError):
            found.append(float(value(group)))
    return max(found, default=None)
