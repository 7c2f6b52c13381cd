"""Does a model sample by design? It does where it scales noise itself, as a variational autoencoder does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

Tensor = torch.Tensor

_SOURCES = {torch.randn, torch.randn_like, torch.normal, Tensor.normal_}

#: noise stays noise under these as long as everything else in the call is a constant
_SCALINGS = {
    torch.mul,
    Tensor.mul,
    Tensor.mul_,
    Tensor.__mul__,
    Tensor.__rmul__,
    torch.matmul,
    Tensor.matmul,
    Tensor.__matmul__,
    torch.bmm,
    torch.einsum,
    F.linear,
    torch.addcmul,
    Tensor.addcmul,
}

#: these draw from a distribution that is an argument of theirs
_SAMPLERS = {F.gumbel_softmax}

_MOVES = {
    Tensor.to,
    Tensor.view,
    Tensor.reshape,
    Tensor.unsqueeze,
    torch.unsqueeze,
    Tensor.expand,
    Tensor.squeeze,
    Tensor.flatten,
    Tensor.float,
    Tensor.type_as,
    Tensor.detach,
}


class LatentNoise(TorchFunctionMode):
    """Watches a training forward pass for normal noise that is multiplied by something trainable.

    That is the reparameterisation trick (mean + noise * deviation, with the deviation a result of the model), and how
    generators and Bayesian layers use theirs. Dropout draws no normal noise; a noise layer adds noise of a fixed size
    (or multiplies by 1 + noise), which is not taken for a sample.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found = False
        # the tensors themselves are kept: an id may be given again after a tensor has gone
        self._noise: dict[int, Tensor] = {}

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if not self.found:
            self._look(function, [*args, *(kwargs or {}).values()], result)
        return result

    def _look(self, function: Any, given: list[Any], result: Any) -> None:
        given = [each for some in given for each in (some if isinstance(some, (list, tuple)) else [some])]
        tensors = [each for each in given if isinstance(each, Tensor)]
        trainable = any(each.requires_grad for each in tensors)
        if function in _SAMPLERS:
            self.found = trainable
        elif function in _SOURCES:
            self.found = function is torch.normal and trainable
            self._keep(result)
        elif any(id(each) in self._noise for each in tensors):
            if function in _SCALINGS and trainable:
                self.found = True
            elif (function in _SCALINGS or function in _MOVES) and not trainable:
                self._keep(result)

    def _keep(self, result: Any) -> None:
        if isinstance(result, Tensor):
            self._noise[id(result)] = result
