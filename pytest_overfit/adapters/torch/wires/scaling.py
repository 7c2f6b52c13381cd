"""Mixed precision's GradScaler, seen from the gradients that it divides."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch.amp.grad_scaler import GradScaler

from pytest_overfit.adapters.torch.wires.tensors import copied
from pytest_overfit.adapters.wires import Event, Unscaling

#: nodes of the graph between a scaled loss and what is differentiated: a division by micro-batches, a sum
_NEAR = 6


class Watched(Protocol):
    """What whoever watches a step knows of its gradients."""

    named: dict[str, torch.nn.Parameter]
    left: dict[str, torch.Tensor]
    events: list[Event]


class ScalerWatch:
    """Notes each time a scaler divides gradients: were they scaled, and were they changed meanwhile?"""

    def __init__(self, watch: Watched) -> None:
        self._watch = watch
        self._scaled: list[Any] = []
        self._was_scaled = False

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        scale, unscale = GradScaler.scale, GradScaler._unscale_grads_
        self._scaled, self._was_scaled = [], False
        GradScaler.scale = self._seen_scale(scale)  # type: ignore[method-assign]
        GradScaler._unscale_grads_ = self._seen_unscale(unscale)  # type: ignore[method-assign]
        try:
            yield
        finally:
            GradScaler.scale, GradScaler._unscale_grads_ = scale, unscale  # type: ignore[method-assign]
            self._scaled = []

    def at_backward(self, root: Any) -> None:
        """A backward pass begins here."""
        waiting, near = [getattr(root, "grad_fn", None)], 0
        while waiting and near < _NEAR and not self._was_scaled:
            node, near = waiting.pop(0), near + 1
            if node is not None:
                self._was_scaled = any(node is each for each in self._scaled)
                waiting += [each for each, _ in node.next_functions]

    def _seen_scale(self, scale: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(scale)
        def seen(scaler: Any, outputs: Any) -> Any:
            result = scale(scaler, outputs)
            if isinstance(result, torch.Tensor):
                self._scaled.append(result.grad_fn)
            return result

        return seen

    def _seen_unscale(self, unscale: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(unscale)
        def seen(scaler: Any, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
            self._watch.events.append(
                Unscaling(
                    factor=float(scaler.get_scale()), scaled=self._was_scaled, touched=not self._as_left(optimizer)
                )
            )
            self._was_scaled, self._scaled = False, []
            result = unscale(scaler, optimizer, *args, **kwargs)
            self._watch.left = {
                name: now for name, each in self._watch.named.items() if (now := copied(each.grad)) is not None
            }
            return result

        return seen

    def _as_left(self, optimizer: Any) -> bool:
        """The gradients are still those that the last backward pass left."""
        held = {id(each) for group in optimizer.param_groups for each in group["params"]}
        pairs = [
            (copied(each.grad), self._watch.left.get(name))
            for name, each in self._watch.named.items()
            if id(each) in held
        ]
        return all(
            now is None or left is None or torch.equal(now.nan_to_num(), left.nan_to_num()) for now, left in pairs
        )
