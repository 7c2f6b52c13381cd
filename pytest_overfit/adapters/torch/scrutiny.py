"""What the calls of a loss are to the whole of it, learnt once from its graph."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch

from pytest_overfit.adapters.torch.losses import LossCall

Tensor = torch.Tensor


@dataclasses.dataclass
class Scrutiny:
    """What was learnt once about the calls of a loss, from its graph; calls are known by their order."""

    #: how many calls there were
    count: int = 0
    #: calls whose target the model made itself: they predict nothing
    own_targets: set[int] = dataclasses.field(default_factory=set)
    #: factors of the calls whose weighted sum is the data term; empty: it is not such a sum
    weights: dict[int, float] = dataclasses.field(default_factory=dict)
    #: for a call inside a larger loss: True where the loss looks at that output at all
    asked: dict[int, Tensor] = dataclasses.field(default_factory=dict)

    #: the calls were given outputs as they are, so that any value can reach them; logits made of a cosine cannot
    direct: bool = True

    @classmethod
    def of(cls, calls: Sequence[LossCall], loss: Tensor, outputs: Sequence[Tensor], inside: bool = False) -> Scrutiny:
        """Look through the graph of a loss. `inside`: the model made it, with terms of its own besides these calls."""
        own = {number for number, call in enumerate(calls) if call.target.requires_grad}
        weights = _weights(calls, loss, own, inside)
        direct = all(_selects(calls[number].input, outputs) for number in weights)
        return cls(len(calls), own, weights, {} if weights else _asked(calls, loss, own), direct)

    def data_term(self, calls: Sequence[LossCall]) -> float | None:
        """The weighted sum of the calls; None where the loss is not such a sum."""
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
    # each output alone: others may lie before it on the way to the loss (an encoder's states and the logits)
    expected = _moments(weights)
    return any(each is not None and torch.allclose(_moments(each), expected, rtol=1e-9) for each in found)


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
