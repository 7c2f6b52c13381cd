"""Which of the inputs are targets, where a model is given both and computes its own loss.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from pytest_overfit.adapters.torch.forward import Forward, tensors
from pytest_overfit.adapters.torch.modes import Modes

#: the loss of a pass, and whatever else it answered
_Answer = tuple[torch.Tensor, list[torch.Tensor]]


def labels_among_inputs(forward: Forward, modes: Modes) -> frozenset[str]:
    """Keys of the inputs that are targets.

    Those whose name says so; and those that, moved to other rows, change the loss and nothing else. Costs a forward
    pass for each part of the input, where there is no target beside it.
    """
    x = forward.batch.x
    if forward.case.step is not None or forward.batch.y is not None or not isinstance(x, dict):
        return frozenset()
    named = frozenset(key for key in x if "label" in str(key) or "target" in str(key))
    base = _answer(forward, modes, x)
    if base is None:
        return named
    moved = {
        key: _answer(forward, modes, {**x, key: each.roll(1, 0)})
        for key, each in x.items()
        if key not in named and isinstance(each, torch.Tensor)
    }
    return named | {key for key, answer in moved.items() if answer is not None and _differs_in_loss_only(base, answer)}


def _answer(forward: Forward, modes: Modes, x: Any) -> _Answer | None:
    with modes.reading("eval"), torch.no_grad(), contextlib.suppress(Exception):
        outputs = forward.call(x)
        loss = forward.loss(outputs, None)
        return loss, [each for each in tensors(outputs) if each.numel() != 1]
    return None


def _differs_in_loss_only(first: _Answer, second: _Answer) -> bool:
    if torch.equal(first[0], second[0]):
        return False
    return len(first[1]) == len(second[1]) and all(
        a.shape == b.shape and torch.equal(a, b) for a, b in zip(first[1], second[1], strict=True)
    )
