"""Places of a module that drop or add noise, seen at work: modules by hooks, functions by a function mode."""

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

from pytest_overfit.adapters.regularizer_effects.names import dropout_rates, noise_sizes
from pytest_overfit.adapters.regularizer_effects.places import DropoutPlace, Kind, PlaceCall
from pytest_overfit.adapters.torch.regularizers.twin import DROPPING, RATE, rate_of_call, trains
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.usercode import is_users_class

#: classes that drop, by their lower-case names
DROPS = re.compile("drop|stochasticdepth")
_NOISY = re.compile("noise|jitter")
_AUGMENTS = re.compile("^random|augment|erasing|mixup|cutmix")

#: classes whose name is not needed to know what they do
_KNOWN = (nn.modules.dropout._DropoutNd, nn.RNNBase, nn.MultiheadAttention, nn.RReLU)

#: modules that hold others without ever being called themselves
_HOLDERS = (nn.ModuleList, nn.ModuleDict)


@dataclasses.dataclass(eq=False, kw_only=True)
class ModulePlace(DropoutPlace):
    """A place in a module: a module itself, or a call of a function."""

    #: the name of the module that it is; "": a function
    path: str = ""
    #: entries of the first two axes are dropped together
    channels: bool = False
    #: draws of its own for one call, where that is known to be many
    many: bool = False
    #: its result goes where it cannot be followed: into its input, or past the model
    untraced: bool = False

    def draws(self, given: Array) -> int | None:
        """How many entries, at least, one call decides on by itself; None: there is nothing that could be dropped."""
        if not given.any():
            return None
        if self.channels and given.ndim > 2:
            return int((given != 0).any(axis=tuple(range(2, given.ndim))).sum())
        if self.plain:
            return int((given != 0).sum())
        return given.shape[0] * given.shape[1] if self.many and given.ndim > 1 else 1


#: a module, or the name of a function and the module that calls it -> its place
Places = dict[nn.Module | str, ModulePlace]


def places_of(model: nn.Module, off: list[str]) -> Places:
    """Every module that is a place; names of those whose probability is 0 are added to `off`."""
    found: Places = {}
    for name, module in model.named_modules():
        kind, rate = _kind_and_rate(module) if name else (None, None)
        if kind in ("dropout", "noise") and rate == 0:
            off.append(f"{type(module).__name__} {name}")
        elif kind is not None:
            owner = around(model, name)
            owner_class = type(model.get_submodule(owner))
            alpha = isinstance(module, (nn.AlphaDropout, nn.FeatureAlphaDropout))
            found[module] = ModulePlace(
                name=f"{type(module).__name__} {name}",
                kind=kind,
                rate=rate,
                path=name,
                owner=owner,
                role=(owner_class, name.removeprefix(f"{owner}.")),
                of_library=not is_users_class(owner_class),
                by_name=not isinstance(module, _KNOWN),
                plain=isinstance(module, nn.modules.dropout._DropoutNd) and not alpha,
                channels=isinstance(module, (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)),
                many=isinstance(module, (nn.RNNBase, nn.MultiheadAttention)) or alpha,
                untraced=bool(getattr(module, "inplace", False)),
                why=_known_trouble(module),
            )
    return found


def around(model: nn.Module, name: str) -> str:
    """The nearest module around this one that is called as one."""
    owner = name.rpartition(".")[0]
    while owner and isinstance(model.get_submodule(owner), _HOLDERS):
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
    if DROPS.search(name):
        zero = any(getattr(module, name, 1) in (0, None) for name in ("p", "drop_prob"))
        return "dropout", next((rate for _, rate in dropout_rates(module, RATE)), 0.0 if zero else None)
    if _NOISY.search(name):
        zero = any(getattr(module, name, 1) == 0 for name in ("std", "stddev", "sigma"))
        return "noise", next((size for _, size in noise_sizes(module)), 0.0 if zero else None)
    return ("augmentation", None) if _AUGMENTS.search(name) else (None, None)


def _known_trouble(module: nn.Module) -> str:
    if isinstance(module, nn.RNNBase) and module.num_layers == 1:
        return f"an {type(module).__name__} of one layer has no place for it: it acts between layers"
    return ""


# ------------------------------------------------------------------ watching


@dataclasses.dataclass
class Seen:
    """A place at work: what it was given, what it made of it, and how to ask it once more."""

    place: ModulePlace
    given: torch.Tensor | None
    output: Any
    again: Callable[[], Any]
    call: PlaceCall
    #: the module that it is; None: a function
    module: nn.Module | None = None


