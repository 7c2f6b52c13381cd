"""See which loss functions the user's loss is made of, and read predictions and targets off the call.

Whatever wraps them (a lambda, a module, a model that computes its own loss), the call of `torch.nn.functional` that
does the work is seen by a function mode, with logits and targets already aligned.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from pytest_overfit.adapters.arrays import in_shape_of
from pytest_overfit.adapters.base import Head, Plain
from pytest_overfit.data.batch import to_numpy

Tensor = torch.Tensor


@dataclasses.dataclass(frozen=True)
class LossCall:
    """One call of a known loss function."""

    function: Callable[..., Any]
    arguments: dict[str, Any]
    result: Any

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def input(self) -> Tensor:
        found: Tensor = self.arguments["input"]
        return found

    @property
    def target(self) -> Tensor:
        found: Tensor = self.arguments["target"]
        return found

    def head(
        self, kind: Literal["classes", "binary", "values"], outputs: Any = None, targets: Any = None, **more: Any
    ) -> Head:
        """The pair that it compares, as it is or changed, to be scored as `kind`."""
        outputs, targets = self.input if outputs is None else outputs, self.target if targets is None else targets
        return Head(kind=kind, outputs=to_numpy(outputs), targets=to_numpy(targets), loss_name=self.name, **more)

    def again(self, outputs: Tensor, target: Tensor) -> Any:
        """The same loss with the same settings on other tensors, flattened as they were."""
        outputs, target = outputs.reshape(self.input.shape), target.reshape(self.target.shape)
        return self.function(**{**self.arguments, "input": outputs, "target": target})


def _scale(call: LossCall, count: int) -> float | None:
    """Factor between the mean over counted targets and the loss; None for a reduction with no single number."""
    reduction = call.arguments.get("reduction")
    if call.arguments.get("size_average") is not None or call.arguments.get("reduce") is not None:
        return None
    return {"mean": 1.0, "sum": float(count)}.get(str(reduction))


def _classes(call: LossCall, domain: Any) -> Head | None:
    if call.input.ndim < 2:
        return None
    targets = to_numpy(call.target)
    soft = call.target.is_floating_point()
    ignored = call.arguments.get("ignore_index", -100)
    mask = None if soft else targets != ignored
    if mask is not None and targets.ndim == 1 and 0 <= int(ignored or 0) < call.input.shape[1] and not mask.all():
        # one label a row, and a real class among the ignored: its rows are to be predicted like all others
        return call.head("classes", class_axis=1, domain=domain)
    counted = int(mask.sum()) if mask is not None else call.input.numel() // call.input.shape[1]
    scale = _scale(call, counted)
    weighted = call.arguments.get("weight") is not None or bool(call.arguments.get("label_smoothing"))
    distributions = not soft or bool(abs(targets.sum(axis=1) - 1).max() < 1e-3)
    plain: Plain = "" if scale is None or weighted or not counted or not distributions else "cross_entropy"
    more = {"mask": mask, "plain": plain, "scale": scale or 1.0, "minimum": 0.0}
    return call.head("classes", class_axis=1, domain=domain, **more)


def _divergence(call: LossCall) -> Head | None:
    targets = call.target.exp() if call.arguments.get("log_target") else call.target
    return call.head("classes", targets=targets, domain="log_probabilities")


def _margin(call: LossCall) -> Head | None:
    return call.head("classes", class_axis=1)


def _elementwise(kind: Any, plain: Plain, domain: Any = "unbounded", minimum: float | None = 0.0) -> Any:
    def head(call: LossCall) -> Head | None:
        outputs, targets = to_numpy(call.input), to_numpy(call.target)
        scale = _scale(call, targets.size)
        same_shape = call.input.shape == call.target.shape
        weighted = any(call.arguments.get(name) is not None for name in ("weight", "pos_weight"))
        more = {"plain": "" if scale is None or weighted or not same_shape else plain, "scale": scale or 1.0}
        return call.head(kind, targets=in_shape_of(outputs, targets), domain=domain, minimum=minimum, **more)

    return head


def _poisson(call: LossCall) -> Head | None:
    return call.head("values", outputs=call.input.exp() if call.arguments.get("log_input", True) else call.input)


def _signs(call: LossCall) -> Head | None:
    """Losses whose labels are -1 and +1."""
    return call.head("binary", targets=(to_numpy(call.target) > 0).astype(float))


#: the known losses, and how the head of a call is made
HEAD_OF: dict[Callable[..., Any], Callable[[LossCall], Head | None]] = {
    F.cross_entropy: functools.partial(_classes, domain="unbounded"),
    F.nll_loss: functools.partial(_classes, domain="log_probabilities"),
    F.kl_div: _divergence,
    F.multi_margin_loss: _margin,
    F.binary_cross_entropy: _elementwise("binary", "binary_cross_entropy", "probabilities"),
    F.binary_cross_entropy_with_logits: _elementwise("binary", "binary_cross_entropy"),
    F.multilabel_soft_margin_loss: _elementwise("binary", ""),
    F.soft_margin_loss: _signs,
    F.mse_loss: _elementwise("values", "squared_error"),
    F.l1_loss: _elementwise("values", "absolute_error"),
    F.smooth_l1_loss: _elementwise("values", ""),
    F.huber_loss: _elementwise("values", ""),
    F.gaussian_nll_loss: _elementwise("values", "", minimum=None),
    F.poisson_nll_loss: _poisson,
}


@functools.cache
def _parameters(function: Callable[..., Any]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Names in order, and defaults. Binding the signature each time would cost as much as a small loss."""
    given = inspect.signature(function).parameters.values()
    return tuple(each.name for each in given), {
        each.name: each.default for each in given if each.default is not each.empty
    }


def _arguments(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    names, defaults = _parameters(function)
    return {**defaults, **dict(zip(names, args, strict=False)), **kwargs}


class LossCalls(TorchFunctionMode):
    """Records the calls of known loss functions made inside the context."""

    def __init__(self, before: Callable[[LossCall], None] | None = None) -> None:
        super().__init__()
        self.calls: list[LossCall] = []
        #: asked about each call before it is made, so that it can refuse with a better message
        self._before = before

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function not in HEAD_OF:
            return function(*args, **(kwargs or {}))
        arguments = _arguments(function, args, kwargs or {})
        # one that lacks its input or its target is refused by the function itself
        if self._before is not None and {"input", "target"} <= arguments.keys():
            self._before(LossCall(function, arguments, None))
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.calls.append(LossCall(function, arguments, result))
        return result
