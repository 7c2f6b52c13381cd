"""Where running statistics come to rest: training passes are repeated while the weights stand still.

While weights move, running averages lag behind a goal that moves too, by an amount that depends on the network; once
they stand, whatever is still apart comes from what else passes the layer, or from a layer that does not follow.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from pytest_overfit.adapters.base import AtRest, Reading
from pytest_overfit.adapters.running_statistics import Moments, batch_alone, mean_of, off_by, resting_place
from pytest_overfit.adapters.torch.facts import label
from pytest_overfit.adapters.torch.forward import Forward
from pytest_overfit.adapters.torch.modes import Modes
from pytest_overfit.core.errors import ProgramError
from pytest_overfit.data.tree import to_numpy

#: training passes: at a usual weight of 0.1 they leave 3 % of the way, and the rest of it is worked out
_PASSES = 32

#: passes of the batch alone, of which each draws dropout masks of its own
_DRAWS = 8

#: statistics of each call of a layer, and from how many values each was made
Seen = dict[nn.Module, list[tuple[Moments, int]]]


def at_rest(
    modes: Modes, forward: Forward, step: Callable[[], object] | None, read: Callable[[], Reading]
) -> AtRest | None:
    """`step`: a step of the user's, where there is one; `read`: a reading with the model as it is.

    None: a step refuses to go on, as at the end of a schedule of the user's.
    """
    with contextlib.suppress(ProgramError), forward.explained("a training step"):
        return _measured(modes, forward, step or forward.pass_with_loss, read)
    return None


def _measured(modes: Modes, forward: Forward, step: Callable[[], object], read: Callable[[], Reading]) -> AtRest:
    names = {module: name for name, module in modes.model.named_modules()}
    with modes.reading("fit"):
        quiet = _taken(modes.norms, forward.quiet, 1)
    with modes.reading("train"):
        taken = _taken(modes.norms, forward.quiet, _DRAWS)
        norms = [each for each in modes.norms if each in quiet]
        sizes = {each: max(number for _, number in quiet[each]) for each in norms}
        draws = {
            each: batch_alone(_moments_of(quiet[each]), _moments_of(taken.get(each, [])), _DRAWS) for each in norms
        }
        places = _resting_places(modes.model, draws, step)
        for each in norms:
            _set(each, places[each], sizes[each])
        modes.model.eval()
        off = {label(each, names): off_by(places[each], draws[each], each.eps) for each in norms}
        return AtRest(off=off, reading=read())


def _taken(norms: list[Any], forward: Callable[[], Any], passes: int) -> Seen:
    """The statistics of every call, as the layer itself works them out: with all weight on the new batch."""
    seen: Seen = {}

    def note(module: Any, args: tuple[Any, ...], output: Any) -> None:
        del output
        size = args[0].numel() // args[0].shape[1]
        values = size // len(args[0]) if isinstance(module, nn.modules.instancenorm._InstanceNorm) else size
        seen.setdefault(module, []).append((_moments(module), values))

    with _kept(norms), contextlib.ExitStack() as hooks:
        for each in norms:
            each.momentum = 1.0
            hooks.enter_context(each.register_forward_hook(note))
        for _ in range(passes):
            forward()
    return seen


def _moments_of(seen: list[tuple[Moments, int]]) -> list[Moments]:
    return [moments for moments, _ in seen]


def _resting_places(
    model: nn.Module, draws: dict[Any, list[Moments]], step: Callable[[], object]
) -> dict[nn.Module, Moments]:
    """Begin with the batch's own statistics: a way from far off would be lost to rounding where momentum is small."""
    there = {each: _moments(each) for each in draws}
    start = {each: mean_of(found) for each, found in draws.items()}
    for each, moments in start.items():
        _set(each, moments)
    made = _steps(model, list(draws), step)
    return {
        each: resting_place(start[each], _moments(each), _left(each, count)) if (count := made.get(each, 0)) else old
        for each, old in there.items()
    }


def _steps(model: nn.Module, norms: list[Any], step: Callable[[], object]) -> Counter[nn.Module]:
    """Make them, and count the calls that update each layer's statistics."""
    calls: Counter[nn.Module] = Counter()
    kept = [(each, each.detach().clone()) for each in model.parameters()]
    with contextlib.ExitStack() as hooks:
        for each in norms:
            hooks.enter_context(each.register_forward_hook(lambda module, *_: calls.update([module] * module.training)))
        for _ in range(_PASSES):
            step()
            with torch.no_grad():
                for parameter, value in kept:
                    parameter.copy_(value)
    return calls


def _left(norm: Any, updates: int) -> float:
    """The share of the way that so many updates leave; without a momentum all updates weigh the same."""
    if norm.momentum is None:
        return 1.0 - updates / max(int(norm.num_batches_tracked), updates)
    return float((1.0 - norm.momentum) ** updates)


def _moments(norm: Any) -> Moments:
    return to_numpy(norm.running_mean).copy(), to_numpy(norm.running_var).copy()


@torch.no_grad()
def _set(norm: Any, place: Moments, values: int = 0) -> None:
    """`values`: how many each variance is of: it is then set as training normalises with it, which is less."""
    norm.running_mean.copy_(torch.as_tensor(place[0]))
    norm.running_var.copy_(torch.as_tensor(place[1] * (values - 1) / values if values > 1 else place[1]))


@contextlib.contextmanager
def _kept(norms: list[Any]) -> Iterator[None]:
    """Put momentum, statistics and counters back."""
    kept = [(each, each.momentum, {name: b.clone() for name, b in each.named_buffers(recurse=False)}) for each in norms]
    try:
        yield
    finally:
        with torch.no_grad():
            for each, momentum, buffers in kept:
                each.momentum = momentum
                for name, value in buffers.items():
                    getattr(each, name).copy_(value)