@dataclasses.dataclass
class _Frame:
    """A module that is being called, with copies of its inputs if it is a place."""

    module: nn.Module
    name: str
    kept: Any = None
    #: name of a function -> how often it was called directly
    counts: dict[str, int] = dataclasses.field(default_factory=dict)


class PlaceWatch(TorchFunctionMode):
    """Calls `visit` at every place that the passes inside come by, and hands on what it returns."""

    def __init__(
        self,
        model: nn.Module,
        places: Places,
        visit: Callable[[Seen], Any],
        when: Callable[[], bool] | None = None,
    ) -> None:
        super().__init__()
        self._model, self._places, self._visit = model, places, visit
        self._when = when or (lambda: True)
        self._names = {module: name for name, module in model.named_modules()}
        #: names of the modules that were called
        self.called: set[str] = set()
        self._stack: list[_Frame] = []
        self._busy = False

    def __enter__(self) -> Self:
        self._handles = []
        for module in self._names:
            self._handles.append(module.register_forward_pre_hook(self._enter, with_kwargs=True))
            self._handles.append(module.register_forward_hook(self._leave, with_kwargs=True))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        kept = pytree.tree_map(_copy, (args, kwargs)) if module in self._places and self._when() else None
        self._stack.append(_Frame(module, self._names[module], kept))

    def _leave(self, module: nn.Module, _args: Any, _kwargs: Any, output: Any) -> Any:
        while self._stack and self._stack[-1].module is not module:  # a pass that was broken off inside
            self._stack.pop()
        frame = self._stack[-1]
        found = None
        if self._when() and not self._busy:
            self.called.add(frame.name)
            if frame.kept is not None:
                found = self._at(self._places[module], module.forward, frame.kept, output)
        self._stack.pop()
        return found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        inside = self._stack and self._declares(self._stack[-1].module)
        if func not in DROPPING or self._busy or inside or not self._when():
            return func(*args, **kwargs)
        kept = pytree.tree_map(_copy, (args, kwargs))
        output = func(*args, **kwargs)
        place = self._function(func, args, kwargs)
        if place is None:
            return output
        changed = self._at(place, func, kept, output)
        return output if changed is None else changed

    def _declares(self, module: nn.Module) -> bool:
        """A place that declares a rate is asked as a whole; of one that is called so only, its functions are."""
        place = self._places.get(module)
        return place is not None and place.rate is not None

    def _function(self, func: Any, args: Any, kwargs: Any) -> ModulePlace | None:
        rate = rate_of_call(func, args, kwargs)
        if not isinstance(rate, (int, float)) or not rate:
            return None
        frame = self._stack[-1] if self._stack else _Frame(self._model, "(outside the model)")
        number = frame.counts[func.__name__] = frame.counts.get(func.__name__, 0) + 1
        where = f"{frame.name} ({type(frame.module).__name__})" if frame.name else type(frame.module).__name__
        name = f"{func.__name__} in {where}{f', call {number}' if number > 1 else ''}"
        if name not in self._places:
            many = func is functional.scaled_dot_product_attention or "alpha" in func.__name__
            self._places[name] = ModulePlace(
                name=name,
                kind="dropout",
                rate=float(rate),
                owner=frame.name,
                of_library=not is_users_class(type(frame.module)),
                plain=not many,
                channels=func.__name__[-2:] in ("1d", "2d", "3d") or func is torch.feature_dropout,
                many=many,
                untraced=bool(kwargs.get("inplace")) or not self._stack,
                why="" if trains(func, args, kwargs) else "it was called with training=False",
            )
        return self._places[name]

    def _at(self, place: ModulePlace, func: Callable[..., Any], kept: Any, output: Any) -> Any:
        def again() -> Any:
            args, kwargs = pytree.tree_map(_copy, kept)
            return func(*args, **kwargs)

        self._busy = True
        try:
            first = next((each for each in pytree.tree_leaves(kept) if _is_float(each)), None)
            off = next((frame.module for frame in self._stack if not frame.module.training), None)
            trainable = [] if off is None else [each.requires_grad for each in off.parameters()]
            call = PlaceCall(None, off is not None, frozen=bool(trainable) and not any(trainable))
            module = self._stack[-1].module if self._stack and func == self._stack[-1].module.forward else None
            return self._visit(Seen(place, first, output, again, call, module))
        finally:
            self._busy = False


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value
