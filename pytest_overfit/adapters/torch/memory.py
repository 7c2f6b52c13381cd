"""How much memory a training step takes in torch: bytes of the tensors that are alive, seen as they are made."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from pytest_overfit.adapters.torch import fused_update as fusing
from pytest_overfit.adapters.torch.learner import TorchLearner
from pytest_overfit.adapters.torch.records import tensors

#: the second step is the first that has an optimizer's state all the time
_STEPS = 2


class _Memory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of every storage that it has seen, for as long as the storage lives.

    A storage is one object of Python's for as long as it lives, so that it can be known again and watched.
    """

    def __init__(self, before: Iterable[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sizes: dict[int, int] = {}
        self.now = self.peak = 0
        for each in before:
            self._see(each)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in tensors(result):
            self._see(each)
        return result

    def _see(self, tensor: torch.Tensor) -> None:
        for held in _strided(tensor):
            storage = held.untyped_storage()
            key, size = id(storage), storage.nbytes()
            if key not in self._sizes:
                weakref.finalize(storage, self._forget, key).atexit = False
            self.now += size - self._sizes.get(key, 0)  # a storage may have been resized
            self._sizes[key] = size
            self.peak = max(self.peak, self.now)

    def _forget(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


def _strided(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The tensors that hold the numbers of this one; none where torch does not tell (mkldnn)."""
    if tensor.layout is torch.sparse_coo:
        yield from (tensor._indices(), tensor._values())
    elif tensor.layout is torch.strided:
        yield tensor


def memory_peak(learner: TorchLearner) -> int:
    """See `pytest_overfit.adapters.inspector.Inspector`."""
    model = learner.model
    state = pytree.tree_leaves(dict(learner.optimizer.state)) if learner.optimizer is not None else []
    batch = tensors((learner.batch.x, learner.batch.y))
    memory = _Memory([*model.parameters(), *model.buffers(), *tensors(state), *batch])
    with learner.forward.as_written(), fusing.as_written(learner.optimizer), memory:
        for _ in range(_STEPS):
            learner.step_on(learner.by_row)
    return memory.peak
