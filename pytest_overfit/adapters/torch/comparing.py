"""Are two things that a step was given, or came to, the same?"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.utils import _pytree as pytree

from pytest_overfit.adapters.arrays import alike
from pytest_overfit.data.tree import length, take

Tensor = torch.Tensor

#: how near two losses of the same outputs must come
_SAME = 1e-4


def same(first: Any, second: Any) -> bool:
    a, b = (pytree.tree_leaves(each) for each in (first, second))
    tensors = ([each for each in some if isinstance(each, Tensor)] for some in (a, b))
    return len(a) == len(b) and alike(*tensors)


def equal(first: Any, second: Tensor) -> bool:
    """The same numbers in the same order, in whatever shape."""
    alike_in_size = isinstance(first, Tensor) and first.numel() == second.numel()
    return alike_in_size and bool((first.detach().reshape(-1) == second.detach().reshape(-1)).all())


def near(first: float, second: float) -> bool:
    return math.isclose(first, second, rel_tol=_SAME, abs_tol=1e-7)


def turned(leaf: Any) -> Any:
    """Each row has what the one before it had."""
    return take(leaf, [row - 1 for row in range(length(leaf))])


def first_everywhere(leaf: Any) -> Any:
    """Each row has what the first one has: the loss of a model that ignores its input changes with that too."""
    return take(leaf, [0] * length(leaf))
