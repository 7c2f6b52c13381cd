"""Dropout masks of several models at once, each drawn as its own model would have drawn it alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from pytest_overfit.adapters.torch.ensemble.eligible import CannotJoinError
from pytest_overfit.adapters.torch.regularizers.twin import DROPPING

Tensor = torch.Tensor

#: functions that drop whole channels, with the axes of their input: one mask entry for each of the first two
_CHANNELS = {functional.dropout1d: 3, functional.dropout2d: 4, functional.dropout3d: 5}

_ENTRIES = (functional.dropout, torch.dropout)


@dataclasses.dataclass(frozen=True)
class Site:
    """One call of a dropping function in a training pass."""

    rate: float
    shape: tuple[int, ...]
    dtype: torch.dtype


class Sites(TorchFunctionMode):
    """Notes the calls that drop, in their order; with `masks` it drops by these and draws nothing."""

    def __init__(self, masks: Sequence[Tensor] | None = None) -> None:
        super().__init__()
        self.found: list[Site] = []
        self._masks = None if masks is None else iter(masks)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        if func not in DROPPING:
            return func(*args, **kwargs)
        x, rate = _input_and_rate(func, args, kwargs)
        if not rate or not x.numel():
            return func(*args, **kwargs)
        if self._masks is not None:
            mask = next(self._masks)
            return x.mul_(mask) if kwargs.get("inplace") else x * mask
        self.found.append(Site(rate, _mask_shape(func, x), x.dtype))
        return func(*args, **kwargs)


def _input_and_rate(func: Any, args: Any, kwargs: Any) -> tuple[Tensor, float]:
    name, place = DROPPING[func]
    x = args[0] if args else next(iter(kwargs.values()))
    if name == "dropout_p":
        rate = kwargs.get(name, args[place] if len(args) > place else 0.0)
        training = True
    else:
        rate = kwargs.get(name, args[place] if len(args) > place else 0.5)
        usual = "alpha" not in func.__name__
        training = kwargs.get("training", kwargs.get("train", args[2] if len(args) > 2 else usual))
    return x, float(rate) if training else 0.0


def _mask_shape(func: Any, x: Tensor) -> tuple[int, ...]:
    """The shape of what is drawn; torch draws in the order of memory."""
    if func in _ENTRIES and x.is_contiguous():
        return tuple(x.shape)
    if _CHANNELS.get(func) == x.ndim:
        return (*x.shape[:2], *[1] * (x.ndim - 2))
    raise CannotJoinError(f"the masks of {func.__name__} of an input of {x.ndim} axes cannot be drawn apart from it")


class Masks:
    """Draws the masks of one step for every model, each from a generator of its own."""

    def __init__(self, sites: Sequence[Site], members: int) -> None:
        self._sites = sites
        for site in sites:
            if site.rate >= 1 or site.dtype not in (torch.float32, torch.float64):
                raise CannotJoinError(f"a dropout of {site.rate:g} in {site.dtype}")
        self._masks = [torch.empty((members, *site.shape), dtype=site.dtype) for site in sites]
        fast = all(map(_uniform_is_enough, sites))
        self._drawn = [torch.empty(each.shape, dtype=torch.float64) for each in self._masks] if fast else self._masks

    def draw(self, generators: Sequence[torch.Generator]) -> list[Tensor]:
        """For every site the kept entries, scaled as dropout scales them; the next call writes over them."""
        fast = self._drawn is not self._masks
        for member, generator in enumerate(generators):
            for site, drawn in zip(self._sites, self._drawn, strict=True):
                if fast:
                    drawn[member].uniform_(generator=generator)
                else:
                    drawn[member].bernoulli_(1 - site.rate, generator=generator)
        for site, drawn, mask in zip(self._sites, self._drawn, self._masks, strict=True):
            if fast:
                torch.lt(drawn, 1 - site.rate, out=mask)
            mask.div_(1 - site.rate)
        return self._masks


def _uniform_is_enough(site: Site) -> bool:
    """True if `bernoulli_` compares uniform numbers of 64 bits here: `uniform_` draws these three times as fast.

    On some processors torch draws Bernoulli numbers by a library's other method.
    """
    generator = torch.Generator().manual_seed(0)
    plain = torch.empty(site.shape, dtype=site.dtype).bernoulli_(1 - site.rate, generator=generator)
    state = generator.get_state()
    generator.manual_seed(0)
    uniform = torch.empty(site.shape, dtype=torch.float64).uniform_(generator=generator)
    return torch.equal((uniform < 1 - site.rate).to(site.dtype), plain) and torch.equal(generator.get_state(), state)
