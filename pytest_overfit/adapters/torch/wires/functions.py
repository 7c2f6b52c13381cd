"""Hand-written backward passes, held against finite differences of their forward passes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd import Function

from pytest_overfit.adapters.torch.learner import TorchLearner
from pytest_overfit.adapters.torch.wires.moves import hold_noise

Tensor = torch.Tensor

#: step of the central difference, in float64
_STEP = 1e-6

#: a slope that is off by more than this share is another one
_OFF = 0.05

#: directions that must all be off
_DIRECTIONS = 3


def wrong_functions(learner: TorchLearner) -> list[str]:
    """See `pytest_overfit.adapters.wires.Wires`."""
    found: dict[type, bool] = {}
    with learner.modes.reading("train"), _applied() as calls:
        hold_noise()
        learner.forward.watched(quiet=False)
    for kind, args in calls:
        if not found.get(kind):
            found[kind] = _is_wrong(kind, args)
    return [kind.__name__ for kind, wrong in found.items() if wrong]


@contextlib.contextmanager
def _applied() -> Iterator[list[tuple[type, tuple[Any, ...]]]]:
    """Functions that are applied meanwhile, with copies of their arguments."""
    calls: list[tuple[type, tuple[Any, ...]]] = []
    own = Function.__dict__["apply"]
    plain = own.__func__

    def apply(kind: Any, *args: Any, **kwargs: Any) -> Any:
        if not kwargs:
            calls.append((kind, tuple(each.detach().clone() if isinstance(each, Tensor) else each for each in args)))
        return plain(kind, *args, **kwargs)

    Function.apply = classmethod(apply)  # type: ignore[assignment,method-assign]
    try:
        yield calls
    finally:
        Function.apply = own  # type: ignore[method-assign]


def _is_wrong(kind: Any, args: tuple[Any, ...]) -> bool:
    """Left alone is what does not mean the slope: identities (a reversed gradient), steps (straight-through)."""
    try:
        wide = [each.double() if isinstance(each, Tensor) and each.is_floating_point() else each for each in args]
        places = [number for number, each in enumerate(wide) if isinstance(each, Tensor) and each.is_floating_point()]
        generator = torch.Generator().manual_seed(0)
        return any(all(_is_off(kind, wide, [each], generator) for _ in range(_DIRECTIONS)) for each in places)
    except Exception:  # one that does not take float64, or has a state of its own, cannot be asked
        return False


def _is_off(kind: Any, args: list[Any], places: list[int], generator: torch.Generator) -> bool:
    given = [each.clone().requires_grad_() if number in places else each for number, each in enumerate(args)]
    with torch.enable_grad():
        out = kind.apply(*given)
        if not isinstance(out, Tensor) or any(torch.equal(out, args[place]) for place in places):
            return False
        weights = torch.randn(out.shape, generator=generator, dtype=torch.float64)
        slopes = torch.autograd.grad((out * weights).sum(), [given[place] for place in places], allow_unused=True)
    ways = [torch.randn(args[place].shape, generator=generator, dtype=torch.float64) for place in places]

    def at(step: float) -> float:
        moved = list(args)
        for place, way in zip(places, ways, strict=True):
            moved[place] = args[place] + step * way
        with torch.no_grad():
            return float((kind.apply(*moved) * weights).sum())

    forth, back = at(_STEP), at(-_STEP)
    if forth == back:
        return False
    real = (forth - back) / (2 * _STEP)
    promised = sum(float((slope * way).sum()) for slope, way in zip(slopes, ways, strict=True) if slope is not None)
    return abs(real - promised) > _OFF * max(abs(real), abs(promised))
