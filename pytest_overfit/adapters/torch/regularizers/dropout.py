"""Places of a module that drop or add noise, seen at work: modules by hooks, functions by a function mode.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any, Literal, Self

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from pytest_overfit.adapters.torch.regularizers.twin import DROPPING, rates

Kind = Literal["dropout", "noise", "augmentation"]

_DROPS = re.compile("drop|stochasticdepth")
_NOISY = re.compile("noise|jitter")
_AUGMENTS = re.compile("^random|augment|erasing|mixup|cutmix")

#: modules that hold others without ever being called themselves
_HOLDERS = (nn.ModuleList, nn.ModuleDict)


@dataclasses.dataclass
class Call:
    """One call of a place."""

    effect: float | None
    #: its module, or a module around it, was in evaluation mode
    off: bool
    #: so was a part whose parameters are all frozen
    frozen: bool


@dataclasses.dataclass
class Place:
    """One place that is to change its input at random."""

    name: str
    kind: Kind
    rate: float | None
    #: name of the module around it
    owner: str
    #: it sets entries to zero or leaves them, one by one or channel by channel: known classes and functions only
    plain: bool = False
    #: entries of the first two axes are dropped together
    channels: bool = False
    #: draws of its own for one call, where that is known to be many
    many: bool = False
    inplace: bool = False
    why: str = ""
    passes: dict[int, list[Call]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Visit:
    """A place at work: what it was given, what it made of it, and how to ask it once more."""

    place: Place
    given: torch.Tensor | None
    output: Any
    again: Callable[[], Any]
    call: Call


@dataclasses.dataclass
class _Frame:
    module: nn.Module
    name: str
    kept: Any = None
    counts: dict[str, int] = dataclasses.field(default_factory=dict)


class Watch(TorchFunctionMode):
    """Calls `visit` at every place that the passes inside come by, and hands on what it returns."""

    def __init__(self, places: Places, visit: Callable[[Visit], Any], when: Callable[[], bool] = lambda: True) -> None:
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

    def _function(self, func: Any, args: Any, kwargs: Any) -> Place | None:
        name, position = DROPPING[func]
        attention = name == "dropout_p"
        given = kwargs.get(name, args[position] if len(args) > position else 0.0 if attention else 0.5)
        if not isinstance(given, (int, float)) or not given:
            return None
        frame = self._stack[-1] if self._stack else _Frame(self._places.model, "(outside the model)")
        number = frame.counts[func.__name__] = frame.counts.get(func.__name__, 0) + 1
        key = (frame.name, func.__name__, number)
        if key not in self._places.functions:
            where = f"{frame.name} ({type(frame.module).__name__})" if frame.name else type(frame.module).__name__
            self._places.functions[key] = Place(
                name=f"{func.__name__} in {where}{f', call {number}' if number > 1 else ''}",
                kind="dropout",
                rate=float(given),
                owner=frame.name,
                plain=not attention and "alpha" not in func.__name__,
                channels=func.__name__[-2:] in ("1d", "2d", "3d"),
                many=attention or "alpha" in func.__name__,
                inplace=bool(kwargs.get("inplace")),
                why=_said(func, args, kwargs),
            )
        return self._places.functions[key]

    def _at(self, place: Place, kept: Any, output: Any, again: Callable[[], Any]) -> Any:
        self._busy = True
        try:
            first = next((each for each in pytree.tree_leaves(kept) if _is_float(each)), None)
            off = next((each.module for each in self._stack if not each.module.training), None)
            call = Call(None, off is not None, off is not None and _is_frozen(off))
            return self._visit(Visit(place, first, output, again, call))
        finally:
            self._busy = False


def _said(func: Any, args: Any, kwargs: Any) -> str:
    """A dropping function that was told not to."""
    takes = func not in (functional.scaled_dot_product_attention,)
    training = kwargs.get("training", kwargs.get("train", args[2] if takes and len(args) > 2 else True))
    return "" if training or not takes else "it was called with training=False"


class Places:
    """Every place of one model, by module and by function call, and the names of the modules that were called."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.modules: dict[nn.Module, Place] = {}
        self.functions: dict[tuple[str, str, int], Place] = {}
        #: modules whose probability is 0
        self.off: list[str] = []
        self.called: set[str] = set()
        for name, module in model.named_modules():
            if name and (place := self._place(name, module)) is not None:
                self.modules[module] = place

    def __iter__(self) -> Iterator[Place]:
        yield from self.modules.values()
        yield from self.functions.values()

    def _place(self, name: str, module: nn.Module) -> Place | None:
        kind, rate = _kind_and_rate(module)
        if kind is None:
            return None
        plain = isinstance(module, nn.modules.dropout._DropoutNd)
        if kind == "dropout" and rate == 0:
            self.off.append(f"{type(module).__name__} {name}")
            return None
        alpha = isinstance(module, (nn.AlphaDropout, nn.FeatureAlphaDropout))
        return Place(
            name=f"{type(module).__name__} {name}",
            kind=kind,
            rate=rate,
            owner=self._around(name),
            plain=plain and not alpha,
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
        zero = any(getattr(module, each, None) in (0, None) for each in ("p", "drop_prob") if hasattr(module, each))
        return "dropout", next((rate for _, rate in rates(module)), 0.0 if zero else None)
    if _NOISY.search(name):
        return "noise", None
    return ("augmentation", None) if _AUGMENTS.search(name) else (None, None)


def _known_trouble(module: nn.Module) -> str:
    if isinstance(module, nn.RNNBase) and module.num_layers == 1:
        return f"an {type(module).__name__} of one layer has no place for it: it acts between layers"
    return ""


def _is_frozen(module: nn.Module) -> bool:
    flags = [each.requires_grad for each in module.parameters()]
    return bool(flags) and not any(flags)


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value
