"""What of a model is not finite although its loss is: parameters, gradients and buffers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

#: dtypes that can be reduced
_NUMBERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128)

#: name of a tensor -> where it was infinite before the first update
Infinities = Mapping[str, Tensor]


class Updates:
    """Which parameters the optimizers updated in the step that was watched last, and in any that was watched.

    A gradient that was not used, because a `GradScaler` or the user's own loop skipped the update, says nothing.
    """

    def __init__(self) -> None:
        self._last: set[int] | None = None
        self._ever: set[int] = set()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Inside, one step is made."""
        last: set[int] = set()
        self._last = last

        def note(optimizer: Optimizer, *_: object) -> None:
            last.update(id(each) for group in optimizer.param_groups for each in group["params"])

        handle = register_optimizer_step_post_hook(note)
        try:
            yield
        finally:
            handle.remove()
            self._ever |= last

    def used_gradient_of(self, parameter: Tensor) -> bool:
        """Its gradient was used, or it is one that no optimizer holds."""
        if self._last is None:
            return True
        return id(parameter) in self._last or (bool(self._last) and id(parameter) not in self._ever)


def infinities(model: nn.Module) -> Infinities:
    """Of buffers, before the first update: infinities that a model is built with (masks, observers) are data."""
    buffers = dict(_state(model.named_buffers()))
    if not buffers or _all_finite(buffers.values()):
        return {}
    return {name: each.isinf() for name, each in buffers.items() if not _all_finite([each])}


def not_finite(
    model: nn.Module, start: Mapping[str, Tensor], at_start: Infinities, updates: Updates
) -> tuple[str, ...]:
    """What is NaN, or infinite where it was finite before the first update; in the modules' order, in words.

    `start`: the parameters before the first update; `at_start`: the infinities of buffers then.
    """
    gradients = {
        name: _dense(each.grad)
        for name, each in model.named_parameters()
        if each.grad is not None and updates.used_gradient_of(each)
    }
    state = (each for named in (model.named_parameters(), model.named_buffers()) for _, each in _state(named))
    if _all_finite([*state, *(each for each in gradients.values() if _can_be_reduced(each))]):
        return ()
    at_start = {**at_start, **{name: each.isinf() for name, each in start.items() if _can_be_reduced(each)}}
    found = []
    for prefix, module in model.named_modules():
        tell = _teller(prefix, module, at_start)
        found += [tell("parameter", name, each) for name, each in module.named_parameters(recurse=False)]
        own = {name: f"{prefix}.{name}".lstrip(".") for name, _ in module.named_parameters(recurse=False)}
        found += [tell("gradient", name, gradients[whole]) for name, whole in own.items() if whole in gradients]
        found += [tell("buffer", name, each) for name, each in module.named_buffers(recurse=False)]
    return tuple(each for each in found if each)


def _teller(prefix: str, module: nn.Module, at_start: Infinities) -> Callable[[str, str, Tensor], str]:
    where = f"{type(module).__name__} {prefix}" if prefix else type(module).__name__

    def tell(kind: str, name: str, tensor: Tensor) -> str:
        if not _can_be_reduced(tensor) or _all_finite([tensor]):
            return ""
        if bool(tensor.isnan().any()):
            return f"{kind} {name!r} of {where} is NaN"
        before = None if kind == "gradient" else at_start.get(f"{prefix}.{name}".lstrip("."))
        same = before is not None and (before.shape != tensor.shape or bool(before[tensor.isinf()].all()))
        return "" if same else f"{kind} {name!r} of {where} is infinite"

    return tell


def _state(named: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    return ((name, each.detach()) for name, each in named if _can_be_reduced(each))


def _can_be_reduced(tensor: Tensor) -> bool:
    return tensor.dtype in _NUMBERS and tensor.device.type != "meta"


def _dense(gradient: Tensor) -> Tensor:
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def _all_finite(tensors: Iterable[Tensor]) -> bool:
    """One number a tensor, and one look a kind; a sum that overflows is looked at again."""
    alike: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    given = list(tensors)
    for each in given:
        alike.setdefault((each.device, each.dtype), []).append(each.sum())
    if all(bool(torch.stack(sums).isfinite().all()) for sums in alike.values()):
        return True
    return all(bool(each.isfinite().all()) for each in given)
