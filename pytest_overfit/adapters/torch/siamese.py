"""Which outputs are one function of several inputs, as a siamese net's embeddings are?"""

from __future__ import annotations

from typing import Any

import torch

from pytest_overfit.adapters.torch.forward import Forward
from pytest_overfit.adapters.torch.modes import Modes
from pytest_overfit.adapters.torch.records import tensors
from pytest_overfit.data.batch import leaves, map_leaves


def shared_outputs(forward: Forward, modes: Modes) -> list[int]:
    """For each output the first one that equals it once all inputs of one shape are the same; else itself.

    An output that ignores its input is then the same for all of them. Costs two forward passes, where there are
    several inputs and outputs of one shape.
    """
    plain = _answer(forward, modes, forward.batch.x)
    alone = list(range(len(plain)))
    alike = _with_equal_inputs(forward.batch.x)
    if alike is None or len({each.shape for each in plain}) == len(plain):
        return alone
    try:
        tied = _answer(forward, modes, alike)
    except Exception:  # inputs that must differ cannot be asked so
        return alone
    return [next(n for n in alone if n == own or (_equal(tied, n, own) and not _equal(plain, n, own))) for own in alone]


def _answer(forward: Forward, modes: Modes, x: Any) -> list[torch.Tensor]:
    with modes.reading("eval"), torch.no_grad():
        return tensors(forward.call(x))


def _with_equal_inputs(x: Any) -> Any:
    """Every floating-point input replaced by the first one of its shape; None where there is nothing to replace."""
    first: dict[Any, torch.Tensor] = {}
    floats = [each for each in leaves(x) if isinstance(each, torch.Tensor) and each.is_floating_point()]
    for each in floats:
        first.setdefault(each.shape, each)
    if len(first) == len(floats):
        return None
    return map_leaves(x, lambda leaf: first.get(leaf.shape, leaf) if isinstance(leaf, torch.Tensor) else leaf)


def _equal(outputs: list[torch.Tensor], first: int, second: int) -> bool:
    return outputs[first].shape == outputs[second].shape and torch.equal(outputs[first], outputs[second])
