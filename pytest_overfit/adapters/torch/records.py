"""The tensors in what a model answers: in torch's trees, and in the user's own records (dataclasses, plain objects)."""

from __future__ import annotations

import copy
import dataclasses
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

# the tree functions are not in the documented API, but the only ones that rebuild a library's own output classes
from torch.utils import _pytree as pytree

from pytest_overfit.core.usercode import is_users_class

#: records within records that are opened, at most: objects may refer to each other
_DEEP = 4

_NO_RECORDS = (torch.Tensor, nn.Module, type, types.FunctionType, types.ModuleType, torch.distributions.Distribution)


def tensors(tree: Any) -> list[torch.Tensor]:
    """The tensors in it, in order."""
    return [each for each in leaves(tree) if isinstance(each, torch.Tensor)]


def predictions(tree: Any) -> list[torch.Tensor]:
    """The tensors in it; of a model that answers with a distribution alone, its mean."""
    found = tensors(tree)
    if found or not isinstance(tree, torch.distributions.Distribution):
        return found
    try:
        return [tree.mean]
    except NotImplementedError:  # some have none in closed form
        return []


def leaves(tree: Any, deep: int = _DEEP) -> list[Any]:
    """What is in a tree, in order, the attributes of records among it."""
    found = pytree.tree_leaves(tree)
    if not any(map(_is_record, found)) or not deep:
        return found
    return [each for leaf in found for each in (_inside(leaf, deep) if _is_record(leaf) else [leaf])]


def _inside(record: Any, deep: int) -> list[Any]:
    return [each for _, value in _attributes(record) for each in leaves(value, deep - 1)]


def mapped(tree: Any, change: Callable[[Any], Any], deep: int = _DEEP) -> Any:
    """The same tree of other leaves; records in it are copies, so that the model's own stay as they are."""
    return pytree.tree_map(
        lambda leaf: _changed(leaf, change, deep) if deep and _is_record(leaf) else change(leaf), tree
    )


def _changed(record: Any, change: Callable[[Any], Any], deep: int) -> Any:
    other = copy.copy(record)
    for name, value in _attributes(record):
        object.__setattr__(other, name, mapped(value, change, deep - 1))  # frozen dataclasses too
    return other


def structure(tree: Any, deep: int = _DEEP) -> Any:
    """Equal for trees that differ in their leaves alone."""
    found = pytree.tree_leaves(tree)
    inside = [_form(each, deep) for each in found if deep and _is_record(each)]
    return pytree.tree_structure(tree), inside


def _form(record: Any, deep: int) -> Any:
    return type(record), [(name, structure(value, deep - 1)) for name, value in _attributes(record)]


def _is_record(value: Any) -> bool:
    """A dataclass, or an object of the user's own class with attributes: torch's trees do not look into them."""
    if isinstance(value, _NO_RECORDS) or not (hasattr(value, "__dict__") or dataclasses.is_dataclass(value)):
        return False
    kind = type(value)
    return dataclasses.is_dataclass(kind) or kind is types.SimpleNamespace or is_users_class(kind)


def _attributes(record: Any) -> Iterator[tuple[str, Any]]:
    if dataclasses.is_dataclass(record):
        yield from ((each.name, getattr(record, each.name)) for each in dataclasses.fields(record))
    else:
        yield from list(vars(record).items())
