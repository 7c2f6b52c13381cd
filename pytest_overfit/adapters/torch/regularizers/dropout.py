"""Places of a module that drop or add noise, seen at work: modules by hooks, functions by a function mode.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from pytest_overfit.adapters.regularizer_effects.names import dropout_rates
from pytest_overfit.adapters.regularizer_effects.places import DropoutPlace, Kind
from pytest_overfit.adapters.torch.regularizers.twin import DROPPING, RATE, rate_of_call, trains
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.usercode import is_users_class

_DROPS = re.compile("drop|stochasticdepth")
_NOISY = re.compile("noise|jitter")
_AUGMENTS = re.compile("^random|augment|erasing|mixup|cutmix")

#: modules that hold others without ever being called themselves
_HOLDERS = (nn.ModuleList, nn.ModuleDict)


@dataclasses.dataclass(eq=False, kw_only=True)
class ModulePlace(DropoutPlace):
    """A place in a module: a module itself, or a call of a function."""

    #: entries of the first two axes are dropped together
    channels: bool = False
    #: draws of its own for one call, where that is known to be many
    many: bool = False
    inplace: bool = False

    def draws(self, given: Array) -> int | None:
        """How many entries, at least, one call decides on by itself; None: there is nothing that could be dropped."""
        if not given.any():
            return None
        if self.channels and given.ndim > 2:
            return int((given != 0).any(axis=tuple(range(2, given.ndim))).sum())
        if self.plain:
            return int((given != 0).sum())
        return given.shape[0] * given.shape[1] if self.many and given.ndim > 1 else 1


@dataclasses.dataclass
class Seen:
    """A place at work: what it was given, what it made of it, and how to ask it once more."""

    place: ModulePlace
    given: torch.Tensor | None
    output: Any
    again: Callable[[], Any]
    #: its module, or a module around it, that is in evaluation mode
    off: nn.Module | None

    @property
    def in_frozen_part(self) -> bool:
        """It is off with a part whose parameters are all frozen."""
        flags = [] if self.off is None else [each.requires_grad for each in self.off.parameters()]
        return bool(flags) and not any(flags)


@dataclasses.dataclass
class _Frame:
    module: nn.Module
    name: str
    kept: Any = None
    counts: dict[str, int] = dataclasses.field(default_factory=dict)


class PlaceWatch(TorchFunctionMode):
    """Calls `visit` at every place that the passes inside come by, and hands on what it returns."""

    def __init__(self, places: Places, visit: Callable[[Seen], Any], when: Callable[[], bool] = lambda: True) -> None:
        super().__init__()
        self._places, self._visit, self._when = places, visit, when
        self._stack: list[_Frame] = []
        self._busy = False

    def __enter__(self) -> Self:
        self._handles = []
        for name, module in self._places.model.named_modules():
            self._handles.append(module.register_forward_pre_hook(self._entering(name), with_kwargs=True))
            self._handles.append(module.register_forward_hook(self._leave, with_kwargs=True))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()

    def _entering(self, name: str) -> Callable[..., None]:
        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            kept = None
            if module in self._places.modules and self._when():
                kept = pytree.tree_map(_copy, (args, kwargs))
            self._stack.append(_Frame(module, name, kept))

        return enter

    def _leave(self, module: nn.Module, _args: Any, _kwargs: Any, output: Any) -> Any:
        while self._stack and self._stack[-1].module is not module:  # a pass that was broken off inside
            self._stack.pop()
        frame = self._stack[-1]
        found = None
        if self._when() and not self._busy:
            self._places.called.add(frame.name)
            if frame.kept is not None:
                args, kwargs = frame.kept

                def again() -> Any:
                    args_, kwargs_ = pytree.tree_map(_copy, (args, kwargs))
                    return module.forward(*args_, **kwargs_)

                found = self._at(self._places.modules[module], frame.kept, output, again)
        self._stack.pop()
        return found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        inside = self._stack and self._stack[-1].module in self._places.modules
        if func not in DROPPING or self._busy or inside or not self._when():
            return func(*args, **kwargs)
        kept = pytree.tree_map(_copy, (args, kwargs))
        output = func(*args, **kwargs)
        place = self._function(func, args, kwargs)
        if place is None:
            return output
        changed = self._at(place, kept, output, lambda: func(*pytree.tree_map(_copy, kept[0]), **kept[1]))
        return output if changed is None else changed

    def _function(self, func: Any, args: Any, kwargs: Any) -> ModulePlace | None:
        rate = rate_of_call(func, args, kwargs)
        if not isinstance(rate, (int, float)) or not rate:
            return None
        frame = self._stack[-1] if self._stack else _Frame(self._places.model, "(outside the model)")
        number = frame.counts[func.__name__] = frame.counts.get(func.__name__, 0) + 1
        where = f"{frame.name} ({type(frame.module).__name__})" if frame.name else type(frame.module).__name__
        name = f"{func.__name__} in {where}{f', call {number}' if number > 1 else ''}"
        if name not in self._places.functions:
            many = func is functional.scaled_dot_product_attention or "alpha" in func.__name__
            self._places.functions[name] = ModulePlace(
                key=name,
                name=name,
                kind="dropout",
                rate=float(rate),
                owner=frame.name,
                of_library=not is_users_class(type(frame.module)),
                plain=not many,
                channels=func.__name__[-2:] in ("1d", "2d", "3d"),
                many=many,
                inplace=bool(kwargs.get("inplace")),
                why="" if trains(func, args, kwargs) else "it was called with training=False",
            )
        return self._places.functions[name]

    def _at(self, place: ModulePlace, kept: Any, output: Any, again: Callable[[], Any]) -> Any:
        self._busy = True
        try:
            first = next((each for each in pytree.tree_leaves(kept) if _is_float(each)), None)
            off = next((frame.module for frame in self._stack if not frame.module.training), None)
            return self._visit(Seen(place, first, output, again, off))
        finally:
            self._busy = False


class Places:
    """Every place of one model, by module and by function call, and the names of the modules that were called."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.modules: dict[nn.Module, ModulePlace] = {}
        self.functions: dict[str, ModulePlace] = {}
        #: modules whose probability is 0
        self.off: list[str] = []
        self.called: set[str] = set()
        for name, module in model.named_modules():
            if name and (place := self._place(name, module)) is not None:
                self.modules[module] = place

    def judged(self) -> list[ModulePlace]:
        """Every place but the modules that a function drops in the stead of, as fused attention does."""
        working = [function for function in self.functions.values() if function.works]
        return [
            place
            for place in (*self.modules.values(), *self.functions.values())
            if place.trained
            or not any(function.rate == place.rate and _is_around(place, function) for function in working)
        ]

    def _place(self, name: str, module: nn.Module) -> ModulePlace | None:
        kind, rate = _kind_and_rate(module)
        if kind is None:
            return None
        text = f"{type(module).__name__} {name}"
        if kind == "dropout" and rate == 0:
            self.off.append(text)
            return None
        owner = self._around(name)
        owner_class = type(self.model.get_submodule(owner))
        alpha = isinstance(module, (nn.AlphaDropout, nn.FeatureAlphaDropout))
        return ModulePlace(
            key=text,
            name=text,
            kind=kind,
            rate=rate,
            owner=owner,
            role=(owner_class, name.removeprefix(f"{owner}.")),
            of_library=not is_users_class(owner_class),
            plain=isinstance(module, nn.modules.dropout._DropoutNd) and not alpha,
            channels=isinstance(module, (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)),
            many=isinstance(module, (nn.RNNBase, nn.MultiheadAttention)) or alpha,
            inplace=bool(getattr(module, "inplace", False)),
            why=_known_trouble(module),
        )

    def _around(self, name: str) -> str:
        """The nearest module around this one that is called as one."""
        owner = name.rpartition(".")[0]
        while owner and isinstance(self.model.get_submodule(owner), _HOLDERS):
            owner = owner.rpartition(".")[0]
        return owner


def _kind_and_rate(module: nn.Module) -> tuple[Kind | None, float | None]:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return "dropout", float(module.p)
    if isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
        return ("dropout", float(module.dropout)) if module.dropout else (None, None)
    if isinstance(module, nn.RReLU):
        return "noise", None
    name = type(module).__name__.lower()
    if next(module.parameters(), None) is not None:  # a layer that also drops is seen by the functions it calls
        return None, None
    if _DROPS.search(name):
        zero = any(getattr(module, name, 1) in (0, None) for name in ("p", "drop_prob"))
        return "dropout", next((rate for _, rate in dropout_rates(module, RATE)), 0.0 if zero else None)
    if _NOISY.search(name):
        return "noise", None
    return ("augmentation", None) if _AUGMENTS.search(name) else (None, None)


def _known_trouble(module: nn.Module) -> str:
    if isinstance(module, nn.RNNBase) and module.num_layers == 1:
        return f"an {type(module).__name__} of one layer has no place for it: it acts between layers"
    return ""


def _is_around(place: ModulePlace, function: ModulePlace) -> bool:
    """The function is called in the module that owns the place, or in a part of it."""
    return not place.owner or f"{function.owner}.".startswith(f"{place.owner}.")


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value
