"""Which of the inputs are targets, where a model is given both and computes its own loss."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from pytest_overfit.adapters.torch.facts import given_to_layers
from pytest_overfit.adapters.torch.forward import Forward
from pytest_overfit.adapters.torch.modes import Modes
from pytest_overfit.adapters.torch.records import tensors

#: the loss of a pass, and whatever else it answered
_Answer = tuple[torch.Tensor, list[torch.Tensor]]


def labels_among_inputs(forward: Forward, modes: Modes) -> frozenset[str | int]:
    """Keys or places of the inputs that are targets, where there is no target besides them.

    Those whose name says so; and those that, with row 0 in every row, change the loss and nothing else (moved to other
    rows they would not change the mean loss of a model that ignores its input): not what else the model answers, nor,
    where it answers its loss alone, what its layers are given. Costs a forward pass for each part.
    """
    x = forward.batch.x
    if forward.case.step is not None or forward.batch.y is not None or not isinstance(x, (dict, tuple)):
        return frozenset()
    parts: dict[str | int, Any] = dict(x) if isinstance(x, dict) else dict(enumerate(x))
    named = frozenset(key for key in parts if "label" in str(key) or "target" in str(key))
    base = _answer(forward, modes, x)
    if base is None or not base[1]:  # nothing tells targets from inputs
        return named
    alike = {
        key: _answer(forward, modes, _with(x, key, _first_row_everywhere(each)))
        for key, each in parts.items()
        if key not in named and (isinstance(each, list) or (isinstance(each, torch.Tensor) and each.ndim))
    }
    return named | {key for key, answer in alike.items() if answer is not None and _differs_in_loss_only(base, answer)}


def _first_row_everywhere(part: Any) -> Any:
    return [part[0]] * len(part) if isinstance(part, list) and part else part[:1].expand_as(part)


def _with(x: Any, key: Any, part: Any) -> Any:
    if isinstance(x, dict):
        return {**x, key: part}
    return tuple(part if place == key else each for place, each in enumerate(x))


def _answer(forward: Forward, modes: Modes, x: Any) -> _Answer | None:
    given: list[torch.Tensor] = []
    with modes.reading("eval"), torch.no_grad(), contextlib.suppress(Exception), given_to_layers(forward.model, given):
        outputs = forward.call(x)
        loss = forward.loss(outputs, None)
        return loss, [each for each in tensors(outputs) if each.numel() != 1] or given
    return None


def _differs_in_loss_only(first: _Answer, second: _Answer) -> bool:
    if torch.equal(first[0], second[0]):
        return False
    return len(first[1]) == len(second[1]) and all(
        a.shape == b.shape and torch.equal(a, b) for a, b in zip(first[1], second[1], strict=True)
    )
