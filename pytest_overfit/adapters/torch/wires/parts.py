"""Parameters that a model keeps where `parameters()` does not find them: layers in a plain list, a dict, an object."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

#: containers inside containers
_DEEPEST = 3


def leaves_of(root: torch.Tensor | None) -> set[int]:
    """Ids of the tensors that a loss is a function of and that want a gradient."""
    waiting, seen, found = [getattr(root, "grad_fn", None)], set(), set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        waiting += [each for each, _ in node.next_functions]
    return found


def unregistered(model: nn.Module) -> dict[str, torch.Tensor]:
    """Name by attribute -> parameter, of those in containers that modules do not look into."""
    known = {id(each) for each in model.parameters()}
    found: dict[str, torch.Tensor] = {}
    for path, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute.startswith("_"):
                continue
            for name, parameter in _inside(value, attribute, _DEEPEST):
                if id(parameter) not in known and parameter.requires_grad:
                    found[f"{path}.{name}" if path else name] = parameter
    return found


def _inside(value: Any, name: str, depth: int) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, nn.Module):
        yield from ((f"{name}.{own}", each) for own, each in value.named_parameters())
    elif isinstance(value, torch.Tensor):
        if value.is_leaf and value.requires_grad:
            yield name, value
    elif depth and isinstance(value, (list, tuple, dict)):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in parts:
            yield from _inside(part, f"{name}.{key}", depth - 1)
