"""See which loss functions the user's loss is made of, and read predictions and targets off the call.

Whatever wraps them (a lambda, a module, a model that computes its own loss), the call of `torch.nn.functional` that
does the work is seen by a function mode, with logits and targets already aligned.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

Tensor = torch.Tensor

#: the losses that heads can be read off; `heads` says how
KNOWN = frozenset(
    {
        F.cross_entropy,
        F.nll_loss,
        F.kl_div,
        F.multi_margin_loss,
        F.binary_cross_entropy,
        F.binary_cross_entropy_with_logits,
        F.multilabel_soft_margin_loss,
        F.soft_margin_loss,
        F.mse_loss,
        F.l1_loss,
        F.smooth_l1_loss,
        F.huber_loss,
        F.gaussian_nll_loss,
        F.poisson_nll_loss,
    }
)


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

    def again(self, outputs: Tensor, target: Tensor) -> Any:
        """The same loss with the same settings on other tensors, flattened as they were."""
        outputs, target = outputs.reshape(self.input.shape), target.reshape(self.target.shape)
        return self.function(**{**self.arguments, "input": outputs, "target": target})


@functools.cache
def _parameters(function: Callable[..., Any]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Names in order, and defaults. Binding the signature anew would cost as much as a small loss."""
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
        if function not in KNOWN:
            return function(*args, **(kwargs or {}))
        arguments = _arguments(function, args, kwargs or {})
        # one that lacks its input or its target is refused by the function itself
        if self._before is not None and {"input", "target"} <= arguments.keys():
            self._before(LossCall(function, arguments, None))
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.calls.append(LossCall(function, arguments, result))
        return result


@dataclasses.dataclass
class Scrutiny:
    """What was learnt once about the calls of a loss, from its graph; calls are known by their order."""

    #: how many calls there were
    count: int = 0
    #: calls whose target the model made itself: they predict nothing
    own_targets: set[int] = dataclasses.field(default_factory=set)
    #: factors of the calls whose weighted sum is the data term; empty: it is no such sum
    weights: dict[int, float] = dataclasses.field(default_factory=dict)
    #: for a call inside a larger loss: True where the loss looks at that output at all
    asked: dict[int, Tensor] = dataclasses.field(default_factory=dict)

    #: the calls were given outputs as they are, so that any value can reach them; logits made of a cosine cannot
    direct: bool = True

    @classmethod
    def of(cls, calls: Sequence[LossCall], loss: Tensor, outputs: Sequence[Tensor], inside: bool = False) -> Scrutiny:
        """Look through the graph of a loss. `inside`: the model made it, with terms of its own beside these calls."""
        own = {number for number, call in enumerate(calls) if call.target.requires_grad}
        weights = _weights(calls, loss, own, inside)
        direct = all(_selects(calls[number].input, outputs) for number in weights)
        return cls(len(calls), own, weights, {} if weights else _asked(calls, loss, own), direct)

    def data_term(self, calls: Sequence[LossCall]) -> float | None:
        """The weighted sum of the calls; None where the loss is no such sum."""
        if not self.weights or len(calls) != self.count:
            return None
        return sum(weight * float(calls[number].result.detach()) for number, weight in self.weights.items())


def _weights(calls: Sequence[LossCall], loss: Tensor, own: set[int], inside: bool) -> dict[int, float]:
    """The factor of each call in a loss that is linear in them; {} for any other loss."""
    if len(calls) == 1 and not own and _is_the_whole_loss(calls[0], loss):
        return {0: 1.0}
    results = {n: call.result for n, call in enumerate(calls) if n not in own and call.result.requires_grad}
    if not results or not loss.requires_grad or any(each.numel() != 1 for each in results.values()):
        return {}
    gradients = torch.autograd.grad(loss, list(results.values()), create_graph=True, allow_unused=True)
    if any(each is not None and each.requires_grad for each in gradients):
        return {}  # not linear: the factors change with the outputs
    factors = {n: float(each.detach()) for n, each in zip(results, gradients, strict=True) if each is not None}
    if not factors or min(factors.values()) < 0:
        return {}
    total = sum(factor * float(results[number].detach()) for number, factor in factors.items())
    whole = math.isclose(total, float(loss.detach()), rel_tol=1e-5, abs_tol=1e-7)
    return {number: factor for number, factor in factors.items() if factor > 0} if whole or inside else {}


def _selects(given: Tensor, outputs: Sequence[Tensor]) -> bool:
    """True if `given` holds numbers of the outputs unchanged, in whatever order and shape: sliced, flattened, turned.

    Each number's gradient by the outputs is then 1 at one place; seen for all at once with a different weight each.
    """
    if any(given is each for each in outputs):
        return True
    leaves = [each for each in outputs if each.requires_grad]
    if not given.requires_grad or not leaves:
        return False
    counting = torch.arange(1, given.numel() + 1, device=given.device, dtype=torch.float32) / given.numel()
    weights = counting.to(leaves[0].dtype).to(given.dtype)  # rounded as the gradients will be
    found = torch.autograd.grad(given, leaves, weights.reshape(given.shape), retain_graph=True, allow_unused=True)
    # each output alone: others may lie before it on the way to the loss (an encoder's states beside the logits)
    wanted = _moments(weights)
    return any(each is not None and torch.allclose(_moments(each), wanted, rtol=1e-9) for each in found)


def _moments(numbers: Tensor) -> Tensor:
    """How many are not zero, their sum and the sum of their squares: the same for numbers in another order."""
    numbers = numbers.double()
    return torch.stack([(numbers != 0).sum(), numbers.sum(), (numbers * numbers).sum()])


def _asked(calls: Sequence[LossCall], loss: Tensor, own: set[int]) -> dict[int, Tensor]:
    """A gradient of exactly zero means hand-masked (padding, weights of 0)."""
    open_ = {number: call.input for number, call in enumerate(calls) if call.input.requires_grad and number not in own}
    if not open_ or not loss.requires_grad:
        return {}
    gradients = torch.autograd.grad(loss, list(open_.values()), retain_graph=True, allow_unused=True)
    return {number: each != 0 for number, each in zip(open_, gradients, strict=True) if each is not None}


def _is_the_whole_loss(call: LossCall, loss: Tensor) -> bool:
    if call.result.shape != loss.shape:
        return False
    return call.result is loss or bool(torch.equal(call.result, loss))
